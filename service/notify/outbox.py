"""Carries out actions: at least once, in order, with a constant idempotency key.

An action is written in the transaction that decided on it, so it exists exactly if its cause does.
It is delivered afterwards, and again if the service dies between the delivery and the note that it
was done: a handler, or whoever it talks to, tells the second time by the action's id.

Several processes may deliver from one store. Each takes a lease on the action it tries, so the
others leave it alone; the lease of a process that died ends, and another one delivers.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog

from service.domain.action import Action, ActionState
from service.store.store import Store

log = structlog.get_logger(__name__)

RETRY_SCHEDULE_S = (0.0, 5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0)
"""Delay before each attempt, as the Standard Webhooks specification recommends."""
JITTER = 0.2
"""Largest share by which a delay grows, so that what failed together is not retried together."""
MAX_AFTER_S = 36_000.0
"""Longest wait that a handler can ask for; a receiver cannot park an action for ever."""
POLL_S = 1.0
"""How often the threads look for actions that became due; new ones wake them up."""
LEASE_S = 120.0
"""How long an action is one process's. Longer than any delivery, or another process delivers it a
second time; and the time that an action waits whose process died."""
STORE_PAUSE_S = 30.0
"""Pause after the store failed. What was delivered could not be noted down and comes again, and a
receiver must not get it every second while the disk is full."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of one attempt; made by `done`, `retry` and `failed`.

    Attributes
    ----------
    state
        Done, failed for good, or still pending.
    detail
        What happened, for people; no secrets.
    after_s
        For a retry, the shortest wait in seconds; the schedule may wait longer.
    """

    state: ActionState
    detail: str = ""
    after_s: float = 0.0

    @classmethod
    def done(cls, detail: str = "") -> Delivery:
        """It is carried out, now or by an earlier attempt."""
        return cls(ActionState.DONE, detail)

    @classmethod
    def retry(cls, detail: str, after_s: float = 0.0) -> Delivery:
        """It may work later."""
        return cls(ActionState.PENDING, detail, after_s)

    @classmethod
    def failed(cls, detail: str) -> Delivery:
        """It will never work as asked."""
        return cls(ActionState.FAILED, detail)


class Handler(Protocol):
    """Carries out the actions of one kind."""

    def deliver(self, action: Action, /) -> Delivery:
        """Try once. The same action can come again, even after it was done."""


def retry_delay(attempts: int, key: str) -> float | None:
    """Seconds between an attempt and the next one.

    Parameters
    ----------
    attempts
        Attempts made so far, 0 or more.
    key
        The action's id, which seeds the jitter: a delay is the same on every machine.

    Returns
    -------
    float or None
        None where no attempt is left.

    Examples
    --------
    >>> [round(retry_delay(n, "a") or 0) for n in range(7)]
    [0, 5, 351, 1923, 8145, 21062, 39404]
    >>> retry_delay(7, "a") is None
    True
    """
    if attempts >= len(RETRY_SCHEDULE_S):
        return None
    digest = hashlib.sha256(f"{key}:{attempts}".encode()).digest()
    share = int.from_bytes(digest[:4], "big") / 2**32
    return RETRY_SCHEDULE_S[attempts] * (1.0 + JITTER * share)


def settled(delivery: Delivery, attempts: int, key: str) -> Delivery:
    """What becomes of an action: as its handler says, within the schedule.

    Parameters
    ----------
    delivery
        What the handler says of the last attempt.
    attempts
        Attempts made so far, this one included.
    key
        As for `retry_delay`.

    Returns
    -------
    Delivery
        For a retry with the wait that holds; failed where no attempt is left.

    Examples
    --------
    >>> settled(Delivery.retry("no answer", after_s=900.0), 1, "a").after_s
    900.0
    >>> settled(Delivery.retry("no answer"), 7, "a").detail
    'gave up after 7 attempts: no answer'
    """
    if delivery.state is not ActionState.PENDING:
        return delivery
    delay = retry_delay(attempts, key)
    if delay is None:
        return Delivery.failed(f"gave up after {attempts} attempts: {delivery.detail}")
    return Delivery.retry(delivery.detail, max(delay, min(delivery.after_s, MAX_AFTER_S)))


class Outbox:
    """Delivers the store's pending actions.

    The actions of one stream and one kind keep their order, except that one which waits for hours
    is overtaken (`service.store.store.HOLD_S`); when a later one gets through, it is tried again at
    once.

    Parameters
    ----------
    store
        Where the actions are.
    handlers
        By kind of action.
    clock
        Returns Unix seconds.
    poll_s, store_pause_s
        As `POLL_S` and `STORE_PAUSE_S`.
    """

    def __init__(
        self,
        store: Store,
        handlers: Mapping[str, Handler],
        clock: Callable[[], float],
        *,
        poll_s: float = POLL_S,
        store_pause_s: float = STORE_PAUSE_S,
    ) -> None:
        self._store = store
        self._handlers = dict(handlers)
        self._clock = clock
        self._poll_s = poll_s
        self._store_pause_s = store_pause_s
        self._wakers: dict[str | None, threading.Event] = {}
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()
        # None stands for the kinds without a handler.
        self._kinds = (*self._handlers, None)
        self._locks = {kind: threading.Lock() for kind in self._kinds}

    def run_once(self) -> int:
        """Deliver everything that is due, and what becomes due by it.

        Returns
        -------
        int
            Attempts made.
        """
        return sum(self._run(kind, threading.Event()) for kind in self._kinds)

    def _run(self, kind: str | None, stopping: threading.Event) -> int:
        attempts = 0
        # Whoever comes second finds what the first one has not done.
        with self._locks[kind]:
            while not stopping.is_set() and (action := self._claim(kind)) is not None:
                self._record(action, self._attempt(action))
                attempts += 1
        return attempts

    def _claim(self, kind: str | None) -> Action | None:
        # One at a time: its lease runs while it is delivered, not while others are.
        claimed = self._store.claim_actions(
            self._clock(),
            LEASE_S,
            kinds=None if kind is None else [kind],
            besides=self._handlers if kind is None else (),
            limit=1,
        )
        return claimed[0] if claimed else None

    def _attempt(self, action: Action) -> Delivery:
        handler = self._handlers.get(action.kind)
        if handler is None:
            return Delivery.failed(f"nothing handles actions of kind {action.kind!r}")
        try:
            return handler.deliver(action)
        except Exception as error:
            log.exception("action raised", action=action.id, kind=action.kind, stream=action.stream)
            return Delivery.retry(f"{type(error).__name__}: {error}")

    def _record(self, action: Action, delivery: Delivery) -> None:
        where = {"action": action.id, "kind": action.kind, "stream": action.stream}
        lease, tries = action.leased_until, action.attempts + 1
        delivery = settled(delivery, tries, action.id)
        state, detail = delivery.state, delivery.detail
        with self._store.transaction() as tx:
            if state is ActionState.PENDING:
                tx.retry_action(action.id, self._clock() + delivery.after_s, detail, lease=lease)
            elif state is ActionState.DONE:
                # Done is done, even if another process tries it again by now.
                tx.finish_action(action.id, state, detail)
                tx.hurry_actions(action.stream, action.kind)
            else:
                tx.finish_action(action.id, state, detail, lease=lease)
        if state is ActionState.PENDING:
            log.warning("action will be retried", **where, after_s=delivery.after_s, reason=detail)
        elif state is ActionState.FAILED:
            log.error("action failed", **where, reason=detail)
        else:
            log.info("action done", **where, attempts=tries)

    # -- threads -------------------------------------------------------------------------------

    def start(self) -> None:
        """Deliver in the background, one thread a kind: a slow receiver delays no repair."""
        if self._threads:
            raise RuntimeError("the outbox runs already")
        # A new event each time: a thread that outlived the last stop must not come to life again.
        self._stopping = threading.Event()
        for kind in self._kinds:
            waker = self._wakers[kind] = threading.Event()
            thread = threading.Thread(
                target=self._loop,
                args=(kind, waker, self._stopping),
                name=f"outbox-{kind or 'rest'}",
                daemon=True,
            )
            self._threads.append(thread)
            thread.start()

    def notify(self) -> None:
        """Say that there are new actions."""
        for waker in tuple(self._wakers.values()):
            waker.set()

    def stop(self, timeout_s: float = 30.0) -> None:
        """Stop after the attempts that are under way; what is left is delivered after a restart.

        Parameters
        ----------
        timeout_s
            How long to wait for each of them. An attempt that takes longer dies with the process
            and is made again.
        """
        self._stopping.set()
        self.notify()
        for thread in self._threads:
            thread.join(timeout_s)
        self._threads.clear()
        self._wakers.clear()

    def _loop(self, kind: str | None, waker: threading.Event, stopping: threading.Event) -> None:
        while not stopping.is_set():
            # Cleared before the search: what is added during it is found by the next one.
            waker.clear()
            try:
                self._run(kind, stopping)
            except Exception:
                # The store is locked or full. A thread that ended would be missed much later.
                log.exception("outbox could not go on", kind=kind, pause_s=self._store_pause_s)
                stopping.wait(self._store_pause_s)
            waker.wait(self._poll_s)
