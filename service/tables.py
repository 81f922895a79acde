"""The store's tables, their version, and the engine that opens them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import BigInteger, Column, Float, Index, Integer, LargeBinary, String, Table, Text
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 30
"""How long a SQLite writer waits for another one before the database counts as locked."""

# SQLite counts up by itself only for a column that is declared INTEGER.
_Sequence = BigInteger().with_variant(Integer(), "sqlite")
_PENDING_JOB = sa.text("state IN ('queued', 'running')")
_PENDING_ACTION = sa.text("state = 'pending'")

metadata = sa.MetaData()

schema_version = Table("schema_version", metadata, Column("version", Integer, primary_key=True))

states = Table(
    "states",
    metadata,
    Column("stream", String, primary_key=True),
    Column("lane", Integer, primary_key=True),
    Column("state", LargeBinary, nullable=False),
)

offsets = Table(
    "offsets",
    metadata,
    Column("topic", String, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("next_offset", BigInteger, nullable=False),
)

lanes = Table(
    "lanes",
    metadata,
    Column("lane", Integer, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
)

incidents = Table(
    "incidents",
    metadata,
    Column("id", String, primary_key=True),
    Column("stream", String, nullable=False),
    Column("state", String, nullable=False),
    Column("opened_index", BigInteger, nullable=False),
    Column("recorded_at", Float, nullable=False),
    Column("document", Text, nullable=False),
    Index("incidents_by_time", "recorded_at", "opened_index", "id"),
    Index("incidents_by_stream", "stream", "state"),
)

actions = Table(
    "actions",
    metadata,
    Column("sequence", _Sequence, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("stream", String, nullable=False),
    Column("incident_id", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("payload", Text, nullable=False),
    Column("state", String, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at", Float, nullable=False),
    Column("detail", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    # Only pending actions are searched for; without the filter the search slows with the history.
    Index(
        "actions_pending",
        "stream",
        "kind",
        "sequence",
        sqlite_where=_PENDING_ACTION,
        postgresql_where=_PENDING_ACTION,
    ),
)

jobs = Table(
    "jobs",
    metadata,
    Column("sequence", _Sequence, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("stream", String, nullable=False),
    Column("incident_id", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("spec", Text, nullable=False),
    Column("state", String, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("result", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("finished_at", Float),
    Index(
        "jobs_one_pending_per_stream",
        "stream",
        unique=True,
        sqlite_where=_PENDING_JOB,
        postgresql_where=_PENDING_JOB,
    ),
)

champions = Table(
    "champions",
    metadata,
    Column("stream", String, primary_key=True),
    Column("sequence", Integer, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("idx", BigInteger, nullable=False),
    Column("recorded_at", Float, nullable=False),
)

samples = Table(
    "samples",
    metadata,
    # The key is the only index: a row is written for every observation.
    Column("stream", String, primary_key=True),
    Column("lane", Integer, primary_key=True),
    Column("idx", BigInteger, primary_key=True),
    Column("id", String, nullable=False),
    Column("time", String, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("kind", String, nullable=False),
    Column("label", String),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("sequence", _Sequence, primary_key=True, autoincrement=True),
    Column("topic", String, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("record_offset", BigInteger, nullable=False),
    Column("stream", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("message", Text, nullable=False),
    Column("value", LargeBinary, nullable=False),
    Column("recorded_at", Float, nullable=False),
    Index("dead_letters_coordinates", "topic", "partition", "record_offset", unique=True),
)


class StoreError(Exception):
    """The database could not do what was asked; nothing of the transaction was written."""


@contextmanager
def wrapped(url: sa.URL) -> Iterator[None]:
    """Turn a database error into a `StoreError` that names the database and the cause.

    Neither the statement's parameters (they are data) nor the password are shown.
    """
    try:
        yield
    except DBAPIError as error:
        # PostgreSQL shows the row in the lines after the first.
        cause = str(error.orig).partition("\n")[0]
        if "locked" in cause:
            cause = f"locked by another process for more than {BUSY_TIMEOUT_S} s"
        elif "disk is full" in cause:
            cause = "the disk is full"
        raise StoreError(f"{_shown(url)}: {cause}") from error
    except SQLAlchemyError as error:
        raise StoreError(f"{_shown(url)}: {error}") from error


def _shown(url: sa.URL) -> str:
    return url.render_as_string(hide_password=True)


def open_engine(url: str) -> sa.Engine:
    """Open the database; create its tables if they are not there.

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
    is_sqlite = parsed.get_backend_name() == "sqlite"
    if is_sqlite:
        if parsed.database in {None, "", ":memory:"}:
            raise ValueError(f"store: a database in memory does not outlive the service, got {url}")
        try:
            Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{_shown(parsed)}: {error.strerror}") from error
    try:
        with wrapped(parsed):
            engine = sa.create_engine(parsed, pool_pre_ping=not is_sqlite, hide_parameters=True)
    except ImportError as error:
        raise StoreError(f"{_shown(parsed)}: needs the package {error.name}") from error
    if is_sqlite:
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
    try:
        with wrapped(parsed):
            _migrate(engine)
    except StoreError:
        engine.dispose()
        raise
    return engine


def writing(engine: sa.Engine) -> sa.Engine:
    """Return the engine whose transactions take the write lock when they begin."""
    return engine.execution_options(shiftwatch_writes=True)


def _prepare_sqlite(connection: sa.engine.interfaces.DBAPIConnection, _: object) -> None:
    # The driver must not begin transactions on its own; `_begin_sqlite` does.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    # A transaction that reads first and asks for the write lock later fails at once when another
    # one wrote in between; no waiting helps it.
    writes = connection.get_execution_options().get("shiftwatch_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _migrate(engine: sa.Engine) -> None:
    with writing(engine).begin() as connection:
        if sa.inspect(connection).has_table("schema_version"):
            found = connection.execute(sa.select(schema_version.c.version)).scalar_one()
            if found != SCHEMA_VERSION:
                # There is no older version to upgrade from yet.
                raise StoreError(
                    f"{_shown(engine.url)}: has schema {found}, this version of Shiftwatch "
                    f"knows schema {SCHEMA_VERSION}; use the version that wrote it"
                )
        else:
            metadata.create_all(connection)
            connection.execute(schema_version.insert().values(version=SCHEMA_VERSION))
