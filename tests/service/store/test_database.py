import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.store import database
from service.store.database import Lock, open_engine
from service.store.errors import StoreError
from service.store.store import Store
from tests.postgres import Server, new_database

ROOT = Path(__file__).parents[3]


@pytest.fixture
def store(postgres: str) -> Iterator[Store]:
    store = Store(postgres, lambda: 1000.0)
    yield store
    store.close()


def shown(store: Store, name: str) -> str:
    with store._engine.begin() as connection:
        return str(connection.exec_driver_sql(f"SHOW {name}").scalar_one())


# -- a full disk -------------------------------------------------------------------------------


def on_a_small_disk(folder: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    """Runs a command while `folder` is a disk of two megabytes, for that command only."""
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    mount = 'mount -t tmpfs -o size=2m none "$0" && exec "$@"'
    return subprocess.run(
        ["unshare", *as_root, "--mount", "sh", "-c", mount, str(folder), *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def test_a_disk_that_is_full_is_said_so_and_nothing_breaks(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or on_a_small_disk(tmp_path, "true").returncode:
        pytest.skip("no right to mount a small disk")
    program = str(ROOT / "tests" / "service" / "full_disk.py")
    done = on_a_small_disk(tmp_path, sys.executable, program, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"sqlite:///{tmp_path}/store.db: the disk is full\n" * 3


def test_a_disk_that_is_not_small_is_not_filled(tmp_path: Path) -> None:
    program = str(ROOT / "tests" / "service" / "full_disk.py")
    done = subprocess.run(
        [sys.executable, program, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1
    assert "expected a disk of at most" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_may_not_grow_goes_on_when_it_may(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'store.db'}", lambda: 1000.0)

    def limit(connection: sa.Connection) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count = 60")

    def write_much() -> None:
        with store.transaction() as tx:
            tx.put_offsets({("events", 0): 7})
            tx.put_state("digits", bytes(1_000_000))

    sa.event.listen(store._engine, "begin", limit)
    with pytest.raises(StoreError, match="the disk is full"):
        write_much()
    assert store.offsets() == {}
    sa.event.remove(store._engine, "begin", limit)
    store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "store.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    write_much()
    assert store.offsets() == {("events", 0): 7}
    store.close()


# -- PostgreSQL: opening -----------------------------------------------------------------------


def test_what_the_server_says_otherwise_does_not_change_how_the_store_works(postgres: str) -> None:
    plain = sa.make_url(postgres).set(drivername="postgresql")
    named = plain.update_query_dict(
        {"options": "-c statement_timeout=70s", "application_name": "mine"}
    )
    admin = sa.create_engine(postgres, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(
            f"ALTER DATABASE {plain.database} SET default_transaction_isolation = 'serializable'"
        )
    admin.dispose()
    store = Store(named.render_as_string(hide_password=False), lambda: 1000.0)
    assert shown(store, "transaction_isolation") == "read committed"
    assert shown(store, "lock_timeout") == "30s"
    assert shown(store, "idle_in_transaction_session_timeout") == "20s"
    assert shown(store, "statement_timeout") == "70s"
    assert shown(store, "application_name") == "mine"
    store.close()


def test_a_database_that_cannot_hold_every_character_is_refused(postgres: str) -> None:
    with (
        new_database(postgres, "LATIN1") as url,
        pytest.raises(StoreError, match="expected a database with the encoding UTF8, found LATIN1"),
    ):
        open_engine(url)


def test_a_server_that_is_not_there_is_named_and_the_password_is_not() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(StoreError, match=r"@127\.0\.0\.1:1/x: .*onnection refused") as caught:
        open_engine("postgresql+psycopg://me:hunter2@127.0.0.1:1/x")
    assert "hunter2" not in str(caught.value)


# -- PostgreSQL: what it says when it cannot ---------------------------------------------------


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("53100", r"the disk is full \(as it says\)"),
        ("53300", r"the server has no connection left \(as it says\)"),
        ("40001", r"another process changed the same rows \(as it says\)"),
        ("40P01", r"another process and this one waited for each other \(as it says\)"),
        ("55P03", "locked by another process for more than 30 s"),
        ("42501", "as it says"),
    ],
)
def test_an_error_of_the_server_is_said_in_plain_words(
    store: Store, code: str, message: str
) -> None:
    raises = f"DO $$ BEGIN RAISE EXCEPTION 'as it says' USING ERRCODE = '{code}'; END $$"

    def write() -> None:
        with store.transaction() as tx:
            tx.put_state("digits", b"state")
            tx._connection.exec_driver_sql(raises)

    with pytest.raises(StoreError, match=f": {message}$"):
        write()
    assert store.state("digits") is None


def test_a_lock_is_not_waited_for_without_end(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 1)
    first, second = Store(postgres, lambda: 1000.0), Store(postgres, lambda: 1000.0)

    def write() -> None:
        with second.transaction({1: second.claim(1)}) as tx:
            tx.put_state("digits", b"state", lane=1)
            tx.set_champion("digits", 2, "trained", 0)

    with first.transaction({0: first.claim(0)}) as tx:
        tx.set_champion("digits", 1, "trained", 0)
        with pytest.raises(StoreError, match="locked by another process for more than 1 s"):
            second.claim(0)
        with pytest.raises(StoreError, match="locked by another process"):
            write()
    assert [c.version for c in first.champion_history("digits")] == [1]
    assert first.state("digits", 1) is None
    first.close()
    second.close()


def test_of_two_that_wait_for_each_other_one_is_written(store: Store) -> None:
    # Without fences, and in opposite order: what the pipeline never does.
    both_hold_one = threading.Barrier(2)

    def write(streams: tuple[str, str]) -> str:
        try:
            with store.transaction() as tx:
                tx.put_state(streams[0], streams[0].encode())
                both_hold_one.wait(10)
                tx.put_state(streams[1], streams[0].encode())
        except StoreError as error:
            return str(error)
        return streams[0]

    with ThreadPoolExecutor(2) as pool:
        said = sorted(pool.map(write, [("a", "b"), ("b", "a")]), key=len)
    assert "another process and this one waited for each other (deadlock" in said[1]
    assert store.states(0) == {"a": said[0].encode(), "b": said[0].encode()}


def test_what_belongs_to_no_lane_is_written_by_one_at_a_time(store: Store) -> None:
    with store.transaction() as tx, store._engine.connect() as other:
        tx.put_state("digits", b"state")
        assert try_lock(other)
        tx.put_dead_letters([])
        assert try_lock(other)
        tx.hurry_actions("digits", "webhook")
        assert not try_lock(other)
    with store._engine.connect() as other:
        assert try_lock(other)


def try_lock(connection: sa.Connection) -> bool:
    """Whether the lock was free; it is again afterwards."""
    call = sa.func.pg_try_advisory_xact_lock(database._LOCKS, int(Lock.SHARED))
    with connection.begin():
        return bool(connection.execute(sa.select(call)).scalar_one())


# -- PostgreSQL: a process or a server that goes away ------------------------------------------


def test_a_process_that_stops_within_a_transaction_loses_its_lanes(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "IDLE_TIMEOUT_S", 1)
    stopped, next_owner = Store(postgres, lambda: 1000.0), Store(postgres, lambda: 1000.0)
    epochs = {0: stopped.claim(0)}

    def write() -> None:
        with stopped.transaction(epochs) as tx:
            tx.put_offsets({("events", 0): 5})
            assert next_owner.claim(0) == 2  # waits until the server ends the transaction
            tx.put_state("digits", b"state")

    with pytest.raises(StoreError, match=r"the connection was lost \(.*idle-in-transaction"):
        write()
    assert next_owner.offsets() == {}
    with pytest.raises(StoreError, match="epoch 1 is over"), stopped.transaction(epochs):
        pass
    stopped.close()
    next_owner.close()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
@pytest.mark.parametrize("writes_again", [False, True])
def test_a_server_that_went_away_and_came_back_is_used_again(
    postgres: str, own_postgres: Server, how: signal.Signals, writes_again: bool
) -> None:
    store = Store(postgres, lambda: 1000.0)
    epochs = {0: store.claim(0)}
    with store.transaction(epochs) as tx:
        tx.put_offsets({("events", 0): 1})

    def write() -> None:
        with store.transaction(epochs) as tx:
            tx.put_offsets({("events", 0): 2})
            tx.set_champion("digits", 1, "trained", 0)
            own_postgres.stop(how)
            if writes_again:
                tx.put_state("digits", b"state")

    try:
        with pytest.raises(StoreError, match="the connection was lost"):
            write()
        with pytest.raises(StoreError, match="connection"), store.transaction(epochs):
            pass
        with pytest.raises(StoreError, match="connection"):
            store.offsets()
    finally:
        own_postgres.start()
    assert store.offsets() == {("events", 0): 1}
    assert store.champion("digits") is None
    with store.transaction(epochs) as tx:
        tx.put_offsets({("events", 0): 3})
    assert store.offsets() == {("events", 0): 3}
    store.close()


def test_connections_of_before_a_restart_are_not_used(postgres: str, own_postgres: Server) -> None:
    store = Store(postgres, lambda: 1000.0)
    epochs = {0: store.claim(0)}
    own_postgres.stop()
    own_postgres.start()
    with store.transaction(epochs) as tx:
        tx.put_offsets({("events", 0): 1})
    assert store.offsets() == {("events", 0): 1}
    store.close()
