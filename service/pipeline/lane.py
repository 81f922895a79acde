"""One lane at work: the records of one partition number, and the streams that are in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from service.monitor.outcomes import Outcomes
from service.notify.dead_letters import letter_of
from service.notify.messages import Subscriber
from service.pipeline.containment import REASON, Failures, StreamFailedError, contained
from service.pipeline.stream import Batch, Decoded, Stream
from service.pipeline.unwritten import Unwritten
from service.pipeline.view import StreamView
from service.records.formats.decoder import Decoder, Ignored
from service.records.record import DecodeError, Record
from service.sources.source import Partition
from service.telemetry.metrics import Metrics


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
        self.polled: list[Record] = []
        """Records that are not taken yet."""
        self.unwritten = Unwritten()
        self.begins: dict[Partition, int] = {}
        """Where partitions begin that the store has no offset of, as far as is known."""
        self.failing: list[StreamFailedError] = []
        """What streams raised at the last `take`."""
        self._configured = frozenset(streams)
        self._decoder = decoder
        self._open_stream = open_stream
        self._metrics = metrics
        self._failures = failures
        self._subscribers = subscribers

    def open(self, name: str) -> Stream:
        """The lane's part of a configured stream."""
        stream = self.streams.get(name)
        if stream is None:
            stream = self.streams[name] = self._open_stream(name, self)
        return stream

    def take(self, records: Sequence[Record]) -> list[tuple[Stream, Batch]]:
        """Decode records and hand every stream its own, in order; what each stream made of them.

        What a stream raises is in `failing` then, and has not kept the others from theirs. Nothing
        has changed when this raises.
        """
        by_stream, refused, ignored = self._decode(records)
        turned_away = self._turn_away(by_stream)
        failing: dict[str, StreamFailedError] = {}
        for name, decoded in by_stream.items():
            try:
                with contained(name, self.number, decoded):
                    self.open(name).look_up(decoded)
            except StreamFailedError as error:
                failing[name] = error
        unwritten = self.unwritten
        for reason, n in ignored.items():
            self._metrics.records_ignored.labels(reason).inc(n)
        for record, refusal in refused:
            self.refuse(record, refusal)
        for name, record, refusal in turned_away:
            self.refuse(record, refusal, name)
        for record in records:
            unwritten.offsets[record.topic, record.partition] = record.offset + 1
        unwritten.n_records += len(records)
        done = []
        for name, decoded in by_stream.items():
            if name in failing:
                continue
            stream = self.streams[name]
            unwritten.touched.add(name)
            try:
                with contained(name, self.number, decoded):
                    batch = stream.take(decoded)
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
            unwritten.samples.setdefault(name, []).extend(batch.samples)
            unwritten.labels.setdefault(name, []).extend(
                (index, label) for index, label, _ in batch.outcomes.joined
            )
        self.note(stream, batch.outcomes)

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

    def _turn_away(
        self, by_stream: dict[str, list[Decoded]]
    ) -> list[tuple[str, Record, DecodeError]]:
        """Take the records of streams that have failed out, each with its stream and why."""
        found: list[tuple[str, Record, DecodeError]] = []
        if self._failures:
            for name in list(by_stream):
                failure = self._failures.of(self.number, name)
                if failure is not None:
                    found += [
                        (name, record, DecodeError(REASON, str(failure), record))
                        for record, _ in by_stream.pop(name)
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
            day=stream.monitor.newest_time[:10],
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
