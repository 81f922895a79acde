"""The tables as they were before there were revisions."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy import BigInteger, Column, Float, Integer, LargeBinary, String, Text

revision = "0001"
down_revision = None

_PENDING_JOB = sa.text("state IN ('queued', 'running')")
_PENDING_ACTION = sa.text("state = 'pending'")


def _sequence() -> Column[int]:
    type_ = BigInteger().with_variant(Integer(), "sqlite")
    return Column("sequence", type_, primary_key=True, autoincrement=True)


def upgrade() -> None:
    """Create everything."""
    version = op.create_table("schema_version", Column("version", Integer, primary_key=True))
    op.bulk_insert(version, [{"version": 1}])
    op.create_table(
        "states",
        Column("stream", String, primary_key=True),
        Column("state", LargeBinary, nullable=False),
    )
    op.create_table(
        "offsets",
        Column("topic", String, primary_key=True),
        Column("partition", Integer, primary_key=True),
        Column("next_offset", BigInteger, nullable=False),
    )
    op.create_table(
        "partitions",
        Column("topic", String, primary_key=True),
        Column("partition", Integer, primary_key=True),
        Column("epoch", BigInteger, nullable=False),
    )
    op.create_table(
        "incidents",
        Column("id", String, primary_key=True),
        Column("stream", String, nullable=False),
        Column("state", String, nullable=False),
        Column("opened_index", BigInteger, nullable=False),
        Column("recorded_at", Float, nullable=False),
        Column("document", Text, nullable=False),
    )
    op.create_index("incidents_by_time", "incidents", ["recorded_at", "opened_index", "id"])
    op.create_index("incidents_by_stream", "incidents", ["stream", "state"])
    op.create_table(
        "actions",
        _sequence(),
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
    )
    op.create_index(
        "actions_pending",
        "actions",
        ["stream", "kind", "sequence"],
        sqlite_where=_PENDING_ACTION,
        postgresql_where=_PENDING_ACTION,
    )
    op.create_table(
        "jobs",
        _sequence(),
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
    )
    op.create_index(
        "jobs_one_pending_per_stream",
        "jobs",
        ["stream"],
        unique=True,
        sqlite_where=_PENDING_JOB,
        postgresql_where=_PENDING_JOB,
    )
    op.create_table(
        "champions",
        Column("stream", String, primary_key=True),
        Column("sequence", Integer, primary_key=True),
        Column("version", Integer, nullable=False),
        Column("reason", Text, nullable=False),
        Column("idx", BigInteger, nullable=False),
        Column("recorded_at", Float, nullable=False),
    )
    op.create_table(
        "samples",
        Column("stream", String, primary_key=True),
        Column("idx", BigInteger, primary_key=True),
        Column("id", String, nullable=False),
        Column("time", String, nullable=False),
        Column("content", LargeBinary, nullable=False),
        Column("kind", String, nullable=False),
        Column("label", String),
    )
    op.create_table(
        "dead_letters",
        _sequence(),
        Column("topic", String, nullable=False),
        Column("partition", Integer, nullable=False),
        Column("record_offset", BigInteger, nullable=False),
        Column("stream", String, nullable=False),
        Column("reason", String, nullable=False),
        Column("message", Text, nullable=False),
        Column("value", LargeBinary, nullable=False),
        Column("recorded_at", Float, nullable=False),
    )
    op.create_index(
        "dead_letters_coordinates",
        "dead_letters",
        ["topic", "partition", "record_offset"],
        unique=True,
    )
