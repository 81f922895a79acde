"""What waits is found by its time too: what is too old may stand behind what is not."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the index."""
    op.create_index("waiting_by_time", "waiting", ["side", "stream", "lane", "time"])
