"""How well a linear rule tells two groups of rows apart: an effect that does not grow with them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from detectors.base import Array, IntArray
from detectors.learners.features import RIDGE

__all__ = ["auc", "discriminant", "separation"]


def separation(features: Array, n_reference: int, block_length: int) -> tuple[float, float]:
    """2 AUC - 1 of a ridge discriminant, each half of the blocks judged by the other half's.

    Parameters
    ----------
    features
        Of the reference's rows and behind them of the recent ones, shape (n + m, q), standardised.
    n_reference
        Rows of the reference.
    block_length
        Neighbours that resemble each other.

    Returns
    -------
    tuple[float, float]
        The separation, below 0 where it is chance alone, and its standard error for discriminants
        as they are; that is infinite where a half has nothing to judge.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(size=(2, 300, 3))
    >>> found, error = separation(np.concatenate([x, y + [1.0, 0.0, 0.0]]), 300, 1)
    >>> round(found, 1), round(error, 2)
    (0.5, 0.04)
    """
    recent = np.arange(len(features)) >= n_reference
    block = np.arange(len(features)) // block_length
    half = block % 2 == 1
    values, variances = [], []
    for judged in (half, ~half):
        groups = [rows & side for rows in (~judged, judged) for side in (~recent, recent)]
        if not all(group.any() for group in groups):
            continue
        rule = discriminant(features[groups[0]], features[groups[1]])
        value, variance = auc(features[judged] @ rule, recent[judged], block[judged])
        values.append(value)
        variances.append(variance)
    if not values:
        return 0.0, np.inf
    error = 2.0 * float(np.sqrt(np.sum(variances))) / len(values)
    return 2.0 * float(np.mean(values)) - 1.0, error


def discriminant(old: Array, new: Array) -> Array:
    """Ridge discriminant of two groups of rows, shapes (n, q) and (m, q): weights, shape (q,).

    Examples
    --------
    >>> x, y = np.random.default_rng(0).normal(size=(2, 300, 2))
    >>> bool((discriminant(x, y + [1.0, 0.0]) @ [1.0, 0.0]) > 0.5)
    True
    """
    centred = np.concatenate([old - old.mean(axis=0), new - new.mean(axis=0)])
    spread = centred.T @ centred / len(centred)
    # As many directions as rows need as much damping as there is variance.
    spread[np.diag_indices_from(spread)] += RIDGE + spread.shape[0] / len(centred)
    return np.asarray(np.linalg.solve(spread, new.mean(axis=0) - old.mean(axis=0)))


def auc(scores: Array, positive: npt.NDArray[np.bool_], block: IntArray) -> tuple[float, float]:
    """Area under the ROC curve and its variance [1]_ for blocks of rows that resemble each other.

    Parameters
    ----------
    scores, positive, block
        Of each row, shape (n,): its score, its group and the block that it belongs to.

    References
    ----------
    .. [1] E. DeLong, D. DeLong, D. Clarke-Pearson (1988). Comparing the areas under two or more
       correlated receiver operating characteristic curves. Biometrics 44, 837-845.

    Examples
    --------
    >>> auc(np.array([0.1, 0.4, 0.3, 0.9]), np.array([False, False, True, True]), np.arange(4))
    (0.75, 0.5)
    """
    from scipy.stats import rankdata  # noqa: PLC0415 - slow to import, rarely needed

    n_positive = int(positive.sum())
    n_negative = len(scores) - n_positive
    ranks = rankdata(scores)
    above = ranks[positive].sum() - n_positive * (n_positive + 1) / 2
    variance = 0.0
    for part, n_others in ((positive, n_negative), (~positive, n_positive)):
        placements = (ranks[part] - rankdata(scores[part])) / n_others
        _, position = np.unique(block[part], return_inverse=True)
        means = np.bincount(position, weights=placements) / np.bincount(position)
        if len(means) < 2:
            return float(above / (n_positive * n_negative)), np.inf
        # Without the floor, windows that do not touch would have an error of 0.
        variance += max(float(means.var(ddof=1)) / len(means), 1.0 / len(means) ** 2)
    return float(above / (n_positive * n_negative)), variance
