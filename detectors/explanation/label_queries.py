"""Which rows to label next, and how many labels would settle an open verdict."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, isnan

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from detectors.base import Array, IntArray

__all__ = ["LabelQueries", "labels_needed", "query_labels"]

SMALLEST_CHANGE = 0.10
"""Change of P(Y=k|x) at equal x that is worth finding, where nothing is known of its size."""

LABEL_VARIANCE = 0.19
"""Variance of a class indicator given x. With the largest possible, 0.25, the power of 0.9 was
reached with 0.6 to 0.75 of the labels on synthetic streams, whose labels x tells moderately."""

N_WEIGHTS = 8
"""Independent weights that the largest of the conditional test's correlated ones stands for."""


@dataclass(frozen=True, slots=True)
class LabelQueries:
    """Rows to label.

    Attributes
    ----------
    rows
        Positions in the pool, shape (n,), in the order of their use: the first few are a sample of
        the same design, only smaller.
    probability
        Chance that the design had of including each of them, shape (n,), in (0, 1]; tests and
        means are unbiased under weights 1 / probability.
    uniform
        Shape (n,): rows that were drawn at random from the whole pool. Alone, they need no weights.
    """

    rows: IntArray
    probability: Array
    uniform: npt.NDArray[np.bool_]


def query_labels(
    window_probability: Array, *, n: int, uniform_share: float = 0.3, seed: int
) -> LabelQueries:
    """Choose rows whose labels tell most about P(Y|X), and a random part that keeps tests valid.

    A label tells about a change of P(Y|X) only where both windows have rows: in proportion to
    e (1 - e), with e = P(recent window | x). A random sample of the pool is drawn first; the rows
    with the largest e (1 - e) among the others follow, equal ones in random order.

    Parameters
    ----------
    window_probability
        P(recent window | x) of the pool's rows, shape (N,), in [0, 1].
    n
        Rows to choose, from 1 to N.
    uniform_share
        Share of them drawn at random, in [0, 1]; rounded up. With 0, rows outside the choice had
        no chance at all, and no weights make up for that.
    seed
        Fixes the choice.

    Returns
    -------
    LabelQueries
        The random and the informative rows interleaved.

    Raises
    ------
    ValueError
        If a number is out of range; names it.

    Examples
    --------
    >>> e = np.array([0.01] * 50 + [0.5] * 10 + [0.99] * 40)
    >>> chosen = query_labels(e, n=10, seed=0)
    >>> int((e[chosen.rows] == 0.5).sum()), int(chosen.uniform.sum())
    (8, 3)
    >>> bool(chosen.probability[~chosen.uniform].min() > 0.6)
    True
    """
    e = np.asarray(window_probability, np.float64)
    if e.ndim != 1 or not ((e >= 0) & (e <= 1)).all():
        raise ValueError(f"window_probability must be a vector in [0, 1], got {e!r}")
    if not 1 <= n <= len(e):
        raise ValueError(f"n must be in [1, {len(e)}], got {n}")
    if not 0 <= uniform_share <= 1:
        raise ValueError(f"uniform_share must be in [0, 1], got {uniform_share}")
    rng = np.random.default_rng(seed)
    n_uniform = ceil(round(uniform_share * n, 9))
    gain = e * (1.0 - e)
    random = rng.choice(len(e), n_uniform, replace=False)
    shuffled = rng.permutation(len(e))
    ranked = shuffled[np.argsort(-gain[shuffled], kind="stable")]
    informative = ranked[~np.isin(ranked, random)][: n - n_uniform]
    rows = np.concatenate([random, informative])
    # Interleaved, so that a budget that ends early still has both parts.
    place = np.concatenate(
        [(np.arange(k) + 0.5) / k for k in (n_uniform, n - n_uniform) if k] or [np.empty(0)]
    )
    order = np.argsort(place, kind="stable")
    chance = _inclusion(gain, n - n_uniform, n_uniform)
    return LabelQueries(rows[order], chance[rows][order], (np.arange(n) < n_uniform)[order])


def _inclusion(gain: Array, n_informative: int, n_uniform: int) -> Array:
    """Chance of each row: drawn at random, or one of the best of those that were not."""
    n = len(gain)
    share = n_uniform / n
    if not n_informative:
        return np.full(n, share)
    better = np.arange(n)  # rows ranked above
    # Not drawn itself, it is taken if the draw took so many better rows that few enough are left.
    from scipy.stats import hypergeom  # noqa: PLC0415 - slow to import, rarely needed

    taken = hypergeom.sf(better - n_informative, n - 1, n_uniform, better)
    chance = share + (1.0 - share) * taken
    _, group = np.unique(-gain, return_inverse=True)
    ranked_group = np.sort(group)
    mean = np.bincount(ranked_group, weights=chance) / np.bincount(ranked_group)
    return np.asarray(mean[group])


def labels_needed(
    n_reference: int, n_recent: int, effect: float, *, power: float = 0.9, alpha: float = 0.005
) -> int:
    """How many more labels would let the conditional test find a change of this size.

    Normal approximation: with n and m labels, a change t of P(Y=k|x) at equal x stands out by
    t sqrt(n m / (n + m)) / s standard deviations, with s^2 the variance of the label given x; the
    largest of several weights asks for the quantile of alpha / 16 and for that of the power on top.
    Little overlap of the windows adds to the need, by 1 / overlap. On 40 synthetic streams each,
    with the true mean change as effect, the power that was to be 0.9 was 0.90 for strong changes
    (73 recent labels against 1000, in the median) and 0.925 for moderate ones (720 against 1000).

    Parameters
    ----------
    n_reference, n_recent
        Labels that each window has; not negative.
    effect
        Change of the class's probability at equal x, in [-1, 1], as `covariance_test` reports it;
        0 or NaN for "not known", which stands for 0.10. An effect that was found too small to be
        significant is more often too large than too small, as it is the largest of many.
    power, alpha
        Chance of finding it, and level of the test; in (0, 1).

    Returns
    -------
    int
        Labels in both windows together if those go to the window that has fewer, until both have
        as many; 0 if there are enough.

    Raises
    ------
    ValueError
        If a number is out of range; names it.

    Examples
    --------
    >>> labels_needed(1000, 1000, 0.25), labels_needed(1000, 100, 0.25), labels_needed(1000, 100, 0)
    (0, 0, 625)
    """
    if min(n_reference, n_recent) < 0:
        raise ValueError(f"labels must not be negative, got {n_reference} and {n_recent}")
    if not (isnan(effect) or -1 <= effect <= 1):
        raise ValueError(f"effect must be in [-1, 1] or NaN, got {effect}")
    for name, value in (("power", power), ("alpha", alpha)):
        if not 0 < value < 1:
            raise ValueError(f"{name} must be in (0, 1), got {value}")
    change = SMALLEST_CHANGE if isnan(effect) or effect == 0 else abs(effect)
    quantile = ndtri(power) - ndtri(alpha / (2 * N_WEIGHTS))
    # n m / (n + m), half the size of two equal windows, that the change asks for.
    needed = LABEL_VARIANCE * max(quantile, 0.0) ** 2 / change**2
    few, many = sorted((n_reference, n_recent))
    if few * many >= needed * (few + many):
        return 0
    if many >= 2.0 * needed:
        return ceil(needed * many / (many - needed)) - few
    return 2 * ceil(2.0 * needed) - few - many
