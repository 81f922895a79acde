"""Several partitions as one sequence of records, in the order of the records' own times.

Two topics, or two partitions of one, reach a consumer interleaved differently every time. What a
monitor finds depends on the order of its records, so the order must come from the records.

The rule: of the first waiting record of every partition, the one with the smallest
(time, topic, partition, offset) is next. It may be taken when no other record can come before it:

- every partition has a record waiting; or
- those that have none are at the end of their log, and the record is `hold_ms` old.

A partition that is not at its end is waited for as long as it takes, because the record that comes
next is already written. So what is in the log is merged in one order, whichever way it arrives.
Only a record that is written late, after the hold, is handled in the order of its arrival.

Within a partition the order is that of the offsets, also where the times go back. The time of a
record that is later than those of most records behind it is wrong: it counts as theirs
(`service.sources.kafka.ahead`), or its partition would wait until the others have nothing left.

Records are taken in runs: as many of a partition as come before the first one of every other.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import accumulate

from service.records.block import Block, Piece
from service.sources.kafka.ahead import AHEAD, counted_time, counted_times, n_told
from service.sources.source import Partition


def hold_ms(time_ms: int, now_ms: float, wait_ms: float) -> float:
    """How long a record that arrives now waits for partitions that are silent, in milliseconds.

    It waits until `wait_ms` after its own time. What is older than that, such as a backlog, does
    not wait at all; what has a time in the future waits no longer than `wait_ms`.

    Examples
    --------
    >>> hold_ms(1000, 1100, 500), hold_ms(1000, 9000, 500), hold_ms(8000, 1100, 500)
    (400, 0, 500)
    """
    return min(max(time_ms + wait_ms - now_ms, 0), wait_ms)


def free_until_ms(waited_ms: float, now_ms: float, wait_ms: float) -> float:
    """The newest time of a record whose hold has ended, so long after it arrived at `now_ms`.

    Examples
    --------
    >>> free_until_ms(399, 1100, 500), free_until_ms(400, 1100, 500), free_until_ms(500, 1100, 500)
    (999, 1000, inf)
    """
    return math.inf if waited_ms >= wait_ms else now_ms + waited_ms - wait_ms


@dataclass(slots=True)
class _Arrival:
    """Records that arrived together: when by the caller's clock, and by that of their times."""

    block: Block
    arrived_ms: float
    now_ms: float


@dataclass(slots=True)
class _Waiting:
    """What waits of one partition, and a little that was taken: the rest of its first arrival.

    Attributes
    ----------
    ahead
        Records behind one that tell whether its time is wrong.
    arrivals
        What arrived, in its order.
    times_ms, ends
        The records' times, and the bytes of their values up to each of them.
    counted_ms
        The times that they count with, as far as these are told.
    at
        Position of the next one.
    is_new
        Whether something came since `counted_ms` was made.
    """

    ahead: int
    arrivals: deque[_Arrival] = field(default_factory=deque)
    times_ms: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=lambda: [0])
    counted_ms: list[int] = field(default_factory=list)
    at: int = 0
    is_new: bool = False

    @property
    def count(self) -> int:
        """How many records wait."""
        return len(self.times_ms) - self.at

    def put(self, arrival: _Arrival) -> None:
        """Add the records that come next."""
        block = arrival.block
        self.arrivals.append(arrival)
        self.times_ms += block.times_ms if block.times_ms is not None else [-1] * len(block)
        self.ends += accumulate(map(len, block.values), initial=self.ends.pop())
        self.is_new = True

    def is_told(self) -> bool:
        """Whether it is certain which time the next record counts with."""
        if self.is_new:
            known, told = len(self.counted_ms), n_told(self.ends, self.ahead)
            if known < told:
                more = counted_times(self.times_ms, self.ends, known, told, self.ahead)
                self.counted_ms += more
            self.is_new = False
        return self.at < len(self.counted_ms)

    def time_ms(self) -> int:
        """The time that the next record counts with, by what is known of it."""
        return self.counted_ms[self.at] if self.is_told() else self._likely_ms(self.at)

    def _likely_ms(self, n: int) -> int:
        return counted_time(self.times_ms, self.ends, n, self.ahead)

    def take(self, max_records: int, newest_ms: float, free_ms: float, *, at_end: bool) -> Piece:
        """Take the next record, and those behind it that may come with it.

        Parameters
        ----------
        max_records
            At most so many.
        newest_ms
            The newest time that they may count with.
        free_ms
            The newest time that they may have.
        at_end
            Whether there are no others, so that what waits tells all that there is to tell.
        """
        start, times, counted = self.at, self.times_ms, self.counted_ms
        block = self.arrivals[0].block
        behind = min(len(block), start + max_records)
        told = min(behind, len(counted))
        stop = start + 1
        while stop < told and counted[stop] <= newest_ms and times[stop] <= free_ms:
            stop += 1
        if at_end and stop >= told:
            knows_no_other = newest_ms == math.inf
            while (
                stop < behind
                and times[stop] <= free_ms
                and (knows_no_other or self._likely_ms(stop) <= newest_ms)
            ):
                stop += 1
        self._go_to(stop)
        return block, start, stop

    def take_any(self, max_records: int) -> Piece:
        """Take the next records, whatever their times."""
        start, block = self.at, self.arrivals[0].block
        stop = min(len(block), start + max_records)
        self._go_to(stop)
        return block, start, stop

    def _go_to(self, at: int) -> None:
        self.at = at
        if at == len(self.arrivals[0].block):
            self.arrivals.popleft()
            del self.times_ms[:at], self.ends[:at], self.counted_ms[:at]
            self.at = 0


