"""What the store has, for whoever asks: every read there is, each in a transaction of its own."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from service.domain.action import Action, ActionState
from service.domain.champion import Champion
from service.domain.dead_letter import DeadLetter
from service.domain.incident import Incident, IncidentState
from service.domain.job import Job, JobSpec, JobState
from service.domain.sample import ContentKind, StoredSample
from service.domain.waiting import Side, Spilled
from service.store import database, tables
from service.store.lane_part import TopicPartition


class Reading:
    """Reads of one database; safe to use from several threads.

    Every method raises `StoreError` where the database does not answer.

    Parameters
    ----------
    engine
        Of the database, as `database.open_engine` gives it.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

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
            return actions_of(connection, query)

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
                    spec=JobSpec.from_json(json.loads(r.spec)),
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


def actions_of(connection: sa.Connection, query: sa.Select[tuple[object, ...]]) -> list[Action]:
    """The actions that a query of their table finds, in its order."""
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
