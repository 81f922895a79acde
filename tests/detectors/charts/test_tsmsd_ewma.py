from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import f as f_distribution

from detectors.base import Factor
from detectors.charts.msd_ewma import MsdEwma
from detectors.charts.tsmsd_ewma import TsmsdEwma
from tests.detectors.charts.test_msd_ewma import correlated, fitted


def test_fresh_rows_are_confirmed_at_the_level_of_the_test_and_shifts_are() -> None:
    n_tested = n_false = n_found = 0
    for seed in range(100, 140):
        quiet = TsmsdEwma(fitted(seed, 200), n_reference=200)
        n_false += len(quiet.update(correlated(seed, 1500)))
        n_tested += quiet.n_tested
        rows = correlated(seed, 60)
        rows[20:] += 1.0
        detector = TsmsdEwma(fitted(seed, 200), n_reference=200)
        n_found += any(a.row >= 20 for a in detector.update(rows))
    assert n_tested > 400
    assert 0.025 < n_false / n_tested < 0.08
    assert n_found == 40


def test_the_published_comparison_misses_a_part_of_the_shifts() -> None:
    n_found = 0
    for seed in range(100, 140):
        rows = correlated(seed, 200)
        rows[100:] += 1.0
        detector = TsmsdEwma(fitted(seed, 200), n_reference=200, rows=25, compare="before")
        n_found += any(100 <= a.row < 140 for a in detector.update(rows))
    assert 20 <= n_found <= 38


def test_hotelling_is_the_textbook_test() -> None:
    sample, fresh = correlated(5, 60, 3), correlated(6, 12, 3)
    chart = MsdEwma.fit(sample, limit=1e-9, factor=Factor.COVARIATE)
    detector = TsmsdEwma(chart, n_reference=60, rows=12, alpha=0.999999)
    alarm = detector.update(np.r_[sample[:1] + 9, fresh])[0]
    gap = fresh.mean(axis=0) - sample.mean(axis=0)
    pooled = (59 * np.cov(sample, rowvar=False) + 11 * np.cov(fresh, rowvar=False)) / 70
    t2 = 60 * 12 / 72 * gap @ np.linalg.solve(pooled, gap)
    assert alarm.statistic == pytest.approx(t2 * (72 - 3 - 1) / (3 * 70))
    assert alarm.threshold == pytest.approx(f_distribution.isf(0.999999, 3, 68))
    assert alarm.row == 12


def test_this_stream_alarms_here() -> None:
    rows = correlated(8, 200)
    rows[120:, 4] += 2.5
    alarm = TsmsdEwma(fitted(8, 400), n_reference=400).update(rows)[0]
    assert (alarm.row, alarm.columns) == (136, (4,))


def test_too_few_rows_for_the_components_are_refused() -> None:
    chart = fitted(0, 100)
    with pytest.raises(ValueError, match="5 and 5 rows are too few to compare 10 components"):
        TsmsdEwma(chart, n_reference=100, rows=5, compare="before")
