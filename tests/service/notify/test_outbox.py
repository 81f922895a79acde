import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from service.domain.action import Action
from service.notify.outbox import (
    JITTER,
    LEASE_S,
    MAX_AFTER_S,
    POLL_S,
    RETRY_SCHEDULE_S,
    Delivery,
    Handler,
    Outbox,
    retry_delay,
    settled,
)
from service.settings.service import WebhookSettings
from service.store.errors import StoreError
from service.store.store import HOLD_S, Store

N_ATTEMPTS = len(RETRY_SCHEDULE_S)


@pytest.mark.parametrize(
    ("said", "attempts", "expected"),
    [
        (Delivery.done("ok"), 1, Delivery.done("ok")),
        (Delivery.done("ok"), N_ATTEMPTS + 5, Delivery.done("ok")),
        (Delivery.failed("no"), 1, Delivery.failed("no")),
        (Delivery.retry("down"), 1, Delivery.retry("down", retry_delay(1, "a") or 0)),
        (Delivery.retry("down", 2.0), 1, Delivery.retry("down", retry_delay(1, "a") or 0)),
        (Delivery.retry("down", 1000.0), 1, Delivery.retry("down", 1000.0)),
        (Delivery.retry("down", 1e9), 1, Delivery.retry("down", MAX_AFTER_S)),
        (
            Delivery.retry("down", 1.0),
            N_ATTEMPTS,
            Delivery.failed(f"gave up after {N_ATTEMPTS} attempts: down"),
        ),
    ],
    ids=[
        "done",
        "done late",
        "failed",
        "retried on schedule",
        "asks for less than the schedule",
        "asks for more",
        "asks for ever",
        "no attempt left",
    ],
)
def test_each_answer_has_its_consequence(said: Delivery, attempts: int, expected: Delivery) -> None:
    assert settled(said, attempts, "a") == expected


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Receiver:
    """A handler that answers as told, and remembers what it was given."""

    def __init__(self, answer: Callable[[Action], Delivery] = lambda _: Delivery.done()) -> None:
        self.answer = answer
        self.seen: list[str] = []
        self.arrived = threading.Event()

    def deliver(self, action: Action) -> Delivery:
        self.seen.append(action.id)
        self.arrived.set()
        return self.answer(action)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(any_database: str, clock: Clock) -> Iterator[Store]:
    store = Store(any_database, clock)
    yield store
    store.close()


def add(store: Store, *ids: str, stream: str = "digits", kind: str = "webhook") -> None:
    with store.transaction() as tx:
        for id_ in ids:
            tx.add_action(Action(id_, stream, "inc-1", kind))


def states(store: Store) -> dict[str, str]:
    return {a.id: str(a.state) for a in store.actions()}


# -- the schedule ------------------------------------------------------------------------------


@pytest.mark.parametrize(("attempts", "base"), enumerate(RETRY_SCHEDULE_S))
def test_a_delay_is_the_schedule_plus_a_little(attempts: int, base: float) -> None:
    for key in ("a", "b", "c"):
        delay = retry_delay(attempts, key)
        assert delay is not None
        assert base <= delay <= base * (1 + JITTER)
        assert delay == retry_delay(attempts, key)


def test_the_schedule_ends() -> None:
    assert retry_delay(len(RETRY_SCHEDULE_S), "a") is None


def test_actions_that_failed_together_are_not_retried_together() -> None:
    assert len({retry_delay(3, f"a-{n}") for n in range(20)}) == 20


def test_the_first_retries_come_before_later_actions_may_overtake() -> None:
    assert RETRY_SCHEDULE_S[2] * (1 + JITTER) < HOLD_S < RETRY_SCHEDULE_S[3]


# -- delivery ----------------------------------------------------------------------------------


def test_due_actions_are_delivered_once_and_in_order(store: Store, clock: Clock) -> None:
    receiver = Receiver()
    outbox = Outbox(store, {"webhook": receiver}, clock)
    add(store, "a", "b", "c")
    assert outbox.run_once() == 3
    assert outbox.run_once() == 0
    assert receiver.seen == ["a", "b", "c"]
    assert set(states(store).values()) == {"done"}


