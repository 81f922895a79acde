"""Without labels a verdict claims no more than the inputs can show."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.attribution.attribution import conclude
from detectors.attribution.unlabelled import examine_unlabelled
from detectors.attribution.windows import UNLABELLED, Sample
from detectors.base import Array, Factor, Kind, Problem, Verdict
from detectors.synthetic import Stream
from tests.detectors.windows import windows_of


def unlabelled(rows: Array) -> Sample:
    return Sample(rows, np.full(len(rows), UNLABELLED))


def verdict(problem: Problem, kind: Kind, seed: int, *, labelled: bool = True) -> Verdict:
    stream = Stream(problem, kind, n_features=4, strength="strong", seed=seed)
    rows, labels = stream.draw(1500, shifted=False)
    reference = Sample(rows, labels) if labelled else unlabelled(rows)
    recent = unlabelled(stream.draw(1000, shifted=True)[0])
    found = examine_unlabelled(windows_of(reference, recent, problem), alpha=0.02, seed=seed)
    return conclude(found, problem, 0.02)


def test_a_prior_shift_is_named_and_concept_drift_is_not_taken_for_one() -> None:
    """Y->X, strong shifts: 6 streams each."""
    priors = [verdict(Problem.Y_TO_X, Kind.PRIOR, seed).kind for seed in range(100, 106)]
    assert priors.count(Kind.PRIOR) >= 5
    calm = [verdict(Problem.Y_TO_X, Kind.NONE, seed).kind for seed in range(100, 106)]
    assert calm.count(Kind.NONE) >= 5
    drifted = [verdict(Problem.Y_TO_X, Kind.CONCEPT, seed) for seed in range(100, 106)]
    found = [v for v in drifted if v.kind is Kind.UNDETERMINED and Factor.CONCEPT in v.factors]
    assert len(found) >= 4


@pytest.mark.parametrize("kind", [Kind.COVARIATE, Kind.MIXED])
def test_x_to_y_never_says_more_than_that_the_inputs_moved(kind: Kind) -> None:
    found = verdict(Problem.X_TO_Y, kind, 100)
    assert found.kind is Kind.UNDETERMINED
    assert found.factors == {Factor.COVARIATE, Factor.CONCEPT}


def test_without_a_labelled_reference_either_factor_remains_possible() -> None:
    found = verdict(Problem.Y_TO_X, Kind.PRIOR, 100, labelled=False)
    assert found.kind is Kind.UNDETERMINED
    assert found.factors == {Factor.PRIOR, Factor.CONCEPT}
    assert "either factor" in found.evidence[0].note


def test_too_few_rows_are_said() -> None:
    reference = Sample(np.zeros((5, 2)), np.zeros(5, np.int64))
    windows = windows_of(reference, unlabelled(np.zeros((5, 2))), Problem.X_TO_Y)
    found = examine_unlabelled(windows, alpha=0.01, seed=0)
    assert [e.p_value for e in found] == [None, None]
    assert found[0].note == "needs 20 rows in each window, got 5 and 5"
