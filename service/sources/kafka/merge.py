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

Within a partition the order is that of the offsets, also where the times go back.

Records are taken in runs: as many of a partition as come before the first one of every other.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush, heapreplace
from itertools import accumulate

from service.records.block import Block, Piece
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
    """Records of one partition that arrived together, and the position of the next one.

    `ends` are the bytes of their values up to each position; `arrived_ms` is by the caller's clock,
    `now_ms` by the clock of the records' times.
    """

    block: Block
    times_ms: Sequence[int]
    ends: Sequence[int]
    arrived_ms: float
    now_ms: float
    at: int = 0

    def take(self, max_records: int, newest_ms: float) -> Piece:
        """The next record, and as many behind it as are no newer than that."""
        start, times = self.at, self.times_ms
        behind = min(len(times), start + max_records)
        stop = behind
        if newest_ms != math.inf:
            stop = start + 1
            while stop < behind and times[stop] <= newest_ms:
                stop += 1
        self.at = stop
        return self.block, start, stop


class Merge:
    """The records that were fetched and not yet delivered, and which of them is next.

    Its order is a function of the records that wait. Nothing of it has to survive a restart: with
    every partition at the offset behind its last delivered record, the merge goes on as before.

    Parameters
    ----------
    wait_ms
        How long after its own time a record waits for partitions that are silent.
    """

    def __init__(self, wait_ms: float) -> None:
        self._wait_ms = wait_ms
        self._waiting: dict[Partition, deque[_Arrival]] = {}
        # The time of the first waiting record of each partition that has one, and the partition.
        self._first: list[tuple[int, Partition]] = []
        self._empty: set[Partition] = set()

    def restart(self, partitions: Iterable[Partition]) -> None:
        """Forget what waits, and merge these partitions from now on."""
        self._waiting = {at: deque() for at in partitions}
        self._first = []
        self._empty = set(self._waiting)

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
        if not block:
            return
        times = block.times_ms if block.times_ms is not None else [-1] * len(block)
        ends = list(accumulate(map(len, block.values), initial=0))
        waiting.append(_Arrival(block, times, ends, arrived_ms, now_ms))
        if partition in self._empty:
            self._empty.remove(partition)
            heappush(self._first, (times[0], partition))

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
        first = self._first
        while first and max_records > 0:
            time_ms, partition = first[0]
            waiting = self._waiting[partition]
            arrival = waiting[0]
            newest_ms = math.inf
            if self._empty:
                waited_ms = now_ms - arrival.arrived_ms
                newest_ms = free_until_ms(waited_ms, arrival.now_ms, self._wait_ms)
                if time_ms > newest_ms or not all(map(at_end, self._empty)):
                    break
            if len(first) > 1:
                other_ms, other = min(first[1:3])  # of a heap
                newest_ms = min(newest_ms, other_ms if partition < other else other_ms - 1)
            piece = arrival.take(max_records, newest_ms)
            found.append(piece)
            max_records -= piece[2] - piece[1]
            if arrival.at == len(arrival.times_ms):
                waiting.popleft()
            if waiting:
                heapreplace(first, (waiting[0].times_ms[waiting[0].at], partition))
            else:
                heappop(first)
                self._empty.add(partition)
        return found

    def wait_ms(self, now_ms: float) -> float | None:
        """Milliseconds until the first record need not wait any longer; None if there is none."""
        if not self._first:
            return None
        time_ms, partition = self._first[0]
        first = self._waiting[partition][0]
        held = hold_ms(time_ms, first.now_ms, self._wait_ms)
        return max(first.arrived_ms + held - now_ms, 0.0)

    def count(self, partition: Partition) -> int:
        """How many records of a partition wait."""
        return sum(len(a.times_ms) - a.at for a in self._waiting[partition])

    def size(self, partition: Partition) -> int:
        """How many bytes the values of a partition's waiting records have."""
        return sum(a.ends[-1] - a.ends[a.at] for a in self._waiting[partition])