def test_an_action_that_is_not_due_yet_waits(store: Store, clock: Clock) -> None:
    receiver = Receiver()
    outbox = Outbox(store, {"webhook": receiver}, clock)
    with store.transaction() as tx:
        tx.add_action(Action("a", "digits", "inc-1", "webhook", due_at=1060.0))
    assert outbox.run_once() == 0
    clock.now = 1060.0
    assert outbox.run_once() == 1


def test_a_receiver_that_stays_down_gets_every_attempt_of_the_schedule(
    store: Store, clock: Clock
) -> None:
    receiver = Receiver(lambda _: Delivery.retry("down"))
    outbox = Outbox(store, {"webhook": receiver}, clock)
    add(store, "a")
    times: list[float] = []
    while states(store)["a"] == "pending":
        clock.now = max(clock.now, store.actions()[0].due_at)
        assert outbox.run_once() == 1
        times.append(clock.now)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert gaps == [pytest.approx(retry_delay(n, "a")) for n in range(1, len(RETRY_SCHEDULE_S))]
    assert states(store) == {"a": "failed"}
    assert store.actions()[0].detail == "gave up after 7 attempts: down"


def test_a_retry_waits_as_long_as_it_asks_but_not_for_ever(store: Store, clock: Clock) -> None:
    asked = 900.0
    outbox = Outbox(store, {"webhook": Receiver(lambda _: Delivery.retry("", asked))}, clock)
    add(store, "a")
    outbox.run_once()
    assert store.actions()[0].due_at == 1900.0
    clock.now, asked = 1900.0, 1e9
    outbox.run_once()
    assert store.actions()[0].due_at == 1900.0 + MAX_AFTER_S
    clock.now, asked = store.actions()[0].due_at, 1.0
    outbox.run_once()
    assert store.actions()[0].due_at == pytest.approx(clock.now + (retry_delay(3, "a") or 0))


def test_a_handler_that_raises_is_tried_again(store: Store, clock: Clock) -> None:
    def answer(action: Action) -> Delivery:
        if action.attempts == 0:
            raise RuntimeError("boom")
        return Delivery.done()

    outbox = Outbox(store, {"webhook": Receiver(answer)}, clock)
    add(store, "a")
    assert outbox.run_once() == 1
    assert store.actions()[0].detail == "RuntimeError: boom"
    clock.now += 10
    assert outbox.run_once() == 1
    assert states(store) == {"a": "done"}


def test_a_failure_for_good_lets_the_next_action_go(store: Store, clock: Clock) -> None:
    receiver = Receiver(lambda a: Delivery.failed("no") if a.id == "a" else Delivery.done())
    outbox = Outbox(store, {"webhook": receiver}, clock)
    add(store, "a", "b")
    assert outbox.run_once() == 2
    assert states(store) == {"a": "failed", "b": "done"}


def test_a_receiver_that_is_down_holds_up_its_own_actions_only(store: Store, clock: Clock) -> None:
    down = Receiver(lambda _: Delivery.retry("down"))
    up = Receiver()
    outbox = Outbox(store, {"webhook:0": down, "webhook:1": up}, clock)
    add(store, "a", "b", kind="webhook:0")
    add(store, "c", "d", kind="webhook:1")
    outbox.run_once()
    assert down.seen == ["a"]
    assert up.seen == ["c", "d"]


def test_after_an_outage_newer_alarms_come_at_once_and_bring_the_old_ones(
    store: Store, clock: Clock
) -> None:
    is_up = False
    receiver = Receiver(lambda _: Delivery.done() if is_up else Delivery.retry("down"))
    outbox = Outbox(store, {"webhook": receiver}, clock)
    add(store, "old")
    for _ in range(4):
        clock.now = store.actions()[0].due_at
        clock.now = max(clock.now, 1000.0)
        outbox.run_once()
    assert store.actions()[0].due_at > clock.now + HOLD_S
    is_up = True
    add(store, "new")
    outbox.run_once()
    assert receiver.seen[-2:] == ["new", "old"]
    assert states(store) == {"old": "done", "new": "done"}