class Merge:
    """The records that were fetched and not yet delivered, and which of them is next.

    Its order is a function of the records that wait. Nothing of it has to survive a restart: with
    every partition at the offset behind its last delivered record, the merge goes on as before.

    Parameters
    ----------
    wait_ms
        How long after its own time a record waits for partitions that are silent.
    ahead
        Records behind one that tell whether its time is wrong.
    """

    def __init__(self, wait_ms: float, ahead: int = AHEAD) -> None:
        self._wait_ms = wait_ms
        self._ahead = ahead
        self._waiting: dict[Partition, _Waiting] = {}

    def restart(self, partitions: Iterable[Partition]) -> None:
        """Forget what waits, and merge these partitions from now on."""
        self._waiting = {at: _Waiting(self._ahead) for at in partitions}

    @property
    def partitions(self) -> Iterable[Partition]:
        """Those that are merged."""
        return self._waiting

    def put(self, partition: Partition, block: Block, arrived_ms: float, now_ms: float) -> None:
        """Add the next records of a partition.

        Parameters
        ----------
        partition
            Where they stand.
        block
            The records, in the order of their offsets. Those without a time come first.
        arrived_ms, now_ms
            When they arrived: in milliseconds of the caller's clock, and in Unix milliseconds.

        Raises
        ------
        KeyError
            If the partition is none of those that are merged.
        """
        waiting = self._waiting[partition]
        if block:
            waiting.put(_Arrival(block, arrived_ms, now_ms))

    def take(
        self, max_records: int, now_ms: float, at_end: Callable[[Partition], bool]
    ) -> list[Piece]:
        """Return the records whose turn it is.

        Parameters
        ----------
        max_records
            At most so many.
        now_ms
            In milliseconds, by the clock of `arrived_ms`.
        at_end
            Whether all that is written to a partition was given to `put`.
        """
        found: list[Piece] = []
        while max_records > 0 and (piece := self._run(max_records, now_ms, at_end)) is not None:
            found.append(piece)
            max_records -= piece[2] - piece[1]
        return found

    def _run(
        self, max_records: int, now_ms: float, at_end: Callable[[Partition], bool]
    ) -> Piece | None:
        """The next records that stand in one partition and arrived together."""
        if len(self._waiting) == 1:
            [only] = self._waiting.values()
            return only.take_any(max_records) if only.count else None
        first: list[tuple[int, Partition]] = []
        for partition, waiting in self._waiting.items():
            if not waiting.is_told() and not at_end(partition):
                return None  # what comes next of it is written, and may be first
            if waiting.count:
                first.append((waiting.time_ms(), partition))
        if not first:
            return None
        first.sort()
        partition = first[0][1]
        waiting = self._waiting[partition]
        newest_ms = free_ms = math.inf
        if len(first) < len(self._waiting):
            arrival = waiting.arrivals[0]
            waited_ms = now_ms - arrival.arrived_ms
            free_ms = free_until_ms(waited_ms, arrival.now_ms, self._wait_ms)
            if waiting.times_ms[waiting.at] > free_ms:
                return None
        if len(first) > 1:
            other_ms, other = first[1]
            newest_ms = other_ms if partition < other else other_ms - 1
        return waiting.take(max_records, newest_ms, free_ms, at_end=at_end(partition))

    def wait_ms(self, now_ms: float) -> float | None:
        """Milliseconds until the first record need not wait any longer; None if there is none."""
        first = [(w.time_ms(), at) for at, w in self._waiting.items() if w.count]
        if not first:
            return None
        waiting = self._waiting[min(first)[1]]
        arrival = waiting.arrivals[0]
        held = hold_ms(waiting.times_ms[waiting.at], arrival.now_ms, self._wait_ms)
        return max(arrival.arrived_ms + held - now_ms, 0.0)

    def count(self, partition: Partition) -> int:
        """How many records of a partition wait."""
        return self._waiting[partition].count

    def size(self, partition: Partition) -> int:
        """How many bytes the values of a partition's waiting records have."""
        waiting = self._waiting[partition]
        return waiting.ends[-1] - waiting.ends[waiting.at]
