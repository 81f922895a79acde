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
record that is later than those of most records behind it is wrong: it counts as theirs, or its
partition would wait until the others have nothing left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice

from service.records.record import Record
from service.sources.source import Partition

AHEAD = 64
"""Records behind one that tell whether its time is wrong: that finds up to 33 in a row."""

AHEAD_BYTES = 8 * 1024 * 1024
"""So many bytes with them at most: a partition that is not read on for want of room has as many."""

Place = tuple[int, str, int, int]
"""Time, topic, partition and offset."""


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

    Parameters
    ----------
    ahead
        Records behind one that tell whether its time is wrong.
    """

    def __init__(self, ahead: int = AHEAD) -> None:
        self._ahead = ahead
        self._waiting: dict[Partition, deque[Arrival]] = {}
        self._bytes: dict[Partition, int] = {}
        # For each partition how many of its waiting records are earlier than the one before.
        self._steps_back: dict[Partition, int] = {}
        # The place of each partition's first waiting record, where it is known.
        self._places: dict[Partition, Place] = {}

    def restart(self, partitions: Iterable[Partition]) -> None:
        """Forget what waits, and merge these partitions from now on."""
        self._waiting = {(topic, number): deque() for topic, number in partitions}
        self._bytes = dict.fromkeys(self._waiting, 0)
        self._steps_back = dict.fromkeys(self._waiting, 0)
        self._places = {}

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
            if waiting and arrival.time_ms < waiting[-1].time_ms:
                self._steps_back[partition] += 1
            waiting.append(arrival)
            self._bytes[partition] += len(arrival.record.value)
        self._places.pop(partition, None)

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
        places = self._places
        while len(found) < max_records:
            is_known = True
            for partition, waiting in self._waiting.items():
                if partition in places:
                    continue
                if not self._is_told(partition) and not at_end(partition):
                    is_known = False  # what comes next of it is written, and may be first
                elif waiting:
                    places[partition] = self._place(partition)
            if not is_known or not places:
                break
            partition = min(places, key=places.__getitem__)
            waiting = self._waiting[partition]
            if waiting[0].release_ms > now_ms and len(places) < len(self._waiting):
                break
            del places[partition]
            found.append(self._pop(partition))
        return found

    def _pop(self, partition: Partition) -> Record:
        waiting = self._waiting[partition]
        first = waiting.popleft()
        self._bytes[partition] -= len(first.record.value)
        if waiting and waiting[0].time_ms < first.time_ms:
            self._steps_back[partition] -= 1
        return first.record

    def _is_told(self, partition: Partition) -> bool:
        """Whether enough records wait behind the first one to tell whether its time is wrong."""
        enough = len(self._waiting[partition]) > self._ahead
        return enough or self._bytes[partition] >= AHEAD_BYTES

    def _place(self, partition: Partition) -> Place:
        """Where the first record stands in the order."""
        waiting = self._waiting[partition]
        record, time_ms = waiting[0].record, waiting[0].time_ms
        if self._steps_back[partition]:
            behind: list[int] = []
            size = len(record.value)
            for arrival in islice(waiting, 1, self._ahead + 1):
                size += len(arrival.record.value)
                if size >= AHEAD_BYTES:
                    break
                if arrival.time_ms >= 0:
                    behind.append(arrival.time_ms)
            if behind:
                time_ms = min(time_ms, sorted(behind)[(len(behind) - 1) // 2])
        return time_ms, record.topic, record.partition, record.offset

    def _take_only(self, max_records: int) -> list[Record]:
        """Return the next records of the only partition, which waits for nobody."""
        [(partition, waiting)] = self._waiting.items()
        return [self._pop(partition) for _ in range(min(max_records, len(waiting)))]

    def wait_ms(self, now_ms: float) -> float | None:
        """Milliseconds until the first record need not wait any longer; None if there is none."""
        waiting = [partition for partition, held in self._waiting.items() if held]
        if not waiting:
            return None
        first = min(waiting, key=self._place)
        return max(self._waiting[first][0].release_ms - now_ms, 0.0)

    def count(self, partition: Partition) -> int:
        """How many records of a partition wait."""
        return len(self._waiting[partition])

    def size(self, partition: Partition) -> int:
        """How many bytes the values of a partition's waiting records have."""
        return self._bytes[partition]
