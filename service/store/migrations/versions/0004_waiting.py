"""Observations and labels that wait for each other and have no room in memory."""

from alembic import op
from sqlalchemy import BigInteger, Column, Float, Integer, String, Text

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add their table; nothing waits in it yet."""
    op.create_table(
        "waiting",
        Column("id", String, primary_key=True),
        Column("stream", String, primary_key=True),
        Column("lane", Integer, primary_key=True),
        Column("side", String, nullable=False),
        Column("number", BigInteger, nullable=False),
        Column("idx", BigInteger, nullable=False),
        Column("time", Float),
        Column("value", Text),
    )
    op.create_index("waiting_by_number", "waiting", ["side", "stream", "lane", "number"])
