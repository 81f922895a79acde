"""Splitting a reference window so that what is learned on some rows scores the others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from detectors.base import Array, IntArray

Judge = Callable[[npt.NDArray[np.bool_], npt.NDArray[np.bool_]], Array]
"""(rows that teach, rows to judge), both of shape (n,) -> values of the judged rows, in order."""

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


def out_of_fold(folds: IntArray, judge: Judge) -> Array:
    """Values of all rows, each from what the rows of other folds taught.

    Values on rows that a model was fitted to are too good.

    Parameters
    ----------
    folds
        Fold of each row, shape (n,).
    judge
        Learns and judges, once a fold.

    Returns
    -------
    Array
        Shape (n, ...), as the judge's values.

    Examples
    --------
    >>> rows = np.array([1.0, 3.0, 8.0])
    >>> out_of_fold(np.array([0, 1, 1]), lambda taught, judged: rows[judged] - rows[taught].mean())
    array([-4.5,  2. ,  7. ])
    """
    masks = [folds == fold for fold in np.unique(folds)]
    parts = [judge(~mask, mask) for mask in masks]
    values = np.empty((len(folds), *parts[0].shape[1:]))
    for mask, part in zip(masks, parts, strict=True):
        values[mask] = part
    return values
