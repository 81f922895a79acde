"""Scores counted in bins: a bag whose memory is bounded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from detectors.base import Array, IntArray
from detectors.rows import bounded

N_BINS = 128
"""Bins of a score, at most; a score's p-value is known to one bin, and beyond its extremes not."""

MIN_ROWS = 8


def as_bins(edges: npt.ArrayLike, counts: npt.ArrayLike, ndim: int) -> tuple[Array, IntArray]:
    """Bins as arrays, checked; both are copied.

    Parameters
    ----------
    edges
        Inner edges, shape (..., b - 1), not decreasing.
    counts
        Scores in each bin, shape (..., b), with `ndim` dimensions.

    Raises
    ------
    ValueError
        If the shapes do not fit each other, a count is negative or edges decrease.

    Examples
    --------
    >>> as_bins([[0.0]], [[5, 3, 1]], 2)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: edges need one value less than counts in their last dimension, got shapes (1, 1)...
    """
    inner = np.array(edges, dtype=np.float64)
    bag: IntArray = np.array(counts, dtype=np.int64)
    if bag.ndim != ndim or inner.shape != (*bag.shape[:-1], bag.shape[-1] - 1):
        raise ValueError(
            "edges need one value less than counts in their last dimension, "
            f"got shapes {inner.shape} and {bag.shape}"
        )
    if (bag < 0).any():
        raise ValueError(f"counts must not be negative, got {bag.min()}")
    if np.isnan(inner).any() or (inner[..., 1:] < inner[..., :-1]).any():
        raise ValueError("edges must be numbers that do not decrease along a row")
    return inner, bag


def as_calibration(scores: npt.ArrayLike) -> Array:
    """Scores (n, k) that can make bins.

    Raises
    ------
    ValueError
        If it is not a matrix of at least 8 rows; names the shape.

    Examples
    --------
    >>> as_calibration(np.zeros((3, 1)))
    Traceback (most recent call last):
    ...
    ValueError: scores must be (n, k) with n at least 8, got shape (3, 1)
    """
    x = bounded(np.array(scores, dtype=np.float64))
    if x.ndim != 2 or len(x) < MIN_ROWS or x.shape[1] == 0:
        raise ValueError(f"scores must be (n, k) with n at least {MIN_ROWS}, got shape {x.shape}")
    return x


def bins_of(groups: Sequence[Array]) -> tuple[Array, IntArray]:
    """Bins of each group of scores: edges from every fourth row, counts from the others.

    Parameters
    ----------
    groups
        Scores of each group, shapes (n, k) with one k; NaN means "nothing seen".

    Returns
    -------
    Array
        Inner edges, shape (groups, k, b - 1).
    IntArray
        Scores in each bin, shape (groups, k, b).

    Examples
    --------
    >>> edges, counts = bins_of([np.arange(16.0)[:, None]])
    >>> edges[0, 0].tolist(), counts[0, 0].tolist()
    ([0.0, 4.0, 4.0, 8.0], [0, 3, 0, 3, 6])
    """
    k = groups[0].shape[1]
    n_bins = int(np.clip(max(len(g) for g in groups) // 4 + 1, 2, N_BINS))
    edges = np.full((len(groups), k, n_bins - 1), np.inf)
    counts: IntArray = np.zeros((len(groups), k, n_bins), dtype=np.int64)
    sets = np.arange(n_bins - 1) + 1.0
    for g, scores in enumerate(groups):
        setting, kept = scores[::4], np.delete(scores, np.s_[::4], axis=0)
        for c in range(k):
            own = setting[np.isfinite(setting[:, c]), c]
            if own.size:
                edges[g, c] = np.quantile(own, sets / n_bins, method="lower")
            bag = kept[np.isfinite(kept[:, c]), c]
            bins = np.searchsorted(edges[g, c], bag, side="left")
            counts[g, c] = np.bincount(bins, minlength=n_bins)
    return edges, counts
