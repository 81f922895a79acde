from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest

from detectors.attribution.attribution import conclude, examine, holm
from detectors.attribution.windows import Sample
from detectors.base import Evidence, Factor, Kind, Problem, Verdict
from detectors.synthetic import Stream
from tests.detectors.windows import windows_of

X_TO_Y, Y_TO_X = Problem.X_TO_Y, Problem.Y_TO_X
NAMES = ("age", "amount", "amount", "hour")


def _x_to_y(
    rng: np.random.Generator, n: int, *, shift: float = 0.0, concept: bool = False
) -> Sample:
    x = rng.normal(size=(n, 4))
    x[:, 0] += shift
    logit = 2.0 * x[:, 0] - 1.0 + (2.0 * x[:, 3] if concept else 0.0)
    return Sample(x, (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(np.int64))


def _y_to_x(
    rng: np.random.Generator, n: int, *, prior: float = 0.3, concept: bool = False
) -> Sample:
    y = (rng.random(n) < prior).astype(np.int64)
    x = rng.normal(size=(n, 4))
    x[:, 0] += 2.0 * y
    x[:, 3] += 0.6 * y * concept
    return Sample(x, y)


def _decide(reference: Sample, recent: Sample, problem: Problem, seed: int = 0) -> Verdict:
    found = examine(windows_of(reference, recent, problem, columns=NAMES), seed=seed)
    return conclude(found.evidence, problem, 0.01, found.contributions)


@pytest.mark.parametrize(
    ("shift", "concept", "kind"),
    [
        (0.0, False, Kind.NONE),
        (0.7, False, Kind.COVARIATE),
        (0.0, True, Kind.CONCEPT),
        (0.7, True, Kind.MIXED),
    ],
)
def test_x_to_y_changes_are_named(shift: float, concept: bool, kind: Kind) -> None:
    kinds = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        recent = _x_to_y(rng, 500, shift=shift, concept=concept)
        kinds.append(_decide(_x_to_y(rng, 500), recent, X_TO_Y, seed).kind)
    assert kinds.count(kind) >= 3


@pytest.mark.parametrize(
    ("prior", "concept", "kind"),
    [
        (0.3, False, Kind.NONE),
        (0.6, False, Kind.PRIOR),
        (0.3, True, Kind.CONCEPT),
        (0.6, True, Kind.MIXED),
    ],
)
def test_y_to_x_changes_are_named(prior: float, concept: bool, kind: Kind) -> None:
    kinds = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        recent = _y_to_x(rng, 500, prior=prior, concept=concept)
        kinds.append(_decide(_y_to_x(rng, 500), recent, Y_TO_X, seed).kind)
    assert kinds.count(kind) >= 5


def test_a_prior_shift_is_not_called_concept() -> None:
    # 40 exact tests at 5 %: 2 expected, more than 6 in one of 300 runs.
    rejected = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        windows = windows_of(_y_to_x(rng, 150), _y_to_x(rng, 150, prior=0.7), Y_TO_X)
        found = examine(windows, seed=seed)
        p_value = found.evidence[1].p_value
        assert p_value is not None
        rejected += p_value <= 0.05
    assert rejected <= 6


def test_the_evidence_is_of_the_marginal_and_then_of_the_conditional_factor() -> None:
    rng = np.random.default_rng(0)
    for problem, window in ((X_TO_Y, _x_to_y), (Y_TO_X, _y_to_x)):
        found = examine(windows_of(window(rng, 120), window(rng, 110), problem), seed=0)
        assert tuple(e.factor for e in found.evidence) == problem.factors
        assert [(e.n_reference, e.n_recent) for e in found.evidence] == [(120, 110)] * 2


def test_contributions_blame_the_column_of_each_factor_and_add_up_under_shared_names() -> None:
    rng = np.random.default_rng(0)
    covariate, concept = _x_to_y(rng, 800, shift=1.0), _x_to_y(rng, 800, concept=True)
    reference = _x_to_y(rng, 800)
    for recent, blamed in ((covariate, "age"), (concept, "hour")):
        shares = _decide(reference, recent, X_TO_Y).contributions
        assert set(shares) == {"age", "amount", "hour"}
        assert sum(shares.values()) == pytest.approx(1.0)
        assert max(shares, key=lambda name: shares[name]) == blamed
    moved = _decide(_y_to_x(rng, 800), _y_to_x(rng, 800, concept=True), Y_TO_X).contributions
    assert max(moved, key=lambda name: moved[name]) == "hour"
    assert not _decide(_y_to_x(rng, 800), _y_to_x(rng, 800, prior=0.6), Y_TO_X).contributions


def _hide(sample: Sample, keep: int) -> Sample:
    labels = sample.labels.copy()
    labels[keep:] = -1
    return Sample(sample.features, labels)


def test_covariate_shift_is_tested_on_unlabelled_rows_and_concept_says_what_it_lacks() -> None:
    rng = np.random.default_rng(0)
    reference, recent = _x_to_y(rng, 400), _hide(_x_to_y(rng, 400, shift=1.0), 30)
    found = examine(windows_of(reference, recent, X_TO_Y, columns=NAMES), seed=0)
    marginal, conditional = found.evidence
    assert marginal.p_value is not None
    assert marginal.p_value < 0.01
    assert (marginal.n_reference, marginal.n_recent) == (400, 400)
    assert conditional.p_value is None
    assert conditional.note == "needs 100 labels in each window: 70 more in the recent window"
    verdict = conclude(found.evidence, X_TO_Y, 0.01, found.contributions)
    assert verdict.kind is Kind.UNDETERMINED
    assert verdict.factors == {Factor.COVARIATE, Factor.CONCEPT}
    assert max(verdict.contributions, key=lambda name: verdict.contributions[name]) == "age"


def test_without_labels_nothing_in_y_to_x_is_testable() -> None:
    rng = np.random.default_rng(0)
    verdict = _decide(_hide(_y_to_x(rng, 200), 0), _hide(_y_to_x(rng, 200), 0), Y_TO_X)
    assert verdict.kind is Kind.UNDETERMINED
    assert verdict.factors == {Factor.PRIOR, Factor.CONCEPT}
    assert all("100 more in the reference window and 100 more" in e.note for e in verdict.evidence)


def test_classes_that_are_not_in_both_windows_leave_concept_untested_and_prior_tested() -> None:
    rng = np.random.default_rng(0)
    zeros, ones = (Sample(rng.normal(size=(150, 4)), np.full(150, c)) for c in (0, 1))
    verdict = _decide(zeros, ones, Y_TO_X)
    assert verdict.kind is Kind.UNDETERMINED
    assert verdict.evidence[0].p_value == pytest.approx(1e-4)
    assert verdict.evidence[1].note == "no class has 5 labelled rows in both windows"


def test_classes_left_out_are_named_in_the_note() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [100, 97, 3])
    reference, recent = (Sample(rng.normal(size=(200, 4)), labels) for _ in range(2))
    found = examine(windows_of(reference, recent, Y_TO_X, n_classes=3), seed=0)
    assert found.evidence[1].note.startswith("fewer than 5 rows in a window: classes 2")
    assert found.evidence[1].n_recent == 197


