"""Topics of Kafka as a source.

The store decides where every partition goes on: on assignment this source seeks to what `seek` was
given, and further by what it has delivered since. The offsets that `commit` writes to the broker
are for people and tools; they are never read.

Records of all partitions are merged in the order of their times (`service.merge`), so the result
does not depend on how they reach the process. One process reads all partitions. Nothing is
delivered while it does not have all of them, because their order would then depend on who has
which.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import structlog
from kafka import TopicPartition
from kafka import errors as kafka_errors

from service.kafka_client import PASSING, Group, open_consumer, positions, to_record
from service.merge import Arrival, Merge, hold_ms
from service.records import Record
from service.source import Partition, SourceError
from service.source_settings import SourceSettings

log = structlog.get_logger()

_BUFFERED_BYTES = 16 * 1024 * 1024
_BUFFERED_RECORDS = 10_000
"""A partition with more waiting is not read on until others have caught up."""
_ALL = 1_000_000_000
"""Everything that the client has fetched is taken at once: what kafka-python 3.0.12 keeps of a
batch while its partition is paused, it does not hand out again (`Fetcher.fetched_records`)."""
_RETRY_S = 0.1
_ASK_MS = 5000
"""How long to wait for the answer to a question that is not repeated."""


class KafkaSource:
    """All partitions of the configured topics, for one process.

    Parameters
    ----------
    settings
        Those of a source of kind `kafka`.
    clock, monotonic
        Seconds since 1970, and seconds by a clock that is never set; they only decide how long a
        record waits for silent partitions.

    Raises
    ------
    SourceError
        If no broker can be reached, a topic does not exist, or the group has another member.
        Later if an offset is not there any more and `auto_offset_reset` is none, if the broker
        refuses what is asked, or a batch is damaged. A broker that is away is no error: `poll`
        returns nothing until it is back.
    """

    def __init__(
        self,
        settings: SourceSettings,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        assert settings.topics is not None
        self._settings = settings
        self._topics = settings.topics.names
        self._clock = clock
        self._monotonic = monotonic
        self._servers = ",".join(settings.bootstrap_servers)
        self._next: dict[Partition, int] = {}
        self._uncommitted: dict[Partition, int] = {}
        self._merge = Merge()
        self._group = Group(self._position, self._keep_joining)
        self._has_all = False
        self._had_all = False
        self._is_away = False
        self._is_closed = False
        self._lost_at = monotonic()
        with self._named("cannot be reached"):
            self._consumer = open_consumer(settings)
        try:
            self._subscribe()
        except SourceError:
            self._consumer.close(timeout_ms=0)
            raise

    def _subscribe(self) -> None:
        with self._named("does not tell its topics"):
            missing = [t for t in self._topics if not self._consumer.partitions_for_topic(t)]
            if missing:
                raise SourceError(f"{self._servers}: there is no topic {missing[0]!r}")
            self._consumer.subscribe(list(self._topics), listener=self._group)

    # -- the contract --------------------------------------------------------------------------

    def poll(self, max_records: int = 500, timeout_s: float = 1.0) -> Sequence[Record]:
        """Return the records whose turn it is; none while the broker is away."""
        until = self._monotonic() + timeout_s
        max_records = min(max_records, self._settings.max_poll_records)
        self._fetch(0.0)
        found = self._take(max_records)
        while not found and (left := until - self._monotonic()) > 0:
            wait_ms = self._merge.wait_ms(self._now_ms())
            # At least a moment, so that waiting for another partition is not a busy loop.
            self._fetch(left if not wait_ms else min(left, max(wait_ms / 1000, 0.005)))
            found = self._take(max_records)
        for record in found:
            self._next[record.topic, record.partition] = record.offset + 1
        return found

    def seek(self, offsets: Mapping[Partition, int]) -> None:
        """Go to these offsets; those of other topics are not its business."""
        self._next.update({at: n for at, n in offsets.items() if at[0] in self._topics})
        self._restart(self._consumer.assignment())

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Write the offsets to the broker, for people and tools; a failure is only logged."""
        self._uncommitted.update({at: n for at, n in offsets.items() if at[0] in self._topics})
        if self._uncommitted and self._has_all:
            try:
                self._consumer.commit_async(positions(self._uncommitted), self._on_commit)
            except kafka_errors.KafkaError as error:
                log.warning("offsets not committed to the broker", reason=str(error))

    @property
    def exhausted(self) -> bool:
        """Never: a topic goes on."""
        return False

    def lag(self) -> int | None:
        """Records up to the ends of the partitions as last heard; None while one is not known."""
        total = 0
        for at in map(TopicPartition._make, self._merge.partitions):
            end, position = self._consumer.highwater(at), self._fetched_to(at)
            if end is None or position is None:
                return None
            total += max(end - position, 0) + self._merge.count(at)
        return total if self._has_all else None

    def close(self) -> None:
        """Commit what is not committed yet, if the broker answers, and leave."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            if self._uncommitted and self._has_all:
                self._consumer.commit(positions(self._uncommitted), timeout_ms=_ASK_MS)
            self._consumer.close(timeout_ms=_ASK_MS)
        except kafka_errors.KafkaError as error:
            log.warning("broker not told of the end", servers=self._servers, reason=str(error))

    # -- fetching ------------------------------------------------------------------------------

    def _fetch(self, timeout_s: float) -> None:
        """Ask for records, and put them where they wait for their turn."""
        self._hold_back()
        fetched: Mapping[TopicPartition, Sequence[Any]] = {}
        gone: Mapping[TopicPartition, int] = {}
        try:
            fetched = self._consumer.poll(int(timeout_s * 1000), max_records=_ALL)
        except kafka_errors.OffsetOutOfRangeError as error:
            gone = error.args[0]
        except kafka_errors.NoOffsetForPartitionError:
            pass  # of an assignment, which is looked at next
        except PASSING as error:
            if not self._is_away:
                log.warning("broker away", servers=self._servers, reason=str(error))
            self._is_away = True
            time.sleep(min(timeout_s, _RETRY_S))
        except kafka_errors.KafkaError as error:
            where = ", ".join(self._topics)
            raise SourceError(f"{self._servers}: {where}: cannot be read: {error}") from error
        if self._group.has_changed:
            # What was fetched may begin before the assignment, and so at another offset. An
            # offset that is gone will be so at the next attempt.
            self._group.has_changed = False
            self._assigned(self._group.partitions)
            return
        if gone:
            self._reset(gone)
        self._is_away = self._is_away and not fetched
        now, ready = self._clock() * 1000, self._now_ms()
        wait = self._settings.merge_wait_ms
        self._keep_beginnings(fetched)
        for at, records in fetched.items():
            self._merge.put(
                (at.topic, at.partition),
                [
                    Arrival(to_record(r), r.timestamp, ready + hold_ms(r.timestamp, now, wait))
                    for r in records
                ],
            )

    def _keep_beginnings(self, fetched: Mapping[TopicPartition, Sequence[Any]]) -> None:
        """Where the policy chose to begin stays so, also when the group is formed anew."""
        for at, records in fetched.items():
            self._next.setdefault((at.topic, at.partition), records[0].offset)
        for partition in self._merge.partitions:
            if partition not in self._next:
                position = self._fetched_to(TopicPartition(*partition))
                if position is not None:
                    self._next[partition] = position

    def _hold_back(self) -> None:
        """Stop reading partitions of which enough waits, and go on with the others."""
        full = {
            TopicPartition(*at)
            for at in self._merge.partitions
            if self._merge.count(at) >= _BUFFERED_RECORDS or self._merge.size(at) >= _BUFFERED_BYTES
        }
        # The client's own word, because it keeps a pause over some assignments.
        paused = self._consumer.paused()
        if full != paused:
            self._consumer.resume(*(paused - full))
            self._consumer.pause(*(full - paused))

    def _take(self, max_records: int) -> list[Record]:
        if not self._has_all:
            self._check_alone()
            return []
        # Asked once a partition: the client's answer costs more than a record.
        return self._merge.take(max_records, self._now_ms(), cache(self._is_at_end))

    def _is_at_end(self, partition: Partition) -> bool:
        at = TopicPartition(*partition)
        end, position = self._consumer.highwater(at), self._fetched_to(at)
        return end is not None and position is not None and position >= end

    def _fetched_to(self, at: TopicPartition) -> int | None:
        try:
            position: int | None = self._consumer.position(at, timeout_ms=0)
        except kafka_errors.KafkaError:
            return None  # `poll` meets the same error and says so
        return position

    def _now_ms(self) -> float:
        return self._monotonic() * 1000

    # -- partitions ----------------------------------------------------------------------------

    def _assigned(self, partitions: Collection[TopicPartition]) -> None:
        """Begin anew with these partitions, at the offsets behind what was delivered."""
        with self._named("does not tell its topics"):
            known = {
                (topic, number)
                for topic in self._topics
                for number in self._consumer.partitions_for_topic(topic)
            }
        self._restart(partitions)
        self._has_all = bool(known) and known <= set(partitions)
        self._had_all = self._had_all or self._has_all
        self._lost_at = self._monotonic()
        unknown = [at for at in sorted(partitions) if at not in self._next]
        if unknown and self._settings.auto_offset_reset == "none":
            raise SourceError(
                f"{self._place(unknown[0])}: the store has no offset and auto_offset_reset is "
                f"none; available are {self._available(unknown[0])}"
            )

    def _restart(self, partitions: Collection[TopicPartition]) -> None:
        self._merge.restart(partitions)
        self._position(partitions)

    def _position(self, partitions: Collection[TopicPartition]) -> None:
        policy = self._settings.auto_offset_reset
        for at in partitions:
            if (offset := self._next.get(at)) is not None:
                self._consumer.seek(at, offset)
            elif policy == "earliest":
                self._consumer.seek_to_beginning(at)
            elif policy == "latest":
                self._consumer.seek_to_end(at)

    def _keep_joining(self) -> None:
        # kafka-python 3.0.12 forgets a group that it formed anew for changed metadata if the poll
        # in which that began has ended before: it would never have partitions again.
        self._consumer._coordinator.request_rejoin()

    def _check_alone(self) -> None:
        """Stop if others of the group keep partitions of the topics."""
        if not self._group.was_assigned:
            return  # still joining
        waited_s = self._monotonic() - self._lost_at
        # A process that had everything goes on when the other one, which never had, has left.
        if not self._had_all or waited_s > self._settings.session_timeout_ms / 1000:
            raise SourceError(
                f"{self._servers}: group {self._settings.group_id!r} has another member; "
                "one process must read all partitions"
            )

    def _reset(self, wanted: Mapping[TopicPartition, int]) -> None:
        """An offset is not there any more: go where the policy says, or stop."""
        policy = self._settings.auto_offset_reset
        for at, offset in wanted.items():
            available = self._available(at)
            if policy == "none":
                raise SourceError(
                    f"{self._place(at)}: offset {offset} is not there any more and "
                    f"auto_offset_reset is none; available are {available}"
                )
            log.warning(
                "offset out of range",
                topic=at.topic,
                partition=at.partition,
                wanted=offset,
                available=available,
                going_on_at=policy,
            )
            self._next.pop(at, None)
            self._position([at])

    def _available(self, at: TopicPartition) -> str:
        try:
            first = self._consumer.beginning_offsets([at], timeout_ms=_ASK_MS)[at]
            end = self._consumer.end_offsets([at], timeout_ms=_ASK_MS)[at]
        except kafka_errors.KafkaError as error:
            return f"offsets that the broker does not tell ({error})"
        return f"{first} to {end}"

    def _place(self, at: TopicPartition) -> str:
        return f"{self._servers}: {at.topic}[{at.partition}]"

    def _on_commit(self, offsets: Mapping[TopicPartition, Any], answer: object) -> None:
        if isinstance(answer, Exception):
            log.warning("offsets not committed to the broker", reason=str(answer))
            return
        for at, committed in offsets.items():
            if self._uncommitted.get(at) == committed.offset:
                del self._uncommitted[at]

    @contextmanager
    def _named(self, what: str) -> Iterator[None]:
        try:
            yield
        except (kafka_errors.KafkaError, OSError, ValueError) as error:
            raise SourceError(f"{self._servers}: {what}: {error}") from error
