from __future__ import annotations

import numpy as np
import pytest

from detectors.base import Array, Factor
from detectors.charts.mewma_limit import mewma_limit
from detectors.charts.msd_ewma import MsdEwma


def correlated(seed: int, n: int, d: int = 10) -> Array:
    rng = np.random.default_rng(seed)
    rows: Array = np.sqrt(0.3) * rng.normal(size=(n, 1)) + np.sqrt(0.15) * rng.normal(size=(n, d))
    return rows


def fitted(seed: int, n: int, d: int = 10) -> MsdEwma:
    return MsdEwma.fit(correlated(seed + 10_000, n, d), limit=22.67, factor=Factor.COVARIATE)


def test_the_statistic_is_the_textbook_one() -> None:
    rows = correlated(0, 40, 3)
    covariance = np.cov(correlated(1, 300, 3), rowvar=False)
    mean = np.array([0.1, -0.2, 0.3])
    chart = MsdEwma(mean, covariance, limit=1e9, factor=Factor.COVARIATE)
    chart.update(rows)
    z = np.zeros(3)
    for row in rows:
        z = 0.1 * (row - mean) + 0.9 * z
    spread = 0.1 / 1.9 * (1 - 0.9**80)
    assert chart.statistic == pytest.approx(z @ np.linalg.solve(covariance, z) / spread)


def test_a_chart_with_known_moments_keeps_its_run_length() -> None:
    rng = np.random.default_rng(100)
    chart = MsdEwma(np.zeros(4), np.eye(4), limit=mewma_limit(4), factor=Factor.COVARIATE)
    at_rest = chart.snapshot()
    rows = rng.normal(size=(80_000, 4))
    runs, start = [], 0
    while (row := chart.advance(rows, start)) < len(rows):
        runs.append(row + 1 - start)
        start = row + 1
        chart.restore(at_rest)
    # The tables count runs of a chart without the wider limits of its first rows: a tenth longer.
    assert 165 < np.mean(runs) < 225


def test_estimated_moments_shorten_the_run_length_as_documented() -> None:
    for n, expected in ((100, 41), (500, 133)):
        n_runs = 0
        for seed in range(100, 130):
            chart = fitted(seed, n)
            at_rest = chart.snapshot()
            rows, start = correlated(seed, 2000), 0
            while (row := chart.advance(rows, start)) < len(rows):
                n_runs += 1
                start = row + 1
                chart.restore(at_rest)
        assert 0.75 < 30 * 2000 / n_runs / expected < 1.33


def test_a_direction_without_variance_is_not_watched() -> None:
    rows = correlated(7, 300, 3)
    doubled = np.c_[rows, rows[:, 0], np.full(300, 4.0)]
    chart = MsdEwma.fit(doubled, factor=Factor.COVARIATE)
    assert chart.n_watched == 3
    assert MsdEwma.fit(doubled, n_components=2, factor=Factor.COVARIATE).n_watched == 2


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="n_components must be from 1 to 10 columns, got 11"):
        MsdEwma(np.zeros(10), np.eye(10), limit=9.0, n_components=11, factor=Factor.COVARIATE)
    with pytest.raises(ValueError, match="limit must be positive, got -1"):
        MsdEwma(np.zeros(1), np.eye(1), limit=-1, factor=Factor.COVARIATE)
