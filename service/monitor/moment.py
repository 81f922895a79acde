"""Where a monitor is in its stream when something is decided."""

from __future__ import annotations

from dataclasses import dataclass

from service.domain.decision import Means
from service.domain.incident import Point


@dataclass(frozen=True, slots=True)
class Moment:
    """The newest event that was taken.

    Attributes
    ----------
    n_seen
        Observations of the stream so far.
    time
        The newest record's time in ISO 8601, or an empty text.
    day
        Of the stream's time, or an empty text.
    means
        What the stream has at hand to act with.
    """

    n_seen: int
    time: str
    day: str
    means: Means

    @property
    def now(self) -> Point:
        """The newest observation."""
        return Point(self.n_seen - 1, self.time)
