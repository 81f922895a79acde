"""Observations and labels that wait for each other outside of the memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class Side(StrEnum):
    """What waits for its other half."""

    OBSERVATION = "observation"
    """For its label."""
    LABEL = "label"
    """For its observation."""


@dataclass(slots=True)
class Spilled:
    """An observation or a label that waits in the store, because others fill the memory.

    Attributes
    ----------
    id
        The observation's id.
    side
        Which of the two it is.
    number
        1, 2, ... in the order in which those of its side were spilled.
    index
        The observation's index in its lane; -1 for a label.
    time
        The record's own time in Unix seconds; not a number if it has none.
    value
        The label; or what was served for the observation, None if nothing was.
    """

    id: str
    side: Side
    number: int
    index: int
    time: float
    value: str | None = None


class Floor(NamedTuple):
    """A place among the spilled entries of a side.

    As a bound: those up to the number, and those from before the time, can meet nothing.
    """

    number: int
    time: float


@dataclass(frozen=True, slots=True)
class SpillChanges:
    """What has happened to the spilled entries since they were written the last time.

    Attributes
    ----------
    put
        New ones, to be written in place of others of their ids.
    dropped
        Ids of those that wait no longer.
    floors
        Of each side that has any, up to where those that are written may be deleted.
    expired
        Up to where observations are too old for a label; the number is that of one which was not
        when it was last looked.
    """

    put: list[Spilled]
    dropped: list[str]
    floors: dict[Side, Floor]
    expired: Floor

    def __bool__(self) -> bool:
        return bool(self.put or self.dropped or self.floors)


@dataclass(frozen=True, slots=True)
class Pruned:
    """What the store did with `SpillChanges`.

    Attributes
    ----------
    deleted
        How many of each side lay below its floor.
    oldest
        Number and time of the oldest observation whose label can still meet it, or None.
    """

    deleted: dict[Side, int] = field(default_factory=dict)
    oldest: Floor | None = None
