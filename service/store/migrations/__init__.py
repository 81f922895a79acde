"""The store's schema, one revision after the other, carried out by Alembic.

There is no `alembic.ini`: `service.store.database.open_engine` calls `upgrade`. A revision is a
file of `versions/`; it is never changed once a version of Shiftwatch has it, and it does not import
`service.store.tables`, which describes the newest schema only. There is no way back but a backup.
"""

from __future__ import annotations

import threading
from functools import cache
from pathlib import Path

import sqlalchemy as sa
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext, RevisionStep
from alembic.script import ScriptDirectory

__all__ = ["UnknownSchemaError", "is_newest", "newest", "upgrade"]

FIRST = "0001"
BEFORE_ALEMBIC = {1: FIRST}
"""The numbers in the table `schema_version` that databases had before Alembic, as revisions."""

# Alembic's `op` is one for the whole process.
_one_at_a_time = threading.Lock()


class UnknownSchemaError(Exception):
    """A newer version of Shiftwatch wrote the database, or something else did."""

    def __init__(self, found: str) -> None:
        super().__init__(
            f"has schema {found}, this version of Shiftwatch knows schemas up to {newest()}; "
            "use the version that wrote it"
        )
        self.found = found


@cache
def _scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return ScriptDirectory.from_config(config)


def newest() -> str:
    """Return the newest revision."""
    head = _scripts().get_current_head()
    assert head is not None
    return head


def is_newest(connection: sa.Connection) -> bool:
    """Whether there is nothing to upgrade.

    Raises
    ------
    UnknownSchemaError
        If the database has a revision that is not known here.
    """
    # No look at the table of old databases: another process may be about to drop it.
    return _revision(connection) == newest()


def upgrade(connection: sa.Connection) -> tuple[str | None, str]:
    """Bring a database to the newest revision, within the connection's transaction.

    Parameters
    ----------
    connection
        One whose transaction has begun and holds the lock that keeps other processes out.

    Returns
    -------
    tuple
        The revision that was found, None for an empty database, and the newest.

    Raises
    ------
    UnknownSchemaError
        If the database has a revision that is not known here.
    """
    scripts, found = _scripts(), _found(connection)

    def steps(*_: object) -> list[RevisionStep]:
        return scripts._upgrade_revs(newest(), found or "base")

    with (
        _one_at_a_time,
        EnvironmentContext(Config(), scripts, fn=steps) as environment,
    ):
        environment.configure(connection=connection)
        context = environment.get_context()
        if found is not None and context.get_current_revision() is None:
            context.stamp(scripts, found)
        environment.run_migrations()
    return found, newest()


def _found(connection: sa.Connection) -> str | None:
    revision = _revision(connection)
    if revision is not None or not sa.inspect(connection).has_table("schema_version"):
        return revision
    number = connection.execute(sa.text("SELECT version FROM schema_version")).scalar_one()
    if number not in BEFORE_ALEMBIC:
        raise UnknownSchemaError(str(number))
    return BEFORE_ALEMBIC[number]


def _revision(connection: sa.Connection) -> str | None:
    revision = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in _scripts().walk_revisions()}
    if revision is not None and revision not in known:
        raise UnknownSchemaError(revision)
    return revision
