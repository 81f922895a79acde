"""What the inputs alone say of both factors, while labels are late or never come."""

from __future__ import annotations

import math

import numpy as np

from detectors.attribution.mixture import MIN_PER_CLASS, mixture_test
from detectors.attribution.permutation import two_sample
from detectors.attribution.windows import Sample
from detectors.base import Array, Evidence, Factor, IntArray, Problem

__all__ = ["examine_unlabelled"]

MIN_ROWS = 20
"""Rows that a test of the inputs needs."""

MAX_BOOTSTRAPS = 1999
"""6 s at 1,000 rows, for levels down to 0.001; the last of three looks at 1 % needs 399, 1 s."""


def examine_unlabelled(
    reference: Sample,
    recent: Array,
    problem: Problem,
    *,
    n_classes: int,
    alpha: float,
    seed: int,
    block_length: int = 1,
) -> tuple[Evidence, Evidence]:
    """Test both factors of a problem without recent labels, as far as that can be done.

    X->Y: P(X) by permutation; P(Y|X) cannot be seen. Y->X, with a labelled reference: whether the
    inputs are still a mixture of the reference's classes, and if they are, whether its weights
    moved. If they are not, P(X|Y) moved and the weights mean nothing. Y->X without any label: P(X),
    which moves with either factor, so both remain possible.

    Parameters
    ----------
    reference
        The reference window.
    recent
        Unlabelled rows, shape (m, d).
    problem, n_classes, seed, block_length
        As in `detectors.attribution.attribution.examine`.
    alpha
        Level of both tests together; also how fine the p-values are.

    Returns
    -------
    tuple[Evidence, Evidence]
        Of the marginal and the conditional factor, for
        `detectors.attribution.attribution.conclude`.

    Examples
    --------
    >>> from detectors.attribution.attribution import conclude
    >>> rng = np.random.default_rng(0)
    >>> def window(n, rate):
    ...     y = (rng.random(n) < rate).astype(np.int64)
    ...     return Sample(rng.normal(2.0 * y[:, None], 1.0, size=(n, 2)), y)
    >>> reference, recent = window(800, 0.3), window(500, 0.6).features
    >>> found = examine_unlabelled(
    ...     reference, recent, Problem.Y_TO_X, n_classes=2, alpha=0.01, seed=1
    ... )
    >>> conclude(found, Problem.Y_TO_X, 0.01).kind
    <Kind.PRIOR: 'prior'>
    """
    least = MIN_ROWS * block_length
    n, m = len(reference.features), len(recent)
    if min(n, m) < least:
        note = f"needs {least} rows in each window, got {n} and {m}"
        return (
            Evidence("two-sample", problem.marginal, 0.0, None, 0.0, n, m, note),
            _unseen(n, note),
        )
    known = reference.labelled()
    counts = np.bincount(known.labels, minlength=n_classes).astype(np.int64)
    if problem is Problem.Y_TO_X and (counts >= MIN_PER_CLASS).sum() > 1 and block_length == 1:
        return _mixture(known, counts, recent, n_classes, alpha, seed)
    found = two_sample(
        reference.features,
        recent,
        seed=seed,
        n_permutations=_fine(alpha),
        block_length=block_length,
    )
    moved = Evidence(
        "two-sample",
        problem.marginal,
        found.statistic,
        found.p_value,
        found.effect,
        found.n_reference,
        found.n_recent,
        "" if problem is Problem.X_TO_Y else "labels are missing: P(X) moves with either factor",
        found.effect_low,
        found.effect_high,
    )
    return moved, _unseen(known.n_labelled, "labels are missing")


def _mixture(
    known: Sample, counts: IntArray, recent: Array, n_classes: int, alpha: float, seed: int
) -> tuple[Evidence, Evidence]:
    found = mixture_test(
        known.features,
        known.labels,
        recent,
        n_classes=n_classes,
        seed=seed,
        n_bootstraps=_fine(alpha),
    )
    explained = found.fit_p_value > alpha / 2
    weights = Evidence(
        "mixture weights",
        Factor.PRIOR,
        0.0,
        found.prior_p_value if explained else None,
        float(np.abs(found.prior - counts / counts.sum()).sum() / 2),
        found.n_reference,
        found.n_recent,
        "without labels" if explained else "cannot be told while P(X|Y) has moved",
    )
    fit = Evidence(
        "mixture fit",
        Factor.CONCEPT,
        found.fit_statistic,
        found.fit_p_value,
        found.fit_effect,
        found.n_reference,
        found.n_recent,
        "without labels",
    )
    return weights, fit


def _unseen(n_reference: int, note: str) -> Evidence:
    return Evidence("conditional", Factor.CONCEPT, 0.0, None, 0.0, n_reference, 0, note)


def _fine(alpha: float) -> int:
    """Draws with which a p-value can be as small as half of alpha, as Holm's first step asks."""
    return min(max(199, math.ceil(2 / alpha) - 1), MAX_BOOTSTRAPS)
