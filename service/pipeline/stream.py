"""One stream at work: its schema, its scorer and its monitor, fed with decoded records."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.base import Array, State, Verdict
from detectors.learners.prior import PriorCorrection
from models.images import ImageError
from models.images import decode as decode_image
from models.quality import PROPERTIES
from models.scorer import Scored
from models.tabular import tabular_row
from service.domain.decision import Decision
from service.domain.incident import Incident
from service.domain.sample import ContentKind, StoredSample
from service.monitor import elsewhere as parts
from service.monitor.events import Arrival
from service.monitor.labels import Spill
from service.monitor.monitor import Monitor
from service.monitor.outcomes import Outcomes
from service.monitor.representation import Embedding, Raw, Representation, Tabular
from service.monitor.segments import Segments
from service.records.decode import decode
from service.records.formats.decoder import Ignored
from service.records.record import DecodeError, LabelRecord, Observation, Record, iso
from service.records.schema import LEARN_AT_MOST, FeatureSchema, SchemaLearner
from service.repair.scorers import Scorer
from service.settings.service import ImageSettings
from service.settings.stream import StreamSettings
from service.sources.images import fetch

Body = Observation | LabelRecord
Decoded = tuple[Record, Body]


@dataclass(slots=True)
class Batch:
    """What one batch of records did to a stream."""

    outcomes: Outcomes = field(default_factory=Outcomes)
    samples: list[StoredSample] = field(default_factory=list)
    refused: list[tuple[Record, DecodeError]] = field(default_factory=list)
    n_observations: int = 0


class Stream:
    """A stream's schema, scorer and monitor.

    Parameters
    ----------
    settings
        The stream's settings.
    decide
        The policy, bound to what this stream has at hand.
    scorer
        The champion; None where the stream is scored elsewhere or not at all.
    images
        Limits of images, and where they may come from.
    seed, elsewhere
        As in `Monitor`.
    decode
        As the records that are taken were decoded; those that are held back are decoded again
        after a restart.
    spill
        Where observations and labels wait that have no room in memory; None to forget them.
    """

    def __init__(
        self,
        settings: StreamSettings,
        decide: Callable[[Verdict], Decision],
        *,
        scorer: Scorer | None,
        images: ImageSettings,
        seed: int,
        decode: Callable[[Record], Body | Ignored] = decode,
        elsewhere: parts.Elsewhere = parts.nowhere,
        spill: Spill | None = None,
    ) -> None:
        self.settings = settings
        self.name = settings.name
        self.scorer = scorer
        self.version: int | None = None
        self._decide = decide
        self._decode = decode
        self._images = images
        self._seed = seed
        self._elsewhere = elsewhere
        self._spill = spill
        self._schema: FeatureSchema | None = None
        self._learner: SchemaLearner | None = None
        self._held: list[Decoded] = []
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
        classes, correction = self.score_classes, self.monitor.correction
        # A champion with other classes is here a moment before the correction is lifted.
        fits = correction is not None and len(correction.target_prior) == len(classes)
        return classes, correction if fits else None

    def _set_up(self, schema: FeatureSchema | None) -> None:
        self._schema = schema
        if not self.is_image:
            if schema is None and self.settings.features is not None:
                self._schema = schema = FeatureSchema.declared(self.settings.features)
            self._learner = SchemaLearner() if schema is None else None
        self.monitor = Monitor(
            self.settings,
            self._representation(),
            self._decide,
            score_classes=self.score_classes,
            seed=self._seed,
            elsewhere=self._elsewhere,
            spills=self._spill is not None,
        )
        self.segments = Segments(self.settings, self._representation, seed=self._seed)

    def _representation(self) -> Representation:
        if self.is_image:
            assert self.settings.model is not None
            return Embedding(self.settings.model.embedding_components, PROPERTIES)
        return Tabular(self._schema or FeatureSchema.empty())

    def look_up(self, decoded: Sequence[Decoded]) -> None:
        """Get at hand what waits in the store for the records that are taken next.

        Nothing has changed when this raises.
        """
        if self._spill is not None:
            wanted = self.monitor.waiting.wanted(body.id for _, body in decoded)
            self.monitor.waiting.at_hand(self._spill.find(wanted) if wanted else ())

    def take(self, decoded: Sequence[Decoded]) -> Batch:
        """Take records in order; `look_up` had them before."""
        batch = Batch()
        if self._learner is not None:
            decoded = self._learn(decoded)
        arrivals = self._arrivals(decoded, batch)
        before = self.monitor.n_seen
        joint = self.monitor.join(arrivals)
        batch.outcomes = self.monitor.read(joint)
        if self.settings.segments.by:
            shown = self.segments.update(arrivals, joint.changes, batch.outcomes, before)
            batch.outcomes.incidents.extend(shown)
        return batch

    @property
    def open(self) -> dict[str, Incident]:
        """Open incidents of the stream and its segments, by id."""
        return self.monitor.open | self.segments.open

    def close(self, incident_id: str, detail: str) -> Outcomes:
        """Resolve an incident by hand.

        Raises
        ------
        KeyError
            If no incident of that id is open.
        """
        if incident_id in self.monitor.open:
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
        outcomes.incidents.extend(self.segments.renew())
        return outcomes

    def _learn(self, decoded: Sequence[Decoded]) -> Sequence[Decoded]:
        """Hold records back until the first observations have told the features."""
        assert self._learner is not None
        for n, (_, record) in enumerate(decoded, 1):
            if isinstance(record, Observation):
                schema = self._learner.add(record)
                if schema is not None:
                    held = [*self._held, *decoded[:n]]
                    self._held = []
                    self._set_up(schema)
                    return [*held, *decoded[n:]]
        self._held.extend(decoded)
        # Observations are at most LEARN_AT_MOST here; labels of other ones could come without end.
        del self._held[: -self.settings.labels.max_pending - LEARN_AT_MOST]
        return []

    def _arrivals(self, decoded: Sequence[Decoded], batch: Batch) -> list[Arrival]:
        good: list[Decoded] = []
        inputs: list[npt.NDArray[Any]] = []
        for record, decoded_body in decoded:
            body = decoded_body
            if isinstance(body, Observation):
                try:
                    body = self._fetched(body)
                    given = self._input(body)
                except (DecodeError, ImageError) as error:
                    reason = error if isinstance(error, DecodeError) else _image_error(error)
                    batch.refused.append((record, reason.at(record)))
                    continue
                if given is not None:
                    inputs.append(given)
            good.append((record, body))
        scored: Scored | None = None
        if self.scorer is not None and inputs:
            scored = self.scorer.score(np.stack(inputs))
        arrivals: list[Arrival] = []
        classes = self.score_classes
        row = 0
        for record, body in good:
            at = (record.topic, record.partition, record.offset)
            time = iso(body.time) if body.time else ""
            seconds = body.time.timestamp() if body.time else math.nan
            if isinstance(body, LabelRecord):
                arrivals.append(Arrival(at, body.id, time, None, body.label, seconds=seconds))
                continue
            raw: Raw = body.features
            if self.is_image:
                assert scored is not None
                raw = _image_raw(scored, row)
            own = scored.scores[row].astype(np.float64) if scored else _own_scores(body, classes)
            arrivals.append(
                Arrival(
                    at, body.id, time, raw, body.label, body.prediction, own, body.segment, seconds
                )
            )
            if self.keeps_samples:
                index = self.monitor.n_seen + batch.n_observations
                batch.samples.append(self._sample(index, body, time))
            batch.n_observations += 1
            row += 1
        return arrivals

    def _input(self, body: Observation) -> npt.NDArray[Any] | None:
        """What the scorer reads of an observation, after all checks on it."""
        if self.is_image:
            if body.image is None:
                raise DecodeError("missing_field", "image: this stream's observations are images")
            assert self.scorer is not None
            height, width, _ = self.scorer.input_shape
            limits = self._images
            return decode_image(
                body.image,
                (height, width),
                max_bytes=limits.max_bytes,
                max_pixels=limits.max_pixels,
            )
        assert self._schema is not None
        self._schema.check(body)
        if self.scorer is None:
            return None
        try:
            return tabular_row(body.features)
        except ValueError as error:
            raise DecodeError("wrong_type", str(error)) from None

    def _fetched(self, body: Observation) -> Observation:
        """The observation with its image, where it only points to it."""
        if not self.is_image or body.image is not None or body.image_uri is None:
            return body
        limits = self._images
        data = fetch(body.image_uri, limits.uri_prefixes, limits.max_bytes)
        return body._replace(image=data)

    def _sample(self, index: int, body: Observation, time: str) -> StoredSample:
        if self.is_image:
            return StoredSample(index, body.id, time, body.image or b"", ContentKind.IMAGE)
        content = json.dumps(dict(body.features)).encode()
        return StoredSample(index, body.id, time, content, ContentKind.FEATURES)

    def preload(self, decoded: Sequence[Decoded]) -> None:
        """Take the reference window from records of another place, such as the training data.

        Raises
        ------
        DecodeError
            If one of them is refused: a reference with holes is no reference.
        """
        batch = Batch()
        known = self._learn(decoded) if self._learner is not None else decoded
        arrivals = self._arrivals(known, batch)
        if batch.refused:
            raise batch.refused[0][1]
        self.monitor.preload(arrivals)

    def champion_changed(self, version: int, scorer: Scorer) -> None:
        """Serve with another champion from the next observation on; the former is not closed."""
        self.scorer = scorer
        self.version = version
        self.monitor.score_classes = scorer.classes

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
            held = [(r, self._decode(r)) for r in map(_record, state["held"])]
            self._learn([(r, body) for r, body in held if not isinstance(body, Ignored)])
        self.monitor.restore(state["monitor"], self._spill.count() if self._spill else None)
        self.segments.restore(state["segments"])


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


def _own_scores(body: Observation, classes: tuple[str, ...]) -> Array | None:
    """Scores that came with the record, if they cover the declared classes.

    Others say nothing of some class, and the largest of what is left may be any: then the
    prediction that came along is what was served.
    """
    given = body.scores
    if given is None or not classes or not given.keys() >= set(classes):
        return None
    own = np.array([given[c] for c in classes], np.float64)
    return own if 0 < own.sum() < np.inf else None


def _image_raw(scored: Scored, row: int) -> Array:
    """An image as `Embedding` reads it: its embedding and its properties."""
    assert scored.codes is not None
    assert scored.properties is not None
    return np.concatenate([scored.codes[row], scored.properties[row]], dtype=np.float64)


def _image_error(error: ImageError) -> DecodeError:
    return DecodeError(error.reason, f"image: {error}")


def count_reasons(refused: Sequence[tuple[Record, DecodeError]]) -> Counter[str]:
    """Refused records by reason."""
    return Counter(error.reason for _, error in refused)
