"""What goes with a verdict is true, and is only said where it can be known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from detectors.attribution.attribution import conclude, examine
from detectors.attribution.windows import Sample
from detectors.base import Array, Factor, Kind, Problem, Verdict
from detectors.confirm import ConfirmPlan, Suspicion
from detectors.explanation.explain import (
    MAX_QUERIES,
    Explanation,
    _chosen,
    explain,
    other_direction,
)
from detectors.learners.dependence import dependence_length
from detectors.synthetic import Stream
from tests.detectors.windows import windows_of

Pair = tuple[Sample, Sample]


def windows(truth: Problem, kind: Kind, seed: int, n: int = 1000) -> Pair:
    stream = Stream(truth, kind, n_features=4, strength="strong", seed=seed)
    return Sample(*stream.draw(n, shifted=False)), Sample(*stream.draw(n, shifted=True))


def verdict_of(pair: Pair, problem: Problem) -> Verdict:
    found = examine(windows_of(*pair, problem), seed=1)
    return conclude(found.evidence, problem, 0.01, found.contributions)


def told(pair: Pair, problem: Problem, losses: tuple[Array, Array] | None = None) -> Explanation:
    verdict = verdict_of(pair, problem)
    return explain(windows_of(*pair, problem), verdict, alpha=0.01, seed=1, losses=losses)


def suspected(declared: Problem, truth: Problem, kind: Kind, seed: int) -> bool:
    pair = windows(truth, kind, seed)
    verdict = verdict_of(pair, declared)
    return bool(other_direction(windows_of(*pair, declared), verdict, alpha=0.01, seed=1))


def test_a_wrong_direction_is_suspected_and_a_right_one_hardly_ever() -> None:
    """Strong shifts, 8 streams a cell."""
    seeds = range(100, 108)
    wrong = [suspected(Problem.X_TO_Y, Problem.Y_TO_X, Kind.PRIOR, s) for s in seeds]
    wrong += [suspected(Problem.Y_TO_X, Problem.X_TO_Y, Kind.COVARIATE, s) for s in seeds]
    assert sum(wrong) >= 10
    right = [suspected(p, p, Kind.MIXED, s) for s in seeds for p in Problem]
    assert sum(right) <= 2


def test_severity_splits_the_models_own_loss() -> None:
    reference, recent = windows(Problem.X_TO_Y, Kind.CONCEPT, 100)
    right = [np.full(1000, np.nan), np.full(1000, np.nan)]
    for losses, sample in zip(right, (reference, recent), strict=True):
        losses[:800] = (sample.features[:800, 0] > 0) != sample.labels[:800]
    found = told((reference, recent), Problem.X_TO_Y, (right[0], right[1]))
    assert found.loss == "model"
    assert found.severity is not None
    parts = found.severity.shared.value + found.severity.concept.value + found.severity.new.value
    assert parts == pytest.approx(np.nanmean(right[1]) - np.nanmean(right[0]))


def test_without_predictions_a_classifier_of_the_reference_is_judged() -> None:
    found = told(windows(Problem.X_TO_Y, Kind.CONCEPT, 100), Problem.X_TO_Y)
    assert found.loss == "reference classifier"
    assert found.severity is not None
    assert found.severity.concept.low > 0


@pytest.mark.parametrize("problem", list(Problem))
def test_an_undetermined_verdict_asks_for_labels_it_does_not_have(problem: Problem) -> None:
    kind = Kind.COVARIATE if problem is Problem.X_TO_Y else Kind.PRIOR
    reference, recent = windows(problem, kind, 101)
    labels = recent.labels.copy()
    labels[60:] = -1
    pair = reference, Sample(recent.features, labels)
    verdict = verdict_of(pair, problem)
    found = explain(windows_of(*pair, problem), verdict, alpha=0.01, seed=1)
    if problem is Problem.X_TO_Y:
        assert verdict.kind is Kind.UNDETERMINED
    assert found.labels_needed >= 40
    assert 40 <= len(found.queries) <= MAX_QUERIES
    assert (labels[found.queries] == -1).all()
    assert len(np.unique(found.queries)) == len(found.queries)


def test_a_settled_verdict_asks_for_nothing() -> None:
    found = told(windows(Problem.X_TO_Y, Kind.COVARIATE, 102), Problem.X_TO_Y)
    assert found.labels_needed == 0
    assert len(found.queries) == 0


def test_labels_by_choice_are_said_and_late_ones_are_not() -> None:
    reference, recent = windows(Problem.Y_TO_X, Kind.NONE, 103)
    chosen = np.where(recent.features[:, 0] > 0.3, recent.labels, -1)
    late = np.where(np.arange(1000) < 400, recent.labels, -1)
    by_choice, by_delay = (
        told((reference, Sample(recent.features, labels)), Problem.Y_TO_X)
        for labels in (chosen, late)
    )
    assert by_choice.chosen_labels
    assert not by_delay.chosen_labels


def said_of_labels(drift: float, coefficient: float, seed: int, choice: float = 0.0) -> str:
    """What is said after a wait of 5,000 rows, of which one in twenty has a label at once.

    Inputs drift by `drift` standard deviations. The chance of a label grows with an input where
    `choice` is not 0.
    """
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(5000, 2)) * np.sqrt(1 - coefficient**2)
    inputs = np.asarray(lfilter([1.0], [1.0, -coefficient], noise, axis=0))
    chance = 0.1 / (1 + np.exp(-choice * inputs[:, 0]))
    rows = inputs + drift * np.linspace(0, 1, 5000)[:, None]
    suspicion = Suspicion(
        ConfirmPlan(Problem.X_TO_Y),
        alarm_index=-1,
        opened_index=0,
        factor=Factor.COVARIATE,
        change_point=0,
        n_features=2,
        seed=1,
    )
    suspicion.seen(rows[1:])
    for i in range(1, len(rows)):
        if rng.random() < chance[i]:
            label = np.array([rng.random() < 0.5], np.int64)
            suspicion.labelled(np.array([i]), label, [None])
    recent = suspicion.sample(lambda given: given)
    block_length = dependence_length(inputs[:2000])
    return _chosen(recent, Problem.X_TO_Y, 0.01, seed, block_length)


@pytest.mark.parametrize(
    ("drift", "coefficient"),
    [(0.0, 0.0), (1.0, 0.0), (0.0, 0.98)],
    ids=["iid", "gradual", "autocorrelated"],
)
def test_labels_by_chance_are_not_called_chosen(drift: float, coefficient: float) -> None:
    """One stream in a hundred is allowed; more than 2 of 40 come once in 140 runs."""
    assert sum(bool(said_of_labels(drift, coefficient, s)) for s in range(100, 140)) <= 2


@pytest.mark.parametrize("drift", [0.0, 1.0])
def test_few_labels_by_choice_are_still_found(drift: float) -> None:
    assert sum(bool(said_of_labels(drift, 0.0, s, choice=3.0)) for s in range(100, 120)) >= 16
