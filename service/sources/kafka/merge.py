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
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from heapq import heappop, heappush

from service.records.record import Record
from service.sources.source import Partition


@dataclass(frozen=True, slots=True)
class Arrival:
    """A record that was fetched and waits for its turn.

    Attributes
    ----------
    record
        The record.
    time_ms
        Its time as the broker has it: Unix milliseconds, or -1 for none, which comes first.
    release_ms
        From when on it need not wait for silent partitions, in milliseconds of the caller's clock.
    """

    record: Record
    time_ms: int
    release_ms: float


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


class Merge:
    """The records that were fetched and not yet delivered, and which of them is next.

    Its order is a function of the records that wait. Nothing of it has to survive a restart: with
    every partition at the offset behind its last delivered record, the merge goes on as before.
    """

    def __init__(self) -> None:
        self._waiting: dict[Partition, deque[Arrival]] = {}
        self._bytes: dict[Partition, int] = {}
        # The first waiting record of each partition that has one, by its place in the order.
        self._first: list[tuple[int, str, int, int]] = []
        self._empty: set[Partition] = set()

    def restart(self, partitions: Iterable[Partition]) -> None:
        """Forget what waits, and merge these partitions from now on."""
        self._waiting = {(topic, number): deque() for topic, number in partitions}
        self._bytes = dict.fromkeys(self._waiting, 0)
        self._first = []
        self._empty = set(self._waiting)

    @property
    def partitions(self) -> Iterable[Partition]:
        """Those that are merged."""
        return self._waiting

    def put(self, partition: Partition, arrivals: Iterable[Arrival]) -> None:
        """Add the next records of a partition, in the order of their offsets.

        Raises
        ------
        KeyError
            If the partition is none of those that are merged.
        """
        waiting = self._waiting[partition]
        for arrival in arrivals:
            waiting.append(arrival)
            self._bytes[partition] += len(arrival.record.value)
        if waiting and partition in self._empty:
            self._empty.remove(partition)
            heappush(self._first, _place(waiting[0]))

    def take(
        self, max_records: int, now_ms: float, at_end: Callable[[Partition], bool]
    ) -> list[Record]:
        """Return the records whose turn it is.

        Parameters
        ----------
        max_records
            At most so many.
        now_ms
            In milliseconds, by the clock of `Arrival.release_ms`.
        at_end
            Whether all that is written to a partition was given to `put`.
        """
        if len(self._waiting) == 1:
            return self._take_only(max_records)
        found: list[Record] = []
        while self._first and len(found) < max_records:
            _, topic, number, _ = self._first[0]
            partition = (topic, number)
            waiting = self._waiting[partition]
            if self._empty and not (
                waiting[0].release_ms <= now_ms and all(at_end(p) for p in self._empty)
            ):
                break
            heappop(self._first)
            record = waiting.popleft().record
            self._bytes[partition] -= len(record.value)
            if waiting:
                heappush(self._first, _place(waiting[0]))
            else:
                self._empty.add(partition)
            found.append(record)
        return found

    def _take_only(self, max_records: int) -> list[Record]:
        """Return the next records of the only partition, which waits for nobody."""
        [(partition, waiting)] = self._waiting.items()
        found = [waiting.popleft().record for _ in range(min(max_records, len(waiting)))]
        self._bytes[partition] -= sum(len(record.value) for record in found)
        self._first = [_place(waiting[0])] if waiting else []
        if not waiting:
            self._empty.add(partition)
        return found

    def wait_ms(self, now_ms: float) -> float | None:
        """Milliseconds until the first record need not wait any longer; None if there is none."""
        if not self._first:
            return None
        _, topic, number, _ = self._first[0]
        return max(self._waiting[topic, number][0].release_ms - now_ms, 0.0)

    def count(self, partition: Partition) -> int:
        """How many records of a partition wait."""
        return len(self._waiting[partition])

    def size(self, partition: Partition) -> int:
        """How many bytes the values of a partition's waiting records have."""
        return self._bytes[partition]


def _place(arrival: Arrival) -> tuple[int, str, int, int]:
    record = arrival.record
    return arrival.time_ms, record.topic, record.partition, record.offset
