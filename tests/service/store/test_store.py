import itertools
import random
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa

from service.domain.action import Action, ActionState
from service.domain.dead_letter import DeadLetter
from service.domain.incident import Incident, IncidentState, Point
from service.domain.job import Job, JobState
from service.domain.sample import ContentKind, StoredSample
from service.store import database, tables, transaction
from service.store.errors import FencedError, StoreError
from service.store.store import HOLD_S, Store
from service.store.transaction import Transaction

T = TypeVar("T")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def url(any_database: str) -> str:
    return any_database


@pytest.fixture
def store(url: str, clock: Clock) -> Iterator[Store]:
    store = Store(url, clock)
    yield store
    store.close()


@pytest.fixture
def sqlite_store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'store.db'}", clock)
    yield store
    store.close()


def incident(id_: str = "inc-1", **changes: Any) -> Incident:
    values: dict[str, Any] = {
        "id": id_,
        "stream": "digits",
        "state": IncidentState.SUSPECTED,
        "kind": "none",
        "factors": ("concept",),
        "opened_at": Point(205, "2026-11-23T10:00:00Z"),
    }
    return Incident(**(values | changes))


def sample(index: int, **changes: Any) -> StoredSample:
    values: dict[str, Any] = {
        "index": index,
        "id": f"e-{index}",
        "time": "2026-11-23T10:00:00Z",
        "content": b"{}",
        "kind": ContentKind.FEATURES,
    }
    return StoredSample(**(values | changes))


def letter(offset: int, **changes: Any) -> DeadLetter:
    values: dict[str, Any] = {
        "topic": "events",
        "partition": 0,
        "offset": offset,
        "stream": "",
        "reason": "not_json",
        "message": "expected a JSON object",
        "value": b"{",
    }
    return DeadLetter(**(values | changes))


ACTION = Action("a-1", "digits", "inc-1", "webhook:0", {"event": "incident.confirmed"})
JOB = Job("j-1", "digits", "inc-1", "fine_tune", {"change_point": 205})


def write_everything(tx: Transaction) -> None:
    tx.put_offsets({("events", 0): 7})
    tx.put_state("digits", b"state")
    tx.put_incident(incident())
    tx.add_action(ACTION)
    tx.add_job(JOB)
    tx.set_champion("digits", 1, "trained", 0)
    tx.put_samples("digits", [sample(0)], keep=10)
    tx.label_samples("digits", [(0, "3")])
    tx.put_dead_letters([letter(3)])


def fail(tx: Transaction) -> None:
    write_everything(tx)
    raise RuntimeError("boom")


def force_second_job(tx: Transaction) -> None:
    row = tx._connection.execute(sa.select(tables.jobs)).mappings().one()
    tx._connection.execute(tables.jobs.insert().values({**row, "id": "j-2", "sequence": 2}))


def everything(store: Store) -> list[object]:
    return [
        store.offsets(),
        store.state("digits"),
        store.incidents(),
        store.actions(),
        store.jobs(),
        store.champion("digits"),
        store.samples("digits"),
        store.dead_letters(),
    ]


def in_several_stores(url: str, do: Callable[[Store, int], T], n: int = 4) -> list[T]:
    """Does something at once in stores of their own, as several processes would."""
    stores = [Store(url, lambda: 1000.0) for _ in range(n)]
    start = threading.Barrier(n)

    def run(k: int) -> T:
        start.wait(10)
        return do(stores[k], k)

    with ThreadPoolExecutor(n) as pool:
        done = list(pool.map(run, range(n)))
    for store in stores:
        store.close()
    return done


# -- the transaction ---------------------------------------------------------------------------


def test_what_a_transaction_wrote_is_there_after_a_restart(
    store: Store, url: str, clock: Clock
) -> None:
    with store.transaction() as tx:
        write_everything(tx)
    before = everything(store)
    store.close()
    again = Store(url, clock)
    assert everything(again) == before
    assert before[0] == {("events", 0): 7}
    assert before[1] == b"state"
    assert before[2] == [incident()]
    again.close()


