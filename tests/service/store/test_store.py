import itertools
import sqlite3
import threading
from pathlib import Path

import pytest

from service.domain.action import Action, ActionState
from service.store import database
from service.store.errors import FencedError, StoreError
from service.store.store import HOLD_S, Store
from tests.service.store.values import Clock, everything, in_several_stores, write_everything


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


def test_a_store_that_nobody_reads_afterwards_does_not_wait_for_the_disk(
    tmp_path: Path, clock: Clock
) -> None:
    store = Store(f"sqlite:///{tmp_path / 'a.db'}", clock, durable=False)
    with store._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 0  # OFF
    store.close()


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
