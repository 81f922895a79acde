"""Features as numeric columns; fitted on the reference, then frozen with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from detectors.base import Array, State
from service.records.decode import canonical
from service.records.record import Scalar
from service.records.schema import FeatureKind, FeatureSchema

MAX_LEVELS = 12
"""Levels of a categorical feature with a column of their own; the others share one."""


class Encoder:
    """Turns features into numeric columns; fitted on the reference, then frozen with it.

    Numeric features have one column, boolean ones a column of 0 and 1, and categorical ones a
    column of 0 and 1 for each of the reference's 12 most frequent levels and one for all others.
    A missing value is NaN in every column of its feature.

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
                ranked = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
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
