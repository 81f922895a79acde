from __future__ import annotations

import numpy as np
import pytest

from detectors.attribution.mixture import MixtureResult, mixture_test
from detectors.base import Kind, Problem
from detectors.synthetic import Family, Stream

Drawn = tuple[np.ndarray, np.ndarray]


def _streamed(kind: Kind, seed: int, n: int, n_bootstraps: int) -> MixtureResult:
    family: Family = "linear" if seed // 3 % 2 else "nonlinear"
    stream = Stream(
        Problem.Y_TO_X,
        kind,
        n_features=(2, 8, 32)[seed % 3],
        family=family,
        imbalance=seed % 10 < 3,
        strength="strong",
        seed=seed,
    )
    reference, (recent, _) = stream.draw(n, shifted=False), stream.draw(n, shifted=True)
    return mixture_test(*reference, recent, n_classes=2, seed=seed, n_bootstraps=n_bootstraps)


def _blobs(
    rng: np.random.Generator, n: int, prior: list[float], spread: float = 1.0, n_columns: int = 2
) -> Drawn:
    """Classes at equal angles on a circle of radius 2, each a normal around its place."""
    labels = rng.choice(len(prior), n, p=prior)
    angle = 2 * np.pi * labels / len(prior)
    rows = spread * rng.normal(size=(n, n_columns))
    rows[:, 0] += 2 * np.cos(angle)
    rows[:, 1] += 2 * np.sin(angle)
    return rows, labels.astype(np.int64)


def test_it_tells_prior_from_concept_on_six_streams_of_each_kind() -> None:
    found = _rejections(range(100, 106), n=500, n_bootstraps=39)
    prior, fit = ({kind: int(v[:, c].sum()) for kind, v in found.items()} for c in (0, 1))
    # Of 6 true hypotheses, 2 or more are rejected at 5 % in 1 of 30 runs.
    assert max(prior[Kind.NONE], fit[Kind.NONE], fit[Kind.PRIOR]) <= 1
    assert prior[Kind.PRIOR] == 6
    assert fit[Kind.CONCEPT] >= 4


@pytest.mark.statistical
def test_sizes_and_powers_on_streams_of_a_thousand_rows() -> None:
    found = _rejections(range(100, 150), n=1000, n_bootstraps=199)
    prior, fit = ({k: float(v[:, c].mean()) for k, v in found.items()} for c in (0, 1))
    # Of 50 true hypotheses, more than 4 are rejected at 5 % in 1 of 10 runs of other seeds.
    assert max(prior[Kind.NONE], fit[Kind.NONE], fit[Kind.PRIOR]) <= 0.09
    assert prior[Kind.PRIOR] >= 0.9
    assert fit[Kind.CONCEPT] >= 0.75


def _rejections(seeds: range, n: int, n_bootstraps: int) -> dict[Kind, np.ndarray]:
    """For each kind, whether prior and fit were rejected at 5 %, shape (seeds, 2)."""
    rejected = {}
    for kind in (Kind.NONE, Kind.PRIOR, Kind.CONCEPT):
        tests = [_streamed(kind, seed, n, n_bootstraps) for seed in seeds]
        rejected[kind] = np.array([(t.prior_p_value, t.fit_p_value) for t in tests]) <= 0.05
    return rejected


def test_the_prior_is_estimated_and_its_interval_covers_the_truth() -> None:
    covered, errors = 0, []
    for seed in range(100, 120):
        rng = np.random.default_rng(seed)
        reference, (recent, _) = _blobs(rng, 300, [0.5, 0.5]), _blobs(rng, 300, [0.2, 0.8])
        found = mixture_test(*reference, recent, n_classes=2, seed=seed, n_bootstraps=49)
        errors.append(abs(found.prior[1] - 0.8))
        covered += found.prior_low[1] <= 0.8 <= found.prior_high[1]
    assert covered >= 16  # nominal 19 of 20
    assert np.mean(errors) < 0.04


def test_four_classes_that_only_change_their_frequencies_fit() -> None:
    rng = np.random.default_rng(100)
    reference = _blobs(rng, 600, [0.25, 0.25, 0.25, 0.25])
    recent, _ = _blobs(rng, 600, [0.1, 0.2, 0.3, 0.4])
    found = mixture_test(*reference, recent, n_classes=4, seed=0, n_bootstraps=49)
    np.testing.assert_allclose(found.prior, [0.1, 0.2, 0.3, 0.4], atol=0.06)
    assert found.prior_p_value == 1 / 50
    assert found.fit_p_value > 0.05
    assert found.fit_effect < 0.1