def test_a_transaction_that_raises_leaves_nothing(store: Store) -> None:
    with pytest.raises(RuntimeError, match="boom"), store.transaction() as tx:
        fail(tx)
    assert not any(everything(store))


@pytest.mark.parametrize("n_writes", range(1, 9))
def test_a_write_that_fails_takes_all_earlier_ones_back(
    store: Store, monkeypatch: pytest.MonkeyPatch, n_writes: int
) -> None:
    original = sa.Connection.execute
    calls = 0

    def fail_later(self: sa.Connection, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > n_writes:
            raise sa.exc.OperationalError("x", {}, sqlite3.OperationalError("disk I/O error"))
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(sa.Connection, "execute", fail_later)
        with pytest.raises(StoreError, match="disk I/O error"), store.transaction() as tx:
            write_everything(tx)
    assert not any(everything(store))


def test_writing_the_same_again_changes_nothing(store: Store) -> None:
    with store.transaction() as tx:
        write_everything(tx)
    before = everything(store)
    with store.transaction() as tx:
        assert not tx.add_action(ACTION)
        assert not tx.add_job(JOB)
        tx.put_offsets({("events", 0): 7})
        tx.put_state("digits", b"state")
        tx.put_incident(incident())
        tx.put_samples("digits", [sample(0)], keep=10)
        tx.put_dead_letters([letter(3)])
    assert everything(store) == before


def test_readers_see_the_state_before_an_unfinished_transaction(store: Store) -> None:
    with store.transaction() as tx:
        tx.put_state("digits", b"old")
    with store.transaction() as tx:
        tx.put_state("digits", b"new")
        assert store.state("digits") == b"old"
    assert store.state("digits") == b"new"


def test_a_finished_transaction_takes_no_more_writes(store: Store) -> None:
    with store.transaction() as tx:
        pass
    with pytest.raises(sa.exc.ResourceClosedError):
        tx.put_state("digits", b"late")


def test_a_promotion_that_is_written_again_is_not_another_one(store: Store) -> None:
    for reason in ("first", "first", "second"):
        with store.transaction() as tx:
            tx.set_champion("digits", 3, reason, 500)
    assert [(c.sequence, c.reason) for c in store.champion_history("digits")] == [
        (1, "first"),
        (2, "second"),
    ]


def test_writers_in_several_threads_wait_for_each_other(store: Store) -> None:
    def append(n: int) -> None:
        for k in range(5):
            with store.transaction() as tx:
                tx.set_champion("digits", n, "", k)

    threads = [threading.Thread(target=append, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [c.sequence for c in store.champion_history("digits")] == list(range(1, 16))


# -- fencing -----------------------------------------------------------------------------------


def test_a_fenced_owner_writes_nothing(store: Store) -> None:
    old = store.claim(0)
    new = store.claim(0)
    assert (old, new) == (1, 2)
    with (
        pytest.raises(FencedError, match="lane 0: epoch 1 is over, the owner has epoch 2") as lost,
        store.transaction({0: old}) as tx,
    ):
        write_everything(tx)
    assert (lost.value.lane, lost.value.held, lost.value.newest) == (0, 1, 2)
    assert not any(everything(store))
    with store.transaction({0: new}) as tx:
        write_everything(tx)
    assert store.offsets() == {("events", 0): 7}


def test_one_lost_lane_fences_the_whole_transaction(store: Store) -> None:
    epochs = {n: store.claim(n) for n in range(3)}
    store.claim(1)
    with pytest.raises(FencedError) as lost, store.transaction(epochs) as tx:
        tx.put_offsets({("events", 0): 1})
    assert lost.value.lane == 1
    assert store.offsets() == {}


def test_an_epoch_that_was_never_claimed_is_refused(store: Store) -> None:
    with pytest.raises(FencedError, match="epoch 0"), store.transaction({0: 1}):
        pass


def test_a_fenced_transaction_writes_offsets_of_its_own_lanes_only(store: Store) -> None:
    with store.transaction({0: store.claim(0)}) as tx:
        tx.put_offsets({("features", 0): 1, ("labels", 0): 2})
    with (
        pytest.raises(ValueError, match=r"labels\[4\]: the transaction is fenced by lanes \[0\]"),
        store.transaction({0: 1}) as tx,
    ):
        tx.put_offsets({("features", 0): 9, ("labels", 4): 1})
    assert store.offsets() == {("features", 0): 1, ("labels", 0): 2}


def test_a_claim_waits_for_the_transaction_of_the_former_owner(store: Store) -> None:
    claimed: list[int] = []
    epochs = {0: store.claim(0)}
    claim = threading.Thread(target=lambda: claimed.append(store.claim(0)))
    with store.transaction(epochs) as tx:
        claim.start()
        tx.put_offsets({("events", 0): 5})
        claim.join(0.2)
        assert not claimed
    claim.join(10)
    assert claimed == [2]
    assert store.offsets() == {("events", 0): 5}


# -- lanes -------------------------------------------------------------------------------------


def test_a_lane_has_its_own_offsets_states_and_samples(store: Store) -> None:
    with store.transaction() as tx:
        for lane in (0, 1):
            tx.put_offsets({("features", lane): 10 + lane, ("labels", lane): 20 + lane})
            tx.put_state("digits", b"digits %d" % lane, lane)
            tx.put_samples("digits", [sample(n + lane) for n in range(3)], keep=2, lane=lane)
        tx.put_state("fraud", b"fraud 1", lane=1)
        tx.label_samples("digits", [(2, "3")], lane=1)
    assert store.offsets(1) == {("features", 1): 11, ("labels", 1): 21}
    assert len(store.offsets()) == 4
    assert store.states(1) == {"digits": b"digits 1", "fraud": b"fraud 1"}
    assert store.states(2) == {}
    assert store.state("digits") == b"digits 0"
    assert store.state("digits", 1) == b"digits 1"
    assert store.state("fraud") is None
    assert [(s.index, s.label) for s in store.samples("digits")] == [(1, None), (2, None)]
    assert [(s.index, s.label) for s in store.samples("digits", lane=1)] == [(2, "3"), (3, None)]


# -- when the database cannot ------------------------------------------------------------------


def test_a_locked_database_is_a_store_error_and_leaves_nothing(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0)
    store = Store(f"sqlite:///{tmp_path / 'store.db'}", clock)
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked by another process"), store.transaction() as tx:
        tx.put_state("digits", b"state")
    other.execute("ROLLBACK")
    other.close()
    assert store.state("digits") is None
    store.close()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "store.db"
    path.write_text("this is not a database, it is a long line of text " * 100)
    with pytest.raises(StoreError, match="not a database"):
        Store(f"sqlite:///{path}", clock)


def test_missing_folders_are_made_and_impossible_ones_named(tmp_path: Path, clock: Clock) -> None:
    Store(f"sqlite:///{tmp_path}/a/b/store.db", clock).close()
    assert (tmp_path / "a" / "b" / "store.db").exists()
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"file/store\.db"):
        Store(f"sqlite:///{tmp_path}/file/store.db", clock)


@pytest.mark.parametrize(
    ("url", "message"), [("sqlite://", "in memory"), ("nonsense", "expected a URL")]
)
def test_a_url_that_cannot_keep_anything_is_refused(url: str, message: str, clock: Clock) -> None:
    with pytest.raises(ValueError, match=message):
        Store(url, clock)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql+nothing://me:hunter2@localhost/x", "nothing"),
        ("mysql+aiomysql://me:hunter2@localhost/x", "needs the package aiomysql"),
    ],
)
def test_a_driver_that_is_not_there_is_named_and_the_password_is_not(
    url: str, message: str, clock: Clock
) -> None:
    with pytest.raises(StoreError, match=message) as caught:
        Store(url, clock)
    assert "hunter2" not in str(caught.value)


