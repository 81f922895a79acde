"""Opens the store's database, and says in plain words what it could not do."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from service.store import migrations
from service.store.errors import StoreError

log = structlog.get_logger(__name__)

PAGE_BYTES = 16_384
"""Size of a page of a new SQLite file."""
BUSY_TIMEOUT_S = 30
"""How long a writer waits for another one before the database counts as locked."""
IDLE_TIMEOUT_S = 20
"""How long PostgreSQL lets a transaction do nothing. A process that was stopped within one must not
hold its lanes for ever; the next owner's claim waits for `BUSY_TIMEOUT_S`, so this is less."""
CONNECT_TIMEOUT_S = 10
KEEPALIVE = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""A connection to PostgreSQL whose other end has vanished is given up after half a minute to one
minute, not after the operating system's hours. Seconds, and milliseconds for the last."""

_CAUSES = {
    "53100": "the disk is full",
    "53300": "the server has no connection left",
    "40P01": "another process and this one waited for each other",
    "40001": "another process changed the same rows",
}
"""PostgreSQL's error codes, in words for the one who runs the service."""


@contextmanager
def wrapped(url: sa.URL) -> Iterator[None]:
    """Turn a database error into a `StoreError` that names the database and the cause.

    Neither the statement's parameters (they are data) nor the password are shown.
    """
    try:
        yield
    except DBAPIError as error:
        raise StoreError(f"{_shown(url)}: {_cause(error)}") from error
    except SQLAlchemyError as error:
        raise StoreError(f"{_shown(url)}: {error}") from error


def _cause(error: DBAPIError) -> str:
    # PostgreSQL shows the row in the lines after the first.
    cause = str(error.orig).partition("\n")[0]
    code = getattr(error.orig, "sqlstate", None)
    if code == "55P03" or (code is None and "locked" in cause):
        return f"locked by another process for more than {BUSY_TIMEOUT_S} s"
    if code is None and "disk is full" in cause:
        return "the disk is full"
    if code in _CAUSES:
        return f"{_CAUSES[code]} ({cause})"
    if error.connection_invalidated:
        return f"the connection was lost ({cause})"
    return cause


def _shown(url: sa.URL) -> str:
    return url.render_as_string(hide_password=True)


class Lock(IntEnum):
    """What only one transaction at a time may do on PostgreSQL.

    SQLite has one writer anyway, and needs no such lock.
    """

    UPGRADE = 1
    """Bring the schema to the newest revision."""
    SHARED = 2
    """Write what belongs to no lane: incidents, actions, jobs, champions and dead letters."""


_LOCKS = 0x53574348
"""Shiftwatch's locks among those of whatever else uses the database."""


