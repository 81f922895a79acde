"""The store's tables.

`metadata` describes the newest schema. `service.store.migrations` makes it, from nothing or from an
older one; a test holds the two together.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import BigInteger, Column, Float, Index, Integer, LargeBinary, String, Table, Text

# SQLite counts up by itself only for a column that is declared INTEGER.
_Sequence = BigInteger().with_variant(Integer(), "sqlite")
_PENDING_JOB = sa.text("state IN ('queued', 'running')")
_PENDING_ACTION = sa.text("state = 'pending'")

metadata = sa.MetaData()

states = Table(
    "states",
    metadata,
    Column("stream", String, primary_key=True),
    Column("lane", Integer, primary_key=True),
    Column("state", LargeBinary, nullable=False),
)

offsets = Table(
    "offsets",
    metadata,
    Column("topic", String, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("next_offset", BigInteger, nullable=False),
)

lanes = Table(
    "lanes",
    metadata,
    Column("lane", Integer, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False),
)

incidents = Table(
    "incidents",
    metadata,
    Column("id", String, primary_key=True),
    Column("stream", String, nullable=False),
    Column("state", String, nullable=False),
    Column("opened_index", BigInteger, nullable=False),
    Column("recorded_at", Float, nullable=False),
    Column("document", Text, nullable=False),
    Index("incidents_by_time", "recorded_at", "opened_index", "id"),
    Index("incidents_by_stream", "stream", "state"),
)

actions = Table(
    "actions",
    metadata,
    Column("sequence", _Sequence, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("stream", String, nullable=False),
    Column("incident_id", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("payload", Text, nullable=False),
    Column("state", String, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at", Float, nullable=False),
    Column("detail", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("leased_until", Float),
    # Only pending actions are searched for; without the filter the search slows with the history.
    Index(
        "actions_pending",
        "stream",
        "kind",
        "sequence",
        sqlite_where=_PENDING_ACTION,
        postgresql_where=_PENDING_ACTION,
    ),
)

jobs = Table(
    "jobs",
    metadata,
    Column("sequence", _Sequence, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("stream", String, nullable=False),
    Column("incident_id", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("spec", Text, nullable=False),
    Column("state", String, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("result", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("finished_at", Float),
    Index(
        "jobs_one_pending_per_stream",
        "stream",
        unique=True,
        sqlite_where=_PENDING_JOB,
        postgresql_where=_PENDING_JOB,
    ),
)

champions = Table(
    "champions",
    metadata,
    Column("stream", String, primary_key=True),
    Column("sequence", Integer, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("idx", BigInteger, nullable=False),
    Column("recorded_at", Float, nullable=False),
)

samples = Table(
    "samples",
    metadata,
    # The key is the only index: a row is written for every observation.
    Column("stream", String, primary_key=True),
    Column("lane", Integer, primary_key=True),
    Column("idx", BigInteger, primary_key=True),
    Column("id", String, nullable=False),
    Column("time", String, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("kind", String, nullable=False),
    Column("label", String),
)

waiting = Table(
    "waiting",
    metadata,
    # No key begins with stream and lane: before it has statistics of the table, PostgreSQL would
    # look for ids by reading all of the lane.
    Column("id", String, primary_key=True),
    Column("stream", String, primary_key=True),
    Column("lane", Integer, primary_key=True),
    Column("side", String, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("idx", BigInteger, nullable=False),
    Column("time", Float),
    Column("value", Text),
    Index("waiting_by_number", "side", "stream", "lane", "number"),
    Index("waiting_by_time", "side", "stream", "lane", "time"),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("sequence", _Sequence, primary_key=True, autoincrement=True),
    Column("topic", String, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("record_offset", BigInteger, nullable=False),
    Column("stream", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("message", Text, nullable=False),
    Column("value", LargeBinary, nullable=False),
    Column("recorded_at", Float, nullable=False),
    Index("dead_letters_coordinates", "topic", "partition", "record_offset", unique=True),
)