def test_commits_survive_a_power_failure(sqlite_store: Store) -> None:
    with sqlite_store._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


# -- incidents ---------------------------------------------------------------------------------


def test_an_incident_is_replaced_and_keeps_its_place(store: Store, clock: Clock) -> None:
    for n in range(3):
        clock.now += 1
        with store.transaction() as tx:
            tx.put_incident(incident(f"inc-{n}", opened_at=Point(n)))
    clock.now += 1
    changed = incident("inc-0", opened_at=Point(0), state=IncidentState.CONFIRMED, kind="concept")
    with store.transaction() as tx:
        tx.put_incident(changed)
    assert [i.id for i in store.incidents()] == ["inc-2", "inc-1", "inc-0"]
    assert store.incident("inc-0") == changed
    assert store.incidents(state="confirmed") == [changed]
    assert store.incident("inc-9") is None


def test_incidents_can_be_read_page_by_page(store: Store, clock: Clock) -> None:
    for n in range(6):
        clock.now += n % 2  # some share their time
        with store.transaction() as tx:
            tx.put_incident(incident(f"inc-{n}", opened_at=Point(n), stream=f"s{n % 2}"))
    pages: list[list[str]] = []
    before = None
    while page := [i.id for i in store.incidents(limit=2, before=before)]:
        pages.append(page)
        before = page[-1]
    assert pages == [["inc-5", "inc-4"], ["inc-3", "inc-2"], ["inc-1", "inc-0"]]
    assert [i.id for i in store.incidents("s1")] == ["inc-5", "inc-3", "inc-1"]
    assert store.incidents(before="unknown") == []


