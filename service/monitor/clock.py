"""A stream's time, on which most of its newest records agree."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from detectors.base import State

WINDOW = 128
"""Newest records whose times count: up to 64 wrong ones in a row are not heard, nor are those of a
device in four. As many records as the time is late: 65, and up to 16 more until it is looked at."""

EVERY = 16
"""Records between two looks at the times: sorting them each time would be most of the work."""

PATIENCE = 1024
"""Records for which a leap has to persist. Where it is true, old entries stay for that long, which
harms nobody; where it is not, it would make everything old that waits."""


class StreamClock:
    """The time that more than half of a stream's newest records have reached.

    Single clocks decide nothing: the time is the lower median of the newest records' own times, and
    does not go back with it. Only a leap by more than `leap_s`, forwards or back, that persists for
    `patience` records is followed both ways. So a few wrong clocks cost nothing; a stream that
    pauses for less than `leap_s` goes on after 65 to 80 records; and one that truly leaps, or had
    been led astray, after some 1,100.

    It is a function of the times in their order, looked at after every `every` of them, whatever
    batches they come in.

    Parameters
    ----------
    leap_s
        Seconds; infinite to believe every median at once.
    window, every, patience
        Records; positive.

    Attributes
    ----------
    now
        In Unix seconds; minus infinity until `window` records have told their time.

    Examples
    --------
    >>> clock = StreamClock(3600.0)
    >>> for n in range(1000):
    ...     clock.tick(60.0 * n if n % 20 else 4e9)  # one device in twenty lives in 2096
    >>> (60.0 * 999 - clock.now) / 60.0
    69.0
    """

    __slots__ = ("_doubted", "_every", "_leap", "_newest", "_patience", "_unseen", "now")

    def __init__(
        self, leap_s: float, *, window: int = WINDOW, every: int = EVERY, patience: int = PATIENCE
    ) -> None:
        if not leap_s > 0:
            raise ValueError(f"leap_s must be positive, got {leap_s}")
        for name, value in (("window", window), ("every", every), ("patience", patience)):
            if value < 1:
                raise ValueError(f"{name} must be positive, got {value}")
        self._leap = leap_s
        self._every = every
        self._patience = patience
        self._newest: deque[float] = deque(maxlen=window)
        self.restart()

    def restart(self) -> None:
        """Forget all times, as before the first record."""
        self.now = -math.inf
        self._newest.clear()
        self._unseen = 0  # since the last look
        self._doubted = 0  # since a leap began: forwards, or backwards if negative

    def tick(self, time: float) -> None:
        """Take a record's time, a number in Unix seconds."""
        self._newest.append(time)
        self._unseen += 1
        if self._unseen >= self._every:
            self._unseen = 0
            self._look()

    @property
    def latest(self) -> float:
        """The latest of the newest records' times that is no leap ahead, or minus infinity.

        It is nearer than `now`, which is late by half a window, but single clocks decide it.
        """
        now = self.now if math.isfinite(self.now) else self._median
        return max((t for t in self._newest if t - now <= self._leap), default=-math.inf)

    @property
    def _median(self) -> float:
        """The lower one."""
        ordered = sorted(self._newest)
        return ordered[(len(ordered) - 1) // 2] if ordered else -math.inf

    def _look(self) -> None:
        if len(self._newest) < (self._newest.maxlen or 0):
            return
        reached = self._median
        if not math.isfinite(self.now):
            self.now = reached
            return
        step = reached - self.now
        if abs(step) <= self._leap:
            self._doubted = 0
            self.now = max(self.now, reached)
            return
        onward = 1 if step > 0 else -1
        self._doubted = max(onward * self._doubted, 0) + self._every
        if self._doubted >= self._patience:
            self.now, self._doubted = reached, 0
        self._doubted *= onward

    def snapshot(self) -> State:
        """Everything needed to go on."""
        return {
            "now": self.now,
            "newest": np.array(self._newest, np.float64),
            "unseen": self._unseen,
            "doubted": self._doubted,
        }

    def restore(self, state: State) -> None:
        """Go on from the snapshot of an equally made clock."""
        self.now = state["now"]
        self._newest.clear()
        self._newest.extend(state["newest"].tolist())
        self._unseen, self._doubted = state["unseen"], state["doubted"]
