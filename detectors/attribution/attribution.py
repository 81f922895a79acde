"""From two windows to a verdict: which factor of P(X, Y) moved."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from detectors.attribution.covariance import CovarianceResult, covariance_test
from detectors.attribution.permutation import (
    PermutationResult,
    class_block_lengths,
    comparable_classes,
    label_test,
    stratified_two_sample,
    two_sample,
)
from detectors.attribution.windows import Examination, Sample
from detectors.base import Array, Evidence, Factor, Kind, Problem, Verdict

__all__ = ["conclude", "examine", "holm"]

MIN_ROWS = 20
"""Rows a window needs for the test of P(X); fewer carry no usable power."""

ASYMPTOTIC = "covariance"
"""Name of the test whose level holds in the limit only."""

MIN_BLOCKS = 6
"""Blocks of dependent rows a window needs: 6 against 6 can be permuted in 924 ways."""

N_PERMUTATIONS, N_LABEL_PERMUTATIONS, N_BOOTSTRAPS = 2999, 9999, 1999
"""Fewest draws of the exact tests, of the cheap one of the labels, and of the asymptotic one."""

SCREENS = ((49, 0.3), (199, 0.05))
"""A two-sample test ends after so few permutations where they give a larger p-value than that. It
happens once in 10**9 times where all of them would give 0.003, and once in 20,000 where 0.01."""

MAX_DRAWS = 20_000
"""Most draws, 240 MB at 3,000 rows: enough for a level of 0.0001."""


def examine(
    reference: Sample,
    recent: Sample,
    problem: Problem,
    *,
    n_classes: int,
    columns: Sequence[str],
    seed: int,
    min_labels: int = 100,
    min_per_class: int = 5,
    block_length: int = 1,
    level: float = 0.01,
) -> Examination:
    """Test both factors of the problem's factorisation.

    X->Y: P(X) on all rows, exactly, and P(Y|X) on the labelled ones, asymptotically. Y->X: P(Y)
    and P(X|Y), both exactly, on the labelled rows. The other factorisation's factors move as a
    side effect and say nothing, so they are not tested.

    Parameters
    ----------
    reference, recent
        The windows. The recent one must not have been chosen for looking different.
    problem
        The causal direction.
    n_classes
        Number of class codes.
    columns
        A name for each column; derived columns may share one, and then their shares add up.
    seed
        Chooses permutations, folds and multipliers.
    min_labels
        Labels each window needs for the label-bound tests.
    min_per_class
        Rows a class needs in both windows to be compared in Y->X problems.
    block_length
        Rows that are permuted together; more than 1 for autocorrelated rows.
    level
        Level of `conclude`: p-values are as fine as Holm's half of it asks.

    Returns
    -------
    Examination
        Evidence whose p-value is None could not be tested; its note says what is missing.
        Effects: P(X) and P(X|Y), 2 AUC - 1 of a discriminant between the windows; P(Y), total
        variation; P(Y|X), the change of a class's probability at equal x.

    Raises
    ------
    ValueError
        If the windows' columns, the names or the labels do not fit.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> def window(shift):
    ...     x = rng.normal(shift, 1.0, size=(400, 2))
    ...     return Sample(x, (rng.random(400) < 1 / (1 + np.exp(-3 * x[:, 0]))).astype(np.int64))
    >>> found = examine(
    ...     window(0.0), window(1.0), Problem.X_TO_Y, n_classes=2, columns=["age", "sum"], seed=1
    ... )
    >>> conclude(found.evidence, Problem.X_TO_Y, 0.01, found.contributions).kind
    <Kind.COVARIATE: 'covariate'>
    """
    n_columns = reference.features.shape[1]
    if recent.features.shape[1] != n_columns or len(columns) != n_columns:
        raise ValueError(
            f"reference, recent and columns must agree, got {n_columns}, "
            f"{recent.features.shape[1]} and {len(columns)} columns"
        )
    highest = max(reference.labels.max(initial=-1), recent.labels.max(initial=-1))
    if highest >= n_classes:
        raise ValueError(f"labels must be below n_classes {n_classes}, got {highest}")
    known = reference.labelled(), recent.labelled()
    missing = _missing_labels(known, min_labels)
    drawn = min(math.ceil(2.0 / level), MAX_DRAWS)
    n_permutations, n_bootstraps = max(N_PERMUTATIONS, drawn), max(N_BOOTSTRAPS, drawn)
    # One thread: these products are small, and the service may run beside a training process.
    with threadpool_limits(limits=1):
        if problem is Problem.X_TO_Y:
            tested = (
                _marginal_x(reference, recent, seed, block_length, n_permutations),
                _conditional_y(known, missing, seed, block_length, n_bootstraps),
            )
        else:
            tested = (
                _marginal_y(known, missing, n_classes, seed, block_length, n_permutations),
                _conditional_x(known, missing, min_per_class, seed, block_length, n_permutations),
            )
    contributions = {
        evidence.factor: _by_name(shares, columns) for evidence, shares in tested if shares.any()
    }
    return Examination((tested[0][0], tested[1][0]), contributions)


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


_Tested = tuple[Evidence, Array]
_Pair = tuple[Sample, Sample]
_NO_SHARES = np.empty(0)


def _marginal_x(
    reference: Sample, recent: Sample, seed: int, block_length: int, n_permutations: int
) -> _Tested:
    n, m = len(reference.features), len(recent.features)
    least = max(MIN_ROWS, MIN_BLOCKS * block_length)
    if min(n, m) < least:
        note = f"needs {least} rows in each window, got {n} and {m}"
        return _untested("two-sample", Factor.COVARIATE, n, m, note)
    found = _screened(
        partial(
            two_sample,
            reference.features,
            recent.features,
            seed=seed,
            block_length=block_length,
        ),
        n_permutations,
    )
    evidence = _tested("two-sample", Factor.COVARIATE, found)
    return evidence, found.shares


def _conditional_y(
    known: _Pair, missing: str, seed: int, block_length: int, n_bootstraps: int
) -> _Tested:
    reference, recent = known
    n, m = reference.n_labelled, recent.n_labelled
    if missing:
        return _untested(ASYMPTOTIC, Factor.CONCEPT, n, m, missing)
    least = MIN_BLOCKS * block_length
    if min(n, m) < least:
        note = f"needs {least} labels in each window: the rows depend on each other"
        return _untested(ASYMPTOTIC, Factor.CONCEPT, n, m, note)
    found = covariance_test(
        reference.features,
        reference.labels,
        recent.features,
        recent.labels,
        seed=seed,
        n_bootstraps=n_bootstraps,
        block_length=block_length,
    )
    evidence = _tested(ASYMPTOTIC, Factor.CONCEPT, found, found.note)
    if found.p_value is None:
        # The inputs do not overlap with the reference's; the next ones will not either.
        evidence = dataclasses.replace(evidence, hopeless=True)
    return evidence, found.shares


def _marginal_y(
    known: _Pair,
    missing: str,
    n_classes: int,
    seed: int,
    block_length: int,
    n_permutations: int,
) -> _Tested:
    reference, recent = known
    n, m = reference.n_labelled, recent.n_labelled
    if missing:
        return _untested("label frequencies", Factor.PRIOR, n, m, missing)
    least = MIN_BLOCKS * block_length
    if min(n, m) < least:
        note = f"needs {least} labels in each window: the rows depend on each other"
        return _untested("label frequencies", Factor.PRIOR, n, m, note)
    found = label_test(
        reference.labels,
        recent.labels,
        n_classes,
        seed=seed,
        n_permutations=max(N_LABEL_PERMUTATIONS, n_permutations),
        block_length=block_length,
    )
    evidence = _tested("label frequencies", Factor.PRIOR, found)
    return evidence, _NO_SHARES


def _conditional_x(
    known: _Pair,
    missing: str,
    min_per_class: int,
    seed: int,
    block_length: int,
    n_permutations: int,
) -> _Tested:
    reference, recent = known
    n, m = reference.n_labelled, recent.n_labelled
    if missing:
        return _untested("two-sample by class", Factor.CONCEPT, n, m, missing)
    least = max(min_per_class, 2)
    both = np.concatenate([reference.labels, recent.labels])
    rows = least * class_block_lengths(both, block_length)
    if not comparable_classes(reference.labels, recent.labels, rows)[0]:
        note = f"no class has {rows.min()} labelled rows in both windows"
        return _untested("two-sample by class", Factor.CONCEPT, n, m, note)
    found = _screened(
        partial(
            stratified_two_sample,
            reference.features,
            recent.features,
            reference.labels,
            recent.labels,
            seed=seed,
            min_per_class=least,
            block_length=block_length,
        ),
        n_permutations,
    )
    left_out = ", ".join(str(c) for c in found.skipped)
    note = f"fewer than {least} rows in a window: classes {left_out}" if left_out else ""
    evidence = _tested("two-sample by class", Factor.CONCEPT, found, note)
    return evidence, found.shares


def _screened(test: Callable[..., PermutationResult], n_permutations: int) -> PermutationResult:
    """A test with as many permutations as it takes; nearly all of its time goes into them.

    The p-value stays a valid one: where it is small it is at least that of all permutations, and
    where few have settled it, at least that of those.
    """
    for n_few, p_value in SCREENS:
        found = test(n_permutations=n_few)
        if found.p_value > p_value:
            return found
    return test(n_permutations=n_permutations)


def _tested(
    test: str, factor: Factor, found: PermutationResult | CovarianceResult, note: str = ""
) -> Evidence:
    return Evidence(
        test,
        factor,
        found.statistic,
        found.p_value,
        found.effect,
        found.n_reference,
        found.n_recent,
        note,
        found.effect_low if found.p_value is not None else None,
        found.effect_high if found.p_value is not None else None,
    )


def _untested(test: str, factor: Factor, n: int, m: int, note: str) -> _Tested:
    return Evidence(test, factor, 0.0, None, 0.0, n, m, note), _NO_SHARES


def _missing_labels(known: _Pair, min_labels: int) -> str:
    """How many labels the windows lack, in words; empty if none."""
    lacking = [
        f"{min_labels - sample.n_labelled} more in the {name} window"
        for name, sample in zip(("reference", "recent"), known, strict=True)
        if sample.n_labelled < min_labels
    ]
    return f"needs {min_labels} labels in each window: {' and '.join(lacking)}" if lacking else ""


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