# -- actions -----------------------------------------------------------------------------------


def add_actions(store: Store, *ids: str, stream: str = "a", kind: str = "webhook:0") -> None:
    with store.transaction() as tx:
        for id_ in ids:
            tx.add_action(Action(id_, stream, "inc-1", kind))


def claim(store: Store, now: float, lease_s: float = 9000.0) -> list[str]:
    return [a.id for a in store.claim_actions(now, lease_s)]


def test_an_action_waits_for_earlier_ones_of_its_stream_and_kind(store: Store) -> None:
    with store.transaction() as tx:
        for id_, stream, kind in [
            ("a1", "a", "webhook:0"),
            ("a2", "a", "webhook:0"),
            ("a3", "a", "webhook:1"),
            ("b1", "b", "webhook:0"),
        ]:
            tx.add_action(Action(id_, stream, "inc-1", kind))
    assert claim(store, 1000.0) == ["a1", "a3", "b1"]
    with store.transaction() as tx:
        tx.retry_action("a1", 1005.0, "not now")
        tx.retry_action("a3", 1000.0, "at once")
        tx.finish_action("b1", ActionState.DONE)
    assert claim(store, 1000.0) == ["a3"]
    assert claim(store, 1005.0) == ["a1"]
    assert [(a.id, a.attempts) for a in store.actions(ActionState.DONE)] == [("b1", 1)]
    assert [a.id for a in store.actions(due_before=1000.0)] == ["a2", "a3", "b1"]


def test_an_action_that_waits_for_hours_is_overtaken_and_hurried_afterwards(store: Store) -> None:
    with store.transaction() as tx:
        tx.add_action(Action("a1", "a", "inc-1", "webhook:0"))
        tx.add_action(Action("a2", "a", "inc-1", "webhook:0"))
        tx.retry_action("a1", 1000.0 + HOLD_S + 1, "down")
    assert claim(store, 1000.0) == ["a2"]
    # Even when its time comes, it waits for the one that is being delivered.
    assert claim(store, 1000.0 + HOLD_S + 1) == []
    with store.transaction() as tx:
        tx.finish_action("a2", ActionState.DONE)
        tx.hurry_actions("a", "webhook:0")
    assert claim(store, 1000.0) == ["a1"]