def test_a_new_spread_does_not_fit_and_says_how_far_off() -> None:
    rng = np.random.default_rng(100)
    reference = _blobs(rng, 400, [0.5, 0.5])
    recent, _ = _blobs(rng, 400, [0.5, 0.5], spread=1.6)
    found = mixture_test(*reference, recent, n_classes=2, seed=0, n_bootstraps=19)
    assert found.fit_p_value <= 0.001
    assert found.fit_statistic > 5
    assert found.fit_effect > 0.2


def test_a_class_that_the_reference_hardly_has_is_left_open() -> None:
    rng = np.random.default_rng(100)
    rows, labels = _blobs(rng, 200, [0.5, 0.5])
    labels[:5] = 2
    recent, _ = _blobs(rng, 200, [0.5, 0.5])
    found = mixture_test(rows, labels, recent, n_classes=4, seed=0, n_bootstraps=19)
    assert found.n_reference == 195
    assert found.prior[2:].tolist() == [0.0, 0.0]
    assert found.prior_low[2:].tolist() == [0.0, 0.0]
    assert found.prior_high[2:].tolist() == [1.0, 1.0]
    assert found.prior.sum() == pytest.approx(1.0)


def test_classes_that_inputs_do_not_tell_have_wide_intervals() -> None:
    rng = np.random.default_rng(100)
    rows, recent = rng.normal(size=(2, 200, 2))
    labels = (rng.random(200) < 0.5).astype(np.int64)
    found = mixture_test(rows, labels, recent, n_classes=2, seed=0, n_bootstraps=49)
    assert found.prior_high[1] - found.prior_low[1] > 0.3
    assert found.prior_p_value > 0.05
    assert found.fit_p_value > 0.01


def test_ties_and_constant_columns_are_harmless() -> None:
    rng = np.random.default_rng(100)
    (rows, labels), (recent, _) = _blobs(rng, 300, [0.5, 0.5]), _blobs(rng, 300, [0.3, 0.7])
    rows, recent = (np.column_stack([np.round(v), np.ones(300)]) for v in (rows, recent))
    found = mixture_test(rows, labels, recent, n_classes=2, seed=0, n_bootstraps=19)
    assert found.fit_p_value > 0.01
    assert np.isfinite(found.fit_statistic)


def test_a_test_repeats_under_its_seed_and_leaves_its_inputs() -> None:
    rng = np.random.default_rng(100)
    (rows, labels), (recent, _) = _blobs(rng, 100, [0.5, 0.5]), _blobs(rng, 100, [0.5, 0.5])
    copies = rows.copy(), labels.copy(), recent.copy()
    a, b = (mixture_test(rows, labels, recent, n_classes=2, seed=3, n_bootstraps=9) for _ in "ab")
    assert (a.prior_p_value, a.fit_p_value, a.fit_statistic) == (
        b.prior_p_value,
        b.fit_p_value,
        b.fit_statistic,
    )
    np.testing.assert_array_equal(a.prior, b.prior)
    for part, copy in zip((rows, labels, recent), copies, strict=True):
        np.testing.assert_array_equal(part, copy)


def test_wrong_inputs_are_named() -> None:
    rows, labels = np.zeros((20, 2)), np.repeat([0, 1], 10)
    with pytest.raises(ValueError, match=r"windows must have shapes .* \(20, 2\), \(20, 1\)"):
        mixture_test(rows, labels, rows[:, :1], n_classes=2, seed=0)
    with pytest.raises(ValueError, match=r"every reference row needs a label, got shape \(19,\)"):
        mixture_test(rows, labels[:-1], rows, n_classes=2, seed=0)
    with pytest.raises(ValueError, match=r"labels must be in \[0, 2\), got -1"):
        mixture_test(rows, labels - 1, rows, n_classes=2, seed=0)
    with pytest.raises(ValueError, match=r"2 classes need 6 reference rows each, got .*\[20, 0\]"):
        mixture_test(rows, labels * 0, rows, n_classes=2, seed=0)
    with pytest.raises(ValueError, match="the recent window needs 6 rows, got 5"):
        mixture_test(rows, labels, rows[:5], n_classes=2, seed=0)
    with pytest.raises(ValueError, match=r"n_classes must be at least 2 .* got 1 and 199"):
        mixture_test(rows, labels, rows, n_classes=1, seed=0)
