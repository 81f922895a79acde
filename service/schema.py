"""The features of a stream: their names and kinds, and their encoding as numeric columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from operator import itemgetter
from typing import Any

import numpy as np

from detectors.base import Array, State
from service.records import DecodeError, Observation, Record, Scalar, canonical, short

MAX_LEVELS = 12
"""Levels of a categorical feature with a column of their own; the others share one."""
MIN_LEVEL = 5
"""Observations of the reference that such a level has at least: of a rarer one a fold of the
reference may have none, and nothing can be learned of it."""
LEARN_FROM = 25
"""Observations whose majority is the schema, so that one bad first record decides nothing."""
LEARN_AT_MOST = 200
"""Observations after which a feature that was always missing counts as numeric. The shortest
warm-up is as long, so the schema is known before the reference is complete."""


class FeatureKind(StrEnum):
    """What values a feature has; each may also be missing."""

    NUMERIC = "numeric"
    CATEGORICAL = "categorical"
    BOOLEAN = "boolean"


_ALWAYS_FIT: dict[FeatureKind, set[type]] = {
    FeatureKind.NUMERIC: {float, type(None)},
    FeatureKind.CATEGORICAL: {float, str, type(None)},
    FeatureKind.BOOLEAN: {bool, type(None)},
}
"""Types whose every value a feature may have; `_fits` judges the others."""
_EXPECTED = {
    FeatureKind.NUMERIC: "a number",
    FeatureKind.CATEGORICAL: "text (or a number that is a code)",
    FeatureKind.BOOLEAN: "a boolean (or 0 or 1)",
}


@dataclass(frozen=True, slots=True)
class FeatureSchema:
    """Names and kinds of a stream's features.

    Attributes
    ----------
    kinds
        Kind by name; the order is that of the columns.
    """

    kinds: Mapping[str, FeatureKind]
    names: tuple[str, ...] = field(init=False)
    _fit_everywhere: set[type] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.kinds))
        fit = [_ALWAYS_FIT[kind] for kind in self.kinds.values()]
        object.__setattr__(self, "_fit_everywhere", set.intersection(*fit) if fit else set())

    @classmethod
    def declared(cls, kinds: Mapping[str, str]) -> FeatureSchema:
        """Take the schema that the settings declare; it is complete."""
        return cls({name: FeatureKind(kind) for name, kind in kinds.items()})

    @classmethod
    def empty(cls) -> FeatureSchema:
        """Return the schema of a stream without features, as one of images may be."""
        return cls({})

    def check(self, observation: Observation, record: Record | None = None) -> None:
        """Refuse an observation that does not follow the schema.

        Parameters
        ----------
        observation
            Its features must be exactly those of the schema; null is a legal value of each.
        record
            Names the coordinates in the error, where they are known.

        Raises
        ------
        DecodeError
            `missing_feature`, `new_feature` or `wrong_type`.
        """
        features = observation.features
        # Nearly all have them in the same order, and that is quicker to see.
        if tuple(features) != self.names and features.keys() != self.kinds.keys():
            missing = [name for name in self.names if name not in features]
            if missing:
                raise DecodeError(
                    "missing_feature",
                    f"features: expected {_some(missing)} too (null where it is missing), "
                    f"got {len(features)} of {len(self.names)}",
                    record,
                )
            new = [name for name in features if name not in self.kinds]
            raise DecodeError(
                "new_feature",
                f"features: expected the {len(self.names)} of the schema, got {_some(new)} too",
                record,
            )
        if self._fit_everywhere.issuperset(map(type, features.values())):
            return
        for name, kind in self.kinds.items():
            value = features[name]
            if value is not None and not _fits(value, kind):
                raise DecodeError(
                    "wrong_type",
                    f"features.{name}: expected {_EXPECTED[kind]}, got {short(value)}",
                    record,
                )

    def snapshot(self) -> State:
        """Return names and kinds."""
        return {"names": list(self.names), "kinds": [str(kind) for kind in self.kinds.values()]}

    @classmethod
    def from_snapshot(cls, state: State) -> FeatureSchema:
        """Return the schema that a snapshot holds."""
        return cls.declared(dict(zip(state["names"], state["kinds"], strict=True)))


class SchemaLearner:
    """Learns a schema as the majority of a stream's first observations.

    A feature belongs to it if more than half of the observations name it; its kind is the one
    that most of its values have.
    """

    def __init__(self) -> None:
        self._n = 0
        self._kinds: dict[str, Counter[FeatureKind]] = {}
        self._named: Counter[str] = Counter()

    def add(self, observation: Observation) -> FeatureSchema | None:
        """Take the next observation; return the schema once it is known.

        That is after 25 observations, or later (at most 200) while a feature has never had a
        value.
        """
        self._n += 1
        for name, value in observation.features.items():
            self._named[name] += 1
            counts = self._kinds.setdefault(name, Counter())
            if value is not None:
                counts[_kind_of(value)] += 1
        if self._n < LEARN_FROM:
            return None
        names = [name for name in self._kinds if 2 * self._named[name] > self._n]
        if self._n < LEARN_AT_MOST and (not names or not all(self._kinds[n] for n in names)):
            return None
        return FeatureSchema({name: _majority(self._kinds[name]) for name in names})


class Encoder:
    """Turns features into numeric columns; fitted on the reference, then frozen with it.

    Numeric features have one column, boolean ones a column of 0 and 1, and categorical ones a
    column of 0 and 1 for each of the reference's 12 most frequent levels and one for all others;
    levels that fewer than 5 observations have are among the others. A missing value is NaN in every
    column of its feature.

    Parameters
    ----------
    schema
        The features.
    """

    def __init__(self, schema: FeatureSchema) -> None:
        self.schema = schema
        self.levels: dict[str, tuple[str, ...]] | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The feature behind each column; empty before `fit`."""
        if self.levels is None:
            return ()
        return tuple(name for name in self.schema.names for _ in range(self._width(name)))

    def fit(self, rows: Sequence[Mapping[str, Scalar]]) -> None:
        """Learn the levels of the categorical features.

        Parameters
        ----------
        rows
            Features of the reference's observations, each following the schema.
        """
        levels = {}
        for name, kind in self.schema.kinds.items():
            if kind is FeatureKind.CATEGORICAL:
                counts = Counter(canonical_level(row[name]) for row in rows)
                del counts[None]
                # Equally frequent levels in the order of their names: the columns must not depend
                # on which came first.
                common = [(level, n) for level, n in counts.items() if n >= MIN_LEVEL]
                ranked = sorted(common, key=lambda item: (-item[1], str(item[0])))
                levels[name] = tuple(str(level) for level, _ in ranked[:MAX_LEVELS])
        self.levels = levels

    def encode(self, rows: Sequence[Mapping[str, Scalar]]) -> Array:
        """Encode observations.

        Parameters
        ----------
        rows
            Features of n observations, each following the schema.

        Returns
        -------
        Array
            Shape (n, k) for the k `columns`.

        Raises
        ------
        RuntimeError
            Before `fit`.
        """
        if self.levels is None:
            raise RuntimeError("the encoder is not fitted: it needs the reference's observations")
        out = np.empty((len(rows), len(self.columns)))
        start = 0
        numbers: dict[str, int] = {}
        for name in self.schema.names:
            width = self._width(name)
            if name in self.levels:
                values = [row[name] for row in rows]
                out[:, start : start + width] = self._one_hot(values, self.levels[name])
            else:
                numbers[name] = start
            start += width
        if numbers:
            # A row at a time, as they lie in memory.
            pick = itemgetter(*numbers)
            picked = np.array([pick(row) for row in rows], dtype=np.float64)  # None becomes NaN
            out[:, list(numbers.values())] = picked.reshape(len(rows), len(numbers))
        return out

    def snapshot(self) -> State:
        """Return the schema and the levels."""
        levels: Any = None
        if self.levels is not None:
            levels = [[name, list(known)] for name, known in self.levels.items()]
        return {"schema": self.schema.snapshot(), "levels": levels}

    def restore(self, state: State) -> None:
        """Go on from a snapshot."""
        self.schema = FeatureSchema.from_snapshot(state["schema"])
        levels = state["levels"]
        self.levels = None if levels is None else {name: tuple(known) for name, known in levels}

    def _width(self, name: str) -> int:
        levels = (self.levels or {}).get(name)
        return 1 if levels is None else len(levels) + 1

    @staticmethod
    def _one_hot(values: Sequence[Scalar], levels: Sequence[str]) -> Array:
        other, missing = len(levels), len(levels) + 1
        codes: dict[str | None, int] = {level: k for k, level in enumerate(levels)}
        codes[None] = missing
        block = np.eye(missing + 1, other + 1)
        block[missing] = np.nan
        return block[[codes.get(canonical_level(value), other) for value in values]]


def canonical_level(value: Scalar) -> str | None:
    """Return the one spelling of a level, as for classes; a number may be a level's code."""
    # Empty text is a level too, although it is no class.
    return value if value is None or isinstance(value, str) else canonical(value)


def _fits(value: Scalar, kind: FeatureKind) -> bool:
    if kind is FeatureKind.NUMERIC:
        return type(value) is float
    if kind is FeatureKind.BOOLEAN:
        return type(value) is bool or (type(value) is float and value in {0.0, 1.0})
    return type(value) is not bool


def _kind_of(value: Scalar) -> FeatureKind:
    if isinstance(value, bool):
        return FeatureKind.BOOLEAN
    return FeatureKind.CATEGORICAL if isinstance(value, str) else FeatureKind.NUMERIC


def _majority(counts: Counter[FeatureKind]) -> FeatureKind:
    if not counts:
        return FeatureKind.NUMERIC
    return max(FeatureKind, key=lambda kind: counts[kind])


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(short(name) for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
