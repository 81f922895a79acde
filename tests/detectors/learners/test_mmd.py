from __future__ import annotations

import numpy as np
import pytest

from detectors.learners.mmd import FourierFeatures, median_bandwidth, mmd2


def test_median_bandwidth_is_the_median_distance_between_rows() -> None:
    rows = np.random.default_rng(0).normal(size=(40, 3))
    distances = [np.linalg.norm(a - b) for i, a in enumerate(rows) for b in rows[:i]]
    assert median_bandwidth(rows, seed=0) == pytest.approx(np.median(distances))


@pytest.mark.parametrize("offset", [0.0, 1e6, -1e9])
def test_median_bandwidth_does_not_depend_on_the_location(offset: float) -> None:
    rows = np.random.default_rng(0).normal(size=(40, 3))
    assert median_bandwidth(rows + offset, seed=0) == pytest.approx(
        median_bandwidth(rows, seed=0), rel=1e-4
    )


def test_median_bandwidth_stays_positive_where_most_rows_are_equal() -> None:
    rows = np.zeros((100, 2))
    rows[:3] = 5.0
    assert median_bandwidth(rows, seed=0) == pytest.approx(5.0 * np.sqrt(2.0))
    assert median_bandwidth(np.full((50, 2), 0.1), seed=0) == 1.0
    assert median_bandwidth(np.full((50, 2), 1e7 / 3), seed=0) == 1.0


def test_median_bandwidth_of_many_rows_uses_a_seeded_subsample() -> None:
    rows = np.random.default_rng(0).normal(size=(2000, 3))
    assert median_bandwidth(rows, seed=1) == median_bandwidth(rows, seed=1)
    assert median_bandwidth(rows, seed=1) == pytest.approx(median_bandwidth(rows, seed=2), rel=0.1)


@pytest.mark.parametrize("rows", [np.zeros(4), np.zeros((1, 4))])
def test_median_bandwidth_refuses_less_than_two_rows(rows: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"shape \(n, d\).*got \("):
        median_bandwidth(rows, seed=0)


def test_inner_products_of_fourier_features_approximate_the_kernel() -> None:
    rows = np.random.default_rng(0).normal(size=(30, 4))
    features = FourierFeatures.draw(4, bandwidth=2.0, n_features=20_000, seed=3)(rows)
    squared = ((rows[:, None] - rows[None]) ** 2).sum(-1)
    np.testing.assert_allclose(features @ features.T, np.exp(-squared / 8.0), atol=0.04)


@pytest.mark.parametrize("wrong", ["n_columns", "bandwidth", "n_features"])
def test_fourier_features_name_the_number_that_is_not_positive(wrong: str) -> None:
    numbers = {"n_columns": 2, "bandwidth": 1.0, "n_features": 5} | {wrong: 0}
    with pytest.raises(ValueError, match=f"{wrong} must be positive, got 0"):
        FourierFeatures.draw(
            int(numbers["n_columns"]),
            bandwidth=float(numbers["bandwidth"]),
            n_features=int(numbers["n_features"]),
            seed=0,
        )


def test_mmd2_equals_its_definition() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 2)), rng.normal(1.0, size=(9, 2))

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.exp(-((a - b) ** 2).sum() / (2 * 0.7**2)))

    within_x = np.mean([k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    within_y = np.mean([k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    between = np.mean([k(a, b) for a in x for b in y])
    assert mmd2(x, y, 0.7) == pytest.approx(within_x + within_y - 2 * between)


def test_mmd2_is_unbiased_where_nothing_moved() -> None:
    values = []
    for seed in range(300):
        x, y = np.random.default_rng(seed).normal(size=(2, 20, 2))
        values.append(mmd2(x, y, 1.0))
    standard_error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 4 * standard_error
    assert min(values) < 0


def test_mmd2_names_the_shapes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"\(5, 2\) and \(5, 3\)"):
        mmd2(np.zeros((5, 2)), np.zeros((5, 3)), 1.0)
    with pytest.raises(ValueError, match="bandwidth must be positive, got 0"):
        mmd2(np.zeros((5, 2)), np.zeros((5, 2)), 0.0)
