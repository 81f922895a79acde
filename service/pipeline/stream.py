"""One stream at work: its schema, its scorer and its monitor, fed with the records of blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.base import State
from detectors.learners.prior import PriorCorrection
from models.images import ImageError
from models.images import decode as decode_image
from models.quality import PROPERTIES
from models.scorer import Scored
from models.tabular import tabular_row
from service.domain.decision import Means
from service.domain.incident import Incident
from service.domain.sample import ContentKind, StoredSample
from service.monitor import elsewhere
from service.monitor.monitor import Monitor
from service.monitor.outcomes import NOTHING, Outcomes
from service.monitor.representation import Embedding, Representation, Tabular
from service.monitor.segments import Segments
from service.monitor.spilling import Spill
from service.monitor.stage2 import Policy
from service.records.block import Block
from service.records.columns import Columns, Features
from service.records.decode import decode
from service.records.formats.decoder import Ignored
from service.records.gather import Body, Placed, gather
from service.records.plain import PlainReader
from service.records.reading import Given
from service.records.record import DecodeError, Observation, Record
from service.records.schema import LEARN_AT_MOST, FeatureSchema, SchemaLearner
from service.repair.scorers import Scorer
from service.settings.service import ImageSettings
from service.settings.stream import StreamSettings
from service.sources.images import fetch

Refused = tuple[Record, DecodeError]


@dataclass(frozen=True, slots=True)
class Batch:
    """What one batch of records did to a stream."""

    outcomes: Outcomes = NOTHING
    samples: Sequence[StoredSample] = ()
    refused: Sequence[Refused] = ()
    n_observations: int = 0


@dataclass(slots=True)
class _Inputs:
    """What a scorer reads of observations, and what they brought along."""

    rows: list[npt.NDArray[Any]] = field(default_factory=list)
    images: list[bytes] = field(default_factory=list)


class Stream:
    """A stream's schema, scorer and monitor.

    Parameters
    ----------
    settings
        The stream's settings.
    policy
        Which action answers a verdict.
    scorer
        The champion; None where the stream is scored elsewhere or not at all.
    images
        Limits of images, and where they may come from.
    seed, others
        As in `Monitor`.
    decode
        As the records that are taken were decoded; those that are held back are decoded again
        after a restart.
    spill
        Where observations and labels wait that have no room in memory; None to forget them.

    Attributes
    ----------
    reader
        Reads the stream's plain records; None while its schema is not known, and where its records
        are never plain.
    """

    def __init__(
        self,
        settings: StreamSettings,
        policy: Policy,
        *,
        scorer: Scorer | None,
        images: ImageSettings,
        seed: int,
        decode: Callable[[Record], Body | Ignored] = decode,
        others: elsewhere.Elsewhere = elsewhere.nowhere,
        spill: Spill | None = None,
    ) -> None:
        self.settings = settings
        self.name = settings.name
        self.scorer = scorer
        self.version: int | None = None
        self.reader: PlainReader | None = None
        self._policy = policy
        self._decode = decode
        self._images = images
        self._seed = seed
        self._others = others
        self._spill = spill
        self._schema: FeatureSchema | None = None
        self._learner: SchemaLearner | None = None
        self._held: list[tuple[Record, Body]] = []
        self.monitor: Monitor
        self._set_up(None)

    @property
    def is_image(self) -> bool:
        """Whether the events are images."""
        return self.settings.model is not None and self.settings.model.family == "vgg16"

    @property
    def keeps_samples(self) -> bool:
        """Whether observations are kept to train on."""
        return self.settings.model is not None

    @property
    def score_classes(self) -> tuple[str, ...]:
        """The classes of the scores, in their order."""
        return self.scorer.classes if self.scorer else tuple(self.settings.classes or ())

    @property
    def correction(self) -> tuple[tuple[str, ...], PriorCorrection | None]:
        """The scores' classes, and the correction that is in force; safe from any thread."""
        classes, correction = self.score_classes, self.monitor.reweighting.correction
        # A champion with other classes is here a moment before the correction is lifted.
        fits = correction is not None and len(correction.target_prior) == len(classes)
        return classes, correction if fits else None

    def _set_up(self, schema: FeatureSchema | None) -> None:
        self._schema = schema
        if not self.is_image:
            if schema is None and self.settings.features is not None:
                self._schema = schema = FeatureSchema.declared(self.settings.features)
            self._learner = SchemaLearner() if schema is None else None
        self.reader = self._open_reader()
        self.monitor = Monitor(
            self.settings,
            self._representation(),
            self._policy,
            score_classes=self.score_classes,
            seed=self._seed,
            others=self._others,
            spills=self._spill is not None,
        )
        self.segments = Segments(self.settings, self._representation, seed=self._seed)

    def _open_reader(self) -> PlainReader | None:
        schema = self._schema
        if schema is None or not schema.names or self.is_image:
            return None
        if self.scorer is not None and schema.categorical:
            return None  # of each record it has to be said that a tabular model takes no text
        try:
            return PlainReader(self.name, schema, self._own_classes)
        except ValueError:
            return None

    @property
    def _own_classes(self) -> tuple[str, ...]:
        """Of the scores that come with the records, where those count."""
        return () if self.scorer else self.score_classes

    def _representation(self) -> Representation:
        if self.is_image:
            assert self.settings.model is not None
            return Embedding(self.settings.model.embedding_components, PROPERTIES)
        return Tabular(self._schema or FeatureSchema.empty())

    # -- records ---------------------------------------------------------------------------------

    def look_up(self, ids: Iterable[str]) -> None:
        """Get at hand what waits in the store for the records that are taken next.

        Nothing has changed when this raises.
        """
        if self._spill is not None:
            wanted = self.monitor.waiting.wanted(ids)
            self.monitor.waiting.at_hand(self._spill.find(wanted) if wanted else ())

    def take(self, given: Given, means: Means) -> Batch:
        """Take records in order; `look_up` had their ids before."""
        if self._learner is not None:
            given = self._learn(given)
        columns, inputs, refused = self._columns(given)
        before = self.monitor.n_seen
        with_segments = bool(self.settings.segments.by)
        events = self.monitor.join(columns, with_changes=with_segments)
        outcomes = self.monitor.read(events, columns, means)
        if with_segments:
            shown = self.segments.update(columns, events, outcomes, before)
            outcomes = _with(outcomes, shown)
        samples = self._samples(columns, inputs, before) if self.keeps_samples else ()
        return Batch(outcomes, samples, refused, columns.n_observations)

    def _learn(self, given: Given) -> Given:
        """Hold records back until the first observations have told the features."""
        assert self._learner is not None
        block, bodies = given.block, given.bodies
        for _, body in bodies:
            if isinstance(body, Observation):
                schema = self._learner.add(body)
                if schema is not None:
                    held, self._held = self._held, []
                    self._set_up(schema)
                    first = [(at, body) for at, (_, body) in enumerate(held)]
                    rest = [(len(held) + at, body) for at, body in bodies]
                    whole = Block.joined([Block.of(record for record, _ in held), block])
                    return Given(whole, [*first, *rest])
        self._held += [(block[at], body) for at, body in bodies]
        # Observations are at most LEARN_AT_MOST here; labels of other ones could come without end.
        del self._held[: -self.settings.labels.max_pending - LEARN_AT_MOST]
        return Given(block)

    def _columns(self, given: Given) -> tuple[Columns, _Inputs, list[Refused]]:
        """The records as columns, what the scorer reads of them, and those that are refused."""
        block, inputs = given.block, _Inputs()
        bodies, wrong = self._readable(given, inputs)
        schema = None if self.is_image else self._schema or FeatureSchema.empty()
        columns, unfit = gather(block, bodies, schema, self._own_classes)
        if given.plain is not None:
            columns = Columns.interleaved([given.plain, columns])
        refused = [(block[at], error) for at, error in sorted([*wrong, *unfit], key=_place)]
        if self.scorer is None or not columns.n_observations:
            return columns, inputs, refused
        if not inputs.rows:
            assert self._schema is not None
            order = np.argsort(np.array(self._schema.numeric, object), kind="stable")
            inputs.rows = list(columns.features.numbers[:, order])
        scored = self.scorer.score(np.stack(inputs.rows))
        features = _embedded(scored) if self.is_image else columns.features
        return columns.scored(features, scored.scores.astype(np.float64)), inputs, refused

    def _readable(
        self, given: Given, inputs: _Inputs
    ) -> tuple[Sequence[Placed], list[tuple[int, DecodeError]]]:
        """The bodies that the scorer can read, with what it reads, and those that it cannot."""
        if self.scorer is None or not (self.is_image or self._has_text):
            return given.bodies, []
        good: list[Placed] = []
        wrong: list[tuple[int, DecodeError]] = []
        for at, given_body in given.bodies:
            body = given_body
            if isinstance(body, Observation):
                try:
                    body = self._fetched(body)
                    inputs.rows.append(self._input(body))
                except (DecodeError, ImageError) as error:
                    reason = error if isinstance(error, DecodeError) else _image_error(error)
                    wrong.append((at, reason.at(given.block[at])))
                    continue
                if self.is_image:
                    inputs.images.append(body.image or b"")
            good.append((at, body))
        return good, wrong

    @property
    def _has_text(self) -> bool:
        return self._schema is not None and bool(self._schema.categorical)

    def _input(self, body: Observation) -> npt.NDArray[Any]:
        """What the scorer reads of an observation, after all checks on it."""
        if not self.is_image:
            assert self._schema is not None
            self._schema.check(body)
            try:
                return tabular_row(body.features)
            except ValueError as error:
                raise DecodeError("wrong_type", str(error)) from None
        if body.image is None:
            raise DecodeError("missing_field", "image: this stream's observations are images")
        assert self.scorer is not None
        height, width, _ = self.scorer.input_shape
        limits = self._images
        return decode_image(
            body.image, (height, width), max_bytes=limits.max_bytes, max_pixels=limits.max_pixels
        )

    def _fetched(self, body: Observation) -> Observation:
        """The observation with its image, where it only points to it."""
        if not self.is_image or body.image is not None or body.image_uri is None:
            return body
        limits = self._images
        data = fetch(body.image_uri, limits.uri_prefixes, limits.max_bytes)
        return body._replace(image=data)

    def _samples(self, columns: Columns, inputs: _Inputs, first: int) -> list[StoredSample]:
        """The observations as they are kept for training."""
        if self.is_image:
            contents, kind = inputs.images, ContentKind.IMAGE
        else:
            contents = [row.astype("<f8").tobytes() for row in inputs.rows]
            kind = ContentKind.ROW
        observed = columns.observations.tolist()
        return [
            StoredSample(first + n, columns.ids[at], columns.time(at), content, kind)
            for n, (at, content) in enumerate(zip(observed, contents, strict=True))
        ]

    def preload(self, given: Given) -> None:
        """Take the reference window from records of another place, such as the training data.

        Raises
        ------
        DecodeError
            If one of them is refused: a reference with holes is no reference.
        """
        columns, _, refused = self._columns(self._learn(given) if self._learner else given)
        if refused:
            raise refused[0][1]
        self.monitor.preload(columns)

    # -- incidents -------------------------------------------------------------------------------

    @property
    def open(self) -> dict[str, Incident]:
        """Open incidents of the stream and its segments, by id."""
        return self.monitor.standing.open | self.segments.open

    def close(self, incident_id: str, detail: str) -> Outcomes:
        """Resolve an incident by hand.

        Raises
        ------
        KeyError
            If no incident of that id is open.
        """
        if incident_id in self.monitor.standing.open:
            outcomes = self.monitor.close(incident_id, detail)
            self.segments.note(outcomes.incidents)
            return outcomes
        return Outcomes(incidents=self.segments.close(incident_id, detail))

    def fold(self, incident: Incident, into: Incident, known: Collection[str]) -> Outcomes:
        """Give an open incident up for one of another part; see `Monitor.fold`."""
        if incident.segment:
            return self.segments.fold(incident, into)
        return self.monitor.fold(incident.id, into, known)

    def repaired(self, detail: str) -> Outcomes:
        """A new champion serves from the next observation on: begin new references."""
        outcomes = self.monitor.repaired(detail)
        self.segments.note(outcomes.incidents)
        return _with(outcomes, self.segments.renew())

    def champion_changed(self, version: int, scorer: Scorer) -> None:
        """Serve with another champion from the next observation on; the former is not closed."""
        self.scorer = scorer
        self.version = version
        self.monitor.served.classes = scorer.classes
        self.reader = self._open_reader()

    # -- snapshot --------------------------------------------------------------------------------

    def snapshot(self) -> State:
        """Everything needed to go on."""
        return {
            "version": self.version,
            "schema": None if self._schema is None else self._schema.snapshot(),
            "held": [_fields(record) for record, _ in self._held],
            "monitor": self.monitor.snapshot(),
            "segments": self.segments.snapshot(),
        }

    def restore(self, state: State) -> None:
        """Go on from a snapshot of an equally configured stream."""
        if state["schema"] is not None:
            self._set_up(FeatureSchema.from_snapshot(state["schema"]))
        self.version = state["version"]
        self._held = []
        if self._learner is not None:
            block = Block.of(map(_record, state["held"]))
            bodies = [(at, self._decode(record)) for at, record in enumerate(block)]
            self._learn(Given(block, [(at, b) for at, b in bodies if not isinstance(b, Ignored)]))
        self.monitor.restore(state["monitor"], self._spill.count() if self._spill else None)
        self.segments.restore(state["segments"])


