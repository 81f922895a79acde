"""The straight line: source, decode, join, monitor, one transaction, outbox.

The guarantee, as in docs/adr/0002:

1. poll a batch;
2. update the monitors;
3. write states, offsets, incidents and actions in ONE database transaction, fenced by the
   partition's owner epoch;
4. commit the offsets to the source;
5. carry out the actions from the outbox, at least once, with a constant idempotency key.

On start the source seeks to the store's offsets. Killed at any instant, the service ends with the
same incidents as if it had not been killed.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from queue import SimpleQueue

import structlog

from detectors.base import Factor, Verdict
from models.registry import Registry
from models.spec import ModelVersion
from service import checkpoint
from service.arrivals import Outcomes
from service.dead_letters import open_dead_letters
from service.formats.decoder import Ignored, open_decoder
from service.incidents import Incident, IncidentState
from service.jobs import Finished, Jobs
from service.metrics import Metrics
from service.policy import ActionKind, Decision, Means, decide
from service.publisher import INCIDENTS_KIND
from service.records import (
    DecodeError,
    LabelRecord,
    Observation,
    Record,
    TemporaryError,
    coordinates,
)
from service.rows import Action, DeadLetter, Job, JobState, StoredSample
from service.scorers import load_scorer
from service.settings import Settings, StreamSettings
from service.show import show
from service.source import FileSource, Source
from service.store import Store
from service.stream import Batch, Decoded, Scorer, Stream
from service.transaction import Transaction

log = structlog.get_logger()

POLL_RECORDS = 500


@dataclass(slots=True)
class _Unwritten:
    """What has happened since the last transaction."""

    offsets: dict[tuple[str, int], int] = field(default_factory=dict)
    incidents: list[Incident] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    samples: dict[str, list[StoredSample]] = field(default_factory=dict)
    labels: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    writes: list[Callable[[Transaction], object]] = field(default_factory=list)
    touched: set[str] = field(default_factory=set)
    n_records: int = 0

    @property
    def is_urgent(self) -> bool:
        """Whether people or a job wait for it."""
        return bool(self.incidents or self.jobs or self.writes)


class Pipeline:
    """All streams of one process, from a source to the store.

    Parameters
    ----------
    settings
        The whole configuration.
    source
        Where records come from; positioned by this class.
    store
        Where everything that must survive is written.
    registry
        Where model versions are.
    metrics
        Counts what happens.
    clock
        Seconds; only for when to write a checkpoint and for timestamps in metrics, never for
        results.
    scorer_of
        Loads a version's scorer.
    """

    def __init__(
        self,
        settings: Settings,
        source: Source,
        store: Store,
        registry: Registry,
        metrics: Metrics,
        clock: Callable[[], float],
        *,
        scorer_of: Callable[[ModelVersion], Scorer] = load_scorer,
        jobs: Jobs | None = None,
    ) -> None:
        self.settings = settings
        self.source = source
        self.store = store
        self.registry = registry
        self.metrics = metrics
        self.jobs = jobs
        self.decoder = open_decoder(settings)
        self.stop = threading.Event()
        self.dead_letters = open_dead_letters(settings, self._is_stopping)
        self.pause_while_training = False
        self.to_close: SimpleQueue[tuple[str, str]] = SimpleQueue()
        """Ids of incidents to resolve by hand, and why; filled from other threads."""
        self.n_records = 0
        self.n_refused = 0
        self.on_batch: Callable[[Stream, Batch], None] = lambda stream, batch: None
        self.on_written: Callable[[], None] = lambda: None
        self._clock = clock
        self._scorer_of = scorer_of
        self._unwritten = _Unwritten()
        self._idle = threading.Event()
        self._last_write = clock()
        self._epochs: dict[tuple[str, int], int] = {}
        self.streams = {s.name: self._open(s) for s in settings.streams}
        self.source.seek(store.offsets())
        self._adopt_champions()

    def _open(self, settings: StreamSettings) -> Stream:
        scorer: Scorer | None = None
        champion = self.store.champion(settings.name)
        if settings.model is not None:
            if champion is None:
                raise NoChampionError(
                    f"streams.{settings.name}.model: there is no trained version yet; train one "
                    f"with: shiftwatch models train CONFIG --stream {settings.name} --input FILE"
                )
            scorer = self._scorer_of(self.registry.get(settings.name, champion.version))
            self.metrics.champion_version.labels(settings.name).set(champion.version)
        stream = Stream(
            settings,
            self._decider(settings),
            scorer=scorer,
            images=self.settings.images,
            seed=self.settings.seed,
            decode=self.decoder.decode,
        )
        state = self.store.state(settings.name)
        if state is not None:
            stream.restore(checkpoint.loads(state))
        else:
            stream.version = champion.version if champion is not None else None
            if settings.reference.file is not None:
                stream.preload(self._reference(settings))
        return stream

    def _reference(self, settings: StreamSettings) -> list[Decoded]:
        """The records of a stream's reference file."""
        assert settings.reference.file is not None
        decoded: list[Decoded] = []
        with closing(FileSource(settings.reference.file)) as source:
            while not source.exhausted:
                for record in source.poll():
                    body = self.decoder.decode(record)
                    if not isinstance(body, Ignored) and body.stream == settings.name:
                        decoded.append((record, body))
        return decoded

    def _close_by_hand(self) -> None:
        """Resolve the incidents that an operator has asked to close."""
        while not self.to_close.empty():
            id_, reason = self.to_close.get()
            for stream in self.streams.values():
                if id_ in stream.open:
                    self._unwritten.touched.add(stream.name)
                    self._after(stream, Batch(stream.close(id_, f"closed: {reason}")))

    def _adopt_champions(self) -> None:
        """Serve with champions that an operator has made, here or on the command line."""
        for stream in self.streams.values():
            champion = self.store.champion(stream.name) if stream.settings.model else None
            if champion is None or champion.version == stream.version:
                continue
            version = self.registry.get(stream.name, champion.version)
            stream.champion_changed(champion.version, self._scorer_of(version))
            self.metrics.champion_version.labels(stream.name).set(champion.version)
            self._unwritten.touched.add(stream.name)
            self._after(stream, Batch(stream.repaired(champion.reason)))

    def _decider(self, settings: StreamSettings) -> Callable[[Verdict], Decision]:
        wanted = {
            factor: ActionKind(str(getattr(settings.on_confirmed, factor))) for factor in Factor
        }

        def choose(verdict: Verdict) -> Decision:
            stream = self.streams[settings.name]
            budget = settings.model.max_per_day if settings.model else 0
            means = Means(
                has_model=settings.model is not None,
                has_scores=bool(stream.score_classes),
                jobs_left=budget - self._jobs_of_day(stream),
            )
            return decide(verdict, wanted, means)

        return choose

    def _jobs_of_day(self, stream: Stream) -> int:
        """Trainings already asked for on the stream's own newest day."""
        day = stream.monitor.newest_time[:10]
        unwritten = [j for j in self._unwritten.jobs if j.stream == stream.name]
        return sum(j.spec.get("day") == day for j in [*self.store.jobs(stream.name), *unwritten])

    # -- the loop ------------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Work until the source is exhausted or `stop` is set; then write what is left."""
        self.stop = stop
        while not stop.is_set() and self.step():
            pass
        self.write()

    def step(self, *, timeout_s: float = 0.2) -> bool:
        """Poll, update, and write if it is time; False when the source has nothing left."""
        paused = self.pause_while_training and self.jobs_pending
        records = [] if paused else self.source.poll(POLL_RECORDS, timeout_s)
        if records:
            self._take(records)
        self._close_by_hand()
        finished = self.jobs.poll() if self.jobs else None
        if finished is not None:
            self._repair(finished)
        if self._write_due():
            self.write()
        if self.jobs is not None:
            self.jobs.start_next()
        busy = self.jobs is not None and self.jobs.is_busy
        if busy and not records:
            self._idle.wait(timeout_s)
        return bool(records) or busy or not self.source.exhausted

    @property
    def jobs_pending(self) -> bool:
        """Whether a training is asked for, runs, or is about to."""
        return bool(self._unwritten.jobs) or (self.jobs is not None and self.jobs.is_busy)

    def _take(self, records: Sequence[Record]) -> None:
        """Decode and hand every stream its records, in order."""
        unwritten = self._unwritten
        by_stream: dict[str, list[Decoded]] = {}
        for record in records:
            at = (record.topic, record.partition)
            if at not in self._epochs:
                # With its first record the partition is this process's: an older owner that
                # comes back finds its epoch over and writes nothing.
                self._epochs[at] = self.store.claim(*at)
            unwritten.offsets[at] = record.offset + 1
            self.metrics.records_consumed.labels(record.topic).inc()
            try:
                body = self._decode(record)
            except DecodeError as error:
                self._refuse(record, error)
                continue
            if isinstance(body, Ignored):
                self.metrics.records_ignored.labels(body.reason).inc()
            elif body.stream in self.streams:
                by_stream.setdefault(body.stream, []).append((record, body))
            else:
                what = f"stream: {body.stream!r} is not configured"
                self._refuse(record, DecodeError("unknown_stream", what, record))
        unwritten.n_records += len(records)
        self.n_records += len(records)
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
            self._after(stream, batch)

    def _decode(self, record: Record) -> Observation | LabelRecord | Ignored:
        """Decode, and wait for as long as that has to be done again."""
        while True:
            try:
                return self.decoder.decode(record)
            except TemporaryError as error:
                log.warning("record not decoded yet", at=coordinates(record), reason=str(error))
                if self.stop.wait(error.after_s):
                    raise

    def _refuse(self, record: Record, error: DecodeError, stream: str = "") -> None:
        self.n_refused += 1
        self.metrics.dead_letters.labels(error.reason).inc()
        self._unwritten.dead_letters.append(
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

    def _note(self, stream: Stream, outcomes: Outcomes) -> None:
        """Put incidents, their messages and their jobs down for the next transaction."""
        unwritten = self._unwritten
        for incident in outcomes.incidents:
            unwritten.incidents.append(incident)
            unwritten.actions.extend(self._messages(incident))
            if incident.state is not IncidentState.SUSPECTED or not incident.evidence:
                log.info(
                    f"incident {incident.state}",
                    stream=incident.stream,
                    incident=incident.id,
                    kind=str(incident.kind),
                    factors=list(incident.factors),
                    detail=incident.detail,
                )
        for incident, decision in outcomes.decisions:
            if decision.action is ActionKind.FINE_TUNE:
                unwritten.jobs.append(
                    Job(
                        id=f"{incident.id}-fine-tune",
                        stream=stream.name,
                        incident_id=incident.id,
                        kind="fine_tune",
                        spec={
                            "change_point": incident.change_point,
                            "factors": list(incident.factors),
                            "day": stream.monitor.newest_time[:10],
                        },
                    )
                )

    def _messages(self, incident: Incident) -> list[Action]:
        """The messages about an incident's new state: one for each endpoint, and for the topic."""
        if incident.state is IncidentState.SUSPECTED and incident.evidence:
            return []  # a look that decided nothing
        event = f"incident.{incident.state}"
        document = incident.to_json()
        # An incident can come to a state twice; what a replay writes again has the same digest.
        digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:8]
        kinds = {
            str(n): f"webhook:{n}"
            for n, hook in enumerate(self.settings.webhooks)
            if not hook.events or event in hook.events
        }
        topics = self.settings.source.topics
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

    # -- checkpoint ----------------------------------------------------------------------------

    def _is_stopping(self) -> bool:
        return self.stop.is_set()

    def _write_due(self) -> bool:
        unwritten = self._unwritten
        if unwritten.is_urgent:
            return True
        limits = self.settings.checkpoint
        waited = self._clock() - self._last_write >= limits.every_s
        return unwritten.n_records >= limits.every_records or (unwritten.n_records > 0 and waited)

    def write(self) -> None:
        """Write everything since the last time in one transaction, then commit the offsets."""
        unwritten = self._unwritten
        if not unwritten.n_records and not unwritten.is_urgent:
            return
        started = self._clock()
        unwritten.dead_letters.sort(key=lambda d: (d.topic, d.partition, d.offset))
        # Before the transaction: a line that is written twice says so by its coordinates, a line
        # that is lost would be silent.
        self.dead_letters.write(unwritten.dead_letters)
        with self.store.transaction(self._epochs) as tx:
            tx.put_offsets(unwritten.offsets)
            for name in sorted(unwritten.touched):
                tx.put_state(name, checkpoint.dumps(self.streams[name].snapshot()))
            for incident in unwritten.incidents:
                tx.put_incident(incident)
            for action in unwritten.actions:
                tx.add_action(action)
            for job in unwritten.jobs:
                tx.add_job(job)
            for name, samples in unwritten.samples.items():
                model = self.streams[name].settings.model
                assert model is not None
                tx.put_samples(name, samples, keep=model.max_samples)
            for name, labels in unwritten.labels.items():
                tx.label_samples(name, labels)
            tx.put_dead_letters(unwritten.dead_letters)
            for write in unwritten.writes:
                write(tx)
        self._unwritten = _Unwritten()
        self._last_write = self._clock()
        self.source.commit(unwritten.offsets)
        self.metrics.checkpoint_duration.observe(self._last_write - started)
        self.metrics.checkpoint_last_success.set(self._last_write)
        if self.jobs is not None and (unwritten.jobs or any(unwritten.labels.values())):
            self.jobs.notify()
        self.on_written()
        self._adopt_champions()

    # -- repair --------------------------------------------------------------------------------

    def _repair(self, finished: Finished) -> None:
        """Promote the candidate that a job made, or say why it is not promoted."""
        stream = self.streams[finished.job.stream]
        index = stream.monitor.n_seen
        unwritten = self._unwritten
        unwritten.touched.add(stream.name)
        job, result = finished.job, finished.result
        if finished.state is not JobState.SUCCEEDED:
            outcomes = stream.monitor.repair_failed(f"training failed: {result.get('error', '')}")
        elif result["gate"]["promote"] and self._needs_approval(stream):
            waiting = self.jobs.publish(finished) if self.jobs else None
            outcomes = stream.monitor.repair_failed(
                f"version {waiting.version if waiting else '?'} is better and waits for approval: "
                f"shiftwatch models promote CONFIG VERSION --stream {stream.name}"
            )
        elif result["gate"]["promote"]:
            version = self.jobs.publish(finished) if self.jobs else None
            assert version is not None
            reason = f"version {version.version} promoted: {result['gate']['reason']}"
            stream.champion_changed(version.version, self._scorer_of(version))
            outcomes = stream.repaired(reason)
            unwritten.writes.append(
                lambda tx: tx.set_champion(stream.name, version.version, reason, index)
            )
            self.metrics.champion_version.labels(stream.name).set(version.version)
        elif finished.champion_holds:
            outcomes = stream.repaired(
                f"champion kept, it is as good as before: {result['gate']['reason']}"
            )
        else:
            outcomes = stream.monitor.repair_failed(
                f"candidate rejected: {result['gate']['reason']}"
            )
        state, shown = finished.state, dict(result)
        unwritten.writes.append(lambda tx: tx.finish_job(job.id, state, shown))
        self.metrics.retrain_runs.labels(stream.name, finished.outcome).inc()
        self.metrics.retrain_duration.observe(float(result.get("elapsed_s", 0.0)))
        self._after(stream, Batch(outcomes))

    def _after(self, stream: Stream, batch: Batch) -> None:
        """Put down and show what a batch or a repair did to a stream."""
        self._note(stream, batch.outcomes)
        show(self.metrics, stream, batch, self._clock())
        self.on_batch(stream, batch)

    @staticmethod
    def _needs_approval(stream: Stream) -> bool:
        model = stream.settings.model
        return model is not None and model.approval == "manual"

    def close(self) -> None:
        """Stop scorers and trainings; what they were doing goes on after the next start."""
        for stream in self.streams.values():
            if stream.scorer is not None:
                stream.scorer.close()
        if self.jobs is not None:
            self.jobs.close()
        self.decoder.close()
        self.dead_letters.close()
        self.source.close()


class NoChampionError(RuntimeError):
    """A stream is to be scored, but no model was ever trained for it."""
