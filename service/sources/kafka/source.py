"""Topics of Kafka as a source.

A lane is one partition number of all topics; the consumer group says which lanes are this process's
(`service.sources.kafka.group`). The store decides where each goes on: a lane that is assigned is
read from the offsets its owner names. The offsets that `commit` writes to the broker are for people
and tools; they are never read.

The records of a lane are merged in the order of their times (`service.sources.kafka.merge`), so the
result does not depend on how they reach the process. Lanes do not wait for each other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache

import structlog

from service.records.block import Block, Piece
from service.settings.source import SourceSettings
from service.sources.kafka.client import (
    AwayError,
    ClientError,
    FencedMemberError,
    GroupListener,
    Member,
    OffsetsGoneError,
    Reader,
    check_certificates,
)
from service.sources.kafka.group import Change, ChangeKind, Group
from service.sources.kafka.kafka_python import KafkaPythonMember, KafkaPythonReader
from service.sources.kafka.merge import Merge
from service.sources.source import NotNowError, Owner, Partition, SourceError

log = structlog.get_logger()

_BUFFERED_BYTES = 16 * 1024 * 1024
_BUFFERED_RECORDS = 10_000
"""A partition with more waiting is not read on until others have caught up."""
_RETRY_S = 0.5
_IDLE_S = 0.005
"""The shortest wait for another partition, so that it is not a busy loop."""


def _client(
    name: str,
) -> tuple[
    Callable[[SourceSettings], Reader], Callable[[SourceSettings, str, GroupListener], Member]
]:
    """The reader and the member of a client, by its name in the settings."""
    if name == "kafka-python":
        return KafkaPythonReader, KafkaPythonMember
    try:
        from service.sources.kafka.confluent import ConfluentMember, ConfluentReader  # noqa: PLC0415
    except ModuleNotFoundError as error:  # an extra
        raise SourceError(
            f"source.client: {name} needs the package confluent-kafka, which is not installed: "
            "pip install 'shiftwatch[confluent]'"
        ) from error
    return ConfluentReader, ConfluentMember


class KafkaSource:
    """The lanes of the configured topics that the group gives to this process.

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
        If the client is not installed, no broker can be reached or it does not accept the login or
        the certificate, a topic does not exist, or the topics have different numbers of
        partitions. Later if an offset is not there any more and `auto_offset_reset` is none,
        if the broker refuses what is asked, or a batch is damaged. A broker that is away is no
        error: `poll` returns nothing until it is back.
    """

    seeks_back = True

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
        self._owner: Owner
        self._next: dict[Partition, int] = {}
        self._merges: dict[int, Merge] = {}
        self._wanted: set[int] = set()
        self._incomplete: set[int] = set()
        self._held: set[Partition] = set()
        self._first_turn = 0
        self._retry_at = 0.0
        self._is_away = False
        self._is_closed = False
        open_reader, self._open_member = _client(settings.client)
        with self._named("cannot be used"):
            check_certificates(settings)
        with self._reached():
            self._reader = open_reader(settings)
        try:
            with self._reached():
                self._total = self._count_lanes()
        except SourceError:
            self._reader.close()
            raise
        self._group = Group(self._join, settings.session_timeout_ms / 2000)

    def _counts(self) -> Mapping[str, int]:
        with self._named("does not tell its topics"):
            return {t: len(self._reader.partitions(t)) for t in self._topics}

    def _count_lanes(self) -> int:
        counts = self._counts()
        for topic, n in counts.items():
            if n == 0:
                raise SourceError(f"{self._servers}: there is no topic {topic!r}")
            if n != counts[self._topics[0]]:
                raise SourceError(
                    f"{self._servers}: {self._topics[0]!r} has {counts[self._topics[0]]} "
                    f"partitions and {topic!r} has {n}; a record and its label must be in "
                    "partitions of the same number, so expected as many"
                )
        return counts[self._topics[0]]

    def _join(self, listener: GroupListener) -> Member:
        return self._open_member(self._settings, self._topics[0], listener)

    # -- the contract --------------------------------------------------------------------------

    def start(self, owner: Owner) -> None:
        """Join the group."""
        self._owner = owner
        self._group.start()

    def release(self, lane: int) -> None:
        """Read the lane no more."""
        self._forget({lane})

    def poll(self, max_records: int = 500, timeout_s: float = 1.0) -> Block:
        """Return the records whose turn it is; none while the broker is away."""
        until = self._monotonic() + timeout_s
        max_records = min(max_records, self._settings.max_poll_records)
        self._follow_group()
        if not self._has_waiting(max_records):
            self._fetch(0.0)
        found = self._take(max_records)
        while not found and (left := until - self._monotonic()) > 0:
            self._follow_group()
            self._fetch(min(left, self._wait_s()))
            found = self._take(max_records)
        return found

    def seek(self, offsets: Mapping[Partition, int]) -> None:
        """Go to these offsets in the lanes that are read; others are not its business."""
        known = {at: n for at, n in offsets.items() if at in self._next}
        if known:
            self._next.update(known)
            self._read_from_here()

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Have the offsets written to the broker, for people and tools; it may fail."""
        self._group.commit({at: n for at, n in offsets.items() if at in self._next})

    @property
    def exhausted(self) -> bool:
        """Never: a topic goes on."""
        return False

    def lag(self) -> int | None:
        """Records up to the ends of the partitions as last heard; None while one is not known."""
        lags = self.lags()
        return sum(lags.values()) if lags and len(lags) == len(self._next) else None

    def lags(self) -> Mapping[Partition, int]:
        """The same by partition."""
        ends = {at: self._reader.end(at) for at in self._next}
        return {at: max(n - self._next[at], 0) for at, n in ends.items() if n is not None}

    def close(self) -> None:
        """Commit what is not committed yet, if the broker answers, and leave."""
        if self._is_closed:
            return
        self._is_closed = True
        self._group.close()
        try:
            self._reader.close()
        except (AwayError, ClientError) as error:
            log.warning("broker not told of the end", servers=self._servers, reason=str(error))

    # -- lanes ---------------------------------------------------------------------------------

    def _follow_group(self) -> None:
        """Give up and take over lanes as the group says."""
        for change in self._group.changes():
            self._change(change)
        if self._group.error is not None:
            reason = str(self._group.error)
            if isinstance(self._group.error, FencedMemberError):
                name = self._settings.group_instance_id
                reason = f"another process has taken the group_instance_id {name!r}"
            raise SourceError(f"{self._servers}: group {self._settings.group_id!r}: {reason}")
        if self._wanted and self._monotonic() >= self._retry_at:
            self._take_over()

    def _change(self, change: Change) -> None:
        log.info("group", change=str(change.kind), lanes=sorted(change.lanes))
        if change.kind is ChangeKind.ASSIGNED:
            self._wanted |= change.lanes
            return
        if change.kind is ChangeKind.REVOKED:
            self._owner.revoked(change.lanes)
        else:
            self._owner.lost(change.lanes)
        self._wanted -= change.lanes
        self._forget(change.lanes)
        change.done.set()

    def _take_over(self) -> None:
        """Read the lanes that are new, from where their owner says; or try again later."""
        self._retry_at = self._monotonic() + _RETRY_S
        new = self._complete()
        if not new:
            return
        try:
            offsets = self._owner.assigned(new, self._total)
        except NotNowError as error:
            log.warning("lanes not taken over yet", lanes=sorted(new), reason=str(error))
            return
        places = {
            (topic, lane): offsets.get((topic, lane)) for topic in self._topics for lane in new
        }
        missing = [at for at, offset in places.items() if offset is None]
        try:
            begun = self._begin(missing) if missing else {}
        except AwayError as error:
            self._away(error)
            self._owner.lost(new)
            return
        self._owner.begun(begun)
        self._next |= {at: begun[at] if n is None else n for at, n in places.items()}
        for lane in new:
            self._merges[lane] = Merge(self._settings.merge_wait_ms)
        self._wanted -= new
        self._read_from_here()

    def _complete(self) -> frozenset[int]:
        """The wanted lanes that all topics have: one topic gets a new partition before another."""
        if max(self._wanted) >= self._total:
            try:
                counts = self._counts()
            except AwayError as error:
                self._away(error)
            else:
                self._total = min(counts.values())
                incomplete = {lane for lane in self._wanted if lane >= self._total}
                if incomplete != self._incomplete:
                    log.warning("partitions added", counts=counts, not_in_all=sorted(incomplete))
                self._incomplete = incomplete
        return frozenset(lane for lane in self._wanted if lane < self._total)

    def _begin(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        """Where the policy begins partitions that the store has no offset of."""
        policy = self._settings.auto_offset_reset
        with self._named("does not tell its offsets"):
            bounds = self._reader.bounds(partitions)
        if policy == "none":
            at = partitions[0]
            raise SourceError(
                f"{self._place(at)}: the store has no offset and auto_offset_reset is none; "
                f"available are {bounds[at]}"
            )
        return {at: b.first if policy == "earliest" else b.end for at, b in bounds.items()}

    def _forget(self, lanes: Collection[int]) -> None:
        known = self._merges.keys() & set(lanes)
        if not known:
            return
        for lane in known:
            del self._merges[lane]
        self._next = {at: n for at, n in self._next.items() if at[1] not in lanes}
        self._read_from_here()

    def _read_from_here(self) -> None:
        """Read all lanes from the offsets behind what was delivered."""
        for lane, merge in self._merges.items():
            merge.restart((topic, lane) for topic in self._topics)
        with self._named("cannot be read"):
            self._reader.assign(self._next)

    # -- records -------------------------------------------------------------------------------

    def _has_waiting(self, n: int) -> bool:
        """Whether so many records of every partition wait: a fetch would only pile up more."""
        return bool(self._merges) and all(
            merge.count(at) >= n for merge in self._merges.values() for at in merge.partitions
        )

    def _fetch(self, timeout_s: float) -> None:
        """Ask for records, and put them where they wait for their turn."""
        if not self._next:
            time.sleep(min(timeout_s, _RETRY_S / 10))
            return
        self._held = self._full()
        self._reader.hold(self._held)
        try:
            with self._named(f"{', '.join(self._topics)}: cannot be read"):
                fetched = self._reader.poll(timeout_s)
        except OffsetsGoneError as error:
            self._reset(error.offsets)
            return
        except AwayError as error:
            self._away(error)
            time.sleep(min(timeout_s, _RETRY_S))
            return
        self._is_away = self._is_away and not fetched
        for at, block in fetched.items():
            self._merges[at[1]].put(at, block, self._now_ms(), self._clock() * 1000)

    def _full(self) -> set[Partition]:
        """Partitions with too much waiting; once full, until half of it is gone."""
        full = set()
        for merge in self._merges.values():
            for at in merge.partitions:
                share = 2 if at in self._held else 1
                if (
                    merge.count(at) * share >= _BUFFERED_RECORDS
                    or merge.size(at) * share >= _BUFFERED_BYTES
                ):
                    full.add(at)
        return full

    def _take(self, max_records: int) -> Block:
        """The next records, of one lane after the other; each time another lane is first."""
        pieces: list[Piece] = []
        at_end = cache(self._reader.is_at_end)  # the client's answer costs more than a record
        now = self._now_ms()
        lanes = sorted(self._merges)
        self._first_turn += 1
        for n in range(len(lanes)):
            if max_records <= 0:
                break
            merge = self._merges[lanes[(n + self._first_turn) % len(lanes)]]
            taken = merge.take(max_records, now, at_end)
            pieces += taken
            max_records -= sum(stop - start for _, start, stop in taken)
        found = Block.gathered(pieces)
        self._next |= found.next_offsets()
        return found

    def _wait_s(self) -> float:
        """How long a fetch may wait before a record that waits already has its turn."""
        now = self._now_ms()
        waits = [w for m in self._merges.values() if (w := m.wait_ms(now)) is not None]
        return max(min(waits, default=100.0) / 1000, _IDLE_S)

    def _reset(self, wanted: Mapping[Partition, int]) -> None:
        """Offsets are not there any more: go where the policy says, or stop."""
        policy = self._settings.auto_offset_reset
        try:
            with self._named("does not tell its offsets"):
                bounds = self._reader.bounds(list(wanted))
        except AwayError as error:
            self._away(error)
            return
        for at, offset in wanted.items():
            if policy == "none":
                raise SourceError(
                    f"{self._place(at)}: offset {offset} is not there any more and "
                    f"auto_offset_reset is none; available are {bounds[at]}"
                )
            log.error(
                "offset out of range",
                topic=at[0],
                partition=at[1],
                wanted=offset,
                available=str(bounds[at]),
                going_on_at=policy,
            )
        begun = {at: b.first if policy == "earliest" else b.end for at, b in bounds.items()}
        self._next |= begun
        self._owner.begun(begun, wanted)
        self._read_from_here()

    # -- words ---------------------------------------------------------------------------------

    def _away(self, error: AwayError) -> None:
        if not self._is_away:
            log.warning("broker away", servers=self._servers, reason=str(error))
        self._is_away = True

    def _now_ms(self) -> float:
        return self._monotonic() * 1000

    def _place(self, at: Partition) -> str:
        return f"{self._servers}: {at[0]}[{at[1]}]"

    @contextmanager
    def _named(self, what: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            raise SourceError(f"{self._servers}: {what}: {error}") from error

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """At the start a broker that is away is an error too."""
        try:
            with self._named("cannot be reached"):
                yield
        except AwayError as error:
            raise SourceError(f"{self._servers}: cannot be reached: {error}") from error
