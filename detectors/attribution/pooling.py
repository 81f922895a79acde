"""One test of several parts of a stream, each compared with its own reference."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr, ndtri

from detectors.base import Array, Evidence

__all__ = ["pool"]

LEAST, MOST = 1e-300, 0.999
"""P-values are cut to this: a permutation test can give 1, whose score is without limit, and one
part must not veto the others."""

CUT = 0.9
"""In the Cauchy combination a p-value near 1 would cancel one near 0."""

_NORMAL_95 = float(ndtri(0.975))


def pool(own: Sequence[Evidence], others: Sequence[Sequence[Evidence]]) -> tuple[Evidence, ...]:
    r"""Evidence of one part together with that of other parts of the same stream.

    The parts have no row in common, so under "nothing moved" their p-values are independent.
    Those of one test are combined by Stouffer's weighted score [1]_, [2]_,

    .. math:: Z = \sum_i w_i \Phi^{-1}(1 - p_i) / \sqrt{\textstyle\sum_i w_i^2},
              \quad w_i = \sqrt{n_i},

    where n is the number of recent rows of a part. If the part alone has moved, the others' noise
    would hide it; so where the part has a p-value of its own, the result is the Cauchy combination
    [3]_ of that one and of the score's: never more than about twice the smaller one.

    Parameters
    ----------
    own
        A test of each factor.
    others
        The same of each other part, from rows that were not chosen for looking different.

    Returns
    -------
    tuple of Evidence
        In the order of `own`. A test that no other part has a p-value of is returned as it is;
        parts whose test could not run count nothing. Of the others `statistic` is Z, the effect
        the mean by recent rows, its interval that of the mean weighted by inverse variance, moved
        to the effect, and the numbers of rows are sums.

    Notes
    -----
    P-values of permutations are at least as large as they should be, so the level holds for them.
    Each part is compared with its own reference: parts that differ from each other all the time,
    such as regions, are no evidence.

    References
    ----------
    .. [1] S. A. Stouffer et al. (1949). The American Soldier, vol. 1. Princeton, p. 45.
    .. [2] D. V. Zaykin (2011). Optimally weighted Z-test is a powerful method for combining
       probabilities in meta-analysis. Journal of Evolutionary Biology 24, 1836-1841.
    .. [3] Y. Liu, J. Xie (2020). Cauchy combination test. JASA 115, 393-402.

    Examples
    --------
    >>> from detectors.base import Factor
    >>> part = Evidence("two-sample", Factor.COVARIATE, 2.1, 0.03, 0.1, 1000, 250)
    >>> [together] = pool([part], [[part], [part], [part]])
    >>> round(together.p_value, 5), together.n_recent, together.note
    (0.00017, 1000, 'over 4 partitions')
    """
    return tuple(_pooled(e, [o for part in others for o in part if _is_same(e, o)]) for e in own)


def _is_same(own: Evidence, other: Evidence) -> bool:
    return other.test == own.test and other.factor is own.factor and other.p_value is not None


def _pooled(own: Evidence, others: Sequence[Evidence]) -> Evidence:
    if not others:
        return own
    parts = [own, *others] if own.p_value is not None else list(others)
    n = np.array([e.n_recent for e in parts], np.float64)
    score = _score(np.array([e.p_value for e in parts], np.float64), np.sqrt(n))
    together = float(ndtr(-score))
    effect = float(n @ [e.effect for e in parts] / n.sum())
    low, high = _interval(parts, effect)
    over = f"over {len(parts)} partition{'s' if len(parts) > 1 else ''}"
    note = own.note if own.p_value is not None else ""
    return dataclasses.replace(
        own,
        statistic=score,
        p_value=together if own.p_value is None else _cauchy(own.p_value, together),
        effect=effect,
        n_reference=sum(e.n_reference for e in parts),
        n_recent=int(n.sum()),
        note=f"{note}; {over}" if note else over,
        effect_low=low,
        effect_high=high,
        hopeless=False,
    )


def _score(p_values: Array, weights: Array) -> float:
    """Stouffer's score; large where the p-values are small."""
    scores = -ndtri(np.clip(p_values, LEAST, MOST))
    return float(weights @ scores / np.sqrt(weights @ weights))


def _cauchy(own: float, together: float) -> float:
    cut = np.clip([own, together], 1e-15, CUT)
    mean = float(np.tan((0.5 - cut) * np.pi).mean())
    return float(np.clip(0.5 - np.arctan(mean) / np.pi, 1e-15, 1.0))


def _interval(parts: Sequence[Evidence], effect: float) -> tuple[float | None, float | None]:
    """95 % interval of the mean effect; None where a part has none."""
    widths = [
        e.effect_high - e.effect_low
        for e in parts
        if e.effect_low is not None and e.effect_high is not None
    ]
    if len(widths) < len(parts) or min(widths) <= 0.0:
        return None, None
    errors = np.array(widths) / (2 * _NORMAL_95)
    half = _NORMAL_95 / float(np.sqrt((errors**-2.0).sum()))
    return effect - half, effect + half
