"""The features of a stream: their names and kinds, and their encoding as numeric columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from detectors.base import State
from service.records.record import DecodeError, Observation, Record, Scalar
from service.records.shown import short

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
    names
        Of all features.
    numeric, categorical
        Names of those that are numbers, booleans among them, and of the others.
    """

    kinds: Mapping[str, FeatureKind]
    names: tuple[str, ...] = field(init=False)
    numeric: tuple[str, ...] = field(init=False)
    categorical: tuple[str, ...] = field(init=False)
    _fit_everywhere: set[type] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        def named(*, categorical: bool) -> tuple[str, ...]:
            is_one = FeatureKind.CATEGORICAL
            return tuple(n for n, kind in self.kinds.items() if (kind is is_one) is categorical)

        object.__setattr__(self, "names", tuple(self.kinds))
        object.__setattr__(self, "numeric", named(categorical=False))
        object.__setattr__(self, "categorical", named(categorical=True))
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
