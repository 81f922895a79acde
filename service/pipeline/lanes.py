"""Which lanes are this process's: taken over, given up, lost, begun again.

The store decides. Taking a lane over is `Store.claim`, then its states, then its offsets; what was
made of a lane and not written is forgotten, and made again from the same records (docs/adr/0017).
A lane whose stream has failed is begun again the same way, without asking for it anew.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import structlog

from service.domain.decision import Means
from service.domain.job import Job
from service.notify.messages import subscribers
from service.pipeline.checkpoint import Checkpoint
from service.pipeline.containment import Failures, StreamFailedError, contained
from service.pipeline.lane import Lane
from service.pipeline.stream import Stream
from service.pipeline.unwritten import Unwritten
from service.pipeline.view import StreamView
from service.records.formats.decoder import Decoder
from service.records.record import TemporaryError
from service.repair.jobs import Jobs
from service.settings.service import Settings
from service.sources.source import NotNowError, Partition, Source
from service.store import states
from service.store.errors import StoreError
from service.store.states import FormatError
from service.store.store import Store
from service.telemetry.metrics import Metrics

log = structlog.get_logger()


class Lanes(Mapping[int, Lane]):
    """The lanes of this process by number; the source's `Owner`.

    Parameters
    ----------
    settings
        The whole configuration.
    source
        What delivers the lanes' records.
    store
        Where their states and offsets are.
    decoder
        Decodes their records.
    open_stream
        Makes a stream of a lane, by its name.
    means
        What a stream has at hand to act with.
    checkpoint
        Writes lanes.
    failures
        The streams that are not worked on.
    metrics
        Counts what happens.
    jobs
        The trainings, which belong to lanes; None where nothing is trained.
    forgotten
        Called with what a lane of this process has done and will not write.
    """

    def __init__(
        self,
        settings: Settings,
        source: Source,
        store: Store,
        decoder: Decoder,
        *,
        open_stream: Callable[[str, Lane], Stream],
        means: Callable[[Stream, Sequence[Job]], Means],
        checkpoint: Checkpoint,
        failures: Failures,
        metrics: Metrics,
        jobs: Jobs | None = None,
        forgotten: Callable[[Unwritten], None] = lambda unwritten: None,
    ) -> None:
        self.failures = failures
        self.total = 1
        """How many lanes the source has, in all processes."""
        self.is_new = False
        """Whether lanes began, or began again, since somebody looked and set it back."""
        self._settings = {s.name: s for s in settings.streams}
        self._source = source
        self._store = store
        self._decoder = decoder
        self._open_stream = open_stream
        self._means = means
        self._checkpoint = checkpoint
        self._metrics = metrics
        self._jobs = jobs
        self._forgotten = forgotten
        self._subscribers = subscribers(settings)
        self._owned: dict[int, Lane] = {}
        self._again: set[int] = set()
        """Lanes that are to begin again as soon as the store answers."""

    def __getitem__(self, number: int) -> Lane:
        return self._owned[number]

    def __iter__(self) -> Iterator[int]:
        return iter(self._owned)

    def __len__(self) -> int:
        return len(self._owned)

    def parts(self) -> list[tuple[Lane, Stream]]:
        """Every stream's part with its lane."""
        return [(lane, s) for lane in self._owned.values() for s in lane.streams.values()]

    # -- the source's owner --------------------------------------------------------------------

    def assigned(self, lanes: Collection[int], total: int) -> Mapping[Partition, int]:
        """Become the owner of lanes, and take up their streams where the store has them."""
        self.total = total
        try:
            taken = [self._take_over(number) for number in lanes]
        except (StoreError, TemporaryError) as error:
            if isinstance(error, StoreError):
                self._metrics.store_errors.inc()
            raise NotNowError(str(error)) from error
        offsets: dict[Partition, int] = {}
        for lane, of_lane in taken:
            self._owned[lane.number] = lane
            self._again.discard(lane.number)
            offsets |= of_lane
            log.info("lane assigned", lane=lane.number, epoch=lane.epoch, streams=[*lane.streams])
        self.is_new = True
        self._metrics.lanes_owned.set(len(self._owned))
        return offsets

    def begun(
        self, offsets: Mapping[Partition, int], gone: Mapping[Partition, int] | None = None
    ) -> None:
        """Keep where partitions begin, with the next transaction."""
        for topic, number in gone or ():
            self._metrics.offset_resets.labels(topic, str(number)).inc()
        for at, offset in offsets.items():
            if at[1] in self._owned:
                self._owned[at[1]].begins[at] = offset
                self._owned[at[1]].unwritten.offsets[at] = offset

    def revoked(self, lanes: Collection[int]) -> None:
        """Write what these lanes have done, and let go of them.

        If it cannot be written their next owner does it again, from the store's offsets.
        """
        try:
            left = self._checkpoint.write([self._owned[n] for n in lanes if n in self._owned])
        except (StoreError, OSError) as error:
            log.warning("lanes left unwritten", lanes=sorted(lanes), reason=str(error))
        else:
            for failed in left.failed:
                self.failures.met(failed)
        self.lost(lanes)

    def lost(self, lanes: Collection[int]) -> None:
        """Forget these lanes; what they have not written, their owner does again."""
        for number in lanes:
            if self._owned.pop(number, None) is not None:
                log.info("lane given up", lane=number)
            self._again.discard(number)
        if self._jobs is not None:
            self._jobs.leave(lanes)
        self._metrics.lanes_owned.set(len(self._owned))

    def _take_over(self, number: int) -> tuple[Lane, Mapping[Partition, int]]:
        # First the claim: from then on no older owner can write.
        lane = self._lane(number, self._store.claim(number))
        self._restore(lane)
        if self._jobs is not None:
            self._jobs.take_over(number)
        return lane, self._store.offsets(number)

    def _lane(self, number: int, epoch: int) -> Lane:
        return Lane(
            number,
            epoch,
            self._settings,
            self._decoder,
            self._open_stream,
            means=self._means,
            metrics=self._metrics,
            failures=self.failures,
            subscribers=self._subscribers,
            is_only=self.total == 1,
        )

    def _restore(self, lane: Lane) -> None:
        """Open the lane's streams: those of the store, or where there is one lane, all of them."""
        stored = self._store.states(lane.number)
        for name in self._settings:
            state = stored.get(name)
            if state is None and not lane.is_only:
                continue
            if self.failures.of(lane.number, name) is not None:
                continue
            try:
                with contained(name, lane.number):
                    stream = lane.open(name)
                    if state is not None:
                        stream.restore(states.loads(state))
                    view = StreamView.of(stream, lane.number)
            except StreamFailedError as error:
                if isinstance(error.__cause__, FormatError):
                    raise error.__cause__ from None  # the whole store is of another release
                self._fail(lane, error)
            else:
                lane.views = {**lane.views, name: view}

    # -- writing -------------------------------------------------------------------------------

    def write(self, lanes: Sequence[Lane]) -> None:
        """Write these lanes, and do without those and the streams that cannot be.

        Raises
        ------
        StoreError, OSError
            If it cannot be written now; nothing is lost, and it can be tried again.
        """
        while lanes:
            left = self._checkpoint.write(lanes)
            for number in left.fenced:
                # Another process has the lane. What this one made of it is not to be written.
                self._metrics.lanes_fenced.inc()
                self.lost([number])
                self._source.release(number)
            for error in left.failed:
                self.contain(error)
            again = {error.failure.lane for error in left.failed}
            lanes = [self._owned[number] for number in sorted(again & self._owned.keys())]

    # -- streams that fail ---------------------------------------------------------------------

    def contain(self, error: StreamFailedError) -> None:
        """Go on without a stream.

        Its lane is to begin again, so that the others end as if the stream had never been there.
        Where the source cannot go back, they go on from where they are.
        """
        lane = self._owned.get(error.failure.lane)
        if lane is None or self.failures.of(lane.number, error.failure.stream) is not None:
            return
        self._fail(lane, error)
        if not self._source.seeks_back:
            lane.give_up(error)
            return
        lane.begins = lane.polled.first_offsets() | lane.begins
        # An empty lane until then, with which nothing can be done.
        self._owned[lane.number] = self._emptied(lane)
        self._again.add(lane.number)
        self._forgotten(lane.unwritten)

    def _emptied(self, lane: Lane) -> Lane:
        fresh = self._lane(lane.number, lane.epoch)
        fresh.views, fresh.begins = lane.views, lane.begins
        return fresh

    def _fail(self, lane: Lane, error: StreamFailedError) -> None:
        self.failures.met(error)
        name = error.failure.stream
        lane.streams.pop(name, None)
        last = lane.views.get(name) or StreamView(self._settings[name], lane.number)
        lane.views = {**lane.views, name: last.failed(error.failure)}

    @property
    def must_begin_again(self) -> bool:
        """Whether a lane waits for the store, from which it is to begin again."""
        return bool(self._again)

    def begin_again(self) -> None:
        """Take the lanes up where the store has them, and have the source read from there.

        Raises
        ------
        StoreError, TemporaryError
            If the store or what decodes records does not answer; it can be tried again.
        """
        for number in sorted(self._again):
            lane = self._emptied(self._owned[number])
            self._restore(lane)
            stored = self._store.offsets(number)
            lane.begins = {at: n for at, n in lane.begins.items() if at not in stored}
            lane.unwritten.offsets.update(lane.begins)
            self._source.seek({**stored, **lane.begins})
            self._owned[number] = lane
            self._again.discard(number)
            self.is_new = True
            log.warning("lane begins again", lane=number)
