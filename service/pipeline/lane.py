"""One lane at work: the records of one partition number, and the streams that are in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import structlog

from service.domain.decision import Means
from service.domain.job import Job
from service.monitor.outcomes import Outcomes
from service.notify.dead_letters import letter_of
from service.notify.messages import Subscriber
from service.pipeline.containment import REASON, Failures, StreamFailedError, contained
from service.pipeline.stream import Batch, Stream
from service.pipeline.unwritten import Unwritten
from service.pipeline.view import StreamView
from service.records.block import Block
from service.records.formats.decoder import Decoder
from service.records.reading import Given, read
from service.records.record import DecodeError, Record
from service.sources.source import Partition
from service.telemetry.metrics import Metrics

log = structlog.get_logger()


class Lane:
    """A lane that this process owns: hands each stream its records, and keeps what comes of it.

    Parameters
    ----------
    number
        The partition number.
    epoch
        What the store gave with the ownership.
    streams
        Names of the configured streams.
    decoder
        Turns records into observations and labels.
    open_stream
        Makes a stream of this lane, by its name; called with the first record of the stream.
    means
        What a stream has at hand to act with, besides trainings that are asked for already.
    metrics
        Counts what is refused.
    failures
        The streams that are not worked on.
    subscribers
        Who is told about incidents.
    is_only
        Whether the source has no other lane, so that no stream can have another part.
    """

    def __init__(
        self,
        number: int,
        epoch: int,
        streams: Iterable[str],
        decoder: Decoder,
        open_stream: Callable[[str, Lane], Stream],
        *,
        means: Callable[[Stream, Sequence[Job]], Means],
        metrics: Metrics,
        failures: Failures,
        subscribers: Sequence[Subscriber] = (),
        is_only: bool = False,
    ) -> None:
        self.number = number
        self.epoch = epoch
        self.is_only = is_only
        self.streams: dict[str, Stream] = {}
        self.views: Mapping[str, StreamView] = {}
        """What others see of each stream; replaced as a whole, because other threads read it."""
        self.polled = Block.of(())
        """Records that are not taken yet."""
        self.unwritten = Unwritten()
        self.begins: dict[Partition, int] = {}
        """Where partitions begin that the store has no offset of, as far as is known."""
        self.failing: list[StreamFailedError] = []
        """What streams raised at the last `take`."""
        self._configured = frozenset(streams)
        self._decoder = decoder
        self._open_stream = open_stream
        self._means = means
        self._mistimed: Counter[str] = Counter()
        self._metrics = metrics
        self._failures = failures
        self._subscribers = subscribers

    def open(self, name: str) -> Stream:
        """The lane's part of a configured stream."""
        stream = self.streams.get(name)
        if stream is None:
            stream = self.streams[name] = self._open_stream(name, self)
        return stream

    def take(self, block: Block) -> list[tuple[Stream, Batch]]:
        """Read a block and hand every stream its own, in order; what each stream made of them.

        What a stream raises is in `failing` then, and has not kept the others from theirs. Nothing
        has changed when this raises.
        """
        readers = {n: s.reader for n, s in self.streams.items() if s.reader is not None}
        reading = read(block, self._decoder, self._configured, readers)
        turned_away = self._turn_away(reading.streams)
        failing: dict[str, StreamFailedError] = {}
        for name, given in reading.streams.items():
            try:
                with contained(name, self.number, given):
                    self.open(name).look_up(given.ids)
            except StreamFailedError as error:
                failing[name] = error
        unwritten = self.unwritten
        for reason, n in reading.ignored.items():
            self._metrics.records_ignored.labels(reason).inc(n)
        for at, refusal in reading.refused:
            self.refuse(block[at], refusal)
        for name, record, refusal in turned_away:
            self.refuse(record, refusal, name)
        unwritten.offsets |= block.next_offsets()
        unwritten.n_records += len(block)
        done = []
        for name, given in reading.streams.items():
            if name in failing:
                continue
            stream = self.streams[name]
            unwritten.touched.add(name)
            try:
                with contained(name, self.number, given):
                    batch = stream.take(given, self._means(stream, unwritten.jobs))
                    self._keep(stream, batch)
            except StreamFailedError as error:
                failing[name] = error
            else:
                done.append((stream, batch))
        self.failing = list(failing.values())
        return done

    def _keep(self, stream: Stream, batch: Batch) -> None:
        """Put down for the next transaction what a batch did to a stream."""
        name, unwritten = stream.name, self.unwritten
        for record, refusal in batch.refused:
            self.refuse(record, refusal, name)
        if stream.keeps_samples:
            joined = batch.outcomes.joined
            unwritten.samples.setdefault(name, []).extend(batch.samples)
            unwritten.labels.setdefault(name, []).extend(
                zip(joined.index.tolist(), joined.labels, strict=True)
            )
        self._say_mistimed(stream, batch.outcomes)
        self.note(stream, batch.outcomes)

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

    def _turn_away(self, by_stream: dict[str, Given]) -> list[tuple[str, Record, DecodeError]]:
        """Take the records of streams that have failed out, each with its stream and why."""
        found: list[tuple[str, Record, DecodeError]] = []
        if self._failures:
            for name in list(by_stream):
                failure = self._failures.of(self.number, name)
                if failure is not None:
                    found += [
                        (name, record, DecodeError(REASON, str(failure), record))
                        for record in by_stream.pop(name).records
                    ]
        return found

    def refuse(self, record: Record, error: DecodeError, stream: str = "") -> None:
        """Put a record to the dead letters."""
        self._metrics.dead_letters.labels(error.reason).inc()
        self.unwritten.dead_letters.append(letter_of(record, error, stream))

    def note(self, stream: Stream, outcomes: Outcomes) -> None:
        """Put incidents, their messages and their jobs down for the next transaction."""
        self.unwritten.note(
            outcomes,
            stream=stream.name,
            lane=self.number,
            day=stream.monitor.day,
            to=self._subscribers,
        )

    def give_up(self, error: StreamFailedError) -> None:
        """Go on without a stream that failed, where what was taken cannot be read again.

        What it did since the last transaction is not written, and its batch is refused.
        """
        name = error.failure.stream
        self.streams.pop(name, None)
        self.unwritten.drop(name)
        for record in error.records:
            self.refuse(record, DecodeError(REASON, str(error.failure), record), name)

    def written(self) -> Unwritten:
        """Begin anew, once the transaction is over; what was written."""
        done, self.unwritten = self.unwritten, Unwritten()
        self.begins.clear()
        return done
