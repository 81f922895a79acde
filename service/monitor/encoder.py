"""Features as numeric columns; fitted on the reference, then frozen with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from detectors.base import Array, State
from service.records.columns import Features, Levels
from service.records.schema import FeatureSchema

MAX_LEVELS = 12
"""Levels of a categorical feature with a column of their own; the others share one."""
MIN_LEVEL = 5
"""Observations of the reference that such a level has at least: of a rarer one a fold of the
reference may have none, and nothing can be learned of it."""


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

    def fit(self, features: Features) -> None:
        """Learn the levels of the categorical features.

        Parameters
        ----------
        features
            Of the reference's observations.
        """
        levels = {}
        for name, values in zip(self.schema.categorical, features.levels, strict=True):
            counts = Counter(values)
            del counts[None]
            # Equally frequent levels in the order of their names: the columns must not depend on
            # which came first.
            common = [(level, n) for level, n in counts.items() if n >= MIN_LEVEL]
            ranked = sorted(common, key=lambda item: (-item[1], str(item[0])))
            levels[name] = tuple(str(level) for level, _ in ranked[:MAX_LEVELS])
        self.levels = levels

    def encode(self, features: Features) -> Array:
        """Encode observations.

        Parameters
        ----------
        features
            Of n observations.

        Returns
        -------
        Array
            Shape (n, k) for the k `columns`; may be the numbers themselves.

        Raises
        ------
        RuntimeError
            Before `fit`.
        """
        if self.levels is None:
            raise RuntimeError("the encoder is not fitted: it needs the reference's observations")
        if not self.levels:
            return features.numbers
        out = np.empty((len(features), len(self.columns)))
        by_name = dict(zip(self.schema.categorical, features.levels, strict=True))
        numeric = iter(features.numbers.T)
        start = 0
        for name in self.schema.names:
            width = self._width(name)
            if name in by_name:
                out[:, start : start + width] = self._one_hot(by_name[name], self.levels[name])
            else:
                out[:, start] = next(numeric)
            start += width
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
    def _one_hot(values: Levels, levels: Sequence[str]) -> Array:
        other, missing = len(levels), len(levels) + 1
        codes: dict[str | None, int] = {level: k for k, level in enumerate(levels)}
        codes[None] = missing
        block = np.eye(missing + 1, other + 1)
        block[missing] = np.nan
        return block[[codes.get(value, other) for value in values]]
