"""The loop: poll, take, what an operator asks for, trainings that end, a checkpoint, trainings that
begin.

What it guarantees, and by which order of steps, is in `service.pipeline.checkpoint`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from models.registry import Registry
from models.spec import ModelVersion
from service.monitor.outcomes import Outcomes
from service.notify.dead_letters import open_dead_letters
from service.pipeline.checkpoint import Checkpoint, poll, update
from service.pipeline.containment import Failure, Failures, StreamFailedError, contained
from service.pipeline.lane import Lane
from service.pipeline.lanes import Lanes
from service.pipeline.opening import Opening
from service.pipeline.parts import Parts
from service.pipeline.repairs import Repairs
from service.pipeline.requests import Requests
from service.pipeline.show import Shows
from service.pipeline.stream import Batch, Stream
from service.pipeline.unwritten import Unwritten
from service.pipeline.view import View
from service.pipeline.writing import Writing
from service.records.formats.decoder import Decoder
from service.records.record import TemporaryError
from service.repair.jobs import Jobs
from service.repair.scorers import Scorer, load_scorer
from service.settings.service import Settings
from service.sources.source import Source
from service.store.errors import StoreError
from service.store.store import Store
from service.telemetry.metrics import Metrics
from service.telemetry.trouble import Trouble

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
    stream_of
        Makes a stream, as `Stream` does.

    Attributes
    ----------
    lanes
        The lanes of this process, by number.
    stop
        Set to end: whatever waits for somebody gives up then.
    pause_while_training
        Whether nothing is taken while a training runs, as in a replay.
    requests
        What an operator asks for.
    n_records, n_refused
        Records taken, and those of them that are dead letters.
    on_batch
        Called with a stream and what a batch did to it, when it is to be seen in `view`.
    on_written
        Called after each transaction.
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
        stream_of: Callable[..., Stream] = Stream,
    ) -> None:
        self.source = source
        self.metrics = metrics
        self.decoder = decoder or Decoder(max_image_bytes=settings.images.max_bytes)
        self.stop = threading.Event()
        self.pause_while_training = False
        self.requests = Requests(self._put_down)
        self.n_records = 0
        self.n_refused = 0
        self.on_batch: Callable[[Stream, Batch], None] = lambda stream, batch: None
        self.on_written: Callable[[], None] = lambda: None
        self._shows = Shows(metrics, clock)
        self._parts = Parts(store)
        self._decoder_trouble = Trouble(monotonic)
        self._dead_letters = open_dead_letters(settings, self._is_stopping)
        self._repairs = Repairs(
            settings,
            store,
            registry,
            metrics,
            jobs=jobs,
            scorer_of=scorer_of,
            monotonic=monotonic,
            after=self._put_down,
        )
        opening = Opening(
            settings,
            store,
            self.decoder,
            champions=self._repairs.champions,
            budget=self._repairs.budget,
            parts=self._parts,
            stream_of=stream_of,
        )
        self.lanes = Lanes(
            settings,
            source,
            store,
            self.decoder,
            open_stream=opening,
            means=opening.means,
            checkpoint=Checkpoint(
                store,
                source,
                self._dead_letters,
                metrics,
                clock=clock,
                monotonic=monotonic,
                act=self._act,
            ),
            failures=Failures(metrics),
            metrics=metrics,
            jobs=jobs,
            forgotten=self._forget,
        )
        self._writing = Writing(
            self.lanes,
            settings.checkpoint,
            metrics,
            monotonic=monotonic,
            written=self._learn,
        )
        source.start(self.lanes)
        self._learn()
        self._publish(is_ready=False)

    @property
    def view(self) -> View:
        """What others see of the streams: a batch replaces it, and nothing changes it."""
        return self._shows.view

    @property
    def jobs(self) -> Jobs | None:
        """What trains."""
        return self._repairs.jobs

    @property
    def jobs_pending(self) -> bool:
        """Whether a training is asked for, runs, or is about to."""
        asked = any(lane.unwritten.jobs for lane in self.lanes.values())
        return asked or (self.jobs is not None and self.jobs.is_busy)

    @property
    def waits_for(self) -> str:
        """Why nothing is taken: what an answer is missing from, and why; empty otherwise."""
        return self._writing.reason or self._decoder_trouble.reason

    @property
    def failures(self) -> list[Failure]:
        """What streams raised, each once; they are not worked on any more."""
        return self.lanes.failures.all

    @property
    def streams(self) -> dict[str, Stream]:
        """The streams of this process by name; of one in several lanes the part seen most of."""
        found: dict[str, Stream] = {}
        for _, part in self.lanes.parts():
            known = found.get(part.name)
            if known is None or part.monitor.n_seen > known.monitor.n_seen:
                found[part.name] = part
        return found

    def parts(self, name: str) -> list[Stream]:
        """A stream's parts in the lanes of this process."""
        return [part for _, part in self.lanes.parts() if part.name == name]

    # -- the loop ------------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Work until the source is exhausted or `stop` is set; then write what is left."""
        self.stop = stop
        try:
            while not stop.is_set() and (self.step() or not self._is_written()):
                pass
            if stop.is_set():
                self.write()
        finally:
            self._publish(is_ready=False)

    def step(self, *, timeout_s: float = 0.2) -> bool:
        """Poll, update, and write if it is time; False when the source has nothing left."""
        self._unless_away(self._begin_again)
        waits = self._waits or (self.pause_while_training and self.jobs_pending)
        poll(self.source, self.lanes, 0 if waits or self._has_polled else POLL_RECORDS, timeout_s)
        has_polled = self._has_polled
        self._unless_away(self._take_polled)
        self._unless_away(self.requests.carry_out)
        self._unless_away(self._repairs.end)
        self._writing.due()
        self._unless_away(self._repairs.start)
        self._publish()
        waits, busy = self._waits or self._decoder_trouble.lasts, self._repairs.is_busy
        if waits or (busy and not has_polled):
            self.stop.wait(timeout_s)
        return bool(has_polled or busy or waits) or not self.source.exhausted

    @property
    def _waits(self) -> bool:
        return self._writing.is_away or self.lanes.must_begin_again

    @property
    def _has_polled(self) -> bool:
        return any(lane.polled for lane in self.lanes.values())

    def _unless_away(self, work: Callable[[Lanes], None]) -> None:
        """Do what may need the store, if it is there; what cannot be done is done later."""
        if self._writing.is_away:
            return
        try:
            work(self.lanes)
        except StreamFailedError as error:
            self.lanes.contain(error)
        except StoreError as error:
            self._writing.met(error)

    # -- records -------------------------------------------------------------------------------

    def _begin_again(self, lanes: Lanes) -> None:
        """Take up the lanes that go on without a stream."""
        if lanes.must_begin_again and self._decoder_trouble.may_try:
            self._with_decoder(lanes.begin_again)

    def _take_polled(self, lanes: Lanes) -> None:
        """Take the records; those that cannot be decoded yet are kept, and decoded again."""
        if lanes.is_new:
            # Before its first record a lane is brought to the champions that hold now.
            self._learn()
            lanes.is_new = False
        if self._decoder_trouble.may_try:
            self._with_decoder(self._update)

    def _with_decoder(self, work: Callable[[], None]) -> None:
        try:
            work()
        except TemporaryError as error:
            self._decoder_trouble.met(error)
        else:
            self._decoder_trouble.over()

    def _update(self) -> None:
        for taken in update([*self.lanes.values()]):
            self.n_records += len(taken.block)
            self.n_refused += taken.n_refused
            for topic, n in taken.block.by_topic().items():
                self.metrics.records_consumed.labels(topic).inc(n)
            for error in taken.failed:
                self.lanes.contain(error)
            self._show(taken.lane, taken.batches)

    def _forget(self, unwritten: Unwritten) -> None:
        """What is read again is counted again."""
        self.n_records -= unwritten.n_records
        self.n_refused -= len(unwritten.dead_letters)
        self._repairs.forgotten(unwritten)

    def _show(self, lane: Lane, batches: Sequence[tuple[Stream, Batch]]) -> None:
        """Show what was done to a lane's streams, unless the lane is to begin again."""
        if self.lanes.get(lane.number) is lane:
            for error in self._shows.batches(lane, batches):
                self.lanes.contain(error)
        self._publish()
        if self.lanes.get(lane.number) is lane:
            for stream, batch in batches:
                self.on_batch(stream, batch)

    def _publish(self, *, is_ready: bool = True) -> None:
        self._shows.publish(self.lanes.values(), is_ready=is_ready)

    # -- besides records -----------------------------------------------------------------------

    def _put_down(self, lane: Lane, stream: Stream, outcomes: Outcomes) -> None:
        """Put down and show what was done to a stream besides its records."""
        lane.unwritten.touched.add(stream.name)
        with contained(stream.name, lane.number):
            lane.note(stream, outcomes)
        self._show(lane, [(stream, Batch(outcomes))])

    # -- checkpoint ----------------------------------------------------------------------------

    def write(self) -> bool:
        """Write everything since the last time in one transaction, then commit the offsets.

        Returns
        -------
        bool
            Whether all that was taken is written; otherwise a stream has failed, and what its lane
            had taken comes again.

        Raises
        ------
        StoreError, OSError
            If it cannot be written now; nothing is lost, and it can be tried again.
        """
        self._writing.all()
        return not self.lanes.must_begin_again

    def _is_written(self) -> bool:
        """Try to write everything; wait a moment if that did not work."""
        try:
            return self.write()
        except (StoreError, OSError) as error:
            self._writing.met(error)
            self.stop.wait(1.0)
            return False

    def _learn(self) -> None:
        """Learn what others have written."""
        if self.lanes.total > 1:
            self._parts.learn()
        try:
            self._repairs.adopt(self.lanes)
        except StreamFailedError as error:
            self.lanes.contain(error)

    def _act(self, lane: Lane, unwritten: Unwritten) -> list[StreamFailedError]:
        """Step 5: have done what was written."""
        failed = self._shows.written(lane, unwritten)
        self._repairs.written(unwritten, lane.streams)
        self.on_written()
        return failed

    def _is_stopping(self) -> bool:
        return self.stop.is_set()

    def close(self) -> None:
        """Stop scorers and trainings; what they were doing goes on after the next start."""
        self._repairs.close()
        self.decoder.close()
        self._dead_letters.close()
        self.source.close()
