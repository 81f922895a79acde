"""The tests of single factors, each in two grades: a quick comparison, and the full test."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from detectors.attribution.covariance import CovarianceResult, covariance_test
from detectors.attribution.grades import Tested, TwoGrades
from detectors.attribution.permutation import (
    PermutationResult,
    class_block_lengths,
    comparable_classes,
    label_test,
    stratified_two_sample,
    two_sample,
)
from detectors.attribution.quick import Quick, quick_by_class, quick_rows, quick_rule
from detectors.attribution.windows import Windows
from detectors.base import Evidence, Factor

__all__ = [
    "ASYMPTOTIC",
    "MIN_ROWS",
    "QUICK_NOTE",
    "of_classes",
    "of_inputs",
    "of_labels",
    "of_rule",
]

ASYMPTOTIC = "covariance"
"""Name of the test whose level holds in the limit only."""

MIN_ROWS = 20
"""Rows a window needs for the test of P(X); fewer carry no usable power."""

MIN_BLOCKS = 6
"""Blocks of dependent rows a window needs: 6 against 6 can be permuted in 924 ways."""

N_PERMUTATIONS, N_LABEL_PERMUTATIONS, N_BOOTSTRAPS = 2999, 9999, 1999
"""Fewest draws of the exact tests, of the cheap one of the labels, and of the asymptotic one."""

N_QUICK_LABELS = 499
"""Draws of the labels' test where it is quick."""

SCREENS = ((49, 0.3), (199, 0.05))
"""A full two-sample test ends after so few permutations where they give a larger p-value than that.
It happens once in 10**9 times where all of them would give 0.003, and once in 20,000 where 0.01."""

MAX_DRAWS = 20_000
"""Most draws: enough for a level of 0.0001."""

QUICK_NOTE = "a quick comparison saw nothing; the effect was not measured"


def of_inputs(windows: Windows, *, seed: int, level: float) -> TwoGrades:
    """Of P(X), on all rows; exact."""
    name, factor = "two-sample", windows.problem.marginal
    least = max(MIN_ROWS, MIN_BLOCKS * windows.block_length)
    if min(windows.sizes) < least:
        n, m = windows.sizes
        note = f"needs {least} rows in each window, got {n} and {m}"
        return _impossible(name, factor, windows.sizes, note)
    rows = windows.recent.features

    def full() -> Tested:
        found = two_sample(
            windows.reference.sample.features,
            rows,
            seed=seed,
            n_permutations=_draws(N_PERMUTATIONS, level),
            block_length=windows.block_length,
            screens=SCREENS,
        )
        return _tested(name, factor, found), found.shares

    def quick() -> Evidence | None:
        return _quick(name, factor, windows.sizes, quick_rows(windows.reference.rows, rows, seed))

    return TwoGrades(quick, full)


def of_rule(windows: Windows, *, seed: int, level: float) -> TwoGrades:
    """Of P(Y|X), on the labelled rows; asymptotic."""
    name, factor = ASYMPTOTIC, Factor.CONCEPT
    if note := _lacking(windows):
        return _impossible(name, factor, windows.labels, note)
    reference, recent = windows.reference, windows.recent.labelled()

    def full() -> Tested:
        found = covariance_test(
            reference.labelled.features,
            reference.labelled.labels,
            recent.features,
            recent.labels,
            seed=seed,
            n_bootstraps=_draws(N_BOOTSTRAPS, level),
            block_length=windows.block_length,
            opinions=reference.opinions,
        )
        evidence = _tested(name, factor, found, found.note)
        if found.p_value is None:
            # The inputs do not overlap with the reference's; the next ones will not either.
            evidence = dataclasses.replace(evidence, hopeless=True)
        return evidence, found.shares

    def quick() -> Evidence | None:
        found = quick_rule(reference.rule, recent.features, recent.labels, seed)
        return _quick(name, factor, windows.labels, found)

    return TwoGrades(quick, full)


def of_labels(windows: Windows, *, seed: int, level: float) -> TwoGrades:
    """Of P(Y), on the labelled rows; exact."""
    name, factor = "label frequencies", Factor.PRIOR
    if note := _lacking(windows):
        return _impossible(name, factor, windows.labels, note)

    def test(n_permutations: int) -> Evidence:
        found = label_test(
            windows.reference.labelled.labels,
            windows.recent.labelled().labels,
            windows.reference.n_classes,
            seed=seed,
            n_permutations=n_permutations,
            block_length=windows.block_length,
        )
        return _tested(name, factor, found)

    n_all = max(N_LABEL_PERMUTATIONS, _draws(N_PERMUTATIONS, level))
    return TwoGrades(lambda: test(N_QUICK_LABELS), lambda: (test(n_all), np.empty(0)))


def of_classes(windows: Windows, *, seed: int, level: float, min_per_class: int) -> TwoGrades:
    """Of P(X|Y), on the labelled rows; exact."""
    name, factor = "two-sample by class", Factor.CONCEPT
    if windows.missing_labels:
        return _impossible(name, factor, windows.labels, windows.missing_labels)
    reference, recent = windows.reference.labelled, windows.recent.labelled()
    least = max(min_per_class, 2)
    both = np.concatenate([reference.labels, recent.labels])
    rows = least * class_block_lengths(both, windows.block_length)
    classes, skipped = comparable_classes(reference.labels, recent.labels, rows)
    if not classes:
        note = f"no class has {rows.min()} labelled rows in both windows"
        return _impossible(name, factor, windows.labels, note)
    left_out = ", ".join(str(c) for c in skipped)
    note = f"fewer than {least} rows in a window: classes {left_out}" if left_out else ""

    def full() -> Tested:
        found = stratified_two_sample(
            reference.features,
            recent.features,
            reference.labels,
            recent.labels,
            seed=seed,
            n_permutations=_draws(N_PERMUTATIONS, level),
            min_per_class=least,
            block_length=windows.block_length,
            screens=SCREENS,
        )
        return _tested(name, factor, found, note), found.shares

    def quick() -> Evidence | None:
        kept = {c: windows.reference.classes[c] for c in classes}
        found = quick_by_class(kept, recent.features, recent.labels, seed)
        n, m = (int(np.isin(of.labels, classes).sum()) for of in (reference, recent))
        return _quick(name, factor, (n, m), found, note)

    return TwoGrades(quick, full)


def _lacking(windows: Windows) -> str:
    """What labels the windows lack; empty if none."""
    if windows.missing_labels:
        return windows.missing_labels
    least = MIN_BLOCKS * windows.block_length
    if min(windows.labels) < least:
        return f"needs {least} labels in each window: the rows depend on each other"
    return ""


def _draws(fewest: int, level: float) -> int:
    """Draws with which a p-value can be half of the level."""
    return max(fewest, min(math.ceil(2.0 / level), MAX_DRAWS))


def _impossible(test: str, factor: Factor, sizes: tuple[int, int], note: str) -> TwoGrades:
    evidence = Evidence(test, factor, 0.0, None, 0.0, *sizes, note)
    return TwoGrades(lambda: evidence, lambda: (evidence, np.empty(0)))


def _quick(
    test: str, factor: Factor, sizes: tuple[int, int], found: Quick | None, note: str = ""
) -> Evidence | None:
    if found is None:
        return None
    note = "; ".join(part for part in (note, QUICK_NOTE) if part)
    return Evidence(test, factor, found.statistic, found.p_value, 0.0, *sizes, note)


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
