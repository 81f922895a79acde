"""The statements that a transaction is made of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from service.store import database

MAX_DETAIL_CHARS = 1000


class Statements:
    """What the writes of a transaction have in common.

    Parameters
    ----------
    connection
        A connection whose transaction has begun and holds the write lock.
    now
        Unix seconds, the one time of everything in this transaction.
    """

    def __init__(self, connection: sa.Connection, now: float) -> None:
        self._connection = connection
        self._now = now
        self._is_sharing = False

    def _share(self) -> None:
        if not self._is_sharing:
            database.lock(self._connection, database.Lock.SHARED)
            self._is_sharing = True

    def _prune(self, order: sa.Column[int], keep: int, *where: sa.ColumnElement[bool]) -> None:
        """Keep the newest rows."""
        oldest_kept = (
            sa.select(order)
            .where(*where)
            .order_by(order.desc())
            .offset(keep - 1)
            .limit(1)
            .scalar_subquery()
        )
        self._connection.execute(order.table.delete().where(*where, order < oldest_kept))

    def _insert_new(self, table: sa.Table, row: Mapping[str, Any]) -> bool:
        self._share()
        # Not by the row count, which PostgreSQL's driver does not give for such an insert.
        statement = (
            database.insert(self._connection.dialect, table)
            .values(**row)
            .on_conflict_do_nothing()
            .returning(table.c.id)
        )
        return self._connection.execute(statement).first() is not None

    def _upsert(
        self, table: sa.Table, rows: list[dict[str, Any]], update: Sequence[str] = ()
    ) -> None:
        """Insert rows; of those that are there, replace the columns `update`."""
        if not rows:
            return
        statement = database.insert(self._connection.dialect, table)
        if update:
            statement = statement.on_conflict_do_update(
                index_elements=list(table.primary_key.columns),
                set_={name: statement.excluded[name] for name in update},
            )
        else:
            statement = statement.on_conflict_do_nothing()
        self._connection.execute(statement, rows)


def as_json(value: object) -> str:
    """JSON in as few characters as can be."""
    # Not-a-number is not JSON, and PostgreSQL would refuse it much later.
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def as_text(value: str) -> str:
    """What any database takes as text: what others say can hold any character."""
    return value[:MAX_DETAIL_CHARS].encode("utf-8", "replace").decode().replace("\x00", "\ufffd")
