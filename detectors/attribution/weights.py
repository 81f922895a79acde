"""Weights of residuals: along what a changed P(Y|X) is looked for."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from detectors.base import Array

_Float = TypeVar("_Float", np.float32, np.float64)

__all__ = ["weight_groups"]

CLIP = 3.0
"""Standardised columns are cut here: a far-off row must not carry a weight alone."""

MIN_VARIANCE = 0.05
"""Of a label by the old model, where weights divide by it: with less, its errors would decide."""


def weight_groups(
    z: npt.NDArray[_Float], old: Array, waves: npt.NDArray[_Float]
) -> list[npt.NDArray[_Float]]:
    """Five groups of weights of each row, shapes (n, 1), (n, 1), (n, q), (n, q) and (n, w).

    They are 1, the old model's opinion, the columns, and the columns and the waves times the
    opinion. Where the old model was sure, a changed rule shows with the sign of its opinion, and a
    few labels that it had ruled out say more than many that it had left open.

    Parameters
    ----------
    z
        Standardised columns, shape (n, q).
    old
        Probability of a class by the old model, shape (n,).
    waves
        Random features of the rows, of order 1, shape (n, w).

    Examples
    --------
    >>> groups = weight_groups(np.zeros((1, 2)), np.array([0.9]), np.ones((1, 3)))
    >>> [group.shape[1] for group in groups], groups[1].round(1).tolist()
    ([1, 1, 2, 2, 3], [[8.9]])
    """
    variance = np.maximum(old * (1.0 - old), MIN_VARIANCE)
    opinion = ((2.0 * old - 1.0) / variance)[:, None].astype(z.dtype)
    clipped = np.clip(z, -CLIP, CLIP)
    return [np.ones_like(opinion), opinion, clipped, opinion * clipped, opinion * waves]
