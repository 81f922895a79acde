from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from detectors.base import Array, Factor
from detectors.charts.calibration import Calibration, calibrate_cusum
from detectors.charts.cusum import SLACKS, CusumBank
from detectors.learners.dependence import dependence_length

ARL0 = 2000


def normal(rng: np.random.Generator, n: int, k: int) -> Array:
    return rng.normal(size=(n, k))


def autoregression(rng: np.random.Generator, n: int, k: int) -> Array:
    noise = rng.normal(size=(n + 100, k))
    return np.asarray(lfilter([1.0], [1.0, -0.8], noise, axis=0)[100:], dtype=np.float64)


def heavy(rng: np.random.Generator, n: int, k: int) -> Array:
    return rng.standard_t(3, size=(n, k))


def ties(rng: np.random.Generator, n: int, k: int) -> Array:
    return rng.poisson(1.5, size=(n, k)).astype(np.float64)


def one_cause(rng: np.random.Generator, n: int, k: int) -> Array:
    return rng.normal(size=(n, 1)) + 0.1 * rng.normal(size=(n, k))


def holes(rng: np.random.Generator, n: int, k: int) -> Array:
    return np.where(rng.random((n, k)) < 0.3, np.nan, rng.normal(size=(n, k)))


def bank_of(c: Calibration) -> CusumBank:
    return CusumBank(c.mean, c.scale, c.thresholds, factor=Factor.COVARIATE)


@pytest.mark.parametrize("draw", [normal, autoregression, heavy, ties, one_cause, holes])
def test_the_promised_run_length_holds_on_fresh_rows(draw: object) -> None:
    # 20 references, 200 alarms promised: chance and the references' own errors give about 15 %
    n_alarms = 0
    for seed in range(100, 120):
        rng = np.random.default_rng(seed)
        calibration = calibrate_cusum(draw(rng, 1000, 5), arl0=ARL0, seed=seed)  # type: ignore[operator]
        n_alarms += len(bank_of(calibration).update(draw(rng, 10 * ARL0, 5)))  # type: ignore[operator]
    assert 0.7 < 200 / n_alarms < 1.5


def test_a_longer_promise_and_more_columns_raise_the_thresholds() -> None:
    rows = np.random.default_rng(0).normal(size=(1000, 20))
    few = calibrate_cusum(rows[:, :2], arl0=1000, seed=0)
    many = calibrate_cusum(rows, arl0=1000, seed=0)
    longer = calibrate_cusum(rows[:, :2], arl0=8000, seed=0)
    for j in range(len(SLACKS)):
        assert few.thresholds[j] < many.thresholds[j]
        assert few.thresholds[j] < longer.thresholds[j]


def test_each_slack_gets_an_equal_share_of_the_false_alarms() -> None:
    rng = np.random.default_rng(1)
    first = [0, 0]
    for seed in range(8):
        c = calibrate_cusum(rng.normal(size=(1000, 3)), arl0=500, seed=seed)
        for alarm in bank_of(c).update(rng.normal(size=(20_000, 3))):
            first[c.thresholds.index(alarm.threshold)] += 1
    assert 0.5 < first[0] / first[1] < 2.0


def test_independent_rows_need_no_blocks_and_slow_waves_need_long_ones() -> None:
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(2000, 4))
    wave = noise + 2 * np.sin(np.arange(2000) / 15)[:, None]
    assert calibrate_cusum(noise, arl0=100, seed=0).block_length == 1
    assert calibrate_cusum(wave, arl0=100, seed=0).block_length > 50


def test_calm_and_wild_times_need_long_blocks_too() -> None:
    rng = np.random.default_rng(6)
    wander = np.asarray(lfilter([0.2], [1.0, -0.97], rng.normal(size=(2000, 1)), axis=0))
    spread = np.exp(wander / 2)
    assert calibrate_cusum(spread * rng.normal(size=(2000, 1)), arl0=100, seed=0).block_length > 10


def test_the_same_seed_gives_the_same_thresholds() -> None:
    rows = np.random.default_rng(3).normal(size=(300, 3))
    first, again, other = (calibrate_cusum(rows, arl0=300, seed=s).thresholds for s in (1, 1, 2))
    assert first == again != other


def test_a_constant_column_is_silent_until_it_moves() -> None:
    rng = np.random.default_rng(4)
    rows = np.c_[rng.normal(size=500), np.full(500, 0.1), np.full(500, np.nan)]
    c = calibrate_cusum(rows, arl0=1000, seed=0)
    assert c.scale[1:].tolist() == [1.0, 1.0]
    alone = calibrate_cusum(rows[:, :1], arl0=1000, seed=0)
    assert c.thresholds == pytest.approx(alone.thresholds)
    detector = bank_of(c)
    still = np.tile([c.mean[0], 0.1, np.nan], (1000, 1))
    assert detector.update(still) == []
    moved = still.copy()
    moved[:, 1] = 1.1
    assert detector.update(moved)[0].columns == (1,)


def test_a_reference_where_nothing_varies_still_gives_thresholds() -> None:
    c = calibrate_cusum(np.ones((200, 2)), arl0=1000, seed=0)
    assert all(5 < limit < 100 for limit in c.thresholds)


def test_the_reference_is_not_changed() -> None:
    rows = np.random.default_rng(5).normal(size=(100, 2))
    rows[3, 1] = np.nan
    before = rows.copy()
    calibrate_cusum(rows, arl0=100, seed=0)
    np.testing.assert_equal(rows, before)


@pytest.mark.parametrize(
    ("shape", "arl0", "message"),
    [
        ((49, 2), 100.0, r"got shape \(49, 2\)"),
        ((100,), 100.0, r"got shape \(100,\)"),
        ((100, 2), 9.0, "arl0 must be finite and at least 10 rows, got 9"),
        ((100, 2), np.inf, "arl0 must be finite"),
    ],
)
def test_impossible_requests_are_refused(shape: tuple[int, ...], arl0: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        calibrate_cusum(np.zeros(shape), arl0=arl0, seed=0)


def test_rows_that_alternate_need_no_blocks_and_rows_that_persist_do() -> None:
    rng = np.random.default_rng(100)
    noise = rng.normal(size=(2000, 2))
    alternating = noise + np.where(np.arange(2000) % 2, 1.0, -1.0)[:, None]
    persistent = np.zeros((2000, 2))
    for t in range(1, 2000):
        persistent[t] = 0.8 * persistent[t - 1] + noise[t]
    assert dependence_length(noise) == 1
    assert dependence_length(alternating) == 1
    assert 20 <= dependence_length(persistent) <= 125
