from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from detectors.attribution.permutation import (
    comparable_classes,
    label_test,
    stratified_two_sample,
    two_sample,
)

# Rejections of 200 true hypotheses at 5 %: 10 expected, more than 19 in one of 300 runs.
MOST_OF_200 = 19


def test_two_sample_keeps_its_size() -> None:
    p_values = []
    for seed in range(200):
        x, y = np.random.default_rng(seed).normal(size=(2, 50, 3))
        p_values.append(two_sample(x, y[:40], seed=seed, n_permutations=99).p_value)
    assert np.sum(np.array(p_values) <= 0.05) <= MOST_OF_200
    assert 0.4 < np.mean(p_values) < 0.6


def test_two_sample_keeps_its_size_on_integers_with_ties() -> None:
    rejected = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        x, y = rng.poisson(0.7, size=(2, 50, 3)).astype(float)
        rejected += two_sample(x, y, seed=seed, n_permutations=99).p_value <= 0.05
    assert rejected <= MOST_OF_200


def test_two_sample_p_values_are_valid_for_every_split_of_a_tiny_sample() -> None:
    # The p-value of a random split of fixed rows is exact: P(p <= a) <= a over all splits.
    rows = np.random.default_rng(4).normal(size=(8, 1))
    p_values = []
    for chosen in combinations(range(8), 4):
        others = [i for i in range(8) if i not in chosen]
        p_values.append(two_sample(rows[others], rows[list(chosen)], seed=0).p_value)
    for level in (0.03, 0.1, 0.3):
        # 999 of 70 possible splits are drawn, so p-values carry a Monte Carlo error.
        assert np.mean(np.array(p_values) <= level) <= level + 0.03


@pytest.mark.parametrize("change", ["mean", "spread", "cluster", "dependence", "integers"])
def test_two_sample_finds_clear_shifts_of_every_kind(change: str) -> None:
    found = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(2, 400, 8))
        if change == "mean":
            y[:, 2] += 0.4
        elif change == "spread":
            y[:, 2] *= 1.5
        elif change == "cluster":
            y[:60] = 0.3 * y[:60] + 1.0
        elif change == "dependence":
            y[:, 0] = 0.8 * y[:, 1] + 0.6 * y[:, 0]
        else:
            x, y = rng.poisson(2.0, size=(400, 8)) * 1.0, rng.poisson(2.5, size=(400, 8)) * 1.0
        found += two_sample(x, y, seed=seed, n_permutations=199).p_value <= 0.01
    assert found >= 9


def test_two_sample_is_as_fast_to_reject_as_its_permutations_allow() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 100, 2))
    assert two_sample(x, y + 3.0, seed=0, n_permutations=1999).p_value == 1 / 2000


def test_two_sample_blames_the_column_that_moved() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 500, 6))
    y[:, 4] += 0.6
    shares = two_sample(x, y, seed=0).shares
    assert shares.sum() == pytest.approx(1.0)
    assert shares[4] > 0.7


def test_the_effect_measures_the_change_and_not_the_sample() -> None:
    effects = {}
    for n in (300, 3000):
        rng = np.random.default_rng(n)
        same = two_sample(*rng.normal(size=(2, n, 4)), seed=0, n_permutations=9)
        x, y = rng.normal(size=(2, n, 4))
        y[:, 0] += 1.0
        effects[n] = same.effect, two_sample(x, y, seed=0, n_permutations=9).effect
    # Two normals one standard deviation apart: AUC = Phi(1 / sqrt 2) = 0.760.
    for same_effect, moved_effect in effects.values():
        assert same_effect < 0.1
        assert moved_effect == pytest.approx(0.52, abs=0.06)


def test_constant_columns_and_equal_rows_are_no_change() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 100, 2))
    x[:, 1] = y[:, 1] = 7.0
    assert two_sample(x, y, seed=0, n_permutations=99).p_value > 0.05
    nothing = two_sample(np.ones((30, 2)), np.ones((30, 2)), seed=0, n_permutations=99)
    assert (nothing.p_value, nothing.effect, nothing.shares.sum()) == (1.0, 0.0, 0.0)


def test_a_shift_of_one_among_three_hundred_columns_is_found() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 500, 300))
    y[:, 123] += 1.0
    found = two_sample(x, y, seed=0, n_permutations=199)
    assert found.p_value == 1 / 200
    assert int(found.shares.argmax()) == 123


