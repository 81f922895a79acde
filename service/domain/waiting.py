"""Observations and labels that wait for each other outside of the memory."""

from __future__ import annotations

import math
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


class Bound(NamedTuple):
    """Spilled entries of a side that can meet nothing any more.

    Those up to a number that are from before a time. Infinity stands for every number, and for
    every time and none.
    """

    number: float
    time: float

    def holds(self, entry: Spilled) -> bool:
        """Whether it holds an entry."""
        return entry.number <= self.number and (self.time == math.inf or entry.time < self.time)


NOTHING = Bound(0, -math.inf)


@dataclass(frozen=True, slots=True)
class SpillChanges:
    """What has happened to the spilled entries since they were written the last time.

    Attributes
    ----------
    put
        New ones, to be written in place of others of their ids.
    dropped
        Ids of those that wait no longer.
    over
        Of each side that has any, those that are written and may be deleted.
    alive
        Between which times observations are not too old for a label, nor told by a wrong clock.
    """

    put: list[Spilled]
    dropped: list[str]
    over: dict[Side, list[Bound]]
    alive: tuple[float, float]

    def __bool__(self) -> bool:
        return bool(self.put or self.dropped or self.over)


@dataclass(frozen=True, slots=True)
class Pruned:
    """What the store did with `SpillChanges`.

    Attributes
    ----------
    deleted
        How many of each side were over.
    oldest
        Earliest time of an observation that is `alive`, or None.
    """

    deleted: dict[Side, int] = field(default_factory=dict)
    oldest: float | None = None
