"""From what an observation carries to the numeric rows the detectors read."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from detectors.base import Array, State
from detectors.learners.fence import Fence
from service.monitor.encoder import Encoder
from service.records.columns import Features
from service.records.schema import FeatureSchema


class Placeholder(NamedTuple):
    """A value that stands for none, such as 1.8e308.

    Attributes
    ----------
    feature
        Where it stands.
    value
        To six digits.
    n
        Rows that have it.
    """

    feature: str
    value: float
    n: int


class Representation(Protocol):
    """Fitted on the reference, then frozen with it."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The feature behind each column; a feature with several columns is named several times."""
        ...

    def fit(self, features: Features) -> None:
        """Learn the map from the reference's observations."""
        ...

    def n_spent(self, n: int) -> int:
        """How many leading observations of a reference of `n` the map is learned from alone.

        They are no fair sample of its rows, so what is compared begins behind them; 0 where the
        map treats the rows that it was learned from like all others.
        """
        ...

    def rows(self, features: Features) -> Array:
        """Rows of shape (n, d) in the order given, NaN where a value is missing; for reading."""
        ...

    def complete(self, rows: Array) -> Array:
        """The same without NaN, for tests that need every value; shape (n, d + indicators)."""
        ...

    @property
    def complete_columns(self) -> tuple[str, ...]:
        """The feature behind each column of `complete`."""
        ...

    def placeholders(self, rows: Array) -> list[Placeholder]:
        """Values in rows (n, d) that are no measurements by the look of them."""
        ...

    def snapshot(self) -> State:
        """The fitted map."""
        ...

    def restore(self, state: State) -> None:
        """Take a fitted map over."""
        ...


NEWLY_MISSING = "missing values"
"""Name of the column that counts a row's missing values where the reference had none missing."""


class Tabular:
    """Numeric, boolean and categorical features; missing values stay visible.

    For the tests a missing value becomes the reference's median, and an indicator tells it where
    the reference had missing values too. All others share one column with their number, which is 0
    throughout the reference: a feature that vanishes must not look like its median.

    Values far beyond all that the reference has are drawn in (`detectors.learners.fence`).
    """

    def __init__(self, schema: FeatureSchema) -> None:
        self.schema = schema
        self._encoder = Encoder(schema)
        self._fence = Fence(np.empty(0), np.empty(0))
        self._fill: Array = np.empty(0)
        self._may_miss: Array = np.empty(0)

    @property
    def columns(self) -> tuple[str, ...]:
        return self._encoder.columns

    def fit(self, features: Features) -> None:
        self._encoder.fit(features)
        given = self._encoder.encode(features)
        self._fence = Fence.fit(given)
        rows = self._fence(given)
        missing = np.isnan(rows)
        self._may_miss = np.flatnonzero(missing.any(axis=0)).astype(np.float64)
        known = ~missing.all(axis=0)
        self._fill = np.zeros(rows.shape[1])
        self._fill[known] = np.nanmedian(rows[:, known], axis=0)

    def n_spent(self, n: int) -> int:  # noqa: ARG002 - the protocol's
        return 0

    def rows(self, features: Features) -> Array:
        return self._fence(self._encoder.encode(features))

    def complete(self, rows: Array) -> Array:
        missing = np.isnan(rows)
        known = self._may_miss.astype(np.int64)
        indicators = missing[:, known].astype(np.float64)
        new = missing.sum(axis=1, keepdims=True) - indicators.sum(axis=1, keepdims=True)
        return np.hstack([np.where(missing, self._fill, rows), indicators, new])

    @property
    def complete_columns(self) -> tuple[str, ...]:
        indicated = tuple(self.columns[int(j)] for j in self._may_miss)
        return (*self.columns, *indicated, NEWLY_MISSING)

    def placeholders(self, rows: Array) -> list[Placeholder]:
        """A value beyond the fence that comes again, and more often than all others there."""
        beyond = self._fence.beyond(rows)
        found = []
        for j in np.flatnonzero(beyond.sum(axis=0) > 1).tolist():
            far = np.flatnonzero(beyond[:, j])
            _, at, counts = np.unique(rows[far, j], return_index=True, return_counts=True)
            most = int(counts.argmax())
            if counts[most] > max(len(far) / 2, 1):
                value = self._fence.undrawn(rows[[far[at[most]]]])[0, j]
                found.append(Placeholder(self.columns[j], float(f"{value:.6g}"), int(counts[most])))
        return found

    def snapshot(self) -> State:
        return {
            "encoder": self._encoder.snapshot(),
            "fence": self._fence.snapshot(),
            "fill": self._fill.copy(),
            "may_miss": self._may_miss.copy(),
        }

    def restore(self, state: State) -> None:
        self._encoder.restore(state["encoder"])
        self._fence = Fence.from_snapshot(state["fence"])
        self._fill = state["fill"].copy()
        self._may_miss = state["may_miss"].copy()