def test_an_empty_window_is_untested_and_not_an_error() -> None:
    reference = _x_to_y(np.random.default_rng(0), 200)
    empty = Sample(np.empty((0, 4)), np.empty(0, np.int64))
    for problem in Problem:
        verdict = _decide(reference, empty, problem)
        assert verdict.kind is Kind.UNDETERMINED
        assert all(e.p_value is None and e.note for e in verdict.evidence)


def test_examine_repeats_with_its_seed() -> None:
    rng = np.random.default_rng(0)
    reference, recent = _x_to_y(rng, 150), _x_to_y(rng, 150)
    first, again, other = (
        examine(windows_of(reference, recent, X_TO_Y), seed=s) for s in (1, 1, 2)
    )
    assert first == again
    assert first != other


def _evidence(marginal: float | None, conditional: float | None) -> tuple[Evidence, Evidence]:
    return (
        Evidence("a", Factor.COVARIATE, 0.0, marginal, 0.0, 9, 9),
        Evidence("b", Factor.CONCEPT, 0.0, conditional, 0.0, 9, 9),
    )


COVARIATE, CONCEPT = {Factor.COVARIATE}, {Factor.CONCEPT}


@pytest.mark.parametrize(
    ("marginal", "conditional", "kind", "factors"),
    [
        (0.5, 0.5, Kind.NONE, set()),
        (0.001, 0.5, Kind.COVARIATE, COVARIATE),
        (0.5, 0.001, Kind.CONCEPT, CONCEPT),
        (0.001, 0.001, Kind.MIXED, COVARIATE | CONCEPT),
        (0.004, 0.009, Kind.MIXED, COVARIATE | CONCEPT),  # Holm's second step has all of alpha
        (0.006, 0.009, Kind.NONE, set()),  # and its first step only half
        (0.009, None, Kind.UNDETERMINED, COVARIATE | CONCEPT),  # one hypothesis: all of alpha
        (None, 0.001, Kind.UNDETERMINED, COVARIATE | CONCEPT),
        (0.5, None, Kind.NONE, set()),
        (None, 0.5, Kind.NONE, set()),
        (None, None, Kind.UNDETERMINED, COVARIATE | CONCEPT),
    ],
)
def test_the_decision_table(
    marginal: float | None, conditional: float | None, kind: Kind, factors: set[Factor]
) -> None:
    verdict = conclude(_evidence(marginal, conditional), X_TO_Y, 0.01)
    assert (verdict.kind, set(verdict.factors)) == (kind, factors)