def test_results_depend_on_the_seed_alone_and_inputs_stay_untouched() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 80, 3))
    kept = x.copy(), y.copy()
    first, again, other = (two_sample(x, y, seed=s, n_permutations=99) for s in (1, 1, 2))
    assert first.p_value == again.p_value
    assert first.statistic == again.statistic
    assert first.statistic != other.statistic
    np.testing.assert_array_equal((x, y), kept)


def _autoregressive(rng: np.random.Generator, n: int) -> np.ndarray:
    noise = rng.normal(size=n + 50)
    out = np.empty(n + 50)
    out[0] = noise[0]
    for i in range(1, n + 50):
        out[i] = 0.9 * out[i - 1] + np.sqrt(0.19) * noise[i]
    return out[50:, None]


def test_blocks_keep_the_size_near_its_level_on_autocorrelated_rows() -> None:
    rejected = {1: 0, 30: 0}
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x, y = _autoregressive(rng, 600), _autoregressive(rng, 600)
        for length in rejected:
            p = two_sample(x, y, seed=seed, n_permutations=99, block_length=length).p_value
            rejected[length] += p <= 0.05
    assert rejected[1] > 24  # what blocks are for
    assert rejected[30] <= 8


def test_blocks_use_whole_blocks_only() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 57, 2))
    found = two_sample(x, y[:43], seed=0, n_permutations=99, block_length=10)
    assert (found.n_reference, found.n_recent) == (50, 40)


def test_stratified_keeps_its_size_under_any_prior_shift() -> None:
    rejected, plain = 0, 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        y, z = (rng.random(120) < 0.3).astype(int), (rng.random(120) < 0.7).astype(int)
        a, b = rng.normal(size=(120, 2)) + y[:, None], rng.normal(size=(120, 2)) + z[:, None]
        rejected += stratified_two_sample(a, b, y, z, seed=seed, n_permutations=99).p_value <= 0.05
        if seed < 10:
            plain += two_sample(a, b, seed=seed, n_permutations=99).p_value <= 0.05
    assert rejected <= MOST_OF_200
    assert plain >= 8  # P(X) did move


@pytest.mark.parametrize("moved", [(0,), (1,), (0, 1)])
def test_stratified_finds_a_class_that_moved(moved: tuple[int, ...]) -> None:
    found = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        y, z = (rng.random(600) < 0.3).astype(int), (rng.random(600) < 0.6).astype(int)
        a, b = rng.normal(size=(600, 5)) + y[:, None], rng.normal(size=(600, 5)) + z[:, None]
        b[:, 3] += 0.6 * np.isin(z, moved)
        result = stratified_two_sample(a, b, y, z, seed=seed, n_permutations=199)
        found += result.p_value <= 0.01 and int(result.shares.argmax()) == 3
    assert found >= 9


def test_stratified_leaves_rare_classes_out_and_says_so() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 103, 2))
    labels = np.repeat([0, 1, 2], [50, 50, 3])
    found = stratified_two_sample(x, y, labels, labels, seed=0, n_permutations=99)
    assert found.skipped == (2,)
    assert (found.n_reference, found.n_recent) == (100, 100)
    with pytest.raises(ValueError, match="no class has 60 rows in both windows"):
        stratified_two_sample(x, y, labels, labels, seed=0, min_per_class=60)


def test_comparable_classes_need_rows_in_both_windows() -> None:
    kept, skipped = comparable_classes(np.array([0, 0, 1, 4]), np.array([0, 0, 4, 4]), 2)
    assert (kept, skipped) == ((0,), (1, 4))
    assert comparable_classes(np.array([], int), np.array([], int), 2) == ((), ())


@pytest.mark.parametrize("n_classes", [2, 7])
def test_label_test_keeps_its_size(n_classes: int) -> None:
    rejected = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        weights = rng.dirichlet(np.ones(n_classes))
        x, y = rng.choice(n_classes, p=weights, size=(2, 60))
        rejected += label_test(x, y, n_classes, seed=seed, n_permutations=199).p_value <= 0.05
    assert rejected <= MOST_OF_200


def test_label_test_is_fishers_exact_test_up_to_monte_carlo_error() -> None:
    # 8 of 10 against 3 of 10: the tables at least as unlikely have hypergeometric probability
    # 2 * (1260 * ... ) / C(20, 10); scipy.stats.fisher_exact gives 0.0698.
    x, y = np.repeat([0, 1], [8, 2]), np.repeat([0, 1], [3, 7])
    assert label_test(x, y, 2, seed=0).p_value == pytest.approx(0.0698, abs=0.01)


