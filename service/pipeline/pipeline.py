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

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from queue import SimpleQueue

import structlog

from detectors.base import Factor, Verdict
from models.registry import Registry
from models.spec import ModelVersion
from service.domain.decision import ActionKind, Decision, Means
from service.domain.incident import Incident
from service.domain.job import JobState
from service.monitor.outcomes import Outcomes
from service.notify.dead_letters import open_dead_letters
from service.pipeline.lane import Lane
from service.pipeline.show import show
from service.pipeline.stream import Batch, Decoded, Stream
from service.records.formats.decoder import Decoder, Ignored
from service.records.record import Record, TemporaryError
from service.repair.jobs import Finished, Jobs
from service.repair.policy import decide
from service.repair.scorers import Scorer, load_scorer
from service.settings.service import Settings
from service.settings.stream import StreamSettings
from service.sources.files import FileSource
from service.sources.source import NotNowError, Partition, Source
from service.store import states as checkpoint
from service.store.errors import FencedError, StoreError
from service.store.spill import StoreSpill
from service.store.store import Store
from service.telemetry.metrics import Metrics
from service.telemetry.trouble import Trouble

log = structlog.get_logger()

POLL_RECORDS = 500


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
        Unix seconds; only for timestamps in metrics.
    monotonic
        Seconds by a clock that is never set; only for when to write, never for results.
    scorer_of
        Loads a version's scorer.
    decoder
        Decodes the records; plain ones, and in every envelope but Avro's, by default.
    jobs
        Trains; None where nothing is to be trained.
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
        monotonic: Callable[[], float] = time.monotonic,
        scorer_of: Callable[[ModelVersion], Scorer] = load_scorer,
        decoder: Decoder | None = None,
        jobs: Jobs | None = None,
    ) -> None:
        self.settings = settings
        self.source = source
        self.store = store
        self.registry = registry
        self.metrics = metrics
        self.jobs = jobs
        self.decoder = decoder or Decoder(max_image_bytes=settings.images.max_bytes)
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
        self._monotonic = monotonic
        self._scorer_of = scorer_of
        self._scorers: dict[str, tuple[int, Scorer]] = {}
        self._retired: list[Scorer] = []
        self._job_days: dict[str, list[str]] = {s.name: [] for s in settings.streams}
        self._kept: list[Record] = []
        self._is_assigned = False
        self._idle = threading.Event()
        self._written_at = monotonic()
        self._store_trouble = Trouble(monotonic)
        self._decoder_trouble = Trouble(monotonic)
        self._finished: Finished | None = None
        self._settings_of = {s.name: s for s in settings.streams}
        self.lanes: dict[int, Lane] = {}
        self._n_lanes = 1
        self._parts: dict[str, list[Incident]] = {}
        """Open incidents of the streams that are in several lanes, as the store had them last."""
        self._references = {
            s.name: self._reference(s) for s in settings.streams if s.reference.file is not None
        }
        for name, stream in self._settings_of.items():
            if stream.model is not None:
                self._champion_scorer(name)
        self.source.start(self)
        self._adopt_champions()

    @property
    def streams(self) -> dict[str, Stream]:
        """The streams of this process by name; of one in several lanes the part seen most of."""
        found: dict[str, Stream] = {}
        for name in self._settings_of:
            parts = self.parts(name)
            if parts:
                found[name] = max(parts, key=lambda part: part.monitor.n_seen)
        return found

    def parts(self, name: str) -> list[Stream]:
        """A stream's parts in the lanes of this process."""
        return [lane.streams[name] for lane in self.lanes.values() if name in lane.streams]

    # -- lanes ---------------------------------------------------------------------------------

    def assigned(self, lanes: Collection[int], total: int) -> Mapping[Partition, int]:
        """Become the owner of lanes, and take up their streams where the store has them."""
        self._n_lanes = total
        try:
            taken = [self._take_over(number, everything=total == 1) for number in lanes]
        except (StoreError, TemporaryError) as error:
            if isinstance(error, StoreError):
                self.metrics.store_errors.inc()
            raise NotNowError(str(error)) from error
        offsets: dict[Partition, int] = {}
        for lane, of_lane in taken:
            self.lanes[lane.number] = lane
            offsets |= of_lane
            log.info("lane assigned", lane=lane.number, epoch=lane.epoch, streams=[*lane.streams])
        self._is_assigned = True
        self.metrics.lanes_owned.set(len(self.lanes))
        return offsets

    def _take_over(self, number: int, *, everything: bool) -> tuple[Lane, Mapping[Partition, int]]:
        """The lane with its streams: those of the store, or all that are configured."""
        # First the claim: from then on no older owner can write.
        epoch = self.store.claim(number)
        lane = Lane(
            number,
            epoch,
            self.settings,
            self.metrics,
            self.decoder,
            self._open,
            is_only=everything,
        )
        for name, state in self.store.states(number).items():
            if name in self._settings_of:
                lane.open(name).restore(checkpoint.loads(state))
        if everything:
            for name in self._settings_of:
                lane.open(name)
        if self.jobs is not None:
            self.jobs.take_over(number)
        return lane, self.store.offsets(number)

    def begun(
        self, offsets: Mapping[Partition, int], gone: Mapping[Partition, int] | None = None
    ) -> None:
        """Keep where partitions begin, with the next transaction."""
        for topic, number in gone or ():
            self.metrics.offset_resets.labels(topic, str(number)).inc()
        for at, offset in offsets.items():
            if at[1] in self.lanes:
                self.lanes[at[1]].unwritten.offsets[at] = offset

    def revoked(self, lanes: Collection[int]) -> None:
        """Write what these lanes have done, and let go of them.

        If it cannot be written their next owner does it again, from the store's offsets.
        """
        mine = [self.lanes[n] for n in lanes if n in self.lanes]
        try:
            self._write(mine)
        except (StoreError, OSError) as error:
            log.warning("lanes left unwritten", lanes=sorted(lanes), reason=str(error))
        self.lost(lanes)

    def lost(self, lanes: Collection[int]) -> None:
        """Forget these lanes; what they have not written, their owner does again."""
        for number in lanes:
            if self.lanes.pop(number, None) is not None:
                log.info("lane given up", lane=number)
        self._kept = [r for r in self._kept if r.partition in self.lanes]
        self.metrics.lanes_owned.set(len(self.lanes))
        if self.jobs is not None:
            self.jobs.leave(lanes)

    def _open(self, name: str, lane: Lane) -> Stream:
        settings = self._settings_of[name]
        version, scorer = None, None
        if settings.model is not None:
            version, scorer = self._champion_scorer(name)
            self._note_job_days(name)
        stream = Stream(
            settings,
            self._decider(settings, lane),
            scorer=scorer,
            images=self.settings.images,
            seed=self.settings.seed,
            decode=self.decoder.decode,
            elsewhere=lambda: [i for i in self._parts.get(name, ()) if i.lane != lane.number],
            spill=StoreSpill(self.store, name, lane.number),
        )
        stream.version = version
        if name in self._references:
            stream.preload(self._references[name])
        return stream

    def _champion_scorer(self, name: str) -> tuple[int, Scorer]:
        """The champion's version and its scorer, which all lanes share."""
        champion = self.store.champion(name)
        if champion is None:
            raise NoChampionError(
                f"streams.{name}.model: there is no trained version yet; train one "
                f"with: shiftwatch models train CONFIG --stream {name} --input FILE"
            )
        known = self._scorers.get(name)
        if known is None or known[0] != champion.version:
            scorer = self._scorer_of(self.registry.get(name, champion.version))
            self._scorers[name] = (champion.version, scorer)
            self.metrics.champion_version.labels(name).set(champion.version)
            if known is not None:
                self._retired.append(known[1])
        return self._scorers[name]

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

    def _decider(self, settings: StreamSettings, lane: Lane) -> Callable[[Verdict], Decision]:
        wanted = {
            factor: ActionKind(str(getattr(settings.on_confirmed, factor))) for factor in Factor
        }

        def choose(verdict: Verdict) -> Decision:
            stream = lane.streams[settings.name]
            budget = settings.model.max_per_day if settings.model else 0
            means = Means(
                has_model=settings.model is not None,
                has_scores=bool(stream.score_classes),
                jobs_left=budget - self._jobs_of_day(stream, lane),
            )
            return decide(verdict, wanted, means)

        return choose

    def _jobs_of_day(self, stream: Stream, lane: Lane) -> int:
        """Trainings already asked for on the day of the stream's own time."""
        day = stream.monitor.day
        unwritten = [j.spec["day"] for j in lane.unwritten.jobs if j.stream == stream.name]
        # Not the store's word of this moment: a verdict must not wait for it.
        return [*self._job_days[stream.name], *unwritten].count(day)

    def _note_job_days(self, name: str) -> None:
        self._job_days[name] = [str(j.spec.get("day", "")) for j in self.store.jobs(name)]

    # -- the loop ------------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Work until the source is exhausted or `stop` is set; then write what is left."""
        self.stop = stop
        while not stop.is_set() and self.step():
            pass
        while not stop.is_set():
            try:
                self.write()
            except (StoreError, OSError) as error:
                self._met(error)
                stop.wait(1.0)
            else:
                return
        self.write()

    def step(self, *, timeout_s: float = 0.2) -> bool:
        """Poll, update, and write if it is time; False when the source has nothing left."""
        waits = self._store_trouble.lasts or (self.pause_while_training and self.jobs_pending)
        room = 0 if waits or self._kept else POLL_RECORDS
        found = self.source.poll(room, timeout_s)
        self._kept.extend(found)  # of a new list, if lanes went away meanwhile
        records = bool(self._kept)
        self._unless_away(self._take_kept)
        self._close_by_hand()
        self._unless_away(self._end_job)
        self._write_if_due()
        self._unless_away(self._start_job)
        busy = self._finished is not None or (self.jobs is not None and self.jobs.is_busy)
        waits = self._store_trouble.lasts or self._decoder_trouble.lasts
        if waits or (busy and not records):
            self._idle.wait(timeout_s)
        return bool(records or busy or waits) or not self.source.exhausted

    def _unless_away(self, work: Callable[[], None]) -> None:
        """Do what may need the store, if it is there; what cannot be done is done later."""
        if self._store_trouble.lasts:
            return
        try:
            work()
        except StoreError as error:
            self._met(error)

    def _take_kept(self) -> None:
        """Take the records; those that cannot be decoded yet are kept, and decoded again."""
        self._adopt_if_assigned()
        if not self._decoder_trouble.may_try:
            return
        try:
            self._take()
        except TemporaryError as error:
            self._decoder_trouble.met(error)
        else:
            self._decoder_trouble.over()

    def _end_job(self) -> None:
        if self.jobs is not None:
            self._finished = self._finished or self.jobs.poll()
        if self._finished is not None:
            self._repair(self._finished)
            self._finished = None

    def _start_job(self) -> None:
        if self.jobs is not None:
            self.jobs.start_next(self.lanes.keys())

    @property
    def jobs_pending(self) -> bool:
        """Whether a training is asked for, runs, or is about to."""
        asked = any(lane.unwritten.jobs for lane in self.lanes.values())
        return asked or (self.jobs is not None and self.jobs.is_busy)

    def _take(self) -> None:
        """Hand every lane its records, in order; what cannot be taken now is kept."""
        by_lane: dict[int, list[Record]] = {}
        for record in self._kept:
            by_lane.setdefault(record.partition, []).append(record)
        for number, records in by_lane.items():
            lane = self.lanes[number]
            refused = len(lane.unwritten.dead_letters)
            batches = lane.take(records)
            self._kept = [r for r in self._kept if r.partition != number]
            self.n_records += len(records)
            self.n_refused += len(lane.unwritten.dead_letters) - refused
            for topic, n in Counter(r.topic for r in records).items():
                self.metrics.records_consumed.labels(topic).inc(n)
            for stream, batch in batches:
                self._show(stream, batch)

    def _show(self, stream: Stream, batch: Batch) -> None:
        show(self.metrics, stream, batch, self._clock())
        self.on_batch(stream, batch)

    def _after(self, lane: Lane, stream: Stream, outcomes: Outcomes) -> None:
        """Put down and show what was done to a stream besides its records."""
        lane.unwritten.touched.add(stream.name)
        lane.note(stream, outcomes)
        self._show(stream, Batch(outcomes))

    def _close_by_hand(self) -> None:
        """Resolve the incidents that an operator has asked to close."""
        while not self.to_close.empty():
            id_, reason = self.to_close.get()
            for lane, stream in self._all_parts():
                if id_ in stream.open:
                    self._after(lane, stream, stream.close(id_, f"closed: {reason}"))

    def _all_parts(self) -> list[tuple[Lane, Stream]]:
        return [(lane, s) for lane in self.lanes.values() for s in lane.streams.values()]

    # -- checkpoint ----------------------------------------------------------------------------

    def _write_if_due(self) -> None:
        lanes = list(self.lanes.values())
        if self._store_trouble.lasts:
            if not self._store_trouble.may_try:
                return
        elif not self._write_due():
            # Only what somebody waits for: a lane's states are some megabytes.
            lanes = [lane for lane in lanes if lane.unwritten.is_urgent]
            if not lanes:
                return
        try:
            self._write_out(lanes)
        except (StoreError, OSError) as error:
            # What is not written stays in memory, and nothing more is taken until it is.
            self._met(error)

    def _is_stopping(self) -> bool:
        return self.stop.is_set()

    def _met(self, error: StoreError | OSError) -> None:
        self.metrics.store_errors.inc()
        self._store_trouble.met(error)

    def _write_due(self) -> bool:
        pending = [lane.unwritten for lane in self.lanes.values() if lane.unwritten]
        limits = self.settings.checkpoint
        waited = self._monotonic() - self._written_at >= limits.every_s
        return bool(pending) and (
            waited or sum(u.n_records for u in pending) >= limits.every_records
        )

    def write(self) -> None:
        """Write everything since the last time in one transaction, then commit the offsets.

        Raises
        ------
        StoreError
            If it cannot be written now; nothing is lost, and it can be tried again.
        """
        self._write_out(list(self.lanes.values()))

    def _write_out(self, lanes: Sequence[Lane]) -> None:
        """Write these lanes, and learn what has changed in the store."""
        self._write(lanes)
        if not any(lane.unwritten for lane in self.lanes.values()):
            self._written_at = self._monotonic()
        self._store_trouble.over()
        self._read_parts()
        self._adopt_champions()

    def _write(self, lanes: Sequence[Lane]) -> None:
        lanes = [lane for lane in lanes if lane.unwritten]
        while lanes:
            try:
                self._write_lanes(lanes)
            except FencedError as error:
                # Another process has the lane. What this one made of it is not to be written.
                log.warning("lane lost to another process", lane=error.lane, reason=str(error))
                self.metrics.lanes_fenced.inc()
                lanes = [lane for lane in lanes if lane.number != error.lane]
                self.lost([error.lane])
                self.source.release(error.lane)
            else:
                return

    def _write_lanes(self, lanes: Sequence[Lane]) -> None:
        started = self._monotonic()
        for lane in lanes:
            lane.file_dead_letters(self.dead_letters)
        with self.store.transaction({lane.number: lane.epoch for lane in lanes}) as tx:
            for name in sorted({i.stream for lane in lanes for i in lane.confirmed}):
                tx.lock_stream(name)
            for lane in lanes:
                lane.fold(tx)
            for lane in lanes:
                lane.write_own(tx)
            for lane in lanes:
                lane.write_shared(tx)
        offsets: dict[Partition, int] = {}
        asked = False
        for lane in lanes:
            offsets |= lane.unwritten.offsets
            asked = asked or bool(lane.unwritten.jobs) or any(lane.unwritten.labels.values())
            for name, kind in lane.unwritten.confirmed.values():
                self.metrics.incidents.labels(name, kind).inc()
            lane.written()
        self.metrics.checkpoint_duration.observe(self._monotonic() - started)
        self.source.commit(offsets)
        self.metrics.checkpoint_last_success.set(self._clock())
        for (topic, number), lag in self.source.lags().items():
            self.metrics.consumer_lag_records.labels(topic, str(number)).set(lag)
        if self.jobs is not None and asked:
            self.jobs.notify()
            for name in {stream.name for lane in lanes for stream in lane.streams.values()}:
                self._note_job_days(name)
        self.on_written()

    def _read_parts(self) -> None:
        """Learn what other lanes have found; never while records are taken."""
        if self._n_lanes == 1:
            return
        found: dict[str, list[Incident]] = {}
        for incident in self.store.incidents_of_parts():
            if not incident.segment:
                found.setdefault(incident.stream, []).append(incident)
        self._parts = found

    # -- repair --------------------------------------------------------------------------------

    def _adopt_if_assigned(self) -> None:
        """Before its first record a lane is brought to the champion that holds now."""
        if self._is_assigned:
            self._adopt_champions()
            self._is_assigned = False
            self._read_parts()

    def _adopt_champions(self) -> None:
        """Serve with champions that an operator or another process has made."""
        for lane, stream in self._all_parts():
            champion = self.store.champion(stream.name) if stream.settings.model else None
            if champion is None or champion.version == stream.version:
                continue
            stream.champion_changed(*self._champion_scorer(stream.name))
            self._after(lane, stream, stream.repaired(champion.reason))
        self._close_retired()

    def _use(self, stream: Stream, version: ModelVersion) -> None:
        """Serve a part of a stream with a version that is not the champion yet."""
        former = self._scorers.get(stream.name)
        if former is not None:
            self._retired.append(former[1])
        scorer = self._scorer_of(version)
        self._scorers[stream.name] = (version.version, scorer)
        stream.champion_changed(version.version, scorer)
        self.metrics.champion_version.labels(stream.name).set(version.version)

    def _close_retired(self) -> None:
        used = {id(stream.scorer) for _, stream in self._all_parts()}
        for scorer in [s for s in self._retired if id(s) not in used]:
            self._retired.remove(scorer)
            scorer.close()

    def _repair(self, finished: Finished) -> None:
        """Promote the candidate that a job made, or say why it is not promoted."""
        lane = self.lanes.get(int(finished.job.spec.get("lane", 0)))
        if lane is None:
            return  # its owner trains again
        stream = lane.open(finished.job.stream)
        index = stream.monitor.n_seen
        writes = lane.unwritten.writes
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
            self._use(stream, version)
            outcomes = stream.repaired(reason)
            writes.append(lambda tx: tx.set_champion(stream.name, version.version, reason, index))
        elif finished.champion_holds:
            outcomes = stream.repaired(
                f"champion kept, it is as good as before: {result['gate']['reason']}"
            )
        else:
            outcomes = stream.monitor.repair_failed(
                f"candidate rejected: {result['gate']['reason']}"
            )
        state, shown = finished.state, dict(result)
        writes.append(lambda tx: tx.finish_job(job.id, state, shown))
        self.metrics.retrain_runs.labels(stream.name, finished.outcome).inc()
        self.metrics.retrain_duration.observe(float(result.get("elapsed_s", 0.0)))
        self._after(lane, stream, outcomes)

    @staticmethod
    def _needs_approval(stream: Stream) -> bool:
        model = stream.settings.model
        return model is not None and model.approval == "manual"

    def close(self) -> None:
        """Stop scorers and trainings; what they were doing goes on after the next start."""
        for scorer in [*self._retired, *(scorer for _, scorer in self._scorers.values())]:
            scorer.close()
        if self.jobs is not None:
            self.jobs.close()
        self.decoder.close()
        self.dead_letters.close()
        self.source.close()


class NoChampionError(RuntimeError):
    """A stream is to be scored, but no model was ever trained for it."""