def lock(connection: sa.Connection, which: Lock) -> None:
    """Wait for a lock, and hold it until the transaction ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCKS, int(which))))


def insert(dialect: sa.Dialect, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    """Return an insert with `ON CONFLICT`, which the two databases spell alike."""
    return postgresql.insert(table) if dialect.name == "postgresql" else sqlite.insert(table)


def open_engine(url: str, *, durable: bool = True) -> sa.Engine:
    """Open the database; create its tables, or bring them to the newest schema.

    SQLite runs in WAL mode, so that readers never wait, with `synchronous=FULL`: a record that
    was accepted over HTTP is not sent again, so an acknowledged transaction must survive a power
    failure. That costs one flush a transaction, and a transaction is a batch, not an event.

    Parameters
    ----------
    url
        As SQLAlchemy writes it: `sqlite:///shiftwatch.db`, `postgresql+psycopg://...`.

    Raises
    ------
    StoreError
        If the database cannot be opened, or a newer version of Shiftwatch wrote it.
    ValueError
        If the URL is none, or names a database in memory.
    """
    try:
        parsed = sa.make_url(url)
    except ArgumentError:
        raise ValueError("store: expected a URL such as sqlite:///shiftwatch.db") from None
    try:
        with wrapped(parsed):
            engine = _engine(parsed, durable=durable)
    except ImportError as error:
        raise StoreError(f"{_shown(parsed)}: needs the package {error.name}") from error
    try:
        with wrapped(engine.url):
            _migrate(engine)
    except StoreError:
        engine.dispose()
        raise
    return engine


def writing(engine: sa.Engine) -> sa.Engine:
    """Return the engine whose transactions take the write lock when they begin."""
    return engine.execution_options(shiftwatch_writes=True)


def _engine(url: sa.URL, *, durable: bool) -> sa.Engine:
    if url.get_backend_name() == "sqlite":
        return _sqlite(url, durable=durable)
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername == "postgresql+psycopg":
        return _postgresql(url)
    return sa.create_engine(url, pool_pre_ping=True, hide_parameters=True)


def _sqlite(url: sa.URL, *, durable: bool) -> sa.Engine:
    if url.database in {None, "", ":memory:"}:
        raise ValueError(f"store: a database in memory does not outlive the service, got {url}")
    try:
        Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{_shown(url)}: {error.strerror}") from error
    engine = sa.create_engine(url, hide_parameters=True)
    sa.event.listen(engine, "connect", _prepare_sqlite)
    if not durable:
        sa.event.listen(engine, "connect", _do_not_wait_for_the_disk)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _postgresql(url: sa.URL) -> sa.Engine:
    limits = {
        "lock_timeout": max(1, 1000 * BUSY_TIMEOUT_S),  # 0 would be for ever
        "idle_in_transaction_session_timeout": 1000 * IDLE_TIMEOUT_S,
    }
    ours = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "application_name": "shiftwatch",
        **KEEPALIVE,
    }
    options = " ".join(f"-c {name}={ms}" for name, ms in limits.items())
    given = url.query.get("options", "")
    return sa.create_engine(
        url,
        pool_pre_ping=True,
        hide_parameters=True,
        # After a lock is granted the next statement must see what its last holder wrote.
        isolation_level="READ COMMITTED",
        connect_args={k: v for k, v in ours.items() if k not in url.query}
        | {"options": f"{options} {given if isinstance(given, str) else ' '.join(given)}"},
    )


def _prepare_sqlite(connection: sa.engine.interfaces.DBAPIConnection, _: object) -> None:
    # The driver must not begin transactions on its own; `_begin_sqlite` does.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}")
    # Of a new file; states are of megabytes, and large pages take a third of the time.
    cursor.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    _set_wal(cursor)
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _do_not_wait_for_the_disk(connection: sa.engine.interfaces.DBAPIConnection, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous = OFF")
    cursor.close()


def _set_wal(cursor: sa.engine.interfaces.DBAPICursor) -> None:
    until = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            # Where two processes open a new file at once, SQLite fails without waiting.
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.02)
        else:
            return


def _begin_sqlite(connection: sa.Connection) -> None:
    # A transaction that reads first and asks for the write lock later fails at once when another
    # one wrote in between; no waiting helps it.
    writes = connection.get_execution_options().get("shiftwatch_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _migrate(engine: sa.Engine) -> None:
    try:
        with engine.begin() as connection:
            _check_encoding(connection)
            if migrations.is_newest(connection):
                return
        with writing(engine).begin() as connection:
            if engine.dialect.name == "postgresql":
                # The first of several processes may have much to copy.
                connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
            lock(connection, Lock.UPGRADE)
            found, newest = migrations.upgrade(connection)
    except migrations.UnknownSchemaError as error:
        raise StoreError(f"{_shown(engine.url)}: {error}") from error
    if found not in {None, newest}:
        log.info("store upgraded", store=_shown(engine.url), found=found, newest=newest)


def _check_encoding(connection: sa.Connection) -> None:
    if connection.dialect.name != "postgresql":
        return
    encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
    if encoding != "UTF8":
        shown = _shown(connection.engine.url)
        raise StoreError(
            f"{shown}: expected a database with the encoding UTF8, found {encoding}; "
            "records hold any character"
        )