def test_label_test_measures_total_variation() -> None:
    x, y = np.repeat([0, 1, 2], [50, 30, 20]), np.repeat([0, 1, 2], [20, 30, 50])
    assert label_test(x, y, 3, seed=0).effect == pytest.approx(0.3)


def test_label_test_sees_a_class_that_is_new() -> None:
    x, y = np.zeros(100, int), np.repeat([0, 1], [80, 20])
    assert label_test(x, y, 2, seed=0, n_permutations=999).p_value == 0.001


def test_label_test_permutes_blocks_of_labels_that_come_in_runs() -> None:
    rejected = {1: 0, 20: 0}
    for seed in range(100):
        x, y = np.repeat(np.random.default_rng(seed).integers(0, 2, size=(2, 40)), 10, axis=1)
        for length in rejected:
            p = label_test(x, y, 2, seed=seed, n_permutations=99, block_length=length).p_value
            rejected[length] += p <= 0.05
    assert rejected[1] > 30
    assert rejected[20] <= 12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reference": np.zeros((5, 3))}, r"got \(5, 3\), \(9, 2\)"),
        ({"reference": np.zeros((1, 2))}, "needs 2 blocks of 1 rows, got 1 and 9"),
        ({"block_length": 5}, "needs 2 blocks of 5 rows"),
        ({"n_permutations": 0}, "must be at least 1, got 0 and 1"),
    ],
)
def test_errors_name_the_value(change: dict[str, object], message: str) -> None:
    arguments = {"reference": np.zeros((9, 2)), "recent": np.zeros((9, 2)), "seed": 0} | change
    with pytest.raises(ValueError, match=message):
        two_sample(**arguments)  # type: ignore[arg-type]


def test_labels_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match=r"recent labels must be in \[0, 2\), got 2"):
        label_test(np.array([0, 1]), np.array([0, 2]), 2, seed=0)
    with pytest.raises(ValueError, match="every row needs a class, got 3 for 4"):
        stratified_two_sample(
            np.zeros((4, 1)), np.zeros((4, 1)), np.zeros(3, int), np.zeros(4, int), seed=0
        )


def test_the_interval_of_a_separation_covers_what_discriminants_reach_on_average() -> None:
    found = []
    for seed in range(100, 200):
        rng = np.random.default_rng(seed)
        reference, recent = rng.normal(size=(2, 200, 3))
        recent[:, 0] += 1.0
        found.append(two_sample(reference, recent, seed=seed, n_permutations=9))
    truth = np.mean([result.effect for result in found])
    # Nominal 95; the standard error is that of a discriminant as it is, not of learning it.
    assert sum(r.effect_low <= truth <= r.effect_high for r in found) >= 88
    assert all(0 <= r.effect_low <= r.effect <= r.effect_high <= 1 for r in found)


def test_the_interval_of_a_distance_of_labels_covers_the_truth() -> None:
    covered = 0
    for seed in range(100, 200):
        rng = np.random.default_rng(seed)
        reference = rng.choice(3, 300, p=[0.5, 0.3, 0.2])
        recent = rng.choice(3, 300, p=[0.3, 0.3, 0.4])
        found = label_test(reference, recent, 3, seed=seed, n_permutations=9)
        assert 0 <= found.effect_low <= found.effect <= found.effect_high <= 1
        covered += found.effect_low <= 0.2 <= found.effect_high
    assert covered >= 88


def test_an_interval_of_dependent_rows_is_wider() -> None:
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.normal(size=(2, 40, 2)), 10, axis=1)
    rows[1, :, 0] += 1.0
    labels = (rows[:, :, 0] > 0).astype(np.int64)
    alone, blocks = (
        two_sample(*rows, seed=0, n_permutations=9, block_length=length) for length in (1, 10)
    )
    assert blocks.effect_high - blocks.effect_low > alone.effect_high - alone.effect_low
    alone, blocks = (
        label_test(*labels, 2, seed=0, n_permutations=9, block_length=length) for length in (1, 10)
    )
    assert blocks.effect_high - blocks.effect_low > alone.effect_high - alone.effect_low


def test_nothing_is_known_of_the_effect_where_a_half_has_no_rows_to_judge() -> None:
    rows = np.random.default_rng(0).normal(size=(2, 2, 1))
    found = two_sample(*rows, seed=0, n_permutations=9)
    assert (found.effect_low, found.effect_high) == (0.0, 1.0)
