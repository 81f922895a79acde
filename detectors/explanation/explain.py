"""What goes with a verdict: what it costs, how sure its premises are, and what would help."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from detectors.attribution.attribution import ASYMPTOTIC, conclude, examine
from detectors.attribution.contrast import principal, standardise
from detectors.attribution.windows import UNLABELLED, Sample
from detectors.base import Array, IntArray, Kind, Problem, Verdict
from detectors.explanation.label_queries import labels_needed, query_labels
from detectors.explanation.selection import selection_note, selection_test
from detectors.explanation.severity import Severity, decompose_loss
from detectors.learners.nuisance import cross_fit, make_folds, quadratic_logistic

__all__ = ["Explanation", "explain", "other_direction"]

MIN_LOSSES = 60
"""Rows with a loss that each window needs before a loss is decomposed."""

MIN_CHOICE = 30
"""Rows with and without a label, of the same time, that the test for chosen labels needs."""

UNMOVED = 0.05
"""P-value above which the other direction's conditional factor counts as not moved."""

MAX_QUERIES = 200
"""Labels asked for at once; more are asked for when these have come."""

N_FOLDS = 3


@dataclass(frozen=True, slots=True)
class Explanation:
    """What goes with a verdict.

    Attributes
    ----------
    severity
        Where the change of the loss comes from; None where too few losses are known.
    loss
        Whose loss that is: "model", the watched one's share of wrong predictions, or
        "reference classifier", that of one learned on the reference, where no predictions are.
    direction_suspect
        One sentence if the other causal direction explains the windows with fewer moved factors;
        empty otherwise. A hint for people: the direction is never changed.
    chosen_labels
        One sentence if the labelled rows are no random sample of the inputs of their time; empty
        otherwise, also where too few of them are from a time of which unlabelled rows are there.
    labels_needed
        Labels that would settle an undetermined verdict, about; 0 where nothing is open or labels
        cannot help.
    queries
        Rows of the recent window whose labels would help most, in that order, shape (n,).
    """

    severity: Severity | None
    loss: str
    direction_suspect: str
    chosen_labels: str
    labels_needed: int
    queries: IntArray


def explain(
    reference: Sample,
    recent: Sample,
    problem: Problem,
    verdict: Verdict,
    *,
    n_classes: int,
    alpha: float,
    seed: int,
    min_labels: int = 100,
    block_length: int = 1,
    losses: tuple[Array, Array] | None = None,
) -> Explanation:
    """Explain a verdict on the windows that it was reached on.

    Parameters
    ----------
    reference, recent, problem, verdict
        As in `detectors.attribution.attribution.examine`, and what came of it.
    n_classes
        Number of class codes.
    alpha
        Level of the tests here.
    seed
        Of all of them.
    min_labels, block_length
        As in `examine`.
    losses
        1 for a wrong and 0 for a right prediction of the watched model on each row, NaN where it
        is not known, shapes (n,) and (m,); None where nothing predicts.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> def window(n, rate):  # a prior shift, declared as X->Y
    ...     y = (rng.random(n) < rate).astype(np.int64)
    ...     return Sample(rng.normal(2.0 * y[:, None] - 1.0, 1.0, size=(n, 2)), y)
    >>> windows = window(800, 0.5), window(800, 0.85)
    >>> found = examine(*windows, Problem.X_TO_Y, n_classes=2, columns=["a", "b"], seed=1)
    >>> verdict = conclude(found.evidence, Problem.X_TO_Y, 0.01)
    >>> told = explain(*windows, Problem.X_TO_Y, verdict, n_classes=2, alpha=0.01, seed=1)
    >>> verdict.kind, told.direction_suspect
    (<Kind.MIXED: 'mixed'>, 'as y_to_x only the prior would have moved: check the direction')
    """
    severity, whose = _severity(reference, recent, n_classes, losses, seed)
    needed = _labels_needed(reference, recent, verdict, min_labels)
    return Explanation(
        severity=severity,
        loss=whose,
        direction_suspect=other_direction(
            reference,
            recent,
            problem,
            verdict,
            n_classes=n_classes,
            alpha=alpha,
            seed=seed,
            block_length=block_length,
        ),
        chosen_labels=_chosen(recent, problem, alpha, seed, block_length),
        labels_needed=needed,
        queries=_queries(reference, recent, problem, needed, seed),
    )


