"""What the inputs alone say of both factors, while labels are late or never come."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from threadpoolctl import threadpool_limits

from detectors.attribution.factors import MIN_ROWS, QUICK_NOTE, of_inputs
from detectors.attribution.grades import goes_on, in_one
from detectors.attribution.mixture import MIN_PER_CLASS, mixture_test
from detectors.attribution.quick import quick_rows
from detectors.attribution.windows import Windows
from detectors.base import Evidence, Factor, Problem

__all__ = ["examine_unlabelled"]

WEIGHTS, FIT = "mixture weights", "mixture fit"

MAX_BOOTSTRAPS = 1999
"""6 s at 1,000 rows, for levels down to 0.001; the last of three looks at 1 % needs 399, 1 s."""


def examine_unlabelled(windows: Windows, *, alpha: float, seed: int) -> tuple[Evidence, Evidence]:
    """Test both factors of a problem without recent labels, as far as that can be done.

    X->Y: P(X) by permutation; P(Y|X) cannot be seen. Y->X, with a labelled reference: whether the
    inputs are still a mixture of the reference's classes, and if they are, whether its weights
    moved. If they are not, P(X|Y) moved and the weights mean nothing. Y->X without any label: P(X),
    which moves with either factor, so both remain possible.

    Parameters
    ----------
    windows
        Labels of the recent one are not looked at.
    alpha
        Level of both tests together; also how fine the p-values are.
    seed
        Of the tests.

    Returns
    -------
    tuple[Evidence, Evidence]
        Of the marginal and the conditional factor, for
        `detectors.attribution.attribution.conclude`.

    Examples
    --------
    >>> from detectors.attribution.attribution import conclude
    >>> from detectors.attribution.windows import Reference, Sample
    >>> rng = np.random.default_rng(0)
    >>> def window(n, rate):
    ...     y = (rng.random(n) < rate).astype(np.int64)
    ...     return Sample(rng.normal(2.0 * y[:, None], 1.0, size=(n, 2)), y)
    >>> reference = Reference(window(800, 0.3), n_classes=2, columns=["a", "b"])
    >>> windows = Windows(reference, window(500, 0.6), Problem.Y_TO_X)
    >>> found = examine_unlabelled(windows, alpha=0.01, seed=1)
    >>> conclude(found, Problem.Y_TO_X, 0.01).kind
    <Kind.PRIOR: 'prior'>
    """
    if windows.problem is Problem.Y_TO_X and _is_told(windows):
        return _mixture(windows, alpha, seed)
    with threadpool_limits(limits=1):
        moved, _ = in_one(of_inputs(windows, seed=seed, level=alpha), alpha)
    n_labels = windows.labels[0]
    if moved.p_value is None:
        return moved, _unseen(n_labels, moved.note)
    if windows.problem is Problem.Y_TO_X:
        note = "labels are missing: P(X) moves with either factor"
        note = "; ".join(part for part in (note, moved.note) if part)
        moved = dataclasses.replace(moved, note=note)
    return moved, _unseen(n_labels, "labels are missing")


def _is_told(windows: Windows) -> bool:
    """Whether the reference's classes can be looked for in the recent inputs."""
    counts = np.bincount(windows.reference.labelled.labels)
    return (
        (counts >= MIN_PER_CLASS).sum() > 1
        and windows.block_length == 1
        and min(windows.sizes) >= MIN_ROWS
    )


def _mixture(windows: Windows, alpha: float, seed: int) -> tuple[Evidence, Evidence]:
    reference, recent = windows.reference, windows.recent.features
    known = reference.labelled
    with threadpool_limits(limits=1):
        quick = quick_rows(reference.told, reference.tell(recent), seed)
    if quick is not None and not goes_on(quick.p_value, alpha):
        # Inputs that did not move are the same mixture of the same classes.
        sizes = len(known.features), len(recent)
        note = f"without labels; {QUICK_NOTE}"
        return (
            Evidence(WEIGHTS, Factor.PRIOR, quick.statistic, quick.p_value, 0.0, *sizes, note),
            Evidence(FIT, Factor.CONCEPT, quick.statistic, quick.p_value, 0.0, *sizes, note),
        )
    found = mixture_test(
        known.features,
        known.labels,
        recent,
        n_classes=reference.n_classes,
        seed=seed,
        n_bootstraps=min(max(199, math.ceil(2 / alpha) - 1), MAX_BOOTSTRAPS),
    )
    counts = np.bincount(known.labels, minlength=reference.n_classes)
    explained = found.fit_p_value > alpha / 2
    weights = Evidence(
        WEIGHTS,
        Factor.PRIOR,
        0.0,
        found.prior_p_value if explained else None,
        float(np.abs(found.prior - counts / counts.sum()).sum() / 2),
        found.n_reference,
        found.n_recent,
        "without labels" if explained else "cannot be told while P(X|Y) has moved",
    )
    fit = Evidence(
        FIT,
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
