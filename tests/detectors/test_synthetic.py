from __future__ import annotations

import numpy as np
import pytest

from detectors.base import Factor, Kind, Problem
from detectors.synthetic import Family, Stream, Strength

CELLS = [(problem, family) for problem in Problem for family in ("linear", "nonlinear")]
every_cell = pytest.mark.parametrize(("problem", "family"), CELLS)


def kinds(problem: Problem) -> list[Kind]:
    return [Kind.NONE, Kind(problem.marginal.value), Kind.CONCEPT, Kind.MIXED]


@every_cell
def test_a_seed_fixes_the_rows(problem: Problem, family: Family) -> None:
    draws = [
        Stream(problem, Kind.MIXED, family=family, seed=seed).draw(100, shifted=True)
        for seed in (1, 1, 2)
    ]
    assert np.array_equal(draws[0][0], draws[1][0])
    assert np.array_equal(draws[0][1], draws[1][1])
    assert not np.array_equal(draws[0][0], draws[2][0])


@every_cell
def test_before_the_shift_every_kind_is_the_same(problem: Problem, family: Family) -> None:
    draws = [
        Stream(problem, kind, family=family, seed=3).draw(50, shifted=False)
        for kind in kinds(problem)
    ]
    for x, y in draws[1:]:
        assert np.array_equal(x, draws[0][0])
        assert np.array_equal(y, draws[0][1])


@every_cell
@pytest.mark.parametrize(("imbalance", "rate"), [(False, 0.5), (True, 0.12)])
def test_the_base_rate_is_the_promised_one(
    problem: Problem, family: Family, imbalance: bool, rate: float
) -> None:
    stream = Stream(problem, Kind.NONE, family=family, imbalance=imbalance, seed=4)
    _, y = stream.draw(20_000, shifted=False)
    assert abs(y.mean() - rate) < 0.02


def test_the_truth_is_the_set_of_factors_that_move() -> None:
    assert Stream(Problem.X_TO_Y, Kind.NONE, seed=0).factors == frozenset()
    assert Stream(Problem.X_TO_Y, Kind.COVARIATE, seed=0).factors == {Factor.COVARIATE}
    assert Stream(Problem.Y_TO_X, Kind.MIXED, seed=0).factors == {Factor.PRIOR, Factor.CONCEPT}


@pytest.mark.parametrize("seed", range(6))
def test_a_covariate_shift_leaves_the_rule_and_moves_the_inputs(seed: int) -> None:
    stream = Stream(Problem.X_TO_Y, Kind.COVARIATE, strength="strong", seed=seed)
    before, _ = stream.draw(20_000, shifted=False)
    after, y = stream.draw(20_000, shifted=True)
    moved = [np.abs(f(before) - f(after)).max() for f in (column_means, column_spreads)]
    assert max(moved) > 0.2
    # the share of ones among shifted rows is what the rule from before says of them
    expected = stream._world._before(after)  # type: ignore[union-attr]
    assert abs((y - expected).mean()) < 0.02


def column_means(x: np.ndarray) -> np.ndarray:
    return np.asarray(x.mean(axis=0))


def column_spreads(x: np.ndarray) -> np.ndarray:
    return np.asarray(x.std(axis=0))


@pytest.mark.parametrize(
    ("strength", "low", "high"), [("moderate", 0.07, 0.11), ("strong", 0.13, 0.27)]
)
def test_a_concept_drift_has_the_promised_size_and_leaves_the_inputs(
    strength: Strength, low: float, high: float
) -> None:
    for seed in range(6):
        stream = Stream(Problem.X_TO_Y, Kind.CONCEPT, strength=strength, seed=seed)
        before, _ = stream.draw(20_000, shifted=False)
        after, y = stream.draw(20_000, shifted=True)
        assert np.abs(column_means(before) - column_means(after)).max() < 0.05
        world = stream._world
        changed = world._share * (world._changed(after) - world._before(after))  # type: ignore[union-attr]
        assert low < np.abs(changed).mean() < high
        assert abs((y - world._before(after) - changed).mean()) < 0.02  # type: ignore[union-attr]


@every_cell
def test_a_prior_shift_leaves_each_class_as_it_was(problem: Problem, family: Family) -> None:
    if problem is Problem.X_TO_Y:
        with pytest.raises(ValueError, match="can move by"):
            Stream(problem, Kind.PRIOR, family=family, seed=0)
        return
    stream = Stream(problem, Kind.PRIOR, family=family, strength="strong", seed=5)
    x, y = stream.draw(20_000, shifted=False)
    x1, y1 = stream.draw(20_000, shifted=True)
    assert y1.mean() - y.mean() > 0.25
    for c in (0, 1):
        assert np.abs(x[y == c].mean(axis=0) - x1[y1 == c].mean(axis=0)).max() < 0.12
        assert np.abs(x[y == c].std(axis=0) - x1[y1 == c].std(axis=0)).max() < 0.08


def test_a_concept_drift_between_y_and_x_leaves_the_classes_shares() -> None:
    stream = Stream(Problem.Y_TO_X, Kind.CONCEPT, strength="strong", seed=6)
    _, y = stream.draw(20_000, shifted=False)
    _, y1 = stream.draw(20_000, shifted=True)
    assert abs(y.mean() - y1.mean()) < 0.02


def test_one_feature_is_refused() -> None:
    with pytest.raises(ValueError, match="n_features must be at least 2, got 1"):
        Stream(Problem.X_TO_Y, Kind.NONE, n_features=1, seed=0)
