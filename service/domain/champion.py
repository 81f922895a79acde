"""Which version of a stream's model serves, and since when."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Champion:
    """One entry of a stream's history of promotions and roll-backs; the last one holds.

    Attributes
    ----------
    stream
        Whose champion it is.
    sequence
        1, 2, ... within the stream.
    version
        The version that became champion.
    reason
        Why, for people.
    index
        Observations of the stream seen by then.
    recorded_at
        Unix seconds; set by the store.
    """

    stream: str
    sequence: int
    version: int
    reason: str
    index: int
    recorded_at: float
