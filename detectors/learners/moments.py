"""Means and standard deviations of columns with gaps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from detectors.base import Array


def column_moments(x: Array) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """Mean, standard deviation (1 if constant) and whether it varies, of each column's values."""
    seen = np.isfinite(x)
    count = np.maximum(seen.sum(axis=0), 1)
    mean = np.where(seen, x, 0.0).sum(axis=0) / count
    deviation = np.sqrt((np.where(seen, x - mean, 0.0) ** 2).sum(axis=0) / count)
    # A constant's deviations are rounding errors, not zeros.
    varies = deviation > 1e-12 * np.maximum(np.abs(mean), 1.0)
    return mean, np.where(varies, deviation, 1.0), varies


def standardised(x: Array) -> Array:
    """Columns with mean 0 and standard deviation 1; 0 where they are constant."""
    mean, scale, _ = column_moments(x)
    return (x - mean) / scale


CLIP = 4.0
"""Standardised scores are cut to +-CLIP before they are summed. A CUSUM adds evidence over rows; a
single wild row must not carry a sum over its threshold, and the bootstrap that sets the thresholds
cannot draw values beyond the reference's own. The cut costs nothing at the shifts a slack is tuned
for: 4 standard deviations are more than ten slacks."""
