from __future__ import annotations

from math import nan

import numpy as np
import pytest

from detectors.attribution.covariance import covariance_test
from detectors.base import Kind, Problem
from detectors.explanation.label_queries import labels_needed, query_labels
from detectors.synthetic import Stream, Strength


def _pool(seed: int = 0, n: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).random(n)


def test_rows_are_distinct_and_as_many_as_asked() -> None:
    for n in (1, 2, 13, 40):
        rows = query_labels(_pool(), n=n, seed=n).rows
        assert len(set(rows.tolist())) == n
        assert set(rows.tolist()) <= set(range(40))


def test_the_informative_rows_are_the_best_of_those_not_drawn_at_random() -> None:
    e = _pool()
    found = query_labels(e, n=12, seed=3)
    others = np.setdiff1d(np.arange(40), found.rows)
    gain = e * (1 - e)
    assert int(found.uniform.sum()) == 4
    assert gain[found.rows[~found.uniform]].min() >= gain[others].max()


@pytest.mark.parametrize("uniform_share", [0.0, 0.3, 1.0])
def test_the_stated_chances_are_those_of_the_design(uniform_share: float) -> None:
    e = _pool()
    e[:6] = 0.5  # ties at the top
    times, stated = np.zeros(40), np.full(40, nan)
    n_designs = 4000
    for seed in range(n_designs):
        found = query_labels(e, n=8, uniform_share=uniform_share, seed=seed)
        times[found.rows] += 1
        stated[found.rows] = found.probability
    seen = times > 0
    # 4 standard errors of a share of 4000.
    np.testing.assert_allclose(times[seen] / n_designs, stated[seen], atol=0.032)
    assert seen.all() == (uniform_share > 0)


def test_weighted_labels_give_the_pools_mean_and_plain_ones_do_not() -> None:
    e = _pool(n=200)
    value = e * (1 - e)
    weighted, plain = [], []
    for seed in range(300):
        found = query_labels(e, n=50, seed=seed)
        weighted.append((value[found.rows] / found.probability).sum() / len(e))
        plain.append(value[found.rows].mean())
    error = np.std(weighted) / np.sqrt(len(weighted))
    assert abs(np.mean(weighted) - value.mean()) < 4 * error
    assert np.mean(plain) - value.mean() > 0.05


def test_both_parts_are_among_the_first_of_the_rows() -> None:
    found = query_labels(_pool(n=500), n=100, seed=0)
    assert 2 <= found.uniform[:10].sum() <= 4


def test_equal_rows_are_not_taken_in_the_order_of_time() -> None:
    found = query_labels(np.full(1000, 0.5), n=100, uniform_share=0.0, seed=0)
    assert 400 < found.rows.mean() < 600


def test_a_choice_repeats_under_its_seed() -> None:
    a, b = (query_labels(_pool(), n=9, seed=5) for _ in range(2))
    assert a.rows.tolist() == b.rows.tolist()
    assert a.probability.tolist() == b.probability.tolist()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n": 0}, r"n must be in \[1, 40\], got 0"),
        ({"n": 41}, r"n must be in \[1, 40\], got 41"),
        ({"uniform_share": 1.1}, r"uniform_share must be in \[0, 1\], got 1.1"),
        ({"window_probability": np.array([0.5, nan])}, r"must be a vector in \[0, 1\]"),
    ],
)
def test_a_query_out_of_range_is_named(changed: dict[str, object], message: str) -> None:
    asked = {"window_probability": _pool(), "n": 5, "seed": 0} | changed
    with pytest.raises(ValueError, match=message):
        query_labels(**asked)  # type: ignore[arg-type]


def test_more_labels_are_needed_for_smaller_changes_and_more_certainty() -> None:
    assert labels_needed(500, 0, 0.1) > labels_needed(500, 0, 0.2) > labels_needed(500, 0, 0.3) > 0
    assert labels_needed(500, 0, 0.2, power=0.95) > labels_needed(500, 0, 0.2, power=0.8)
    assert labels_needed(500, 0, 0.2, alpha=0.001) > labels_needed(500, 0, 0.2, alpha=0.05)


@pytest.mark.parametrize("n_reference", [0, 30, 180, 300, 5000])
@pytest.mark.parametrize("n_recent", [0, 30, 180, 300, 5000])
@pytest.mark.parametrize("effect", [0.1, 0.2, 0.5])
def test_as_many_labels_as_it_says_are_enough_and_one_less_is_not(
    n_reference: int, n_recent: int, effect: float
) -> None:
    more = labels_needed(n_reference, n_recent, effect)
    few, many = sorted((n_reference, n_recent))

    def filled(extra: int) -> tuple[int, int]:
        to_few = min(extra, many - few)
        rest = extra - to_few
        return few + to_few + rest // 2, many + rest - rest // 2

    assert labels_needed(*filled(more), effect) == 0
    if more > 1:
        # Labels go to two windows alternately, hence the slack of one.
        assert labels_needed(*filled(more - 2), effect) > 0


@pytest.mark.statistical
@pytest.mark.parametrize("strength", ["strong", "moderate"])
def test_with_as_many_labels_as_it_says_nearly_nine_of_ten_changes_are_found(
    strength: Strength,
) -> None:
    effect = 0.25 if strength == "strong" else 0.10
    found = 0
    for seed in range(100, 120):
        stream = Stream(
            Problem.X_TO_Y, Kind.CONCEPT, n_features=4, strength=strength, seed=3 * seed
        )
        more = labels_needed(1000, 0, effect)
        n_recent = min(more, (1000 + more) // 2)
        reference = stream.draw(max(1000, n_recent), shifted=False)
        recent = stream.draw(n_recent, shifted=True)
        p_value = covariance_test(*reference, *recent, seed=seed, n_bootstraps=999).p_value
        assert p_value is not None
        found += p_value <= 0.005
    # 18 expected; streams whose whole change is below the nominal one pull it down.
    assert found >= 14


@pytest.mark.parametrize("unknown", [0.0, nan])
def test_an_unknown_effect_counts_as_the_smallest_of_interest(unknown: float) -> None:
    assert labels_needed(1000, 200, unknown) == labels_needed(1000, 200, 0.10)


def test_a_fall_needs_as_many_labels_as_a_rise() -> None:
    assert labels_needed(1000, 20, -0.2) == labels_needed(1000, 20, 0.2)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n_recent": -1}, "labels must not be negative, got 10 and -1"),
        ({"effect": 1.5}, r"effect must be in \[-1, 1\] or NaN, got 1.5"),
        ({"power": 1.0}, r"power must be in \(0, 1\), got 1.0"),
        ({"alpha": 0.0}, r"alpha must be in \(0, 1\), got 0.0"),
    ],
)
def test_a_need_out_of_range_is_named(changed: dict[str, float], message: str) -> None:
    asked = {"n_reference": 10, "n_recent": 10, "effect": 0.1} | changed
    with pytest.raises(ValueError, match=message):
        labels_needed(**asked)  # type: ignore[arg-type]
