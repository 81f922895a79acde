import random
import sqlite3
import threading
from typing import Any

import pytest
import sqlalchemy as sa

from service.domain.action import Action
from service.store.errors import StoreError
from service.store.store import Store
from tests.service.store.values import (
    ACTION,
    JOB,
    Clock,
    everything,
    fail,
    in_several_stores,
    incident,
    letter,
    sample,
    write_everything,
)


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
