"""One lane at work: the records of one partition number, and the streams that are in them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence

import structlog

from service.domain.action import Action
from service.domain.dead_letter import DeadLetter
from service.domain.decision import ActionKind
from service.domain.incident import Incident, IncidentState
from service.domain.job import Job
from service.monitor.outcomes import Outcomes
from service.notify.dead_letters import DeadLetters
from service.notify.incident_topic import INCIDENTS_KIND
from service.pipeline.show import show_labels
from service.pipeline.stream import Batch, Decoded, Stream
from service.pipeline.unwritten import Unwritten, _has_decided_nothing
from service.records.formats.decoder import Decoder, Ignored
from service.records.record import DecodeError, Record
from service.settings.service import Settings
from service.store import states as checkpoint
from service.store.transaction import Transaction
from service.telemetry.metrics import Metrics

log = structlog.get_logger()


class Lane:
    """A lane that this process owns.

    Parameters
    ----------
    number
        The partition number.
    epoch
        What the store gave with the ownership.
    settings
        The whole configuration.
    metrics
        Counts what happens.
    decoder
        Turns records into observations and labels.
    open_stream
        Makes a stream of this lane, by its name; called with the first record of the stream.
    is_only
        Whether the source has no other lane, so that no stream can have another part.
    """

    def __init__(
        self,
        number: int,
        epoch: int,
        settings: Settings,
        metrics: Metrics,
        decoder: Decoder,
        open_stream: Callable[[str, Lane], Stream],
        *,
        is_only: bool = False,
    ) -> None:
        self.number = number
        self.epoch = epoch
        self.streams: dict[str, Stream] = {}
        self.unwritten = Unwritten()
        self._settings = settings
        self._metrics = metrics
        self._decoder = decoder
        self._open_stream = open_stream
        self._is_only = is_only
        self._configured = {s.name for s in settings.streams}
        self._mistimed: Counter[str] = Counter()

    def open(self, name: str) -> Stream:
        """The lane's part of a configured stream."""
        stream = self.streams.get(name)
        if stream is None:
            stream = self.streams[name] = self._open_stream(name, self)
        return stream

    # -- records -------------------------------------------------------------------------------

    def take(self, records: Sequence[Record]) -> list[tuple[Stream, Batch]]:
        """Decode records and hand every stream its own, in order; what each stream made of them.

        Nothing has changed when this raises.
        """
        by_stream, refused, ignored = self._decode(records)
        for name, decoded in by_stream.items():
            self.open(name).look_up(decoded)
        unwritten = self.unwritten
        for reason, n in ignored.items():
            self._metrics.records_ignored.labels(reason).inc(n)
        for record, error in refused:
            self._refuse(record, error)
        for record in records:
            unwritten.offsets[record.topic, record.partition] = record.offset + 1
        unwritten.n_records += len(records)
        done = []
        for name, decoded in by_stream.items():
            stream = self.streams[name]
            unwritten.touched.add(name)
            batch = stream.take(decoded)
            for record, refusal in batch.refused:
                self._refuse(record, refusal, name)
            if stream.keeps_samples:
                unwritten.samples.setdefault(name, []).extend(batch.samples)
                unwritten.labels.setdefault(name, []).extend(
                    (index, label) for index, label, _ in batch.outcomes.joined
                )
            self._say_mistimed(stream, batch.outcomes)
            self.note(stream, batch.outcomes)
            done.append((stream, batch))
        return done

    def _say_mistimed(self, stream: Stream, outcomes: Outcomes) -> None:
        """Say that clocks are wrong: of the first record, the tenth, the hundredth and so on."""
        before = self._mistimed[stream.name]
        self._mistimed[stream.name] = n = before + sum(outcomes.mistimed.values())
        if len(str(n)) > len(str(before)) or 0 == before < n:
            log.warning(
                "records far from the stream's time",
                stream=stream.name,
                lane=self.number,
                records=n,
                day=stream.monitor.day,
                **{str(direction): n for direction, n in outcomes.mistimed.items()},
            )

    def _decode(
        self, records: Sequence[Record]
    ) -> tuple[dict[str, list[Decoded]], list[tuple[Record, DecodeError]], Counter[str]]:
        """Records by their stream, those that are refused, and how many are ignored, by reason."""
        by_stream: dict[str, list[Decoded]] = {}
        refused: list[tuple[Record, DecodeError]] = []
        ignored: Counter[str] = Counter()
        for record in records:
            try:
                body = self._decoder.decode(record)
            except DecodeError as error:
                refused.append((record, error))
                continue
            if isinstance(body, Ignored):
                ignored[body.reason] += 1
                continue
            decoded = by_stream.get(body.stream)
            if decoded is not None:
                decoded.append((record, body))
            elif body.stream in self._configured:
                by_stream[body.stream] = [(record, body)]
            else:
                what = f"stream: {body.stream!r} is not configured"
                refused.append((record, DecodeError("unknown_stream", what, record)))
        return by_stream, refused, ignored

    def _refuse(self, record: Record, error: DecodeError, stream: str = "") -> None:
        self._metrics.dead_letters.labels(error.reason).inc()
        self.unwritten.dead_letters.append(
            DeadLetter(
                record.topic,
                record.partition,
                record.offset,
                stream,
                error.reason,
                str(error),
                record.value,
                record.key,
                record.headers,
                record.timestamp_ms,
            )
        )

    # -- writing -------------------------------------------------------------------------------

    def file_dead_letters(self, dead_letters: DeadLetters) -> None:
        """Put away what was refused, before the transaction that passes over it.

        A letter that is written twice says so by its coordinates; one that is lost would be silent.
        """
        unwritten = self.unwritten
        unwritten.dead_letters.sort(key=lambda d: (d.topic, d.partition, d.offset))
        dead_letters.write(unwritten.dead_letters[unwritten.n_filed :])
        unwritten.n_filed = len(unwritten.dead_letters)

    @property
    def confirmed(self) -> list[Incident]:
        """Incidents that were confirmed since the last time, or changed after that.

        Only where other lanes may have the same one.
        """
        newest = {} if self._is_only else {i.id: i for i in self.unwritten.incidents}
        return [i for i in newest.values() if i.confirmed_at is not None and not i.state.is_over]

    def write_own(self, tx: Transaction) -> None:
        """Write what only this lane's owner writes; no other process waits for it."""
        unwritten = self.unwritten
        tx.put_offsets(unwritten.offsets)
        for name in sorted(unwritten.touched):
            spilled = self.streams[name].monitor.waiting.unwritten()
            if spilled:
                unwritten.pruned[name] = tx.put_spilled(name, spilled, self.number)
            tx.put_state(name, checkpoint.dumps(self.streams[name].snapshot()), self.number)
        for name, samples in unwritten.samples.items():
            model = self.streams[name].settings.model
            assert model is not None
            tx.put_samples(name, samples, keep=model.max_samples, lane=self.number)
        for name, labels in unwritten.labels.items():
            tx.label_samples(name, labels, self.number)

    def write_shared(self, tx: Transaction) -> None:
        """Write what all processes write; to be called after every lane's `write_own`."""
        unwritten = self.unwritten
        for incident in unwritten.incidents:
            tx.put_incident(incident)
        for action in unwritten.actions:
            tx.add_action(action)
        for job in unwritten.jobs:
            tx.add_job(job)
        tx.put_dead_letters(unwritten.dead_letters)
        for write in unwritten.writes:
            write(tx)

    def written(self) -> None:
        """Begin anew, once the transaction is over."""
        for name, pruned in self.unwritten.pruned.items():
            stream = self.streams[name]
            show_labels(self._metrics, stream, *stream.monitor.spill_written(pruned))
        self.unwritten = Unwritten()

    # -- incidents -----------------------------------------------------------------------------

    def fold(self, tx: Transaction) -> None:
        """Give confirmed incidents up whose cause another lane has; write the others at once.

        So the next lane of the same transaction finds them. Whoever has incidents in `confirmed`
        has to hold the lock of their streams, and to call this before anything else is written.
        """
        for incident in self.confirmed:
            self._fold(incident, tx)
        for incident in self.confirmed:
            tx.put_incident(incident)

    def _fold(self, incident: Incident, tx: Transaction) -> None:
        """Give an incident up if the stream has one with the same cause in another lane."""
        stream = self.streams[incident.stream]
        standing = tx.standing(incident.stream, stream.monitor.met)
        if any(i.id == incident.id for i in standing) or incident.id not in stream.open:
            return
        others = [
            i for i in standing if i.lane != self.number and i.segment in ({}, incident.segment)
        ]
        if not others:
            return
        known = {factor for other in others for factor in other.factors}
        into = next((i for i in others if set(i.factors) & set(incident.factors)), others[0])
        unwritten = self.unwritten
        outcomes = stream.fold(incident, into, known)
        is_over = any(i.id == incident.id and i.state.is_over for i in outcomes.incidents)
        unwritten.incidents = [i for i in unwritten.incidents if not _is_of(i, incident)]
        unwritten.actions = [
            a
            for a in unwritten.actions
            if a.incident_id != incident.id or not a.payload["data"]["confirmed_at"]
        ]
        if is_over:
            unwritten.jobs = [j for j in unwritten.jobs if j.incident_id != incident.id]
            unwritten.confirmed.pop(incident.id, None)
        self.note(stream, outcomes)

    def note(self, stream: Stream, outcomes: Outcomes) -> None:
        """Put incidents, their messages and their jobs down for the next transaction."""
        unwritten = self.unwritten
        for watch, reason in outcomes.left_out.items():
            log.warning("detector left out", stream=stream.name, watch=watch, reason=reason)
        outcomes.incidents[:] = [
            dataclasses.replace(i, lane=self.number) for i in outcomes.incidents
        ]
        for incident in outcomes.incidents:
            unwritten.incidents.append(incident)
            unwritten.actions.extend(self._messages(incident))
            if not _has_decided_nothing(incident):
                log.info(
                    f"incident {incident.state}",
                    stream=incident.stream,
                    incident=incident.id,
                    kind=str(incident.kind),
                    factors=list(incident.factors),
                    detail=incident.detail,
                )
        for incident, decision in outcomes.decisions:
            unwritten.confirmed[incident.id] = stream.name, str(incident.kind)
            if decision.action is ActionKind.FINE_TUNE:
                unwritten.jobs.append(
                    Job(
                        id=f"{incident.id}-fine-tune",
                        stream=stream.name,
                        incident_id=incident.id,
                        kind="fine_tune",
                        spec={
                            "lane": self.number,
                            "change_point": incident.change_point,
                            "factors": list(incident.factors),
                            "day": stream.monitor.day,
                        },
                    )
                )

    def _messages(self, incident: Incident) -> list[Action]:
        """The messages about an incident's new state: one for each endpoint, and for the topic."""
        if _has_decided_nothing(incident):
            return []
        event = f"incident.{incident.state}"
        is_folded = incident.state is IncidentState.FOLDED
        document = incident.to_json()
        # An incident can come to a state twice; what a replay writes again has the same digest.
        digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:8]
        kinds = {
            str(n): f"webhook:{n}"
            for n, hook in enumerate(self._settings.webhooks)
            if (event in hook.events if hook.events else not is_folded)
        }
        topics = self._settings.source.topics
        if topics is not None and topics.incidents is not None:
            kinds["kafka"] = INCIDENTS_KIND
        return [
            Action(
                id=f"{incident.id}:{incident.state}:{digest}:{name}",
                stream=incident.stream,
                incident_id=incident.id,
                kind=kind,
                payload={"event": event, "data": document},
            )
            for name, kind in kinds.items()
        ]


def _is_of(incident: Incident, confirmed: Incident) -> bool:
    """Whether it is that incident, from its confirmation on."""
    return incident.id == confirmed.id and incident.confirmed_at is not None
