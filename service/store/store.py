"""The database: what survives a crash, written in one transaction and fenced by epochs.

The service's guarantee rests on this order:

1. poll a batch;
2. update the monitors;
3. write states, offsets, incidents and actions in ONE transaction, fenced by the owner epoch of
   each lane;
4. commit the offsets to the broker;
5. carry out the actions from the outbox, at least once, with a constant idempotency key.

On assignment the source seeks to `Store.offsets`, so the broker's own offsets never decide where a
stream goes on. Step 3 is `Store.transaction`; there is no other way to write.

A lane is one partition number of all topics, such as features[3] and labels[3]: the unit that moves
between the processes that share a store, together with the states and samples that it has.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from service.domain.action import Action, ActionState
from service.domain.champion import Champion
from service.domain.dead_letter import DeadLetter
from service.domain.incident import Incident, IncidentState
from service.domain.job import Job, JobState
from service.domain.sample import ContentKind, StoredSample
from service.domain.waiting import Side, Spilled
from service.store import database, tables
from service.store.errors import FencedError, StoreError
from service.store.transaction import TopicPartition, Transaction

__all__ = ["Store", "StoreError", "TopicPartition", "Transaction"]

HOLD_S = 600.0
"""An action waits for earlier ones of its stream and kind while they are due within this time. The
first retries come well before it; one that waits for hours must not hold up newer alarms."""


class Store:
    """One database for all streams; safe to use from several threads.

    Parameters
    ----------
    url
        As SQLAlchemy writes it, such as `sqlite:///shiftwatch.db`. Tables are created, and those of
        an older version are brought to the newest schema.
    clock
        Returns Unix seconds. Only for the times that people read and for due times; no result
        depends on it.

    Raises
    ------
    StoreError
        If the database cannot be opened, or a newer version of Shiftwatch wrote it.
    """

    def __init__(self, url: str, clock: Callable[[], float]) -> None:
        self._engine = database.open_engine(url)
        self._writer = database.writing(self._engine)
        self._clock = clock

    def close(self) -> None:
        """Close all connections; the store is of no use afterwards."""
        self._engine.dispose()

    # -- writing -------------------------------------------------------------------------------

    def claim(self, lane: int) -> int:
        """Become the owner of a lane, and shut out whoever owned it.

        Returns
        -------
        int
            The epoch to give to `transaction`.
        """
        table = tables.lanes
        insert = (
            postgresql.insert if self._engine.dialect.name == "postgresql" else sqlite.insert
        )(table).values(lane=lane, epoch=1)
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
            return _actions(connection, taken)

    # -- reading -------------------------------------------------------------------------------

    @contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        with database.wrapped(self._engine.url), self._engine.begin() as connection:
            yield connection

    def offsets(self, lane: int | None = None) -> dict[TopicPartition, int]:
        """Return the next offset to read, by topic and partition: of one lane, or of all."""
        table = tables.offsets
        query = sa.select(table.c.topic, table.c.partition, table.c.next_offset)
        if lane is not None:
            query = query.where(table.c.partition == lane)
        with self._read() as connection:
            rows = connection.execute(query)
            return {(row.topic, row.partition): row.next_offset for row in rows}

    def state(self, stream: str, lane: int = 0) -> bytes | None:
        """Return a stream's state in a lane, or None if it has none."""
        table = tables.states
        with self._read() as connection:
            found = connection.execute(
                sa.select(table.c.state).where(table.c.stream == stream, table.c.lane == lane)
            ).scalar()
            return None if found is None else bytes(found)

    def states(self, lane: int) -> dict[str, bytes]:
        """Return the states of all streams in a lane, by stream."""
        table = tables.states
        with self._read() as connection:
            rows = connection.execute(
                sa.select(table.c.stream, table.c.state)
                .where(table.c.lane == lane)
                .order_by(table.c.stream)
            )
            return {row.stream: bytes(row.state) for row in rows}

    def incidents(
        self,
        stream: str | None = None,
        state: str | None = None,
        limit: int | None = 100,
        before: str | None = None,
    ) -> list[Incident]:
        """Return incidents, newest first.

        Parameters
        ----------
        stream, state
            Only those of this stream, in this state.
        limit
            At most so many; None for all.
        before
            Id of an incident: only those older than it, to read page by page.
        """
        table = tables.incidents
        order = (table.c.recorded_at, table.c.opened_index, table.c.id)
        query = sa.select(table.c.document).order_by(*(c.desc() for c in order)).limit(limit)
        if stream is not None:
            query = query.where(table.c.stream == stream)
        if state is not None:
            query = query.where(table.c.state == str(state))
        with self._read() as connection:
            if before is not None:
                last = connection.execute(sa.select(*order).where(table.c.id == before)).first()
                if last is None:
                    return []
                query = query.where(sa.tuple_(*order) < sa.tuple_(*last))
            rows = connection.execute(query).scalars()
            return [Incident.from_json(json.loads(document)) for document in rows]

    def incidents_of_parts(self) -> list[Incident]:
        """Return the open incidents, suspicions among them, of streams in several partitions."""
        table, states = tables.incidents, tables.states
        spread = sa.select(states.c.stream).group_by(states.c.stream).having(sa.func.count() > 1)
        is_open = [s.value for s in IncidentState if not s.is_over]
        query = sa.select(table.c.document).where(
            table.c.stream.in_(spread), table.c.state.in_(is_open)
        )
        with self._read() as connection:
            rows = connection.execute(query.order_by(table.c.id)).scalars()
            return [Incident.from_json(json.loads(document)) for document in rows]

    def incident(self, id_: str) -> Incident | None:
        """Return an incident, or None if there is none of that id."""
        table = tables.incidents
        with self._read() as connection:
            found = connection.execute(
                sa.select(table.c.document).where(table.c.id == id_)
            ).scalar()
            return None if found is None else Incident.from_json(json.loads(found))

    def champion(self, stream: str) -> Champion | None:
        """Return the stream's champion, or None if it never had one."""
        history = self._champions(stream, limit=1)
        return history[0] if history else None

    def champion_history(self, stream: str) -> list[Champion]:
        """Return the stream's champions in order; the last one holds."""
        return self._champions(stream, limit=None)[::-1]

    def _champions(self, stream: str, limit: int | None) -> list[Champion]:
        table = tables.champions
        query = (
            sa.select(table)
            .where(table.c.stream == stream)
            .order_by(table.c.sequence.desc())
            .limit(limit)
        )
        with self._read() as connection:
            return [
                Champion(r.stream, r.sequence, r.version, r.reason, r.idx, r.recorded_at)
                for r in connection.execute(query)
            ]

    def actions(
        self, state: ActionState | None = None, due_before: float | None = None
    ) -> list[Action]:
        """Return actions in the order they were added.

        Parameters
        ----------
        state
            Only those in this state.
        due_before
            Only those due at or before this time, in Unix seconds.
        """
        table = tables.actions
        query = sa.select(table).order_by(table.c.sequence)
        if state is not None:
            query = query.where(table.c.state == str(state))
        if due_before is not None:
            query = query.where(table.c.due_at <= due_before)
        with self._read() as connection:
            return _actions(connection, query)

    def jobs(
        self,
        stream: str | None = None,
        state: JobState | None = None,
        since: float | None = None,
    ) -> list[Job]:
        """Return jobs in the order they were added.

        Parameters
        ----------
        stream, state
            Only those of this stream, in this state.
        since
            Only those added at or after this time, in Unix seconds.
        """
        table = tables.jobs
        query = sa.select(table).order_by(table.c.sequence)
        if stream is not None:
            query = query.where(table.c.stream == stream)
        if state is not None:
            query = query.where(table.c.state == str(state))
        if since is not None:
            query = query.where(table.c.created_at >= since)
        with self._read() as connection:
            return [
                Job(
                    id=r.id,
                    stream=r.stream,
                    incident_id=r.incident_id,
                    kind=r.kind,
                    spec=json.loads(r.spec),
                    state=JobState(r.state),
                    attempts=r.attempts,
                    result=json.loads(r.result),
                    created_at=r.created_at,
                    started_at=r.started_at,
                    finished_at=r.finished_at,
                )
                for r in connection.execute(query)
            ]

    def samples(
        self,
        stream: str,
        from_index: int = 0,
        to_index: int | None = None,
        *,
        labelled_only: bool = False,
        lane: int = 0,
    ) -> list[StoredSample]:
        """Return stored samples by index.

        Parameters
        ----------
        stream
            Their stream.
        from_index, to_index
            First index, and the index behind the last one; None for no end.
        labelled_only
            Leave out those without a label.
        lane
            Their lane; indices are counted in each by itself.
        """
        table = tables.samples
        query = (
            sa.select(table)
            .where(table.c.stream == stream, table.c.lane == lane, table.c.idx >= from_index)
            .order_by(table.c.idx)
        )
        if to_index is not None:
            query = query.where(table.c.idx < to_index)
        if labelled_only:
            query = query.where(table.c.label.is_not(None))
        with self._read() as connection:
            return [
                StoredSample(r.idx, r.id, r.time, bytes(r.content), ContentKind(r.kind), r.label)
                for r in connection.execute(query)
            ]

    def spilled(self, stream: str, ids: Collection[str], lane: int = 0) -> list[Spilled]:
        """Return those of these ids that wait in a stream's lane, in any order."""
        table = tables.waiting
        named: sa.ColumnElement[bool] = table.c.id.in_(ids)
        if self._engine.dialect.name == "postgresql":
            # One parameter instead of hundreds, in half the time.
            array = sa.literal(list(ids), postgresql.ARRAY(sa.String))
            named = table.c.id == sa.any_(array)
        query = sa.select(table).where(table.c.stream == stream, table.c.lane == lane, named)
        with self._read() as connection:
            return [
                Spilled(
                    r.id,
                    Side(r.side),
                    r.number,
                    r.idx,
                    math.nan if r.time is None else r.time,
                    r.value,
                )
                for r in connection.execute(query)
            ]

    def count_spilled(self, stream: str, lane: int = 0) -> dict[Side, int]:
        """Return how many observations and labels wait in a stream's lane; none is left out."""
        table = tables.waiting
        query = (
            sa.select(table.c.side, sa.func.count().label("n"))
            .where(table.c.side.in_(Side), table.c.stream == stream, table.c.lane == lane)
            .group_by(table.c.side)
        )
        with self._read() as connection:
            return {Side(row.side): row.n for row in connection.execute(query)}

    def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        """Return the newest dead letters, newest first."""
        table = tables.dead_letters
        query = sa.select(table).order_by(table.c.sequence.desc()).limit(limit)
        with self._read() as connection:
            return [
                DeadLetter(
                    r.topic,
                    r.partition,
                    r.record_offset,
                    r.stream,
                    r.reason,
                    r.message,
                    bytes(r.value),
                )
                for r in connection.execute(query)
            ]


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


def _actions(connection: sa.Connection, query: sa.Select[tuple[object, ...]]) -> list[Action]:
    return [
        Action(
            id=r.id,
            stream=r.stream,
            incident_id=r.incident_id,
            kind=r.kind,
            payload=json.loads(r.payload),
            state=ActionState(r.state),
            attempts=r.attempts,
            due_at=r.due_at,
            detail=r.detail,
            created_at=r.created_at,
            leased_until=r.leased_until,
        )
        for r in connection.execute(query)
    ]
