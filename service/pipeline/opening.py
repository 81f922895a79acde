"""How a lane's part of a stream is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing

from detectors.base import Factor
from service.domain.decision import ActionKind, Means
from service.domain.job import Job
from service.monitor.stage2 import Policy
from service.pipeline.lane import Lane
from service.pipeline.parts import Parts
from service.pipeline.stream import Stream
from service.records.block import Block
from service.records.formats.decoder import Decoder, Ignored
from service.records.gather import Placed
from service.records.reading import Given
from service.records.record import DecodeError, Record
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
            _policy(settings),
            scorer=scorer,
            images=self._settings.images,
            seed=self._settings.seed,
            decode=self._decoder.decode,
            others=lambda: self._parts.besides(name, lane.number),
            spill=StoreSpill(self._store, name, lane.number),
        )
        stream.version = version
        reference = self._references.get(name)
        if isinstance(reference, DecodeError):
            raise reference
        if reference is not None:
            stream.preload(reference)
        return stream

    def means(self, stream: Stream, unwritten: Iterable[Job]) -> Means:
        """What a stream has at hand to act with; no verdict waits for the store over it.

        Parameters
        ----------
        stream
            The stream.
        unwritten
            Trainings of any stream that the store does not have yet.
        """
        model = stream.settings.model
        return Means(
            has_model=model is not None,
            has_scores=bool(stream.score_classes),
            per_day=model.max_per_day if model else 0,
            asked=self._budget.asked(stream.name, unwritten),
        )

    def _reference(self, settings: StreamSettings) -> Given | DecodeError:
        """The records of a stream's reference file; or the first one that cannot be read.

        That is said by the stream when it is opened, and concerns no other.
        """
        assert settings.reference.file is not None
        records: list[Record] = []
        bodies: list[Placed] = []
        with closing(FileSource(settings.reference.file)) as source:
            while not source.exhausted:
                for record in source.poll():
                    try:
                        body = self._decoder.decode(record)
                    except DecodeError as error:
                        return error
                    if not isinstance(body, Ignored) and body.stream == settings.name:
                        bodies.append((len(records), body))
                        records.append(record)
        return Given(Block.of(records), bodies)


def _policy(settings: StreamSettings) -> Policy:
    wanted = {factor: ActionKind(str(getattr(settings.on_confirmed, factor))) for factor in Factor}
    return lambda verdict, means, day: decide(verdict, wanted, means, day)
