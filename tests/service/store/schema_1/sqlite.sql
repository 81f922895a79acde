CREATE TABLE schema_version (
    version INTEGER NOT NULL,
    PRIMARY KEY (version)
);

CREATE TABLE states (
    stream VARCHAR NOT NULL,
    state BLOB NOT NULL,
    PRIMARY KEY (stream)
);

CREATE TABLE offsets (
    topic VARCHAR NOT NULL,
    partition INTEGER NOT NULL,
    next_offset BIGINT NOT NULL,
    PRIMARY KEY (topic, partition)
);

CREATE TABLE partitions (
    topic VARCHAR NOT NULL,
    partition INTEGER NOT NULL,
    epoch BIGINT NOT NULL,
    PRIMARY KEY (topic, partition)
);

CREATE TABLE incidents (
    id VARCHAR NOT NULL,
    stream VARCHAR NOT NULL,
    state VARCHAR NOT NULL,
    opened_index BIGINT NOT NULL,
    recorded_at FLOAT NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (id)
);

CREATE INDEX incidents_by_time ON incidents (recorded_at, opened_index, id);

CREATE INDEX incidents_by_stream ON incidents (stream, state);

CREATE TABLE actions (
    sequence INTEGER NOT NULL,
    id VARCHAR NOT NULL,
    stream VARCHAR NOT NULL,
    incident_id VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    payload TEXT NOT NULL,
    state VARCHAR NOT NULL,
    attempts INTEGER NOT NULL,
    due_at FLOAT NOT NULL,
    detail TEXT NOT NULL,
    created_at FLOAT NOT NULL,
    PRIMARY KEY (sequence),
    UNIQUE (id)
);

CREATE INDEX actions_pending ON actions (stream, kind, sequence) WHERE state = 'pending';

CREATE TABLE jobs (
    sequence INTEGER NOT NULL,
    id VARCHAR NOT NULL,
    stream VARCHAR NOT NULL,
    incident_id VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    spec TEXT NOT NULL,
    state VARCHAR NOT NULL,
    attempts INTEGER NOT NULL,
    result TEXT NOT NULL,
    created_at FLOAT NOT NULL,
    started_at FLOAT,
    finished_at FLOAT,
    PRIMARY KEY (sequence),
    UNIQUE (id)
);

CREATE UNIQUE INDEX jobs_one_pending_per_stream ON jobs (stream) WHERE state IN ('queued', 'running');

CREATE TABLE champions (
    stream VARCHAR NOT NULL,
    sequence INTEGER NOT NULL,
    version INTEGER NOT NULL,
    reason TEXT NOT NULL,
    idx BIGINT NOT NULL,
    recorded_at FLOAT NOT NULL,
    PRIMARY KEY (stream, sequence)
);

CREATE TABLE samples (
    stream VARCHAR NOT NULL,
    idx BIGINT NOT NULL,
    id VARCHAR NOT NULL,
    time VARCHAR NOT NULL,
    content BLOB NOT NULL,
    kind VARCHAR NOT NULL,
    label VARCHAR,
    PRIMARY KEY (stream, idx)
);

CREATE TABLE dead_letters (
    sequence INTEGER NOT NULL,
    topic VARCHAR NOT NULL,
    partition INTEGER NOT NULL,
    record_offset BIGINT NOT NULL,
    stream VARCHAR NOT NULL,
    reason VARCHAR NOT NULL,
    message TEXT NOT NULL,
    value BLOB NOT NULL,
    recorded_at FLOAT NOT NULL,
    PRIMARY KEY (sequence)
);

CREATE UNIQUE INDEX dead_letters_coordinates ON dead_letters (topic, partition, record_offset);
