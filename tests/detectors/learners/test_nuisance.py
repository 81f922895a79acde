from __future__ import annotations

import numpy as np
import pytest

from detectors.learners.nuisance import boosted_trees, cross_fit, make_folds, quadratic_logistic


def _logistic(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = rng.normal(size=(n, 3))
    p = 1 / (1 + np.exp(-2 * x[:, 0] + x[:, 1] ** 2 - 1))
    return x, (rng.random(n) < p).astype(np.int64), p


def test_cross_fitted_probabilities_come_near_the_truth() -> None:
    rng = np.random.default_rng(0)
    x, y, p = _logistic(rng, 1500)
    fitted = cross_fit(x, y, 2, make_folds(y, 3, rng))[:, 1]
    assert np.abs(fitted - p).mean() < 0.05


def test_no_row_is_judged_by_a_model_that_saw_it() -> None:
    # Labels are noise: in-sample trees would remember some, cross-fitted ones cannot.
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(600, 10)), rng.integers(0, 2, 600)
    folds = make_folds(y, 3, rng)
    p = cross_fit(x, y, 2, folds, (boosted_trees,))[:, 1]
    assert abs(np.corrcoef(p, y)[0, 1]) < 0.15
    assert np.corrcoef(boosted_trees(x, y, x, 2)[:, 1], y)[0, 1] > 0.7


def test_rows_outside_the_mask_teach_nothing() -> None:
    rng = np.random.default_rng(0)
    x, y, _ = _logistic(rng, 400)
    mask = np.arange(400) < 200
    folds = make_folds(y, 2, rng)
    other = np.where(mask, y, 1 - y)
    first, second = (cross_fit(x, v, 2, folds, (quadratic_logistic,), mask) for v in (y, other))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("learner", [quadratic_logistic, boosted_trees])
def test_classes_that_are_not_seen_have_probability_zero(learner: object) -> None:
    x, y, _ = _logistic(np.random.default_rng(0), 200)
    assert callable(learner)
    p = learner(x, 2 * y, x[:5], 4)
    assert p.shape == (5, 4)
    assert (p[:, [1, 3]] == 0).all()
    np.testing.assert_allclose(p.sum(axis=1), 1.0)
    np.testing.assert_array_equal(learner(x, np.full(200, 3), x[:2], 4), [[0, 0, 0, 1]] * 2)
    np.testing.assert_array_equal(learner(x[:0], y[:0], x[:2], 4), np.full((2, 4), 0.25))


def test_folds_are_balanced_within_groups() -> None:
    groups = np.repeat([0, 1, 2], [30, 60, 9])
    folds = make_folds(groups, 3, np.random.default_rng(0))
    for group, size in ((0, 10), (1, 20), (2, 3)):
        assert np.bincount(folds[groups == group]).tolist() == [size] * 3


def test_blocks_stay_in_one_fold() -> None:
    folds = make_folds(np.zeros(95, int), 3, np.random.default_rng(0), block_length=10)
    for start in range(0, 95, 10):
        assert len(set(folds[start : start + 10].tolist())) == 1
    assert set(folds.tolist()) == {0, 1, 2}
