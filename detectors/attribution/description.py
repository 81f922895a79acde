"""What is compared of two windows: one list of features, and eight statistics of their means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detectors.base import Array
from detectors.learners.features import (
    MAX_DENSE_COLUMNS,
    Dispersion,
    QuadraticMoments,
    Scale,
    principal_axes,
    whitening,
)
from detectors.learners.mmd import FourierFeatures, median_bandwidth

__all__ = ["Description", "Float32", "Statistics"]

Float32 = npt.NDArray[np.float32]

BANDWIDTHS = (0.4, 1.0, 2.5)
"""Kernel widths in units of the median distance: a small new cluster, a shift, a slow tilt."""

AT_ONCE = 1000
"""Rows whose features are in memory at once: a few MB, whatever the number of rows."""


N_WAVES, N_MARKS, MAX_INDICATORS = 80, 31, 2048
"""Random features for each width, quantiles at which distribution functions are compared, and both
together with the columns: wide inputs get fewer quantiles, not more time. More waves did not find
more on windows of 500 to 1000 rows; 31 quantiles lose at most 1/64 of a distance."""

QUICK_WAVES, QUICK_MARKS, QUICK_INDICATORS = 32, 7, 512
"""The same of what is kept of a reference."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Eight statistics of the means of two windows, for each of many ways to tag their rows.

    Attributes
    ----------
    sums
        Squared MMD at three widths, squares of whitened moments, of the columns' squares and of the
        dispersion, shape (B, 6); these add up over classes.
    maxima
        Largest distance of two distribution functions, and largest moment, shape (B, 2).
    distances
        Of each column's distribution functions, shape (B, d).
    """

    sums: Array
    maxima: Array
    distances: Float32

    @property
    def columns(self) -> Array:
        """All eight, shape (B, 8)."""
        return np.hstack([self.sums, self.maxima])


@dataclass(frozen=True, slots=True)
class Description:
    """Features of rows, on the scale and along the directions of the rows it was made of.

    Attributes
    ----------
    scale, axes
        Of the columns; axes are None where there are few enough columns.
    moments, dispersion
        See `detectors.learners.features`.
    white
        Whitens the moments, shape (3 q, 3 q).
    waves
        Random Fourier features of each kernel width.
    marks
        Values of each column at which distribution functions are read, shape (g, d).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(size=(2, 200, 3))
    >>> description = Description.fit(x, rng)
    >>> moved = description(y + [0.0, 0.0, 0.8]).mean(axis=0) - description(x).mean(axis=0)
    >>> found = description.statistics(moved[None])
    >>> found.columns.shape, int(found.distances.argmax())
    ((1, 8), 2)
    """

    scale: Scale
    axes: Array | None
    moments: QuadraticMoments
    dispersion: Dispersion
    white: Array
    waves: tuple[FourierFeatures, ...]
    marks: Array

    @classmethod
    def fit(cls, rows: Array, rng: np.random.Generator) -> Description:
        """Of all rows that are compared, shape (n, d); the generator draws the waves."""
        scale = Scale.fit(rows)
        standardised = scale(rows)
        axes = principal_axes(standardised)
        dense = standardised if axes is None else standardised @ axes
        moments = QuadraticMoments.fit(dense)
        return cls(
            scale,
            axes,
            moments,
            Dispersion.fit(dense),
            whitening(moments(dense)),
            _waves(dense, N_WAVES, rng),
            _all_marks(rows, N_MARKS, MAX_INDICATORS, _marks),
        )

    @classmethod
    def of_reference(cls, rows: Array, rng: np.random.Generator) -> Description:
        """Of one of the windows alone, shape (n, d), coarser.

        Directions that are fitted on one window flatter it: along its leading components its own
        rows vary too much, and others do not. So only scales, marks and a mild whitening of the
        columns follow the rows; directions are drawn.
        """
        scale = Scale.fit(rows)
        standardised = scale(rows)
        wide = standardised.shape[1] > MAX_DENSE_COLUMNS
        axes = _rotation(rows.shape[1], rng)[:, :MAX_DENSE_COLUMNS] if wide else None
        dense = standardised if axes is None else standardised @ axes
        q = dense.shape[1]
        moments = QuadraticMoments.along(_rotation(q, rng), dense)
        white = np.eye(3 * q)
        white[:q, :q] = whitening(moments(dense)[:, :q])
        return cls(
            scale,
            axes,
            moments,
            Dispersion.along(np.eye(q), dense),
            white,
            _waves(dense, QUICK_WAVES, rng),
            _all_marks(rows, QUICK_MARKS, QUICK_INDICATORS, _marks_of_one),
        )

    def __call__(self, rows: Array) -> Float32:
        """Features, shape (n, q): moments, dispersion, waves and indicators."""
        single = self._dense(rows).astype(np.float32)
        # Read at values of the data with "at most this value", so never inside a tie group: there,
        # the order of equal values would pass for a difference.
        indicators = (rows[:, None, :] <= self.marks).reshape(len(rows), -1)
        parts = [self.moments(single), self.dispersion(single)]
        parts += [wave(single) for wave in self.waves]
        return np.hstack([*parts, indicators.astype(np.float32)])

    def moments_of(self, rows: Array) -> Array:
        """The moments alone, shape (n, 3 q), in double precision."""
        return self.moments(self._dense(rows))

    def _dense(self, rows: Array) -> Array:
        standardised = self.scale(rows)
        return standardised if self.axes is None else standardised @ self.axes

    def means(self, rows: Array, length: int) -> Float32:
        """Mean features of each `length` neighbours, shape (n // length, q)."""
        n = len(rows) // length
        step = max(AT_ONCE // length, 1)
        means = [
            self(rows[a * length : min(a + step, n) * length])
            .reshape(min(step, n - a), length, -1)
            .mean(axis=1)
            for a in range(0, n, step)
        ]
        return np.concatenate(means)

    def statistics(self, moved: Float32) -> Statistics:
        """Of scaled differences of the windows' mean features, shape (B, q)."""
        q = len(self.white)
        ends = np.cumsum([q, 1, *(len(wave.phases) for wave in self.waves)])
        moments, spread, *waves, indicators = np.split(moved, ends, axis=1)
        sums = [np.square(wave).sum(axis=1) for wave in waves]
        sums.append(np.square(moments @ self.white.astype(np.float32)).sum(axis=1))
        sums.append(np.square(moments[:, q // 3 : 2 * q // 3]).sum(axis=1))
        sums.append(np.square(spread[:, 0]))
        distances = np.abs(indicators).reshape(len(moved), *self.marks.shape).max(axis=1)
        maxima = [distances.max(axis=1), np.abs(moments).max(axis=1)]
        return Statistics(
            np.column_stack(sums).astype(np.float64),
            np.column_stack(maxima).astype(np.float64),
            distances,
        )


def _rotation(d: int, rng: np.random.Generator) -> Array:
    """Orthogonal directions, drawn at random, shape (d, d)."""
    directions, _ = np.linalg.qr(rng.normal(size=(d, d)))
    return np.asarray(directions)


def _waves(dense: Array, n: int, rng: np.random.Generator) -> tuple[FourierFeatures, ...]:
    width = median_bandwidth(dense, seed=int(rng.integers(2**63)))
    return tuple(
        FourierFeatures.draw(
            dense.shape[1],
            bandwidth=factor * width,
            n_features=n,
            seed=int(rng.integers(2**63)),
        )
        for factor in BANDWIDTHS
    )


def _all_marks(
    rows: Array, most: int, max_indicators: int, marks: Callable[[Array, int], Array]
) -> Array:
    n_marks = int(np.clip(max_indicators // rows.shape[1], 3, most))
    return np.column_stack([marks(column, n_marks) for column in rows.T])


def _marks_of_one(column: Array, size: int) -> Array:
    """The same where the other window is not known: what is new may lie outside of all values.

    So all of a few values are marks, and one lies below. Nothing else tells of a constant column
    that it is constant no more.
    """
    values = np.unique(column)
    if len(values) >= size:
        return _marks(column, size)
    below = np.nextafter(values[:1], -np.inf)
    return np.concatenate([below, values, np.full(size - 1 - len(values), np.inf)])


def _marks(column: Array, size: int) -> Array:
    """Values that split a column: all but the largest where they are few, else its quantiles."""
    ordered = np.sort(column)
    last = np.flatnonzero(ordered[1:] > ordered[:-1])  # the last row of each tie group but one
    if len(last) > size:
        steps = np.arange(1, size + 1) / (size + 1)
        return np.asarray(ordered[(steps * len(ordered)).astype(np.int64)])
    # A mark above all values splits nothing, and so adds nothing.
    return np.append(ordered[last], np.full(size - len(last), np.inf))
