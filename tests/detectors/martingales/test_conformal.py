from __future__ import annotations

import numpy as np
import pytest

from detectors.base import Array, Factor
from detectors.martingales.conformal import ConformalShiryaevRoberts

ARL0 = 300
HORIZON = 30 * ARL0
SEEDS = range(100, 300)


def learn(reference: Array, *, arl0: float = ARL0, seed: int = 0) -> ConformalShiryaevRoberts:
    return ConformalShiryaevRoberts.learn(reference, arl0=arl0, factor=Factor.COVARIATE, seed=seed)


def at_least_promised(first: list[int]) -> bool:
    """Within two standard errors; runs are cut at the horizon, which makes them shorter."""
    return bool(np.mean(first) + 2 * np.std(first) / np.sqrt(len(first)) >= ARL0)


@pytest.mark.parametrize("n_reference", [8, 60, 600])
@pytest.mark.parametrize("kind", ["normal", "heavy", "ties"])
def test_the_mean_run_length_is_at_least_the_promise_for_any_calibration_size(
    n_reference: int, kind: str
) -> None:
    first = []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        n = n_reference + HORIZON
        rows = {
            "normal": rng.normal(size=(n, 1)),
            "heavy": rng.standard_cauchy(size=(n, 1)),
            "ties": rng.integers(0, 4, size=(n, 1)).astype(np.float64),
        }[kind]
        alarms = learn(rows[:n_reference], seed=seed).update(rows[n_reference:])
        first.append(alarms[0].row + 1 if alarms else HORIZON)
    assert at_least_promised(first)
    assert np.mean(first) < 2 * ARL0  # the promise of one column is not far from what is kept


def test_the_promise_holds_for_columns_that_depend_on_each_other() -> None:
    for k, share in ((3, 0.0), (3, 0.9)):
        first = []
        for seed in range(100, 200):
            rng = np.random.default_rng(seed)
            rows = share * rng.normal(size=(60 + HORIZON, 1)) + rng.normal(size=(60 + HORIZON, k))
            alarms = learn(rows[:60], seed=seed).update(rows[60:])
            first.append(alarms[0].row + 1 if alarms else HORIZON)
        assert at_least_promised(first)


def test_a_shift_is_found_as_soon_as_documented() -> None:
    for shift, slowest in ((0.5, 90), (1.0, 35)):
        delays = []
        for seed in range(100, 150):
            rng = np.random.default_rng(seed)
            rows = rng.normal(size=(900, 1))
            rows[500:] += shift
            alarms = learn(rng.normal(size=(1000, 1)), arl0=1e4, seed=seed).update(rows)
            delays.append(next((a.row - 499 for a in alarms if a.row >= 500), 400))
        assert np.median(delays) < slowest


def test_a_wider_spread_is_found_too() -> None:
    rng = np.random.default_rng(100)
    alarms = learn(rng.normal(size=(1000, 1)), arl0=1e4).update(2.0 * rng.normal(size=(300, 1)))
    assert alarms


def test_the_alarm_names_the_column_that_moved() -> None:
    rng = np.random.default_rng(101)
    rows = rng.normal(size=(800, 4))
    rows[500:, 2] += 1.5
    alarm = learn(rng.normal(size=(1000, 4)), arl0=1e5).update(rows)[0]
    assert alarm.columns == (2,)
    assert 500 <= alarm.row < 540


def test_this_stream_alarms_here() -> None:
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(400, 2))
    rows[200:, 0] -= 1.0
    alarm = learn(rng.normal(size=(500, 2)), arl0=1e4, seed=3).update(rows)[0]
    assert (alarm.row, alarm.run_length, alarm.columns) == (239, 36, (0,))


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="n at least 8, got shape"):
        learn(np.zeros((7, 1)))
    with pytest.raises(ValueError, match="arl0 must be finite and above 1, got 1"):
        learn(np.zeros((8, 1)), arl0=1)
