"""From two windows to a verdict: which factor of P(X, Y) moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from detectors.attribution.factors import (
    ASYMPTOTIC,
    of_classes,
    of_inputs,
    of_labels,
    of_rule,
)
from detectors.attribution.grades import in_two
from detectors.attribution.windows import Examination, Windows
from detectors.base import Array, Evidence, Factor, Kind, Problem, Verdict

__all__ = ["conclude", "examine", "holm"]


def examine(
    windows: Windows, *, seed: int, level: float = 0.01, min_per_class: int = 5
) -> Examination:
    """Test both factors of the problem's factorisation.

    X->Y: P(X) on all rows, exactly, and P(Y|X) on the labelled ones, asymptotically. Y->X: P(Y)
    and P(X|Y), both exactly, on the labelled rows. The other factorisation's factors move as a
    side effect and say nothing, so they are not tested.

    Each test begins with a quick comparison, which ends it where it sees nothing; see
    `detectors.attribution.grades`.

    Parameters
    ----------
    windows
        The recent one must not have been chosen for looking different.
    seed
        Chooses permutations, folds and multipliers.
    level
        Level of `conclude`: p-values are as fine as Holm's half of it asks.
    min_per_class
        Rows a class needs in both windows to be compared in Y->X problems.

    Returns
    -------
    Examination
        Evidence whose p-value is None could not be tested; its note says what is missing.
        Effects: P(X) and P(X|Y), 2 AUC - 1 of a discriminant between the windows; P(Y), total
        variation; P(Y|X), the change of a class's probability at equal x. A quick comparison
        measures none: it is 0 there, and has no interval.

    Examples
    --------
    >>> from detectors.attribution.windows import Reference, Sample
    >>> rng = np.random.default_rng(0)
    >>> def window(shift):
    ...     x = rng.normal(shift, 1.0, size=(400, 2))
    ...     return Sample(x, (rng.random(400) < 1 / (1 + np.exp(-3 * x[:, 0]))).astype(np.int64))
    >>> reference = Reference(window(0.0), n_classes=2, columns=["age", "sum"])
    >>> found = examine(Windows(reference, window(1.0), Problem.X_TO_Y), seed=1)
    >>> conclude(found.evidence, Problem.X_TO_Y, 0.01, found.contributions).kind
    <Kind.COVARIATE: 'covariate'>
    """
    if windows.problem is Problem.X_TO_Y:
        tests = (
            of_inputs(windows, seed=seed, level=level),
            of_rule(windows, seed=seed, level=level),
        )
    else:
        tests = (
            of_labels(windows, seed=seed, level=level),
            of_classes(windows, seed=seed, level=level, min_per_class=min_per_class),
        )
    # One thread: these products are small, and the service may run beside a training process.
    with threadpool_limits(limits=1):
        first, second = in_two(*tests, level)
    columns = windows.reference.columns
    contributions = {
        evidence.factor: _by_name(shares, columns)
        for evidence, shares in (first, second)
        if shares.any()
    }
    return Examination((first[0], second[0]), contributions)


def conclude(
    evidence: tuple[Evidence, ...],
    problem: Problem,
    alpha: float,
    contributions: Mapping[Factor, Mapping[str, float]] | None = None,
) -> Verdict:
    """Name what moved, with at most `alpha` probability of naming a factor that did not.

    Parameters
    ----------
    evidence
        A test of each factor of the problem.
    problem
        The causal direction.
    alpha
        Family-wise error of the testable hypotheses, by Holm's method; in (0, 1). The test of
        P(Y|X), which no exact one exists for, gets half of it and never more.
    contributions
        Shares by factor and column, as `examine` gives them.

    Returns
    -------
    Verdict
        None where no test rejects; the factor where one does and the other does not; mixed where
        both do. Undetermined where one rejects and the other could not be tested, or where neither
        could: its factors are those that remain possible. Contributions are the mean over the
        factors that were found to have moved.

    Raises
    ------
    ValueError
        If alpha is out of range or a test is of a factor that the problem does not have.

    Examples
    --------
    >>> prior = Evidence("labels", Factor.PRIOR, 9.0, 0.001, 0.2, 500, 500)
    >>> concept = Evidence("classes", Factor.CONCEPT, 1.0, None, 0.0, 500, 20, "too few labels")
    >>> verdict = conclude((prior, concept), Problem.Y_TO_X, 0.01)
    >>> verdict.kind, sorted(verdict.factors)
    (<Kind.UNDETERMINED: 'undetermined'>, [<Factor.CONCEPT: 'concept'>, <Factor.PRIOR: 'prior'>])
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1), got {alpha}")
    strangers = [e.factor for e in evidence if e.factor not in problem.factors]
    if strangers:
        raise ValueError(f"{problem} has the factors {problem.factors}, got {strangers[0]}")
    testable = [e for e in evidence if e.p_value is not None]
    p_values = np.array([e.p_value for e in testable], np.float64)
    # A test that is only asymptotic keeps its half of alpha, and never gets the whole.
    rejected = holm(p_values, alpha) & np.array(
        [e.test != ASYMPTOTIC or e.p_value <= alpha / 2 for e in testable if e.p_value is not None],
        bool,
    )
    moved = {e.factor for e, reject in zip(testable, rejected, strict=True) if reject}
    open_ = set(problem.factors) - {e.factor for e in testable}
    if not testable:
        return Verdict(Kind.UNDETERMINED, frozenset(open_), evidence)
    if not moved:
        return Verdict(Kind.NONE, frozenset(), evidence)
    shares = _mean_shares([(contributions or {}).get(f, {}) for f in sorted(moved)])
    if len(moved) > 1:
        kind = Kind.MIXED
    elif open_:
        kind = Kind.UNDETERMINED
    else:
        kind = Kind(next(iter(moved)).value)
    return Verdict(kind, frozenset(moved | open_), evidence, shares)


def holm(p_values: Array, alpha: float) -> npt.NDArray[np.bool_]:
    """Which hypotheses Holm's step-down method rejects at family-wise error `alpha` [1]_.

    References
    ----------
    .. [1] S. Holm (1979). A simple sequentially rejective multiple test procedure. Scandinavian
       Journal of Statistics 6, 65-70.

    Examples
    --------
    >>> holm(np.array([0.04, 0.02]), 0.05)
    array([ True,  True])
    >>> holm(np.array([0.04, 0.03]), 0.05)
    array([False, False])
    """
    rejected = np.zeros(len(p_values), bool)
    for step, index in enumerate(np.argsort(p_values, kind="stable")):
        if p_values[index] > alpha / (len(p_values) - step):
            break
        rejected[index] = True
    return rejected


def _by_name(shares: Array, columns: Sequence[str]) -> dict[str, float]:
    summed: dict[str, float] = {}
    for name, share in zip(columns, shares.tolist(), strict=True):
        summed[name] = summed.get(name, 0.0) + share
    return summed


def _mean_shares(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of the shares that there are, so that it sums to 1 again."""
    filled = [part for part in parts if part]
    mean: dict[str, float] = {}
    for part in filled:
        for name, share in part.items():
            mean[name] = mean.get(name, 0.0) + share / len(filled)
    return mean
