"""From what an observation carries to the numeric rows the detectors read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from detectors.base import Array, State
from service.schema import Encoder, FeatureSchema

Raw = Mapping[str, float | str | bool | None] | Array
"""Features by name, or an embedding of shape (m,)."""


class Representation(Protocol):
    """Fitted on the reference, then frozen with it."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The feature behind each column; a feature with several columns is named several times."""
        ...

    def fit(self, raws: Sequence[Raw]) -> None:
        """Learn the map from the reference's observations."""
        ...

    def rows(self, raws: Sequence[Raw]) -> Array:
        """Rows of shape (n, d) in the order given; NaN where a value is missing."""
        ...

    def complete(self, rows: Array) -> Array:
        """The same without NaN, for tests that need every value; shape (n, d + indicators)."""
        ...

    @property
    def complete_columns(self) -> tuple[str, ...]:
        """The feature behind each column of `complete`."""
        ...

    def snapshot(self) -> State:
        """The fitted map."""
        ...

    def restore(self, state: State) -> None:
        """Take a fitted map over."""
        ...


class Tabular:
    """Numeric, boolean and categorical features; missing values stay visible."""

    def __init__(self, schema: FeatureSchema) -> None:
        self.schema = schema
        self._encoder = Encoder(schema)
        self._fill: Array = np.empty(0)
        self._may_miss: Array = np.empty(0)

    @property
    def columns(self) -> tuple[str, ...]:
        return self._encoder.columns

    def fit(self, raws: Sequence[Raw]) -> None:
        self._encoder.fit([_features(raw) for raw in raws])
        rows = self.rows(raws)
        missing = np.isnan(rows)
        self._may_miss = np.flatnonzero(missing.any(axis=0)).astype(np.float64)
        known = ~missing.all(axis=0)
        self._fill = np.zeros(rows.shape[1])
        self._fill[known] = np.nanmedian(rows[:, known], axis=0)

    def rows(self, raws: Sequence[Raw]) -> Array:
        return self._encoder.encode([_features(raw) for raw in raws])

    def complete(self, rows: Array) -> Array:
        missing = np.isnan(rows)
        indicators = missing[:, self._may_miss.astype(np.int64)].astype(np.float64)
        return np.hstack([np.where(missing, self._fill, rows), indicators])

    @property
    def complete_columns(self) -> tuple[str, ...]:
        return self.columns + tuple(self.columns[int(j)] for j in self._may_miss)

    def snapshot(self) -> State:
        return {
            "encoder": self._encoder.snapshot(),
            "fill": self._fill.copy(),
            "may_miss": self._may_miss.copy(),
        }

    def restore(self, state: State) -> None:
        self._encoder.restore(state["encoder"])
        self._fill = state["fill"].copy()
        self._may_miss = state["may_miss"].copy()


class Embedding:
    """Leading principal components of a model's embedding, each with unit variance.

    Parameters
    ----------
    n_components
        Components kept; fewer if the reference has a lower rank.
    """

    def __init__(self, n_components: int = 16) -> None:
        self.n_components = n_components
        self._mean: Array = np.empty(0)
        self._axes: Array = np.empty((0, 0))

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f"embedding[{j}]" for j in range(self._axes.shape[1]))

    def fit(self, raws: Sequence[Raw]) -> None:
        codes = np.asarray(raws, np.float64)
        self._mean = codes.mean(axis=0)
        _, singular, axes = np.linalg.svd(codes - self._mean, full_matrices=False)
        scale = singular / np.sqrt(max(len(codes) - 1, 1))
        keep = min(self.n_components, int((scale > 1e-8 * max(scale[0], 1e-30)).sum()))
        # The sign of a component is arbitrary; the largest loading is made positive.
        signs = np.sign(axes[np.arange(keep), np.abs(axes[:keep]).argmax(axis=1)])
        self._axes = (axes[:keep] * (signs / scale[:keep])[:, None]).T

    def rows(self, raws: Sequence[Raw]) -> Array:
        if not len(raws):
            return np.empty((0, self._axes.shape[1]))
        # One row at a time: a matrix product's rounding may depend on how many rows it has.
        return np.stack([(np.asarray(raw, np.float64) - self._mean) @ self._axes for raw in raws])

    def complete(self, rows: Array) -> Array:
        return rows

    @property
    def complete_columns(self) -> tuple[str, ...]:
        return self.columns

    def snapshot(self) -> State:
        return {"mean": self._mean.copy(), "axes": self._axes.copy()}

    def restore(self, state: State) -> None:
        self._mean = state["mean"].copy()
        self._axes = state["axes"].copy()


def _features(raw: Raw) -> Mapping[str, float | str | bool | None]:
    if not isinstance(raw, Mapping):
        raise TypeError(f"expected features by name, got an array of shape {raw.shape}")
    return raw