def _with(outcomes: Outcomes, shown: Sequence[Incident]) -> Outcomes:
    """The outcomes, with what the segments show besides."""
    if not shown:
        return outcomes
    return dataclasses.replace(outcomes, incidents=[*outcomes.incidents, *shown])


def _embedded(scored: Scored) -> Features:
    """Images as `Embedding` reads them: their embeddings, and their properties behind."""
    assert scored.codes is not None
    assert scored.properties is not None
    return Features(np.hstack([scored.codes, scored.properties]).astype(np.float64))


def _place(refused: tuple[int, DecodeError]) -> int:
    return refused[0]


def _fields(record: Record) -> list[Any]:
    """A record as a snapshot keeps it."""
    place = [record.topic, record.partition, record.offset]
    headers = [list(header) for header in record.headers]
    return [*place, record.key, record.value, headers, record.timestamp_ms]


def _record(fields: Sequence[Any]) -> Record:
    """The record of a snapshot; those of before there were headers have five fields."""
    topic, partition, offset, key, value, *more = fields
    headers, timestamp_ms = more or ((), None)
    return Record(
        topic,
        partition,
        offset,
        key,
        value,
        headers=tuple((name, content) for name, content in headers),
        timestamp_ms=timestamp_ms,
    )


def _image_error(error: ImageError) -> DecodeError:
    return DecodeError(error.reason, f"image: {error}")