def test_contributions_are_those_of_the_factors_that_moved() -> None:
    shares: Mapping[Factor, Mapping[str, float]] = {
        Factor.COVARIATE: {"a": 1.0},
        Factor.CONCEPT: {"a": 0.4, "b": 0.6},
    }
    for p_values, expected in (
        ((0.001, 0.5), {"a": 1.0}),
        ((0.5, 0.001), {"a": 0.4, "b": 0.6}),
        ((0.001, 0.001), {"a": 0.7, "b": 0.3}),
        ((0.5, 0.5), {}),
    ):
        found = conclude(_evidence(*p_values), X_TO_Y, 0.01, shares).contributions
        assert found == pytest.approx(expected)


def test_holm_keeps_the_family_wise_error() -> None:
    rng = np.random.default_rng(0)
    p_values = rng.random(size=(4000, 3))
    errors = np.mean([holm(row, 0.05).any() for row in p_values])
    assert 0.04 < errors < 0.06
    assert holm(np.array([0.01, 0.04, 0.03]), 0.05).tolist() == [True, False, False]
    assert holm(np.empty(0), 0.05).tolist() == []


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (np.zeros((3, 2)), np.zeros(2, int), r"got \(3, 2\) and \(2,\)"),
        (np.zeros(3), np.zeros(3, int), r"shapes \(n, d\) and \(n,\)"),
        (np.array([[0.0, 1.0], [0.0, np.nan]]), np.zeros(2, int), r"features\[1, 1\].*got nan"),
        (np.zeros((2, 1)), np.array([0, -2]), r"labels\[1\] must be at least -1, got -2"),
    ],
)
def test_a_sample_names_what_does_not_fit(
    features: np.ndarray, labels: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Sample(features, labels)


def test_errors_name_the_value() -> None:
    sample = _x_to_y(np.random.default_rng(0), 20)
    with pytest.raises(ValueError, match="every column needs a name, got 2 for 4"):
        windows_of(sample, sample, X_TO_Y, columns=["a", "b"])
    narrow = Sample(sample.features[:, :3], sample.labels)
    with pytest.raises(ValueError, match="both windows need the same columns, got 4 and 3"):
        windows_of(sample, narrow, X_TO_Y)
    unlabelled = Sample(sample.features, np.zeros(20, np.int64))
    for windows in ((sample, unlabelled), (unlabelled, sample)):
        with pytest.raises(ValueError, match="labels must be below n_classes 1, got 1"):
            windows_of(*windows, X_TO_Y, n_classes=1)
    with pytest.raises(ValueError, match=r"alpha must be in \(0, 1\), got 0"):
        conclude(_evidence(0.1, 0.1), X_TO_Y, 0)
    with pytest.raises(ValueError, match="got covariate"):
        conclude(_evidence(0.1, 0.1), Y_TO_X, 0.01)


def test_dependent_labels_too_few_for_blocks_are_not_tested() -> None:
    rng = np.random.default_rng(0)
    windows = [
        Sample(rng.normal(size=(n, 2)), rng.integers(0, 2, n).astype(np.int64)) for n in (1000, 150)
    ]
    found = examine(windows_of(*windows, Problem.Y_TO_X, block_length=100), seed=1)
    assert [e.p_value for e in found.evidence] == [None, None]
    assert "depend on each other" in found.evidence[0].note


def test_the_asymptotic_test_keeps_its_half_of_alpha() -> None:
    inputs = Evidence("two-sample", Factor.COVARIATE, 9.0, 0.0003, 0.2, 500, 500)
    rule = Evidence("covariance", Factor.CONCEPT, 3.0, 0.008, 0.1, 500, 500)
    assert conclude((inputs, rule), Problem.X_TO_Y, 0.01).kind is Kind.COVARIATE
    exact = dataclasses.replace(rule, test="two-sample by class")
    prior = dataclasses.replace(inputs, factor=Factor.PRIOR)
    assert conclude((prior, exact), Problem.Y_TO_X, 0.01).kind is Kind.MIXED


@pytest.mark.parametrize("problem", list(Problem))
def test_p_values_are_as_fine_as_a_strict_level_asks(problem: Problem) -> None:
    kind = Kind(problem.marginal.value)
    stream = Stream(problem, kind, n_features=2, strength="strong", seed=3)
    windows = [Sample(*stream.draw(500, shifted=s)) for s in (False, True)]
    evidence = examine(windows_of(*windows, problem), seed=0, level=0.0002).evidence
    assert conclude(evidence, problem, 0.0002).kind is kind
