"""Plain JSON records of a known schema to columns, all of a batch at once: the quick way.

A record is plain if it is JSON as `service.records.decode` takes it, in no envelope, of the stream
that was guessed, with exactly the features of the schema in one of their usual types. Whatever is
not plain, or might be wrong, is left for the careful way, `service.records.gather`, which has the
same result for every record that is plain; a property test holds the two together.

msgspec parses into types made from the schema, strictly, and refuses what the careful way refuses;
but for one thing: of a key that stands twice it keeps the last value. Every key and every text has
two quotes, so such a record has more quotes than its values account for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain, compress
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import orjson
from msgspec import UNSET, UnsetType

from detectors.base import Array
from service.records.block import Block
from service.records.columns import LABEL, OBSERVATION, Columns, Features, Levels
from service.records.gather import canonical_level, scores_of
from service.records.plain_values import (
    MAX_LEVEL_CHARS,
    classes_of,
    doubtful_texts,
    ids_of,
    scores_given,
    segments_of,
    times_of,
)
from service.records.rows import read_rows
from service.records.schema import FeatureKind, FeatureSchema

MAX_EXTRA = 32
"""Fields of their own that producers may add to their records before these are read carefully."""
_MAX_EXTRA_BYTES = 4000
_NOT_EXTRA = frozenset({"specversion", "image", "image_uri"})
_TYPES: Mapping[FeatureKind, Any] = {
    FeatureKind.NUMERIC: float | None,
    FeatureKind.BOOLEAN: bool | float | None,
    FeatureKind.CATEGORICAL: str | float | None,
}
_CLASS = str | int | float | bool | None | UnsetType
_FIELDS: Sequence[tuple[str, Any, Any]] = (
    ("stream", str | None | UnsetType, UNSET),
    ("id", str | int | None | UnsetType, UNSET),
    ("time", str | None | UnsetType, UNSET),
    ("label", _CLASS, UNSET),
    ("prediction", _CLASS, UNSET),
    ("scores", dict[str, float] | None | UnsetType, UNSET),
    ("segment", dict[str, str | int | float | bool | None] | None | UnsetType, UNSET),
)
_RAW = msgspec.Raw(b"")
_QUOTE = ord('"')


class PlainReader:
    """Reads the plain records of one stream.

    Parameters
    ----------
    stream
        Its name.
    schema
        Of the observations' features; with at least one.
    classes
        As in `service.records.gather.gather`.

    Raises
    ------
    ValueError
        If a feature has a name for which there is no quick way.
    """

    def __init__(self, stream: str, schema: FeatureSchema, classes: Sequence[str] = ()) -> None:
        if not schema.names:
            raise ValueError(f"{stream}: expected a schema with features, got none")
        self.stream = stream
        self.classes = tuple(classes)
        self._key = stream.encode()
        self.schema = schema
        self._extra: tuple[str, ...] = ()
        self._features = _features_type(schema)
        self._decode = self._decoder()

    def _decoder(self) -> Any:
        fields = [*_FIELDS, ("features", self._features | UnsetType, UNSET)]
        fields += [(f"extra_{n}", msgspec.Raw, _RAW) for n in range(len(self._extra))]
        body = msgspec.defstruct(
            "Body",
            fields,
            rename={f"extra_{n}": name for n, name in enumerate(self._extra)},
            forbid_unknown_fields=True,
            gc=False,
        )
        return msgspec.json.Decoder(body).decode

    def read(self, block: Block, positions: Sequence[int]) -> tuple[Columns, list[int]]:
        """Columns of the plain records among those at some places of a block.

        Parameters
        ----------
        block
            The records.
        positions
            The places of those to read, in order.

        Returns
        -------
        tuple
            The columns, and the places of the records that are left.
        """
        if block.table is not None:
            return read_rows(block, positions, self.stream, self.schema)
        values = block.values
        left: list[int] = []
        try:
            bodies = [self._decode(values[at]) for at in positions]
        except msgspec.DecodeError:
            bodies, good = [], []
            for at in positions:
                try:
                    bodies.append(self._decode(values[at]))
                    good.append(at)
                except msgspec.DecodeError:
                    left.append(at)
            positions = good
        not_parsed = list(left)
        batch = _Batch(bodies, block, positions, self)
        doubtful = batch.doubtful()
        if doubtful.any():
            left += compress(positions, doubtful.tolist())
            keep = (~doubtful).tolist()
            positions = list(compress(positions, keep))
            batch = _Batch(list(compress(bodies, keep)), block, positions, self)
        columns = batch.columns()
        for at in not_parsed:
            self._learn_extra(values[at])
        return columns, sorted(left)

    def _learn_extra(self, value: bytes) -> None:
        """Read fields that producers have added from the next batch on as plain ones."""
        if len(self._extra) >= MAX_EXTRA:
            return
        try:
            body = orjson.loads(value)
        except orjson.JSONDecodeError:
            return
        if not isinstance(body, dict) or _NOT_EXTRA & body.keys():
            return
        known = {name for name, _, _ in _FIELDS} | {"features", *self._extra}
        new = [name for name in body if name not in known and _is_plain_name(name)]
        if new:
            self._extra = (*self._extra, *new[: MAX_EXTRA - len(self._extra)])
            self._decode = self._decoder()

    # -- what a batch asks for ------------------------------------------------------------------

    def of_this_stream(self, streams: Sequence[Any], block: Block, at: Sequence[int]) -> list[bool]:
        """Which records are of this stream, by their body or else their key."""
        keys = block.keys
        return [
            stream == self.stream
            or (not stream and stream != "" and keys is not None and keys[n] == self._key)
            for stream, n in zip(streams, at, strict=True)
        ]

    def features(self, given: Sequence[Any]) -> tuple[Features, npt.NDArray[np.bool_]]:
        """The features of observations, and which of these are to be read carefully."""
        schema = self.schema
        rows = [f if type(f) is tuple else msgspec.structs.astuple(f) for f in given]
        doubtful = np.zeros(len(rows), np.bool_)
        if not schema.categorical:
            numbers = _numbers(rows, len(schema.names))
            levels: tuple[Levels, ...] = ()
        else:
            columns = list(zip(*rows, strict=True)) or [()] * len(schema.names)
            by_name = dict(zip(schema.names, columns, strict=True))
            numbers = np.empty((len(rows), len(schema.numeric)))
            for k, name in enumerate(schema.numeric):
                numbers[:, k] = np.array(by_name[name], np.float64)
            numbers += 0.0
            levels = tuple(
                [canonical_level(value) for value in by_name[name]] for name in schema.categorical
            )
            for column in levels:
                doubtful |= doubtful_texts(column, least=0, most=MAX_LEVEL_CHARS)
        booleans = [
            k for k, name in enumerate(schema.numeric) if schema.kinds[name] is FeatureKind.BOOLEAN
        ]
        if booleans:
            flags = numbers[:, booleans]
            doubtful |= ~((flags == 0) | (flags == 1) | np.isnan(flags)).all(axis=1)
        return Features(numbers, levels), doubtful

    def n_feature_texts(self, given: Any) -> int:
        """Texts in the features of an observation: names, and values."""
        row = given if type(given) is tuple else msgspec.structs.astuple(given)
        names = 0 if type(given) is tuple else len(row)
        if not self.schema.categorical:
            return names
        return names + sum(type(value) is str for value in row)

    def extras(self, body: Any) -> list[msgspec.Raw]:
        """The fields that a producer has added."""
        found = (getattr(body, f"extra_{n}") for n in range(len(self._extra)))
        return [raw for raw in found if raw is not _RAW]

    @property
    def has_extra(self) -> bool:
        """Whether producers have added fields."""
        return bool(self._extra)


class _Batch:
    """Parsed records of one stream, a list a field."""

    def __init__(
        self, bodies: list[Any], block: Block, positions: Sequence[int], reader: PlainReader
    ) -> None:
        self._bodies = bodies
        self._block = block
        self._positions = positions
        self._reader = reader
        self.streams = [b.stream for b in bodies]
        self.ids: list[Any] = [b.id for b in bodies]
        self.times = [b.time for b in bodies]
        self.labels = [b.label for b in bodies]
        self.predictions = [b.prediction for b in bodies]
        self.scores = [b.scores for b in bodies]
        self.segments = [b.segment for b in bodies]
        self.features = [b.features for b in bodies]
        self.is_observation = np.array([f is not UNSET for f in self.features], np.bool_)
        self._read: tuple[Any, ...] = ()

    def doubtful(self) -> npt.NDArray[np.bool_]:
        """Which of the records are to be read carefully."""
        n = len(self._bodies)
        doubtful = np.zeros(n, np.bool_)
        if not n:
            return doubtful
        if set(self.streams) != {self._reader.stream}:
            own = self._reader.of_this_stream(self.streams, self._block, self._positions)
            doubtful |= ~np.array(own, np.bool_)
        doubtful |= self._wrong_quotes()
        # From here on these are what the columns hold.
        ids, wrong = ids_of(self.ids)
        doubtful |= wrong
        labels, wrong = classes_of(self.labels)
        doubtful |= wrong
        predictions, wrong = classes_of(self.predictions)
        doubtful |= wrong
        times, wrong = times_of(self.times)
        doubtful |= wrong
        segments, wrong = segments_of(self.segments)
        doubtful |= wrong
        if not self.is_observation.all():
            doubtful |= self._no_labels(labels)
        features, wrong = self._reader.features([f for f in self.features if f is not UNSET])
        doubtful[self.is_observation] |= wrong
        scores, wrong = scores_given(self.scores)
        doubtful |= wrong
        self._read = ids, labels, predictions, times, segments, features, scores
        return doubtful

    def columns(self) -> Columns:
        """What they hold, once nothing is doubtful."""
        if not self._read:
            self.doubtful()
        if not self._bodies:
            nothing = np.empty(0)
            width = len(self._reader.schema.numeric)
            none: tuple[Levels, ...] = tuple([] for _ in self._reader.schema.categorical)
            return Columns(
                self._block,
                nothing.astype(np.int64),
                nothing.astype(np.int8),
                [],
                nothing,
                None,
                None,
                None,
                None,
                Features(np.empty((0, width)), none),
                None,
            )
        ids, labels, predictions, times, segments, features, scores = self._read
        own = [s for s, seen in zip(scores, self.is_observation.tolist(), strict=True) if seen]
        return Columns(
            self._block,
            np.array(self._positions, np.int64),
            np.where(self.is_observation, OBSERVATION, LABEL).astype(np.int8),
            ids,
            np.array([math.nan if t is None else t.timestamp() for t in times], np.float64)
            if times is not None
            else np.full(len(ids), math.nan),
            times,
            labels,
            predictions,
            segments,
            features,
            scores_of(own, self._reader.classes) if any(own) else None,
        )

    # -- what is left for the careful way --------------------------------------------------------

    def _wrong_quotes(self) -> npt.NDArray[np.bool_]:
        """Records with more quotes than their keys and texts account for."""
        n = len(self._bodies)
        values = [self._block.values[at] for at in self._positions]
        named = (
            self.streams,
            self.ids,
            self.times,
            self.labels,
            self.predictions,
            self.scores,
            self.segments,
            self.features,
        )
        is_simple = not self._reader.has_extra and not any(self.scores) and not any(self.segments)
        if is_simple and not self._reader.schema.categorical:
            given = sum(n - column.count(UNSET) for column in named)
            texts = sum(list(map(type, column)).count(str) for column in named[:5])
            width = len(self._reader.schema.names)
            objects = n - list(map(type, self.features)).count(tuple) - self.features.count(UNSET)
            # All at once: to count in one record after the other takes six times as long.
            quotes = np.count_nonzero(np.frombuffer(b"".join(values), np.uint8) == _QUOTE)
            if quotes == 2 * (given + texts + objects * width):
                return np.zeros(n, np.bool_)
        return np.array(
            [
                value.count(b'"') != 2 * self._n_texts(body)
                for value, body in zip(values, self._bodies, strict=True)
            ],
            np.bool_,
        )

    def _n_texts(self, body: Any) -> int:
        plain = (body.stream, body.id, body.time, body.label, body.prediction)
        n = sum(value is not UNSET for value in plain) + sum(type(v) is str for v in plain)
        for given in (body.scores, body.segment):
            if given is not UNSET:
                n += 1
            if given and given is not UNSET:
                n += len(given) + sum(type(value) is str for value in given.values())
        if body.features is not UNSET:
            n += 1 + self._reader.n_feature_texts(body.features)
        for raw in self._reader.extras(body):
            found = _texts_of(bytes(raw))
            if found is None:
                return -1
            n += 1 + found
        return n

    def _no_labels(self, labels: Sequence[str | None] | None) -> npt.NDArray[np.bool_]:
        """Records without features that are no label either."""
        wrong = np.zeros(len(self._bodies), np.bool_)
        for n in np.flatnonzero(~self.is_observation).tolist():
            body = self._bodies[n]
            others = (body.prediction, body.scores, body.segment)
            has_label = labels is not None and labels[n] is not None
            wrong[n] = (
                not has_label
                or any(value is not None and value is not UNSET for value in others)
                or bool(self._reader.extras(body))
            )
        return wrong


def _features_type(schema: FeatureSchema) -> Any:
    types = [_TYPES[kind] for kind in schema.kinds.values()]
    names = {f"f{n}": name for n, name in enumerate(schema.names)}
    by_name = msgspec.defstruct(
        "Features",
        list(zip(names, types, strict=True)),
        rename=names,
        forbid_unknown_fields=True,
        gc=False,
    )
    if schema.names == tuple(map(str, range(len(types)))):
        return by_name | tuple[tuple(types)]  # type: ignore[misc]  # they also come as an array
    return by_name


def _numbers(rows: Sequence[tuple[Any, ...]], width: int) -> Array:
    try:
        flat = np.fromiter(chain.from_iterable(rows), np.float64, len(rows) * width)
    except TypeError:  # None, which stands for a missing value
        flat = np.array(rows, np.float64)
    numbers: Array = flat.reshape(len(rows), width)
    numbers += 0.0
    return numbers


def _texts_of(raw: bytes) -> int | None:
    """Keys and texts of a JSON value whose quotes they account for; None if it may be wrong."""
    if len(raw) > _MAX_EXTRA_BYTES:  # it may be an integer of more digits than Python takes
        return None
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    n = _count_texts(value)
    return n if n is not None and raw.count(b'"') == 2 * n else None


def _count_texts(value: Any) -> int | None:
    if isinstance(value, str):
        return 1
    if isinstance(value, dict):
        return len(value) + sum(map(_count_texts, value.values()))  # type: ignore[arg-type]
    if isinstance(value, list):
        return sum(map(_count_texts, value))  # type: ignore[arg-type]
    return 0


def _is_plain_name(name: str) -> bool:
    return name not in _NOT_EXTRA and not set(name) & {'"', "\\"} and name.isprintable()


__all__ = ["PlainReader"]
