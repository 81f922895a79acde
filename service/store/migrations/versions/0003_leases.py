"""An action that is being delivered belongs to one process until its lease ends."""

from alembic import op
from sqlalchemy import Column, Float

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the end of the lease; null for an action that nobody delivers."""
    op.add_column("actions", Column("leased_until", Float))
