from __future__ import annotations

import numpy as np
import pytest

from detectors.base import Array, Factor
from detectors.charts.sd_ewma import SdEwma

SEEDS = range(100, 150)


def chart(seed: int, width: float, k: int = 1) -> SdEwma:
    sample = np.random.default_rng([seed, 1]).normal(size=(500, k))
    return SdEwma.fit(sample, width=width, factor=Factor.COVARIATE)


def shifted(seed: int, shift: float, n: int = 900) -> Array:
    rows = np.random.default_rng(seed).normal(size=(n, 1))
    rows[500:] += shift
    return rows


def test_the_recursion_is_the_published_one() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=50)
    z, s2 = 0.3, 1.2
    expected = []
    for value in x:
        error = value - z
        expected.append(abs(error) / np.sqrt(s2))
        s2 = 0.05 * error**2 + 0.95 * s2
        z = 0.4 * value + 0.6 * z
    detector = SdEwma([0.3], [1.2], [0.4], smoothing=0.05, factor=Factor.COVARIATE)
    np.testing.assert_allclose(detector.errors(x[:, None])[:, 0], expected)


def test_the_weight_is_the_one_with_the_smallest_one_step_error() -> None:
    rng = np.random.default_rng(1)
    wandering = np.cumsum(rng.normal(size=400))
    rows = np.c_[rng.normal(size=400), wandering, wandering + 3 * rng.normal(size=400)]
    quiet, walk, noisy_walk = SdEwma.fit(rows, factor=Factor.COVARIATE).weights
    assert quiet <= 0.03
    assert walk >= 0.9
    assert 0.1 < noisy_walk < 0.6


def test_false_alarms_come_as_often_as_documented() -> None:
    # 20 rows between alarms of L = 1.96 and about 330 of L = 3
    for width, low, high in ((1.96, 18, 21), (3.0, 280, 390)):
        n_alarms = sum(
            len(chart(s, width).update(np.random.default_rng(s).normal(size=(4000, 1))))
            for s in SEEDS
        )
        assert low < len(SEEDS) * 4000 / n_alarms < high


def test_with_wide_limits_few_alarms_come_soon_after_a_shift() -> None:
    # documented: 28 % within 20 rows of a shift by one standard deviation
    soon = [
        any(500 <= a.row < 520 for a in chart(seed, 3.0).update(shifted(seed, 1.0)))
        for seed in range(100, 300)
    ]
    assert 0.2 < np.mean(soon) < 0.37


def test_a_sensor_that_repeats_a_value_does_not_break_the_limits() -> None:
    detector = chart(4, 3.0)
    assert not detector.update(np.full((200_000, 1), 0.1))[1:]
    alarm = detector.update(np.array([[1.0]]))[0]
    assert np.isfinite(alarm.statistic)


def test_a_constant_column_has_its_own_unit_as_scale() -> None:
    detector = SdEwma.fit(np.full((50, 1), 7.0), factor=Factor.COVARIATE)
    assert not detector.update(np.full((20, 1), 9.9))
    assert detector.update(np.full((1, 1), 20.0))


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"weight must be in \(0, 1\], got \[0.0\]"):
        SdEwma([0.0], [1.0], [0.0], factor=Factor.COVARIATE)
    with pytest.raises(ValueError, match="n at least 2, got shape"):
        SdEwma.fit(np.zeros((1, 2)), factor=Factor.COVARIATE)
