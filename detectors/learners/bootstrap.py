"""Streams simulated from a reference's own rows, in blocks."""

from __future__ import annotations

import numpy as np

from detectors.base import Array, IntArray
from detectors.learners.dependence import significance


def whiten_lag_1(z: Array) -> tuple[Array, Array]:
    """Coefficients (k,) of each column's lag-1 autoregression, and its residuals (n, k)."""
    n = len(z)
    filled = np.where(np.isfinite(z), z, 0.0)
    before = np.roll(filled, 1, axis=0)
    lag_1 = (filled * before).mean(axis=0)
    unbiased = np.clip(lag_1 + (1 + 3 * lag_1) / n, -0.97, 0.97)
    coefficient = np.where(np.abs(lag_1) > significance(n), unbiased, 0.0)
    return coefficient, np.where(np.isfinite(z), filled - coefficient * before, np.nan)


def draw_blocks(rng: np.random.Generator, n: int, size: int, length: int) -> IntArray:
    """Rows of a reference of n rows, closed to a circle, in blocks: `size` indices."""
    starts = rng.integers(0, n, -(-size // length))
    order: IntArray = ((starts[:, None] + np.arange(length)) % n).ravel()[:size]
    return order