def test_a_claimed_action_is_one_process_s_until_its_lease_ends(store: Store) -> None:
    add_actions(store, "a1", "a2")
    (first,) = store.claim_actions(1000.0, 2000.0)
    assert (first.id, first.leased_until) == ("a1", 3000.0)
    assert claim(store, 2999.0) == []
    (second,) = store.claim_actions(3000.0, 2000.0)
    assert (second.id, second.leased_until) == ("a1", 5000.0)


def test_who_has_lost_the_lease_changes_nothing(store: Store) -> None:
    add_actions(store, "a1")
    (mine,) = store.claim_actions(1000.0, 10.0)
    (theirs,) = store.claim_actions(1010.0, 10.0)
    with store.transaction() as tx:
        assert not tx.retry_action("a1", 9000.0, "too late", lease=mine.leased_until)
        assert not tx.finish_action("a1", ActionState.FAILED, "too late", lease=mine.leased_until)
    assert store.actions() == [theirs]
    with store.transaction() as tx:
        assert tx.retry_action("a1", 2000.0, "down", lease=theirs.leased_until)
    (action,) = store.actions()
    assert (action.attempts, action.due_at, action.leased_until) == (1, 2000.0, None)
    with store.transaction() as tx:
        assert tx.finish_action("a1", ActionState.DONE)
        assert not tx.finish_action("a1", ActionState.DONE)


def test_actions_are_claimed_by_kind_and_number(store: Store) -> None:
    for kind in ("x", "y", "z"):
        for stream in ("a", "b"):
            add_actions(store, f"{stream}-{kind}", stream=stream, kind=kind)
    claimed = [
        [a.id for a in store.claim_actions(1000.0, 60.0, **chosen)]
        for chosen in (
            {"kinds": ["x"], "limit": 1},
            {"kinds": ["x"]},
            {"besides": ["x", "y"]},
            {"kinds": []},
            {},
        )
    ]
    assert claimed == [["a-x"], ["b-x"], ["a-z", "b-z"], [], ["a-y", "b-y"]]


def test_processes_that_claim_at_once_share_the_actions(store: Store, url: str) -> None:
    for n in range(12):
        add_actions(store, f"a{n}", stream=f"s{n}")

    def take(own: Store, k: int) -> list[str]:
        taken = []
        while claimed := own.claim_actions(1000.0, 60.0, limit=1):
            taken += [a.id for a in claimed]
        return taken

    taken = in_several_stores(url, take)
    assert sorted(itertools.chain(*taken)) == sorted(f"a{n}" for n in range(12))


def test_a_finished_action_is_never_pending_again(store: Store) -> None:
    with store.transaction() as tx:
        tx.add_action(ACTION)
        tx.finish_action("a-1", ActionState.FAILED, "no")
        tx.retry_action("a-1", 0.0, "again")
        tx.hurry_actions("digits", "webhook:0")
        assert not tx.add_action(ACTION)
    (action,) = store.actions()
    assert (action.state, action.detail, action.attempts) == (ActionState.FAILED, "no", 1)
    assert action.created_at == 1000.0


# -- jobs and champions ------------------------------------------------------------------------


def test_promotions_at_once_all_stand_in_the_history(store: Store, url: str) -> None:
    def promote(own: Store, k: int) -> list[tuple[int, int]]:
        made = []
        for version in range(10 * k, 10 * k + 10):
            with own.transaction() as tx:
                entry = tx.set_champion("digits", version, "promoted", version)
            made.append((entry.sequence, entry.version))
        return made

    made = sorted(itertools.chain(*in_several_stores(url, promote)))
    assert [sequence for sequence, _ in made] == list(range(1, 41))
    assert [(c.sequence, c.version) for c in store.champion_history("digits")] == made


