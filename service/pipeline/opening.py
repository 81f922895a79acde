"""How a lane's part of a stream is made."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from detectors.base import Factor, Verdict
from service.domain.decision import ActionKind, Decision, Means
from service.pipeline.lane import Lane
from service.pipeline.parts import Parts
from service.pipeline.stream import Decoded, Stream
from service.records.formats.decoder import Decoder, Ignored
from service.records.record import DecodeError
from service.repair.budget import Budget
from service.repair.champions import Champions
from service.repair.policy import decide
from service.settings.service import Settings
from service.settings.stream import StreamSettings
from service.sources.files import FileSource
from service.store.spill import StoreSpill
from service.store.store import Store


class Opening:
    """Makes streams, each with what it needs of the others: champion, policy, store, parts.

    Parameters
    ----------
    settings
        The whole configuration.
    store
        Where labels wait that have no room in memory.
    decoder
        Decodes the records of reference files.
    champions, budget, parts
        What scores, how many trainings may be asked for, and what other lanes have found.
    stream_of
        Makes a stream, as `Stream` does.

    Raises
    ------
    SourceError
        If a reference file is not there.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        decoder: Decoder,
        *,
        champions: Champions,
        budget: Budget,
        parts: Parts,
        stream_of: Callable[..., Stream] = Stream,
    ) -> None:
        self._settings = settings
        self._store = store
        self._decoder = decoder
        self._champions = champions
        self._budget = budget
        self._parts = parts
        self._stream_of = stream_of
        self._settings_of = {s.name: s for s in settings.streams}
        # All at the start: a file that is not there is a mistake in the configuration.
        self._references = {
            s.name: self._reference(s) for s in settings.streams if s.reference.file is not None
        }

    def __call__(self, name: str, lane: Lane) -> Stream:
        """A stream at its beginning, for a lane."""
        settings = self._settings_of[name]
        version, scorer = None, None
        if settings.model is not None:
            version, scorer = self._champions.of(name)
            self._budget.learn(name)
        stream = self._stream_of(
            settings,
            self._decider(settings, lane),
            scorer=scorer,
            images=self._settings.images,
            seed=self._settings.seed,
            decode=self._decoder.decode,
            elsewhere=lambda: self._parts.besides(name, lane.number),
            spill=StoreSpill(self._store, name, lane.number),
        )
        stream.version = version
        reference = self._references.get(name)
        if isinstance(reference, DecodeError):
            raise reference
        if reference is not None:
            stream.preload(reference)
        return stream

    def _reference(self, settings: StreamSettings) -> list[Decoded] | DecodeError:
        """The records of a stream's reference file; or the first one that cannot be read.

        That is said by the stream when it is opened, and concerns no other.
        """
        assert settings.reference.file is not None
        decoded: list[Decoded] = []
        with closing(FileSource(settings.reference.file)) as source:
            while not source.exhausted:
                for record in source.poll():
                    try:
                        body = self._decoder.decode(record)
                    except DecodeError as error:
                        return error
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
        """Trainings already asked for on the stream's own newest day."""
        day = stream.monitor.newest_time[:10]
        return self._budget.used(stream.name, day, lane.unwritten.jobs)