def other_direction(
    reference: Sample,
    recent: Sample,
    problem: Problem,
    verdict: Verdict,
    *,
    n_classes: int,
    alpha: float,
    seed: int,
    block_length: int = 1,
) -> str:
    """One sentence if both factors moved as declared, and only the other direction's marginal one.

    Mechanisms change on their own (the sparse mechanism shift hypothesis [1]_), so a direction in
    which the cause alone explains everything is the likelier one. That only a conditional factor
    moved in the other direction is no sign: it often cannot be told from both.

    References
    ----------
    .. [1] B. Schoelkopf et al. (2021). Toward causal representation learning. Proceedings of the
       IEEE 109, 612-634.
    """
    if verdict.kind is not Kind.MIXED:
        return ""
    other = Problem.Y_TO_X if problem is Problem.X_TO_Y else Problem.X_TO_Y
    names = [str(j) for j in range(reference.features.shape[1])]
    found = examine(
        reference,
        recent,
        other,
        n_classes=n_classes,
        columns=names,
        seed=seed,
        block_length=block_length,
    )
    kind, conditional = conclude(found.evidence, other, alpha).kind, found.evidence[1].p_value
    if kind == other.marginal.value and conditional is not None and conditional > UNMOVED:
        return f"as {other} only the {kind} would have moved: check the direction"
    return ""


def _severity(
    reference: Sample,
    recent: Sample,
    n_classes: int,
    losses: tuple[Array, Array] | None,
    seed: int,
) -> tuple[Severity | None, str]:
    whose = "model"
    if losses is None or min(np.isfinite(v).sum() for v in losses) < MIN_LOSSES:
        whose = "reference classifier"
        if min(reference.n_labelled, recent.n_labelled) < MIN_LOSSES:
            return None, ""
        losses = _reference_losses(reference, recent, n_classes, seed)
    a, b = (np.isfinite(v) for v in losses)
    found = decompose_loss(
        reference.features[a], losses[0][a], recent.features[b], losses[1][b], seed=seed
    )
    return found, whose


def _reference_losses(
    reference: Sample, recent: Sample, n_classes: int, seed: int
) -> tuple[Array, Array]:
    """Errors of a classifier of the reference that never learned from the row it is judged by."""
    n = len(reference.features)
    rows = principal(standardise(np.concatenate([reference.features, recent.features])))
    labels = np.concatenate([reference.labels, recent.labels])
    known = labels != UNLABELLED
    folds = make_folds(np.maximum(labels, 0), N_FOLDS, np.random.default_rng(seed))
    taught = known & (np.arange(len(rows)) < n)
    with threadpool_limits(limits=1):
        scores = cross_fit(
            rows, np.maximum(labels, 0), n_classes, folds, (quadratic_logistic,), taught
        )
    wrong = np.where(known, scores.argmax(axis=1) != labels, np.nan)
    return wrong[:n], wrong[n:]


def _labels_needed(reference: Sample, recent: Sample, verdict: Verdict, min_labels: int) -> int:
    if verdict.kind is not Kind.UNDETERMINED:
        return 0
    if any(e.hopeless for e in verdict.evidence):
        return 0
    known = [e.effect for e in verdict.evidence if e.test == ASYMPTOTIC and e.p_value]
    needed = labels_needed(reference.n_labelled, recent.n_labelled, known[0] if known else math.nan)
    return max(needed, min_labels - min(reference.n_labelled, recent.n_labelled), 0)


def _queries(
    reference: Sample, recent: Sample, problem: Problem, needed: int, seed: int
) -> IntArray:
    open_ = np.flatnonzero(recent.labels == UNLABELLED)
    n = min(needed, len(open_), MAX_QUERIES)
    if n == 0:
        return np.empty(0, np.int64)
    if problem is Problem.Y_TO_X:
        # Labels chosen by the input would break the exchangeability inside the classes.
        chosen = query_labels(np.full(len(open_), 0.5), n=n, uniform_share=1.0, seed=seed)
        return open_[chosen.rows]
    rows = principal(standardise(np.concatenate([reference.features, recent.features])))
    window = (np.arange(len(rows)) >= len(reference.features)).astype(np.int64)
    folds = make_folds(window, N_FOLDS, np.random.default_rng(seed))
    with threadpool_limits(limits=1):
        e = cross_fit(rows, window, 2, folds, (quadratic_logistic,))[window == 1, 1]
    return open_[query_labels(e[open_], n=n, seed=seed).rows]


def _chosen(recent: Sample, problem: Problem, alpha: float, seed: int, block_length: int) -> str:
    """Whether the labelled rows were chosen, among those of their own time.

    Evidence holds all labelled rows, and of the others the earliest. So the time in which both are
    complete ends with the last row of either kind; what comes behind is of one kind only, late or
    left out. That row itself is fixed by being the last, so it is no sample of anything.
    """
    known = recent.labels != UNLABELLED
    if known.all() or not known.any():
        return ""
    end = min(int(np.flatnonzero(known)[-1]), int(np.flatnonzero(~known)[-1]))
    labelled = known[:end]
    if min(labelled.sum(), (~labelled).sum()) < MIN_CHOICE:
        return ""
    found = selection_test(recent.features[:end], labelled, seed=seed, block_length=block_length)
    return selection_note(problem, found.p_value, alpha, found.effect)