def test_jobs_that_are_added_at_once_leave_one_pending(store: Store, url: str) -> None:
    def add(own: Store, k: int) -> list[str]:
        added = []
        for n in range(10):
            with own.transaction() as tx:
                job = Job(f"j-{n}-{k}", f"s{n}", "inc-1", "fine_tune")
                if tx.add_job(job) and tx.start_job(job.id):
                    added.append(job.stream)
        return added

    added = sorted(itertools.chain(*in_several_stores(url, add)))
    assert added == sorted(f"s{n}" for n in range(10))
    assert sorted(j.stream for j in store.jobs(state=JobState.RUNNING)) == added


def test_one_process_starts_a_job(store: Store, url: str) -> None:
    with store.transaction() as tx:
        tx.add_job(JOB)

    def start(own: Store, k: int) -> bool:
        with own.transaction() as tx:
            return tx.start_job(JOB.id)

    assert sorted(in_several_stores(url, start)) == [False, False, False, True]
    assert store.jobs()[0].attempts == 1


def test_processes_that_write_the_same_in_any_order_do_not_wait_for_each_other(
    store: Store, url: str
) -> None:
    # The order differs from process to process: row locks alone would end in a deadlock.
    ids = [f"inc-{n}" for n in range(8)]

    def write(own: Store, k: int) -> None:
        epochs = {k: own.claim(k)}
        for n in range(10):
            shuffled = random.Random(100 * k + n).sample(ids, len(ids))
            with own.transaction(epochs) as tx:
                tx.put_offsets({("events", k): n})
                tx.put_state("digits", b"%d" % n, lane=k)
                for id_ in shuffled:
                    tx.put_incident(incident(id_))
                    tx.add_action(Action(f"a-{id_}", "digits", id_, "webhook:0"))
                tx.put_dead_letters([letter(n, partition=k)])

    in_several_stores(url, write)
    assert store.offsets() == {("events", k): 9 for k in range(4)}
    assert {i.id for i in store.incidents()} == set(ids)
    assert len(store.actions()) == 8
    assert len(store.dead_letters()) == 40


def test_a_stream_has_one_pending_job(store: Store) -> None:
    other = Job("j-2", "digits", "inc-2", "fine_tune")
    with store.transaction() as tx:
        assert tx.add_job(JOB)
        assert not tx.add_job(other)
        assert tx.add_job(Job("j-3", "fraud", "inc-3", "fine_tune"))
        assert tx.start_job("j-1")
        assert not tx.add_job(other)
        assert tx.finish_job("j-1", JobState.SUCCEEDED, {"accuracy": 0.9})
        assert tx.add_job(other)
    assert [(j.id, j.state) for j in store.jobs("digits")] == [
        ("j-1", "succeeded"),
        ("j-2", "queued"),
    ]
    assert store.jobs(state=JobState.SUCCEEDED)[0].result == {"accuracy": 0.9}


def test_the_database_itself_refuses_a_second_pending_job(store: Store) -> None:
    with store.transaction() as tx:
        tx.add_job(JOB)
    with pytest.raises(StoreError, match=r"(?i)unique"), store.transaction() as tx:
        force_second_job(tx)


def test_a_job_moves_forward_only(store: Store, clock: Clock) -> None:
    with store.transaction() as tx:
        tx.add_job(JOB)
        assert not tx.requeue_job("j-1")
        assert tx.start_job("j-1")
        assert not tx.start_job("j-1")
    clock.now += 60
    with store.transaction() as tx:
        assert tx.requeue_job("j-1")
        assert tx.start_job("j-1")
        with pytest.raises(ValueError, match="running is not an end"):
            tx.finish_job("j-1", JobState.RUNNING)
        assert tx.finish_job("j-1", JobState.CANCELLED)
        assert not tx.finish_job("j-1", JobState.SUCCEEDED)
        assert not tx.start_job("j-1")
    (job,) = store.jobs()
    assert (job.state, job.attempts) == (JobState.CANCELLED, 2)
    assert (job.created_at, job.started_at, job.finished_at) == (1000.0, 1060.0, 1060.0)
    assert store.jobs(since=1000.5) == []