def test_an_action_that_nothing_handles_fails_and_says_so(store: Store, clock: Clock) -> None:
    add(store, "a", kind="webhook:removed")
    assert Outbox(store, {}, clock).run_once() == 1
    assert store.actions()[0].detail == "nothing handles actions of kind 'webhook:removed'"


# -- crashes -----------------------------------------------------------------------------------


def test_a_crash_between_delivery_and_note_delivers_again_with_the_same_key(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = Receiver()
    add(store, "a", "b")
    with monkeypatch.context() as patch:

        def crash(self: Store) -> None:
            raise StoreError("crashed")

        patch.setattr(Store, "transaction", crash)
        with pytest.raises(StoreError):
            Outbox(store, {"webhook": receiver}, clock).run_once()
    # The lease of the one that crashed has to end.
    assert Outbox(store, {"webhook": receiver}, clock).run_once() == 0
    clock.now += LEASE_S
    Outbox(store, {"webhook": receiver}, clock).run_once()
    assert receiver.seen == ["a", "a", "b"]
    assert states(store) == {"a": "done", "b": "done"}


def test_what_was_pending_is_delivered_after_a_restart(any_database: str, clock: Clock) -> None:
    first = Store(any_database, clock)
    add(first, "a", "b")
    Outbox(first, {"webhook": Receiver(lambda _: Delivery.retry("down"))}, clock).run_once()
    first.close()
    second = Store(any_database, clock)
    receiver = Receiver()
    clock.now += 10
    assert Outbox(second, {"webhook": receiver}, clock).run_once() == 2
    assert receiver.seen == ["a", "b"]
    second.close()


# -- several processes -------------------------------------------------------------------------


@pytest.fixture
def other(any_database: str, clock: Clock, store: Store) -> Iterator[Store]:
    other = Store(any_database, clock)
    yield other
    other.close()


def test_what_one_process_delivers_no_other_one_tries(
    store: Store, other: Store, clock: Clock
) -> None:
    quick = Receiver()
    second = Outbox(other, {"webhook": quick}, clock)
    attempts: list[int] = []

    def deliver(_: Action) -> Delivery:
        attempts.append(second.run_once())
        return Delivery.done()

    slow = Receiver(deliver)
    add(store, "a", "b")
    add(store, "c", stream="fraud")
    assert Outbox(store, {"webhook": slow}, clock).run_once() == 2
    # While "a" was under way only the other stream's was free; "b" came after it.
    assert slow.seen == ["a", "b"]
    assert quick.seen == ["c"]
    assert attempts == [1, 0]
    assert set(states(store).values()) == {"done"}


def test_the_action_of_a_process_that_died_is_delivered_by_another_one(
    store: Store, other: Store, clock: Clock
) -> None:
    class KilledError(BaseException):
        pass

    def die(_: Action) -> Delivery:
        raise KilledError

    add(store, "a", "b")
    with pytest.raises(KilledError):
        Outbox(store, {"webhook": Receiver(die)}, clock).run_once()
    receiver = Receiver()
    survivor = Outbox(other, {"webhook": receiver}, clock)
    clock.now += LEASE_S - 1
    assert survivor.run_once() == 0
    clock.now += 1
    assert survivor.run_once() == 2
    assert receiver.seen == ["a", "b"]


@pytest.mark.parametrize(
    ("late", "state", "attempts"),
    [
        (Delivery.done("late"), "done", 1),
        (Delivery.retry("late"), "pending", 0),
        (Delivery.failed("late"), "pending", 0),
    ],
)
def test_a_process_that_comes_back_after_its_lease_can_only_say_that_it_is_done(
    store: Store, other: Store, clock: Clock, late: Delivery, state: str, attempts: int
) -> None:
    def sleep(_: Action) -> Delivery:
        clock.now += LEASE_S
        assert len(other.claim_actions(clock.now, LEASE_S)) == 1
        return late

    add(store, "a")
    assert Outbox(store, {"webhook": Receiver(sleep)}, clock).run_once() == 1
    (action,) = store.actions()
    assert (str(action.state), action.attempts) == (state, attempts)
    assert action.leased_until == (None if state == "done" else clock.now + LEASE_S)


def test_a_lease_is_longer_than_the_longest_attempt() -> None:
    field = WebhookSettings.model_fields["timeout_s"]
    longest = max(m.le for m in field.metadata if hasattr(m, "le"))
    assert longest * 1.5 <= LEASE_S


def test_two_running_outboxes_deliver_each_action_once(
    store: Store, other: Store, clock: Clock
) -> None:
    n = 10
    delivered = threading.Semaphore(0)

    def answer(_: Action) -> Delivery:
        delivered.release()
        return Delivery.done()

    receivers = Receiver(answer), Receiver(answer)
    add(store, *(f"a{i}" for i in range(n)), stream="digits")
    add(store, *(f"b{i}" for i in range(n)), stream="fraud")
    boxes = [running(s, clock, webhook=r) for s, r in zip((store, other), receivers, strict=True)]
    for _ in range(2 * n):
        assert delivered.acquire(timeout=30)
        for box in boxes:
            box.notify()
    for box in boxes:
        box.stop()
    assert sorted(receivers[0].seen + receivers[1].seen) == sorted(states(store))
    assert set(states(store).values()) == {"done"}


# -- threads -----------------------------------------------------------------------------------


def running(store: Store, clock: Clock, *, poll_s: float = POLL_S, **handlers: Handler) -> Outbox:
    outbox = Outbox(store, handlers, clock, poll_s=poll_s, store_pause_s=0.01)
    outbox.start()
    return outbox


def test_a_running_outbox_delivers_what_it_is_told_of(store: Store, clock: Clock) -> None:
    receiver = Receiver()
    outbox = running(store, clock, poll_s=60.0, webhook=receiver)
    with pytest.raises(RuntimeError, match="runs already"):
        outbox.start()
    add(store, "a")
    outbox.notify()
    assert receiver.arrived.wait(10)
    outbox.stop()
    assert states(store) == {"a": "done"}


def test_a_slow_handler_does_not_delay_another_kind(store: Store, clock: Clock) -> None:
    release = threading.Event()

    def wait(_: Action) -> Delivery:
        release.wait(10)
        return Delivery.done()

    slow, quick = Receiver(wait), Receiver()
    add(store, "a", "b", kind="slow")
    outbox = running(store, clock, slow=slow, quick=quick)
    assert slow.arrived.wait(10)
    add(store, "c", kind="quick")
    outbox.notify()
    assert quick.arrived.wait(10)
    stopper = threading.Thread(target=outbox.stop)
    stopper.start()
    assert outbox._stopping.wait(10)
    release.set()
    stopper.join(10)
    # What was under way is finished, the rest is left for the next start.
    assert states(store) == {"a": "done", "b": "pending", "c": "done"}
    assert outbox.run_once() == 1


class FailsOnce(Store):
    """A store that is full when it is first asked for actions."""

    def __init__(self, url: str, clock: Clock) -> None:
        super().__init__(url, clock)
        self.failed = threading.Event()

    def claim_actions(self, *args: Any, **kwargs: Any) -> list[Action]:
        if not self.failed.is_set():
            self.failed.set()
            raise StoreError("the disk is full")
        return super().claim_actions(*args, **kwargs)


def test_a_store_that_fails_does_not_end_the_threads(tmp_path: Path, clock: Clock) -> None:
    with closing(FailsOnce(f"sqlite:///{tmp_path}/s.db", clock)) as store:
        receiver = Receiver()
        add(store, "a")
        outbox = running(store, clock, poll_s=0.01, webhook=receiver)
        assert receiver.arrived.wait(10)
        outbox.stop()
        assert store.failed.is_set()
        assert states(store) == {"a": "done"}
