"""What one write transaction can do; `Store.transaction` is the only way to get one."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from service.domain.action import Action, ActionState
from service.domain.champion import Champion
from service.domain.dead_letter import DeadLetter
from service.domain.incident import Incident, IncidentState
from service.domain.job import Job, JobState
from service.domain.sample import StoredSample
from service.domain.waiting import Bound, Pruned, Side, SpillChanges
from service.store import database, tables

TopicPartition = tuple[str, int]

MAX_DEAD_LETTER_BYTES = 64 * 1024
MAX_DEAD_LETTERS = 10_000
"""Dead letters kept, so that a producer that only sends rubbish cannot fill the disk. The
dead-letter topic keeps all of them; this table is for looking at the newest."""
MAX_DETAIL_CHARS = 1000


class Transaction:
    """Writes that become visible together when the transaction ends, or not at all.

    Whatever carries an id can be added twice: the second time changes nothing, so a replay after
    a crash writes what the first run wrote.

    On PostgreSQL several processes write at a time. What belongs to a lane is its owner's alone;
    what belongs to none (incidents, actions, jobs, champions, dead letters) is written by one
    transaction at a time, from the first such write to the commit. So write the lanes' part first:
    then no two transactions wait for each other, and each holds the others up for a short time.

    Parameters
    ----------
    connection
        A connection whose transaction has begun and holds the write lock.
    now
        Unix seconds, the one time of everything in this transaction.
    lanes
        The lanes this transaction is fenced by; empty for one that writes no offsets.
    """

    def __init__(self, connection: sa.Connection, now: float, lanes: Collection[int] = ()) -> None:
        self._connection = connection
        self._now = now
        self._lanes = lanes
        self._is_sharing = False

    # -- checkpoint ----------------------------------------------------------------------------

    def put_offsets(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Store where each partition goes on.

        Parameters
        ----------
        offsets
            The next offset to read, by topic and partition.

        Raises
        ------
        ValueError
            If the transaction is fenced by some lanes, but a partition is in none of them.
        """
        for topic, partition in offsets:
            if self._lanes and partition not in self._lanes:
                raise ValueError(
                    f"{topic}[{partition}]: the transaction is fenced by lanes "
                    f"{sorted(self._lanes)}, not by lane {partition}"
                )
        self._upsert(
            tables.offsets,
            [
                {"topic": topic, "partition": partition, "next_offset": next_offset}
                for (topic, partition), next_offset in sorted(offsets.items())
            ],
            update=("next_offset",),
        )

    def put_state(self, stream: str, state: bytes, lane: int = 0) -> None:
        """Store a stream's state in a lane, in place of the former one."""
        row = {"stream": stream, "lane": lane, "state": state}
        self._upsert(tables.states, [row], update=("state",))

    # -- what waits ----------------------------------------------------------------------------

    def put_spilled(self, stream: str, changes: SpillChanges, lane: int = 0) -> Pruned:
        """Keep the observations and labels of a stream's lane that wait, and delete the others."""
        table = tables.waiting
        place = {"stream": stream, "lane": lane}
        self._upsert(
            table,
            [
                {
                    **place,
                    "id": entry.id,
                    "side": str(entry.side),
                    "number": entry.number,
                    "idx": entry.index,
                    "time": None if math.isnan(entry.time) else entry.time,
                    "value": entry.value,
                }
                for entry in changes.put
            ],
            update=("side", "number", "idx", "time", "value"),
        )
        own = (table.c.stream == stream, table.c.lane == lane)
        if changes.dropped:
            self._connection.execute(
                table.delete().where(*own, table.c.id == sa.bindparam("id_")),
                [{"id_": id_} for id_ in changes.dropped],
            )
        deleted = {
            side: sum(self._delete(bound, *own, table.c.side == str(side)) for bound in bounds)
            for side, bounds in changes.over.items()
        }
        since, until = changes.alive
        query = sa.select(sa.func.min(table.c.time)).where(
            *own,
            table.c.side == str(Side.OBSERVATION),
            table.c.time >= since,
            table.c.time <= until,
        )
        return Pruned(deleted, self._connection.execute(query).scalar())

    def _delete(self, bound: Bound, *where: sa.ColumnElement[bool]) -> int:
        table = tables.waiting
        if math.isfinite(bound.number):
            where = (*where, table.c.number <= bound.number)
        if math.isfinite(bound.time):
            where = (*where, table.c.time < bound.time)
        return self._connection.execute(table.delete().where(*where)).rowcount

    # -- incidents and actions -----------------------------------------------------------------

    def put_incident(self, incident: Incident) -> None:
        """Store an incident as it is now."""
        self._share()
        self._upsert(
            tables.incidents,
            [
                {
                    "id": incident.id,
                    "stream": incident.stream,
                    "state": str(incident.state),
                    "opened_index": incident.opened_at.index,
                    "recorded_at": self._now,
                    "document": _json(incident.to_json()),
                }
            ],
            update=("state", "document"),
        )

    def lock_stream(self, stream: str) -> None:
        """Let no other transaction that asks for the same stream go on before this one has ended.

        Reads after it see what that one wrote. SQLite has one writer at a time anyway.
        """
        if self._connection.dialect.name != "postgresql":
            return
        digest = hashlib.sha256(stream.encode()).digest()
        key = int.from_bytes(digest[:8], "big", signed=True)
        self._connection.execute(
            sa.select(sa.func.pg_advisory_xact_lock(sa.literal(key, sa.BigInteger)))
        )

    def standing(self, stream: str, also: Collection[str] = ()) -> list[Incident]:
        """Return a stream's incidents that are confirmed and not over, the oldest first.

        `also` are the ids of incidents that are returned even if they are over.
        """
        table = tables.incidents
        stands = table.c.state.in_([IncidentState.CONFIRMED.value, IncidentState.REPAIRING.value])
        rows = self._connection.execute(
            sa.select(table.c.document)
            .where(table.c.stream == stream, stands | table.c.id.in_(sorted(also)))
            .order_by(table.c.recorded_at, table.c.id)
        ).scalars()
        return [Incident.from_json(json.loads(document)) for document in rows]

    def add_action(self, action: Action) -> bool:
        """Ask for an action; return False if its id is there already."""
        return self._insert_new(
            tables.actions,
            {
                "id": action.id,
                "stream": action.stream,
                "incident_id": action.incident_id,
                "kind": action.kind,
                "payload": _json(action.payload),
                "state": str(ActionState.PENDING),
                "attempts": 0,
                "due_at": action.due_at,
                "detail": "",
                "created_at": self._now,
            },
        )

    def finish_action(
        self, id_: str, state: ActionState, detail: str = "", *, lease: float | None = None
    ) -> bool:
        """Take an action out of the outbox, after one more attempt.

        Parameters
        ----------
        id_, state, detail
            Which one, done or failed, and what happened.
        lease
            The action's `leased_until`: if another process has it by now, nothing changes. None to
            finish it in any case.

        Returns
        -------
        bool
            False if it was finished before or is another process's.
        """
        return self._after_attempt(id_, {"state": str(state), "detail": _text(detail)}, lease)

    def retry_action(
        self, id_: str, due_at: float, detail: str, *, lease: float | None = None
    ) -> bool:
        """Leave an action in the outbox for another attempt at `due_at`, in Unix seconds.

        `lease` and what is returned are as for `finish_action`.
        """
        return self._after_attempt(id_, {"due_at": due_at, "detail": _text(detail)}, lease)

    def hurry_actions(self, stream: str, kind: str) -> None:
        """Make a stream's pending actions of a kind due at once."""
        self._share()
        actions = tables.actions
        self._connection.execute(
            actions.update()
            .where(
                actions.c.stream == stream,
                actions.c.kind == kind,
                actions.c.state == ActionState.PENDING.value,
                actions.c.due_at > self._now,
            )
            .values(due_at=self._now)
        )

    def _after_attempt(self, id_: str, values: Mapping[str, Any], lease: float | None) -> bool:
        self._share()
        actions = tables.actions
        pending = [actions.c.id == id_, actions.c.state == ActionState.PENDING.value]
        if lease is not None:
            pending.append(actions.c.leased_until == lease)
        result = self._connection.execute(
            actions.update()
            .where(*pending)
            .values(attempts=actions.c.attempts + 1, leased_until=None, **values)
        )
        return result.rowcount == 1

    # -- jobs and champions --------------------------------------------------------------------

    def add_job(self, job: Job) -> bool:
        """Queue a job; return False if its id is there, or its stream has a pending job."""
        return self._insert_new(
            tables.jobs,
            {
                "id": job.id,
                "stream": job.stream,
                "incident_id": job.incident_id,
                "kind": job.kind,
                "spec": _json(job.spec),
                "state": str(JobState.QUEUED),
                "attempts": 0,
                "result": "{}",
                "created_at": self._now,
            },
        )

    def start_job(self, id_: str) -> bool:
        """Mark a queued job as running; return False if it was not queued."""
        return self._move_job(
            id_,
            (JobState.QUEUED,),
            {
                "state": str(JobState.RUNNING),
                "started_at": self._now,
                "attempts": tables.jobs.c.attempts + 1,
            },
        )

    def requeue_job(self, id_: str) -> bool:
        """Queue a running job again whose process is gone; return False if it was not running."""
        return self._move_job(id_, (JobState.RUNNING,), {"state": str(JobState.QUEUED)})

    def finish_job(
        self, id_: str, state: JobState, result: Mapping[str, Any] | None = None
    ) -> bool:
        """End a pending job; return False if it had ended before.

        Raises
        ------
        ValueError
            If `state` is not an end.
        """
        if state.is_pending:
            raise ValueError(f"job {id_}: {state} is not an end")
        return self._move_job(
            id_,
            (JobState.QUEUED, JobState.RUNNING),
            {"state": str(state), "result": _json(result or {}), "finished_at": self._now},
        )

    def set_champion(self, stream: str, version: int, reason: str, index: int) -> Champion:
        """Append to the stream's history: `version` is the champion from now on.

        What is the newest entry already is not appended again: a transaction whose answer was
        lost is written once more.
        """
        self._share()
        champions = tables.champions
        last = self._connection.execute(
            sa.select(champions)
            .where(champions.c.stream == stream)
            .order_by(champions.c.sequence.desc())
            .limit(1)
        ).first()
        text = _text(reason)
        if last is not None and (last.version, last.reason, last.idx) == (version, text, index):
            return Champion(stream, last.sequence, version, text, index, last.recorded_at)
        sequence = 1 if last is None else last.sequence + 1
        entry = Champion(stream, sequence, version, text, index, self._now)
        self._connection.execute(
            champions.insert().values(
                stream=stream,
                sequence=entry.sequence,
                version=version,
                reason=entry.reason,
                idx=index,
                recorded_at=self._now,
            )
        )
        return entry

    def _move_job(self, id_: str, old: Sequence[JobState], values: Mapping[str, Any]) -> bool:
        self._share()
        jobs = tables.jobs
        result = self._connection.execute(
            jobs.update()
            .where(jobs.c.id == id_, jobs.c.state.in_([s.value for s in old]))
            .values(**values)
        )
        return result.rowcount == 1

    # -- samples and dead letters --------------------------------------------------------------

    def put_samples(
        self, stream: str, samples: Sequence[StoredSample], *, keep: int, lane: int = 0
    ) -> None:
        """Store observations for training, and prune the stream's lane to its newest ones.

        Parameters
        ----------
        stream, lane
            Where they belong; indices are counted in each lane by itself.
        samples
            In any order; one that is there already keeps its label and content.
        keep
            Samples that stay, by index; positive.
        """
        if keep < 1:
            raise ValueError(f"keep must be positive, got {keep}")
        table = tables.samples
        self._upsert(
            table,
            [
                {
                    "stream": stream,
                    "lane": lane,
                    "idx": s.index,
                    "id": s.id,
                    "time": s.time,
                    "content": s.content,
                    "kind": str(s.kind),
                    "label": s.label,
                }
                for s in samples
            ],
        )
        self._prune(table.c.idx, keep, table.c.stream == stream, table.c.lane == lane)

    def label_samples(self, stream: str, labels: Iterable[tuple[int, str]], lane: int = 0) -> None:
        """Give stored samples of a lane their labels, as pairs of index and label.

        A sample that was pruned or never stored is passed over.
        """
        rows = [{"idx_": index, "label_": label} for index, label in labels]
        if rows:
            table = tables.samples
            self._connection.execute(
                table.update()
                .where(
                    table.c.stream == stream,
                    table.c.lane == lane,
                    table.c.idx == sa.bindparam("idx_"),
                )
                .values(label=sa.bindparam("label_")),
                rows,
            )

    def put_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        """Keep records that do not decode; of each the first 64 KiB."""
        if not letters:
            return
        self._share()
        table = tables.dead_letters
        self._upsert(
            table,
            [
                {
                    "topic": letter.topic,
                    "partition": letter.partition,
                    "record_offset": letter.offset,
                    "stream": letter.stream,
                    "reason": letter.reason,
                    "message": _text(letter.message),
                    "value": letter.value[:MAX_DEAD_LETTER_BYTES],
                    "recorded_at": self._now,
                }
                for letter in letters
            ],
        )
        # By their number and not by the sequence, in which PostgreSQL leaves gaps.
        self._prune(table.c.sequence, MAX_DEAD_LETTERS)

    # -- statements ----------------------------------------------------------------------------

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

    def _insert(self, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
        # The two databases spell "on conflict" alike; SQLAlchemy has one function for each.
        if self._connection.dialect.name == "postgresql":
            return postgresql.insert(table)
        return sqlite.insert(table)

    def _insert_new(self, table: sa.Table, row: Mapping[str, Any]) -> bool:
        self._share()
        # Not by the row count, which PostgreSQL's driver does not give for such an insert.
        statement = self._insert(table).values(**row).on_conflict_do_nothing().returning(table.c.id)
        return self._connection.execute(statement).first() is not None

    def _upsert(
        self, table: sa.Table, rows: list[dict[str, Any]], update: Sequence[str] = ()
    ) -> None:
        """Insert rows; of those that are there, replace the columns `update`."""
        if not rows:
            return
        statement = self._insert(table)
        if update:
            statement = statement.on_conflict_do_update(
                index_elements=list(table.primary_key.columns),
                set_={name: statement.excluded[name] for name in update},
            )
        else:
            statement = statement.on_conflict_do_nothing()
        self._connection.execute(statement, rows)


def _json(value: object) -> str:
    # Not-a-number is not JSON, and PostgreSQL would refuse it much later.
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _text(value: str) -> str:
    """What any database takes as text: what others say can hold any character."""
    return value[:MAX_DETAIL_CHARS].encode("utf-8", "replace").decode().replace("\x00", "\ufffd")
