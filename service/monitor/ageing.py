"""How old what waits is, by the stream's own time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np

from detectors.base import Array, State
from service.monitor.clock import StreamClock
from service.monitor.label_outcomes import Mistimed

LEAP = 0.5
"""Part of `max_age_s` by which the stream's time may go on without patience: a step that makes at
most half of what waits older than it may be."""


class Ageing:
    """The stream's time, and what is too old by it.

    Parameters
    ----------
    max_age_s
        Seconds of the stream's time after which an entry meets nothing any more.
    clock
        Tells the stream's time; None for one that doubts steps by more than half of `max_age_s`.

    Attributes
    ----------
    mistimed
        Records whose own time is further from the stream's than that, by how; whoever counts them
        empties it.
    """

    def __init__(self, max_age_s: float, clock: StreamClock | None = None) -> None:
        self.max_age_s = max_age_s
        self.mistimed: Counter[Mistimed] = Counter()
        self._clock = StreamClock(LEAP * max_age_s) if clock is None else clock

    @property
    def now(self) -> float:
        """The stream's time, in Unix seconds; minus infinity before there is one."""
        return self._clock.now

    @property
    def latest(self) -> float:
        """The latest time of the newest records, but for wrong clocks; minus infinity for none."""
        return self._clock.latest

    @property
    def alive(self) -> tuple[float, float]:
        """Between which times an observation is neither too old for a label nor wrong."""
        until = self.now + self.max_age_s if math.isfinite(self.now) else math.inf
        return self.now - self.max_age_s, until

    def is_old(self, time: float, times: int = 1) -> bool:
        """Whether something is older than so many times what it may be."""
        # What has no time, not a number, is not.
        return self.now - time > times * self.max_age_s

    def restart(self) -> None:
        """Forget the stream's time."""
        self._clock.restart()

    def tick(self, time: float) -> tuple[float, float] | None:
        """Note a record's time; the stream's before and after, if they differ."""
        if math.isnan(time):
            return None
        before = self.now
        self._clock.tick(time)
        if abs(self.now - time) > self.max_age_s and math.isfinite(self.now):
            self.mistimed[Mistimed.AHEAD if time > self.now else Mistimed.BEHIND] += 1
        return None if self.now == before else (before, self.now)

    def tick_all(self, times: Array) -> Iterator[tuple[int, float, float]]:
        """Note the times of records, as `tick` does with one after the other.

        Parameters
        ----------
        times
            Shape (n,), NaN where there is none.

        Yields
        ------
        tuple
            Wherever the stream's time changes: the place of the record with which it does, and the
            time before and after.
        """
        timed = np.flatnonzero(~np.isnan(times))
        start = 0
        while start < len(timed):
            before = self.now
            stop = start + self._clock.tick_all(times[timed[start:]])
            self._count(times[timed[start : stop - 1]], before)
            self._count(times[timed[stop - 1 : stop]], self.now)
            if self.now != before:
                yield int(timed[stop - 1]), before, self.now
            start = stop

    def _count(self, times: Array, now: float) -> None:
        if not math.isfinite(now) or not len(times):
            return
        far = np.abs(now - times) > self.max_age_s
        if far.any():
            ahead = int((times[far] > now).sum())
            behind = int(far.sum()) - ahead
            self.mistimed.update({Mistimed.AHEAD: ahead, Mistimed.BEHIND: behind})

    def snapshot(self) -> State:
        """Everything needed to go on."""
        return self._clock.snapshot()

    def restore(self, state: State) -> None:
        """Go on from a snapshot."""
        self._clock.restore(state)
        self.mistimed.clear()