def test_the_last_row_of_the_history_is_the_champion(store: Store) -> None:
    assert store.champion("digits") is None
    with store.transaction() as tx:
        tx.set_champion("digits", 1, "trained", 0)
        tx.set_champion("digits", 2, "promoted", 900)
        tx.set_champion("fraud", 7, "trained", 0)
        tx.set_champion("digits", 1, "rolled back", 950)
    champion = store.champion("digits")
    assert champion is not None
    assert (champion.version, champion.reason, champion.index) == (1, "rolled back", 950)
    assert [(c.sequence, c.version) for c in store.champion_history("digits")] == [
        (1, 1),
        (2, 2),
        (3, 1),
    ]


# -- samples and dead letters ------------------------------------------------------------------


def test_samples_are_pruned_to_the_newest_of_their_stream(store: Store) -> None:
    with store.transaction() as tx:
        tx.put_samples("other", [sample(0)], keep=3)
        for start in (0, 5, 10):
            # With gaps: what counts is the number of samples, not their indices.
            samples = [sample(2 * i) for i in range(start, start + 5)]
            tx.put_samples("digits", samples, keep=3)
    assert [s.index for s in store.samples("digits")] == [24, 26, 28]
    assert [s.index for s in store.samples("other")] == [0]


def test_labels_come_later_and_stay(store: Store) -> None:
    with store.transaction() as tx:
        tx.put_samples("digits", [sample(i) for i in range(4)], keep=10)
        tx.label_samples("digits", [(1, "3"), (2, "8"), (99, "pruned")])
        tx.label_samples("digits", [])
        tx.put_samples("digits", [sample(2)], keep=10)
    assert [(s.index, s.label) for s in store.samples("digits", labelled_only=True)] == [
        (1, "3"),
        (2, "8"),
    ]
    assert [s.index for s in store.samples("digits", 1, 3)] == [1, 2]


def test_an_image_comes_back_as_it_was(store: Store) -> None:
    image = sample(0, content=bytes(range(256)), kind=ContentKind.IMAGE, label="3")
    with store.transaction() as tx:
        tx.put_samples("digits", [image], keep=1)
        with pytest.raises(ValueError, match="keep must be positive, got 0"):
            tx.put_samples("digits", [], keep=0)
    assert store.samples("digits") == [image]


def test_dead_letters_are_bounded_in_size_and_number(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction, "MAX_DEAD_LETTERS", 5)
    with store.transaction() as tx:
        tx.put_dead_letters([letter(n) for n in range(7)])
        tx.put_dead_letters([letter(n) for n in range(2, 7)] * 2)  # a replay takes no one's place
        tx.put_dead_letters([])
        tx.put_dead_letters([letter(7, value=bytes(100_000), message="x" * 5000)])
    kept = store.dead_letters()
    assert [k.offset for k in kept] == [7, 6, 5, 4, 3]
    assert len(kept[0].value) == 64 * 1024
    assert len(kept[0].message) == 1000
    assert len(store.dead_letters(limit=2)) == 2


def test_text_that_a_database_cannot_hold_is_changed_and_not_an_error(store: Store) -> None:
    with store.transaction() as tx:
        tx.add_action(ACTION)
        tx.retry_action("a-1", 2000.0, "said \x00 and \ud800")
        tx.put_dead_letters([letter(0, message="got '\x00'")])
        tx.set_champion("digits", 1, "be\x00cause", 0)
    assert store.actions()[0].detail == "said \ufffd and ?"
    assert store.dead_letters()[0].message == "got '\ufffd'"
    assert store.champion_history("digits")[0].reason == "be\ufffdcause"


def test_values_that_json_cannot_hold_are_refused(store: Store) -> None:
    action = Action("a", "s", "i", "k", {"p": float("nan")})
    with pytest.raises(ValueError, match="JSON"), store.transaction() as tx:
        tx.add_action(action)


@pytest.mark.parametrize("read", [Store.offsets, Store.incidents, Store.actions, Store.jobs])
def test_an_empty_store_reads_as_empty(store: Store, read: Callable[[Store], object]) -> None:
    assert not read(store)
