"""States and samples belong to a lane, and a lane has the owner epoch.

What there was belongs to lane 0. Epochs begin again: no process may be running now.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, String

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Move states and samples into tables with a lane in their key."""
    op.drop_table("schema_version")
    op.drop_table("partitions")
    op.create_table(
        "lanes",
        Column("lane", Integer, primary_key=True, autoincrement=False),
        Column("epoch", BigInteger, nullable=False),
    )
    _move(
        "states",
        Column("stream", String, primary_key=True),
        Column("lane", Integer, primary_key=True),
        Column("state", LargeBinary, nullable=False),
    )
    _move(
        "samples",
        Column("stream", String, primary_key=True),
        Column("lane", Integer, primary_key=True),
        Column("idx", BigInteger, primary_key=True),
        Column("id", String, nullable=False),
        Column("time", String, nullable=False),
        Column("content", LargeBinary, nullable=False),
        Column("kind", String, nullable=False),
        Column("label", String),
    )


def _move(name: str, *columns: Column[object]) -> None:
    """Put a table's rows into lane 0 of a new table with its name."""
    # SQLite cannot change a key, so both databases copy.
    op.rename_table(name, "moving")
    if op.get_bind().dialect.name == "postgresql":
        op.drop_constraint(f"{name}_pkey", "moving")  # the new key takes this name
    table = op.create_table(name, *columns)
    kept = [column.name for column in columns if column.name != "lane"]
    moving = sa.table("moving", *map(sa.column, kept))
    rows = sa.select(sa.literal(0), *moving.columns)
    op.execute(table.insert().from_select(["lane", *kept], rows))
    op.drop_table("moving")
