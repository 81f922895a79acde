from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.signal import lfilter

from detectors.base import Array
from detectors.charts.newma import Newma, forgetting_weights
from detectors.learners.mmd import FourierFeatures

ARL0 = 2000
Draw = Callable[[np.random.Generator, int], Array]


def normal(rng: np.random.Generator, n: int) -> Array:
    return rng.normal(size=(n, 4))


def heavy(rng: np.random.Generator, n: int) -> Array:
    return rng.standard_t(3, size=(n, 4))


def ties(rng: np.random.Generator, n: int) -> Array:
    return rng.poisson(1.5, size=(n, 4)).astype(np.float64)


def autoregression(rng: np.random.Generator, n: int) -> Array:
    noise = rng.normal(size=(n + 100, 4))
    return np.asarray(lfilter([1.0], [1.0, -0.5], noise, axis=0)[100:], dtype=np.float64)


@pytest.mark.parametrize("draw", [normal, heavy, ties, autoregression])
def test_the_promised_run_length_holds_on_fresh_rows(draw: Draw) -> None:
    # 20 references, 200 alarms promised
    n_alarms = 0
    for seed in range(100, 120):
        rng = np.random.default_rng(seed)
        detector = Newma.learn(draw(rng, 1000), arl0=ARL0, n_features=100, seed=seed)
        n_alarms += len(detector.update(draw(rng, 10 * ARL0)))
    assert 0.7 < 200 / n_alarms < 3


def test_the_joint_distribution_is_seen_where_no_column_moves() -> None:
    delays = []
    for seed in range(100, 112):
        rng = np.random.default_rng(seed)
        detector = Newma.learn(rng.normal(size=(1000, 2)), arl0=5000, n_features=100, seed=seed)
        rows = rng.normal(size=(1500, 2))
        rows[500:, 1] = 0.3 * rows[500:, 1] + np.sqrt(0.91) * rows[500:, 0]
        alarms = [a for a in detector.update(rows) if a.row >= 500]
        delays.append(alarms[0].row - 499)
    assert np.median(delays) < 130


def test_the_run_length_of_an_alarm_is_near_the_change() -> None:
    found = []
    for seed in range(100, 112):
        rng = np.random.default_rng(seed)
        detector = Newma.learn(rng.normal(size=(1000, 3)), arl0=5000, n_features=100, seed=seed)
        rows = rng.normal(size=(1300, 3))
        rows[1000:] += 0.7
        alarm = next(a for a in detector.update(rows) if a.row >= 1000)
        found.append(alarm.row + 1 - alarm.run_length - 1000)
    assert abs(np.median(found)) < 40


def test_a_row_as_old_as_the_window_weighs_the_same_in_both_averages() -> None:
    for window in (20, 250, 2000):
        fast, slow = forgetting_weights(window)
        assert 0 < slow < 1 / (window + 1) < fast < 1
        assert fast * (1 - fast) ** window == pytest.approx(slow * (1 - slow) ** window)


def test_the_statistic_is_the_distance_of_the_averages() -> None:
    rng = np.random.default_rng(0)
    features = FourierFeatures.draw(3, bandwidth=2.0, n_features=50, seed=0)
    rows = rng.normal(2.0, 3.0, size=(40, 3))
    start = np.zeros(50)
    detector = Newma(np.full(3, 2.0), np.full(3, 3.0), features, start, threshold=9.0, window=20)
    detector.update(rows)
    fast, slow = forgetting_weights(20)
    quick, steady = start, start
    for psi in features((rows - 2.0) / 3.0):
        quick, steady = quick + fast * (psi - quick), steady + slow * (psi - steady)
    assert detector.statistic == pytest.approx(np.linalg.norm(quick - steady))


def test_a_wild_row_is_bounded_and_poisons_nothing() -> None:
    rng = np.random.default_rng(1)
    detector = Newma.learn(rng.normal(size=(300, 2)), arl0=1000, n_features=50, seed=0)
    assert not detector.update(np.array([[1e308, -1e308]]))
    assert np.isfinite(detector.statistic)


def test_this_stream_alarms_here() -> None:
    rng = np.random.default_rng(2)
    detector = Newma.learn(rng.normal(size=(500, 3)), arl0=2000, n_features=100, seed=0)
    rows = rng.normal(size=(500, 3))
    rows[300:] *= 1.6
    alarm = detector.update(rows)[0]
    assert (alarm.row, alarm.run_length) == (344, 33)


def test_impossible_settings_are_refused() -> None:
    rows = np.zeros((49, 2))
    with pytest.raises(ValueError, match=r"50 rows without a missing value, got shape \(49, 2\)"):
        Newma.learn(rows, arl0=100, seed=0)
    with pytest.raises(ValueError, match="at least 10 rows, got 3"):
        Newma.learn(np.zeros((60, 2)), arl0=3, seed=0)
    with pytest.raises(ValueError, match="window must be at least 2 rows, got 1"):
        forgetting_weights(1)
