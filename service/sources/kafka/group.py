"""Membership in the consumer group, on a thread of its own.

The thread keeps the heartbeat and takes part in rebalances whatever the main thread does, be it
a test of half a second or a store that is away. What the group gives and takes is handed over as
changes, which the main thread makes between two batches. A revocation is answered when the main
thread has written, or after a while: then the store's fence keeps order.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from queue import Empty, SimpleQueue

import structlog

from service.sources.kafka.client import (
    AwayError,
    ClientError,
    FencedMemberError,
    GroupListener,
    Member,
)
from service.sources.source import Partition

log = structlog.get_logger()

_POLL_S = 0.1
_AWAY_S = 0.5


class ChangeKind(StrEnum):
    """What the group did."""

    ASSIGNED = "assigned"
    REVOKED = "revoked"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Change:
    """Lanes that came or went; `done` is set when the main thread has acted on it."""

    kind: ChangeKind
    lanes: frozenset[int]
    done: threading.Event = field(default_factory=threading.Event)


class Group:
    """A member of the group and its thread.

    Parameters
    ----------
    join
        Makes the member; called on the thread.
    answer_s
        Seconds that the group waits for the main thread to let go of revoked lanes.
    """

    def __init__(self, join: Callable[[GroupListener], Member], answer_s: float) -> None:
        self._join = join
        self._answer_s = answer_s
        self._changes: SimpleQueue[Change] = SimpleQueue()
        self._to_commit: dict[Partition, int] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kafka-group", daemon=True)
        self.error: ClientError | None = None
        """Why the thread has ended, if it ended by itself."""

    def start(self) -> None:
        """Join the group."""
        self._thread.start()

    def changes(self) -> list[Change]:
        """What the group did since the last call, in order."""
        found = []
        while True:
            try:
                found.append(self._changes.get_nowait())
            except Empty:
                return found

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Have offsets written to the broker soon."""
        with self._lock:
            self._to_commit.update(offsets)

    def close(self) -> None:
        """Commit what is left and leave; what the group says from now on is not waited for."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=30)

    # -- the listener, on the thread -----------------------------------------------------------

    def assigned(self, partitions: Collection[int]) -> None:
        """Hand lanes over."""
        self._changes.put(Change(ChangeKind.ASSIGNED, frozenset(partitions)))

    def revoked(self, partitions: Collection[int]) -> None:
        """Have lanes written, and wait for it."""
        change = Change(ChangeKind.REVOKED, frozenset(partitions))
        self._changes.put(change)
        until = self._answer_s
        while until > 0 and not self._stop.is_set() and not change.done.wait(_POLL_S):
            until -= _POLL_S

    def lost(self, partitions: Collection[int]) -> None:
        """Have lanes forgotten."""
        self._changes.put(Change(ChangeKind.LOST, frozenset(partitions)))

    # -- the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        member = None
        is_away = False
        try:
            while not self._stop.is_set():
                try:
                    member = member or self._join(self)
                    member.poll(_POLL_S)
                    is_away = False
                    self._commit(member)
                except AwayError as error:
                    if not is_away:
                        log.warning("group away", reason=str(error))
                    is_away = True
                    self._stop.wait(_AWAY_S)
        except ClientError as error:
            self.error = error
        if member is not None:
            self._leave(member)

    def _commit(self, member: Member) -> None:
        with self._lock:
            offsets, self._to_commit = self._to_commit, {}
        if offsets:
            try:
                member.commit(offsets)
            except FencedMemberError:
                raise
            except (AwayError, ClientError) as error:
                log.warning("offsets not committed to the broker", reason=str(error))

    def _leave(self, member: Member) -> None:
        try:
            if self.error is None:
                self._commit(member)
            member.close()
        except (AwayError, ClientError) as error:
            log.warning("broker not told of the end", reason=str(error))
