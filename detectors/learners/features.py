"""Features of rows in which windows differ: scale, moments, directions and spread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from detectors.base import Array
from detectors.rows import bounded

__all__ = [
    "MAX_DENSE_COLUMNS",
    "RIDGE",
    "Dispersion",
    "QuadraticMoments",
    "Scale",
    "dispersion",
    "principal",
    "principal_axes",
    "quadratic_moments",
    "standardise",
    "whiten",
    "whitening",
]

_Float = TypeVar("_Float", np.float32, np.float64)

MAX_DENSE_COLUMNS = 64
"""Columns from which kernels and moments work on principal components."""

RIDGE = 0.05
"""Share of a feature's variance added before whitening, so that noise directions stay small."""

CLIP = 4.0
"""Standardised values are cut here before they are squared: one wild row must not decide."""

LEAST = 1e-30
"""Smaller deviations are those of a constant: their inverse has no place in single precision."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Columns to mean 0 and variance 1 of the rows it was fitted on; a constant column becomes 0.

    Attributes
    ----------
    centre, factor
        What is taken off each column, and what it is multiplied with; shapes (d,).

    Examples
    --------
    >>> scale = Scale.fit(np.array([[1.0, 0.1], [3.0, 0.1]]))
    >>> scale(np.array([[5.0, 0.2]]))
    array([[3., 0.]])
    """

    centre: Array
    factor: Array

    @classmethod
    def fit(cls, rows: Array) -> Scale:
        """Of rows, shape (n, d)."""
        rows = bounded(rows)
        centre = rows.mean(axis=0)
        centred = rows - centre
        deviation = np.sqrt(np.einsum("ij,ij->j", centred, centred) / len(rows))
        # The mean of equal values is off by a rounding; that must not be blown up to variance 1.
        varies = deviation > np.maximum(1e-9 * np.abs(rows).max(axis=0, initial=0.0), LEAST)
        factor = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)
        return cls(centre, factor)

    def __call__(self, rows: npt.NDArray[_Float]) -> npt.NDArray[_Float]:
        """Rows of any number, shape (n, d), in their own precision."""
        kind = rows.dtype
        scaled: npt.NDArray[_Float] = bounded(rows) - self.centre.astype(kind)
        scaled *= self.factor.astype(kind)
        return scaled


def standardise(rows: Array) -> Array:
    """Columns with mean 0 and variance 1; a constant column becomes 0.

    Examples
    --------
    >>> standardise(np.array([[1.0, 0.1], [3.0, 0.1]]))
    array([[-1.,  0.],
           [ 1.,  0.]])
    """
    return Scale.fit(rows)(rows)


def principal_axes(standardised: Array, n_columns: int = MAX_DENSE_COLUMNS) -> Array | None:
    """Leading directions of rows, shape (d, n_columns); None where there are no more columns.

    Examples
    --------
    >>> rows = standardise(np.random.default_rng(0).normal(size=(50, 70)))
    >>> principal_axes(rows).shape, principal_axes(rows[:, :3])
    ((70, 64), None)
    """
    if standardised.shape[1] <= n_columns:
        return None
    _, directions = np.linalg.eigh(standardised.T @ standardised)
    return np.asarray(directions[:, -n_columns:])


def principal(standardised: Array, n_columns: int = MAX_DENSE_COLUMNS) -> Array:
    """The rows, or their leading principal components where there are more than `n_columns`.

    Examples
    --------
    >>> rows = standardise(np.random.default_rng(0).normal(size=(50, 70)))
    >>> principal(rows).shape, principal(rows[:, :3]).shape
    ((50, 64), (50, 3))
    """
    axes = principal_axes(standardised, n_columns)
    return standardised if axes is None else np.asarray(standardised @ axes)


def whitening(standardised: Array) -> Array:
    """Directions of rows, scaled to nearly equal variance, shape (d, d).

    Examples
    --------
    >>> x, noise = np.random.default_rng(0).normal(size=(2, 500))
    >>> rows = standardise(np.column_stack([x, x + 0.1 * noise, noise]))
    >>> white = rows @ whitening(rows)
    >>> np.cov(white.T).round(1) + 0.0  # two directions; nothing is left to be the third
    array([[0., 0., 0.],
           [0., 1., 0.],
           [0., 0., 1.]])
    """
    values, directions = np.linalg.eigh(standardised.T @ standardised / len(standardised))
    return np.asarray(directions / np.sqrt(np.maximum(values, 0.0) + RIDGE))


