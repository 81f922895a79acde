"""Splitting a reference window so that what is learned on some rows scores the others."""

from __future__ import annotations

import numpy as np

from detectors.base import IntArray

N_FOLDS = 5
"""Folds of a reference: each row is scored by what four fifths of the others taught."""

CHUNKS_PER_FOLD = 10
"""Neighbouring rows go to one fold together, because they may resemble each other; in several
chunks, so that a reference sorted by time or class leaves no fold without its like."""


def fold_of(n: int, seed: int) -> IntArray:
    """The fold of each of n rows, shape (n,), from 0 to `N_FOLDS` - 1.

    Examples
    --------
    >>> np.bincount(fold_of(1000, seed=0)).tolist()
    [200, 200, 200, 200, 200]
    """
    chunks = np.repeat(np.arange(N_FOLDS), CHUNKS_PER_FOLD)
    order = np.random.default_rng(seed).permutation(chunks)
    folds: IntArray = order[np.arange(n) * len(order) // max(n, 1)]
    return folds
