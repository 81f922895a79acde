"""The records of one stream in a batch, as columns: what every room behind this one reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from detectors.base import Array, IntArray
from service.records.block import Block
from service.records.record import iso

Coordinates = tuple[str, int, int]
"""Topic, partition and offset of a record."""
Levels = list[str | None]
"""A categorical feature's values in their one spelling; None is missing."""
_T = TypeVar("_T")

OBSERVATION, LABEL, GONE = 0, 1, 2
"""What a record is: an observation; a label that came by itself; or the word of who joined the
labels before that the label of this id cannot come any more."""


@dataclass(frozen=True, slots=True)
class Features:
    """What n observations carry.

    Attributes
    ----------
    numbers
        Numeric and boolean features in the order of the schema, or an embedding with an image's
        properties behind it; shape (n, k), NaN where a value is missing.
    levels
        For each categorical feature, in the order of the schema, n values.
    """

    numbers: Array
    levels: tuple[Levels, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, chosen: slice | IntArray) -> Features:
        if isinstance(chosen, slice):
            return Features(self.numbers[chosen], tuple(column[chosen] for column in self.levels))
        at = chosen.tolist()
        return Features(self.numbers[chosen], tuple([c[n] for n in at] for c in self.levels))

    @classmethod
    def joined(cls, parts: Sequence[Features]) -> Features:
        """Observations one after the other; at least one part."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            np.concatenate([part.numbers for part in parts]),
            tuple(
                [value for column in same for value in column]
                for same in zip(*(part.levels for part in parts), strict=True)
            ),
        )


@dataclass(frozen=True, slots=True)
class Columns:
    """Records of one stream, in their order.

    Attributes
    ----------
    block
        Where they came with, for their coordinates and for dead letters.
    positions
        The place of each record in the block, shape (n,), increasing.
    kinds
        `OBSERVATION`, `LABEL` or `GONE` for each record, shape (n,).
    ids
        Of each record.
    seconds
        Each record's own time in Unix seconds, shape (n,); NaN where it has none.
    times
        The same in UTC; None where no record has one.
    labels
        The label that each record brings, or None; None where none brings any.
    predictions
        Of each record the class that was predicted upstream, or None. Of a label what had been
        served for its observation, where somebody else knows. None where there is none at all.
    segments
        Values by segment name of each record; None where none has any.
    features
        Of the m observations alone.
    scores
        Of the observations, by class in the order that was asked for, shape (m, K), with a row of
        NaN where there are none; None where no observation has any.
    """

    block: Block
    positions: IntArray
    kinds: npt.NDArray[np.int8]
    ids: list[str]
    seconds: Array
    times: list[datetime | None] | None
    labels: list[str | None] | None
    predictions: list[str | None] | None
    segments: list[Mapping[str, str]] | None
    features: Features
    scores: Array | None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_observations(self) -> int:
        """How many of the records are observations."""
        return len(self.features)

    @property
    def observations(self) -> IntArray:
        """The observations' places among the records, shape (m,)."""
        return np.flatnonzero(self.kinds == OBSERVATION)

    def at(self, n: int) -> Coordinates:
        """Where a record stands."""
        position = int(self.positions[n])
        return (*self.block.place(position), self.block.offsets[position])

    def time(self, n: int) -> str:
        """A record's time in ISO 8601, or an empty text."""
        time = None if self.times is None else self.times[n]
        return "" if time is None else iso(time)

    def label(self, n: int) -> str | None:
        """The label that a record brings."""
        return None if self.labels is None else self.labels[n]

    def prediction(self, n: int) -> str | None:
        """The prediction that came with a record."""
        return None if self.predictions is None else self.predictions[n]

    def segment(self, n: int) -> Mapping[str, str]:
        """The segments of a record."""
        return {} if self.segments is None else self.segments[n]

    def scored(self, features: Features, scores: Array | None) -> Columns:
        """The same records with what a scorer made of the observations."""
        return replace(self, features=features, scores=scores)

    def __getitem__(self, chosen: IntArray) -> Columns:
        """Some of the records, or the same ones several times."""
        at = chosen.tolist()
        row = np.cumsum(self.kinds == OBSERVATION) - 1
        rows = row[chosen[self.kinds[chosen] == OBSERVATION]]
        return Columns(
            self.block,
            self.positions[chosen],
            self.kinds[chosen],
            [self.ids[n] for n in at],
            self.seconds[chosen],
            _picked(self.times, at),
            _picked(self.labels, at),
            _picked(self.predictions, at),
            _picked(self.segments, at),
            self.features[rows],
            None if self.scores is None else self.scores[rows],
        )

    @classmethod
    def interleaved(cls, parts: Sequence[Columns]) -> Columns:
        """Records of one block in the order in which they stand there; at least one part."""
        parts = [part for part in parts if len(part)] or list(parts[:1])
        if len(parts) == 1:
            return parts[0]
        widest = max((p.scores.shape[1] for p in parts if p.scores is not None), default=None)
        whole = cls(
            parts[0].block,
            np.concatenate([p.positions for p in parts]),
            np.concatenate([p.kinds for p in parts]),
            [id_ for p in parts for id_ in p.ids],
            np.concatenate([p.seconds for p in parts]),
            _joined((p.times, len(p), None) for p in parts),
            _joined((p.labels, len(p), None) for p in parts),
            _joined((p.predictions, len(p), None) for p in parts),
            _joined((p.segments, len(p), _NO_SEGMENTS) for p in parts),
            Features.joined([p.features for p in parts]),
            None if widest is None else np.concatenate([_rows(p, widest) for p in parts]),
        )
        return whole[np.argsort(whole.positions, kind="stable")]


_NO_SEGMENTS: Mapping[str, str] = {}


def _picked(column: list[_T] | None, at: Sequence[int]) -> list[_T] | None:
    return None if column is None else [column[n] for n in at]


def _joined(parts: Iterable[tuple[list[Any] | None, int, Any]]) -> list[Any] | None:
    """Columns one after the other, of which some may have no value at all."""
    given = list(parts)
    if all(column is None for column, _, _ in given):
        return None
    return [
        value
        for column, n, none in given
        for value in (column if column is not None else [none] * n)
    ]


def _rows(columns: Columns, width: int) -> Array:
    if columns.scores is not None:
        return columns.scores
    return np.full((columns.n_observations, width), np.nan)