SPENT_SHARE = 3
"""One part in three of a reference teaches the components. Components of the rows that chose them
are exactly uncorrelated and vary too much: compared with those, fresh rows without any change were
told apart at 1 % in 39 of 40 trials, and in none when the compared rows were others."""


class Embedding:
    """Leading principal components of a model's embedding, each with unit variance.

    Columns of their own are the properties of the image that the embedding was computed from, with
    unit variance too: what moved can then be called blur, and not only a component.

    Parameters
    ----------
    n_components
        Components kept; fewer if the reference has a lower rank.
    properties
        Names of the values behind the embedding in every observation; none where the stream's
        embeddings come from elsewhere.
    """

    def __init__(self, n_components: int = 16, properties: tuple[str, ...] = ()) -> None:
        self.n_components = n_components
        self.properties = properties
        self._mean: Array = np.empty(0)
        self._axes: Array = np.empty((0, 0))
        self._location: Array = np.zeros(len(properties))
        self._scale: Array = np.ones(len(properties))

    @property
    def columns(self) -> tuple[str, ...]:
        components = (f"embedding[{j}]" for j in range(self._axes.shape[1]))
        return (*components, *self.properties)

    def fit(self, features: Features) -> None:
        values = features.numbers[: self.n_spent(len(features))]
        codes, properties = np.split(values, [values.shape[1] - len(self.properties)], axis=1)
        self._location, scale = properties.mean(axis=0), properties.std(axis=0)
        # A property that never varies, such as the colour of grey images, keeps its own unit.
        self._scale = np.where(scale > 1e-9, scale, 1.0)
        self._mean = codes.mean(axis=0)
        _, singular, axes = np.linalg.svd(codes - self._mean, full_matrices=False)
        scale = singular / np.sqrt(max(len(codes) - 1, 1))
        keep = min(self.n_components, int((scale > 1e-8 * max(scale[0], 1e-30)).sum()))
        # The sign of a component is arbitrary; the largest loading is made positive.
        signs = np.sign(axes[np.arange(keep), np.abs(axes[:keep]).argmax(axis=1)])
        # In the order that a restored state has: a product's last bits depend on it.
        self._axes = np.ascontiguousarray((axes[:keep] * (signs / scale[:keep])[:, None]).T)

    def n_spent(self, n: int) -> int:
        return -(-n // SPENT_SHARE)

    def rows(self, features: Features) -> Array:
        if not len(features):
            return np.empty((0, len(self.columns)))
        # One row at a time: a matrix product's rounding may depend on how many rows it has.
        return np.stack([self._row(values) for values in features.numbers])

    def _row(self, values: Array) -> Array:
        codes, properties = np.split(values, [len(self._mean)])
        components = (codes - self._mean) @ self._axes
        return np.concatenate([components, (properties - self._location) / self._scale])

    def complete(self, rows: Array) -> Array:
        return rows

    @property
    def complete_columns(self) -> tuple[str, ...]:
        return self.columns

    def placeholders(self, rows: Array) -> list[Placeholder]:  # noqa: ARG002 - the protocol's
        return []

    def snapshot(self) -> State:
        return {
            "mean": self._mean.copy(),
            "axes": self._axes.copy(),
            "properties": list(self.properties),
            "location": self._location.copy(),
            "scale": self._scale.copy(),
        }

    def restore(self, state: State) -> None:
        """Take a fitted map over.

        Raises
        ------
        ValueError
            If it is of other properties; names both.
        """
        if tuple(state["properties"]) != self.properties:
            raise ValueError(
                f"embedding: expected a state with the properties {list(self.properties)}, "
                f"got {state['properties']}"
            )
        self._mean = state["mean"].copy()
        self._axes = state["axes"].copy()
        self._location = state["location"].copy()
        self._scale = state["scale"].copy()
