"""What goes with a verdict: what it costs, how sure its premises are, and what would help."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from detectors.attribution.attribution import conclude, examine
from detectors.attribution.factors import ASYMPTOTIC
from detectors.attribution.windows import UNLABELLED, Sample, Windows
from detectors.base import Array, IntArray, Kind, Problem, Verdict
from detectors.explanation.label_queries import labels_needed, query_labels
from detectors.explanation.selection import selection_note, selection_test
from detectors.explanation.severity import Severity, decompose_loss
from detectors.learners.features import principal, standardise
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
    windows: Windows,
    verdict: Verdict,
    *,
    alpha: float,
    seed: int,
    losses: tuple[Array, Array] | None = None,
) -> Explanation:
    """Explain a verdict on the windows that it was reached on.

    Parameters
    ----------
    windows, verdict
        What was compared, and what came of it.
    alpha
        Level of the tests here.
    seed
        Of all of them.
    losses
        1 for a wrong and 0 for a right prediction of the watched model on each row, NaN where it
        is not known, shapes (n,) and (m,); None where nothing predicts.

    Examples
    --------
    >>> from detectors.attribution.windows import Reference
    >>> rng = np.random.default_rng(0)
    >>> def window(n, rate):  # a prior shift, declared as X->Y
    ...     y = (rng.random(n) < rate).astype(np.int64)
    ...     return Sample(rng.normal(2.0 * y[:, None] - 1.0, 1.0, size=(n, 2)), y)
    >>> reference = Reference(window(800, 0.5), n_classes=2, columns=["a", "b"])
    >>> windows = Windows(reference, window(800, 0.85), Problem.X_TO_Y)
    >>> verdict = conclude(examine(windows, seed=1).evidence, Problem.X_TO_Y, 0.01)
    >>> told = explain(windows, verdict, alpha=0.01, seed=1)
    >>> verdict.kind, told.direction_suspect
    (<Kind.MIXED: 'mixed'>, 'as y_to_x only the prior would have moved: check the direction')
    """
    reference, recent = windows.reference.sample, windows.recent
    severity, whose = _severity(windows, losses, seed)
    needed = _labels_needed(windows, verdict)
    return Explanation(
        severity=severity,
        loss=whose,
        direction_suspect=other_direction(windows, verdict, alpha=alpha, seed=seed),
        chosen_labels=_chosen(recent, windows.problem, alpha, seed, windows.block_length),
        labels_needed=needed,
        queries=_queries(reference, recent, windows.problem, needed, seed),
    )


def other_direction(windows: Windows, verdict: Verdict, *, alpha: float, seed: int) -> str:
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
    turned = {Problem.X_TO_Y: Problem.Y_TO_X, Problem.Y_TO_X: Problem.X_TO_Y}
    other = turned[windows.problem]
    found = examine(dataclasses.replace(windows, problem=other), seed=seed)
    kind, conditional = conclude(found.evidence, other, alpha).kind, found.evidence[1].p_value
    if kind == other.marginal.value and conditional is not None and conditional > UNMOVED:
        return f"as {other} only the {kind} would have moved: check the direction"
    return ""


def _severity(
    windows: Windows, losses: tuple[Array, Array] | None, seed: int
) -> tuple[Severity | None, str]:
    reference, recent = windows.reference.sample, windows.recent
    whose = "model"
    if losses is None or min(np.isfinite(v).sum() for v in losses) < MIN_LOSSES:
        whose = "reference classifier"
        if min(windows.labels) < MIN_LOSSES:
            return None, ""
        losses = _reference_losses(reference, recent, windows.reference.n_classes, seed)
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


def _labels_needed(windows: Windows, verdict: Verdict) -> int:
    if verdict.kind is not Kind.UNDETERMINED:
        return 0
    if any(e.hopeless for e in verdict.evidence):
        return 0
    known = [e.effect for e in verdict.evidence if e.test == ASYMPTOTIC and e.p_value]
    needed = labels_needed(*windows.labels, known[0] if known else math.nan)
    return max(needed, windows.min_labels - min(windows.labels), 0)


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
