"""Where a monitor is in its cycle."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """Where a monitor is in its cycle."""

    WARMING_UP = "warming_up"
    """Collecting the reference window."""
    WATCHING = "watching"
    """Stage 1 runs on every event."""
    SUSPECTING = "suspecting"
    """An alarm is under test on fresh evidence."""
    OPEN = "open"
    """A confirmed shift persists; the stream is compared with the reference now and then."""
    REPAIRING = "repairing"
    """A model is being trained."""
