"""What a transaction writes that belongs to no lane."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from service.domain.action import Action, ActionState
from service.domain.champion import Champion
from service.domain.dead_letter import DeadLetter
from service.domain.incident import Incident, IncidentState
from service.domain.job import Job, JobState
from service.store import tables
from service.store.statements import Statements, as_json, as_text

MAX_DEAD_LETTER_BYTES = 64 * 1024
MAX_DEAD_LETTERS = 10_000
"""Dead letters kept, so that a producer that only sends rubbish cannot fill the disk. The
dead-letter topic keeps all of them; this table is for looking at the newest."""


class SharedPart(Statements):
    """Writes of what all processes share: incidents, actions, jobs, champions, dead letters."""

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
                    "document": as_json(incident.to_json()),
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
                "payload": as_json(action.payload),
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
        return self._after_attempt(id_, {"state": str(state), "detail": as_text(detail)}, lease)

    def retry_action(
        self, id_: str, due_at: float, detail: str, *, lease: float | None = None
    ) -> bool:
        """Leave an action in the outbox for another attempt at `due_at`, in Unix seconds.

        `lease` and what is returned are as for `finish_action`.
        """
        return self._after_attempt(id_, {"due_at": due_at, "detail": as_text(detail)}, lease)

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
                "spec": as_json(job.spec.to_json()),
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
            {"state": str(state), "result": as_json(result or {}), "finished_at": self._now},
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
        text = as_text(reason)
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

    # -- dead letters --------------------------------------------------------------------------

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
                    "message": as_text(letter.message),
                    "value": letter.value[:MAX_DEAD_LETTER_BYTES],
                    "recorded_at": self._now,
                }
                for letter in letters
            ],
        )
        # By their number and not by the sequence, in which PostgreSQL leaves gaps.
        self._prune(table.c.sequence, MAX_DEAD_LETTERS)
