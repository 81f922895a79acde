"""What stage 1 of a stream is made of."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from detectors.base import Alarm, Array, Factor, IntArray, State


class Feed(StrEnum):
    """Which events a watch reads."""

    SEEN = "seen"
    """Every observation as it comes."""
    LABELLED = "labelled"
    """Every observation whose label has come, in the order of the labels."""


class Watching(Protocol):
    """What stage 1 of a stream is made of."""

    name: str
    factor: Factor

    @property
    def feed(self) -> Feed:
        """What it reads."""
        ...

    @property
    def statistic(self) -> float:
        """The largest statistic as a share of its threshold; 1 is an alarm."""
        ...

    def update(self, rows: Array, labels: IntArray) -> Sequence[Alarm]:
        """Take rows (n, d) and their labels (n,) in order; return the alarms."""
        ...

    def reset(self) -> None:
        """Forget what was summed up; what was learned stays."""
        ...

    def mark(self) -> State:
        """The sums, to come back to with `back`."""
        ...

    def back(self, mark: State) -> None:
        """Go back to a mark."""
        ...

    def snapshot(self) -> State:
        """What was learned and summed up."""
        ...
