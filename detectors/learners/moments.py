"""Means and standard deviations of columns with gaps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from detectors.base import Array


def _moments(x: Array) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """Mean, standard deviation (1 if constant) and whether it varies, of each column's values."""
    seen = np.isfinite(x)
    count = np.maximum(seen.sum(axis=0), 1)
    mean = np.where(seen, x, 0.0).sum(axis=0) / count
    deviation = np.sqrt((np.where(seen, x - mean, 0.0) ** 2).sum(axis=0) / count)
    # A constant's deviations are rounding errors, not zeros.
    varies = deviation > 1e-12 * np.maximum(np.abs(mean), 1.0)
    return mean, np.where(varies, deviation, 1.0), varies


def _standardised(x: Array) -> Array:
    """Columns with mean 0 and standard deviation 1; 0 where they are constant."""
    mean, scale, _ = _moments(x)
    return (x - mean) / scale
