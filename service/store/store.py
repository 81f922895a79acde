"""The database: what survives a crash, written in one transaction and fenced by epochs.

`Store.transaction` is step 3 of the guarantee (`service.pipeline.checkpoint`); there is no other
way to write. On assignment the source seeks to `Store.offsets`, so the broker's own offsets never
decide where a stream goes on.

A lane is one partition number of all topics, such as features[3] and labels[3]: the unit that moves
between the processes that share a store, together with the states and samples that it has.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

import sqlalchemy as sa

from service.domain.action import Action, ActionState
from service.store import database, tables
from service.store.errors import FencedError, StoreError
from service.store.reading import Reading, actions_of
from service.store.transaction import TopicPartition, Transaction

__all__ = ["Store", "StoreError", "TopicPartition", "Transaction"]

HOLD_S = 600.0
"""An action waits for earlier ones of its stream and kind while they are due within this time. The
first retries come well before it; one that waits for hours must not hold up newer alarms."""


class Store(Reading):
    """One database for all streams; safe to use from several threads.

    Parameters
    ----------
    url
        As SQLAlchemy writes it, such as `sqlite:///shiftwatch.db`. Tables are created, and those of
        an older version are brought to the newest schema.
    clock
        Returns Unix seconds. Only for the times that people read and for due times; no result
        depends on it.
    durable
        Whether what is written outlives the machine. A file that nobody reads afterwards need not,
        and its transactions do not wait for the disk; PostgreSQL always does as it is set.

    Raises
    ------
    StoreError
        If the database cannot be opened, or a newer version of Shiftwatch wrote it.
    """

    def __init__(self, url: str, clock: Callable[[], float], *, durable: bool = True) -> None:
        super().__init__(database.open_engine(url, durable=durable))
        self._writer = database.writing(self._engine)
        self._clock = clock

    def close(self) -> None:
        """Close all connections; the store is of no use afterwards."""
        self._engine.dispose()

    def claim(self, lane: int) -> int:
        """Become the owner of a lane, and shut out whoever owned it.

        Returns
        -------
        int
            The epoch to give to `transaction`.
        """
        table = tables.lanes
        insert = database.insert(self._engine.dialect, table).values(lane=lane, epoch=1)
        statement = insert.on_conflict_do_update(
            index_elements=[table.c.lane], set_={"epoch": table.c.epoch + 1}
        ).returning(table.c.epoch)
        with self._write() as connection:
            epoch: int = connection.execute(statement).scalar_one()
            return epoch

    @contextmanager
    def transaction(self, epochs: Mapping[int, int] | None = None) -> Iterator[Transaction]:
        """Write everything of the block, or nothing.

        Parameters
        ----------
        epochs
            By lane what `claim` gave, for every lane whose offsets are written.

        Raises
        ------
        FencedError
            If a lane has a newer owner; before the block runs.
        StoreError
            If the database is locked, full or not there.
        """
        with self._write() as connection:
            if epochs:
                self._check_epochs(connection, epochs)
            yield Transaction(connection, self._clock(), frozenset(epochs or ()))

    @contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        with database.wrapped(self._engine.url), self._writer.begin() as connection:
            yield connection

    @staticmethod
    def _check_epochs(connection: sa.Connection, epochs: Mapping[int, int]) -> None:
        table = tables.lanes
        # The locks on the rows last until the commit, so that no claim comes in between, and are
        # taken in one order, so that no two transactions wait for each other. SQLite has locked the
        # whole database by now and leaves the clause out.
        rows = connection.execute(
            sa.select(table.c.lane, table.c.epoch)
            .where(table.c.lane.in_(epochs))
            .order_by(table.c.lane)
            .with_for_update()
        )
        newest = {row.lane: row.epoch for row in rows}
        for lane, held in sorted(epochs.items()):
            if newest.get(lane) != held:
                raise FencedError(lane, held, newest.get(lane, 0))

    def claim_actions(
        self,
        now: float,
        lease_s: float,
        *,
        kinds: Collection[str] | None = None,
        besides: Collection[str] = (),
        limit: int | None = None,
    ) -> list[Action]:
        """Take the actions to try now: of each stream and kind the first that is due.

        An action waits for the earlier ones of its stream and kind, unless those wait for longer
        than `HOLD_S`, and while another one of them is being delivered. No other process is given
        it before `finish_action` or `retry_action`, or before the lease ends because the process
        died.

        Parameters
        ----------
        now
            Unix seconds. The clocks of the processes must not differ by more than a lease.
        lease_s
            Seconds for which they are this process's; longer than any delivery takes.
        kinds, besides
            Only those of these kinds (None for all), and none of those.
        limit
            At most so many, the earliest ones; None for all.
        """
        due = _due(now).limit(limit)
        if kinds is not None:
            due = due.where(tables.actions.c.kind.in_(kinds))
        if besides:
            due = due.where(tables.actions.c.kind.not_in(besides))
        with self._read() as connection:
            if connection.execute(due.limit(1)).first() is None:
                return []  # the usual case, and it holds up nobody
        with self._write() as connection:
            database.lock(connection, database.Lock.SHARED)
            ids = list(connection.execute(due).scalars())
            if not ids:
                return []  # another process was faster
            table = tables.actions
            connection.execute(
                table.update().where(table.c.id.in_(ids)).values(leased_until=now + lease_s)
            )
            taken = sa.select(table).where(table.c.id.in_(ids)).order_by(table.c.sequence)
            return actions_of(connection, taken)


def _due(now: float) -> sa.Select[tuple[str]]:
    """The ids of the actions that may be tried, earliest first."""
    table = tables.actions
    other = table.alias()
    pending = ActionState.PENDING.value
    return (
        sa.select(table.c.id)
        .where(
            table.c.state == pending,
            table.c.due_at <= now,
            ~sa.exists().where(
                other.c.stream == table.c.stream,
                other.c.kind == table.c.kind,
                other.c.state == pending,
                sa.or_(
                    sa.func.coalesce(other.c.leased_until, now) > now,
                    sa.and_(other.c.sequence < table.c.sequence, other.c.due_at <= now + HOLD_S),
                ),
            ),
        )
        .order_by(table.c.sequence)
    )