def whiten(standardised: Array) -> Array:
    """Uncorrelated features of nearly equal variance, shape (n, d): see `whitening`."""
    return np.asarray(standardised @ whitening(standardised))


@dataclass(frozen=True, slots=True)
class QuadraticMoments:
    """Columns, their squares and the squares of their principal components, each with variance 1.

    Gaussian kernels hardly see a changed spread of few among many columns: squares do. Those of
    the components see a changed dependence between columns.

    Attributes
    ----------
    directions
        Of the components, shape (d, k).
    components, scale
        Of the components and of the moments.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(size=(2, 300, 2))
    >>> y[:, 1] = 0.9 * y[:, 0] + 0.4 * y[:, 1]  # same spread of each column, but dependent
    >>> rows = standardise(np.concatenate([x, y]))
    >>> features = QuadraticMoments.fit(rows)(rows)
    >>> moved = np.abs(features[:300].mean(axis=0) - features[300:].mean(axis=0))
    >>> moved.round(1)
    array([0. , 0.1, 0.1, 0.1, 0.8, 0.3])
    """

    directions: Array
    components: Scale
    scale: Scale

    @classmethod
    def fit(cls, standardised: Array) -> QuadraticMoments:
        """Of standardised rows, shape (n, d)."""
        clipped = np.clip(standardised, -CLIP, CLIP)
        _, directions = np.linalg.eigh(clipped.T @ clipped)
        return cls.along(directions, standardised)

    @classmethod
    def along(cls, directions: Array, standardised: Array) -> QuadraticMoments:
        """The same with other directions than the rows' components, shape (d, k)."""
        components = Scale.fit(np.clip(standardised, -CLIP, CLIP) @ directions)
        plain = cls(directions, components, Scale(np.zeros(1), np.ones(1)))
        return cls(directions, components, Scale.fit(plain(standardised)))

    def __call__(self, standardised: npt.NDArray[_Float]) -> npt.NDArray[_Float]:
        """Moments of rows on the same scale, shape (n, 3 d)."""
        clipped = np.clip(standardised, -CLIP, CLIP)
        components = self.components(clipped @ self.directions.astype(clipped.dtype))
        np.clip(components, -CLIP, CLIP, out=components)
        return self.scale(np.hstack([clipped, np.square(clipped), np.square(components)]))


def quadratic_moments(standardised: Array) -> Array:
    """`QuadraticMoments` of the rows they are fitted on, shape (n, 3 d)."""
    return QuadraticMoments.fit(standardised)(standardised)


@dataclass(frozen=True, slots=True)
class Dispersion:
    """Logarithm of each row's whitened squared norm, standardised.

    One number for "everything spreads more" and for "a share of the rows comes from elsewhere",
    which among 2 d moments drown where a class has only a hundred rows.

    Attributes
    ----------
    directions
        See `whitening`.
    floor
        Added to the squared norm, so that rows near the centre stay near each other.
    scale
        Of the logarithm.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(size=(2, 100, 10))
    >>> rows = standardise(np.concatenate([x, 1.3 * y]))
    >>> far = Dispersion.fit(rows)(rows)[:, 0]
    >>> bool(far[100:].mean() - far[:100].mean() > 0.5)
    True
    """

    directions: Array
    floor: float
    scale: Scale

    @classmethod
    def fit(cls, standardised: Array) -> Dispersion:
        """Of standardised rows, shape (n, d)."""
        return cls.along(whitening(standardised), standardised)

    @classmethod
    def along(cls, directions: Array, standardised: Array) -> Dispersion:
        """The same of the norm along other directions, shape (d, k)."""
        floor = 0.5 * float(_squared_norms(standardised, directions).mean()) + 1e-12
        plain = cls(directions, floor, Scale(np.zeros(1), np.ones(1)))
        return cls(directions, floor, Scale.fit(plain(standardised)))

    def __call__(self, standardised: npt.NDArray[_Float]) -> npt.NDArray[_Float]:
        """Of rows on the same scale, shape (n, 1)."""
        norms = _squared_norms(standardised, self.directions)
        return self.scale(np.log(norms + norms.dtype.type(self.floor)))


def _squared_norms(standardised: npt.NDArray[_Float], directions: Array) -> npt.NDArray[_Float]:
    white = np.clip(standardised @ directions.astype(standardised.dtype), -CLIP, CLIP)
    norms: npt.NDArray[_Float] = np.square(white, out=white).sum(axis=1, keepdims=True)
    return norms


def dispersion(standardised: Array) -> Array:
    """`Dispersion` of the rows it is fitted on, shape (n, 1)."""
    return Dispersion.fit(standardised)(standardised)
