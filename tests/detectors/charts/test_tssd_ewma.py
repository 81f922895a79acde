from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import ks_2samp

from detectors.charts.tssd_ewma import TssdEwma, _gap, _ks_tail
from tests.detectors.charts.test_sd_ewma import SEEDS, chart, shifted


def test_stage_2_confirms_as_few_true_alarms_as_documented() -> None:
    confirmed = []
    for seed in range(100, 200):
        detector = TssdEwma(chart(seed, 1.96), rows=30)
        rows = shifted(seed, 0.5)
        outside = detector.chart.errors(rows)[:, 0] > 1.96
        first = 500 + int(np.argmax(outside[500:]))
        before, after = rows[first - 29 : first + 1, 0], rows[first + 1 : first + 31, 0]
        confirmed.append(_gap(before.copy(), after.copy()) >= detector._needed)
    assert 0.06 < np.mean(confirmed) < 0.28


def test_stage_2_confirms_less_than_its_level_of_the_false_alarms() -> None:
    n_tested = n_confirmed = 0
    for seed in SEEDS:
        detector = TssdEwma(chart(seed, 1.96), rows=30)
        n_confirmed += len(detector.update(np.random.default_rng(seed).normal(size=(4000, 1))))
        n_tested += detector.n_tested
    assert n_tested > 3000
    assert 0.02 < n_confirmed / n_tested < 0.05


def test_the_gap_and_its_limit_are_those_of_the_kolmogorov_smirnov_test() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        a, b = rng.integers(0, 6, size=(2, 12)).astype(np.float64)  # with ties
        assert _gap(a, b) / 12 == pytest.approx(ks_2samp(a, b).statistic)
    a, b = rng.normal(size=(2, 8))
    expected = ks_2samp(a, b, method="exact").pvalue
    assert _ks_tail(8, _gap(a, b)) == pytest.approx(expected)


def test_the_tail_counts_orderings() -> None:
    orders = set(permutations([1, 1, 1, -1, -1, -1]))
    reach = [max(abs(np.cumsum(order))) for order in orders]
    for height in (1, 2, 3):
        assert _ks_tail(3, height) == pytest.approx(np.mean([r >= height for r in reach]))


def test_columns_are_tested_apart_and_named() -> None:
    rows = np.random.default_rng(3).normal(size=(300, 3))
    rows[150:, 2] += 5.0
    alarms = TssdEwma(chart(3, 3.0, k=3), rows=12).update(rows)
    assert [(a.row, a.run_length, a.columns) for a in alarms] == [(162, 13, (2,))]


def test_sides_too_small_for_the_level_are_refused() -> None:
    with pytest.raises(ValueError, match=r"rows=3 on each side cannot differ at alpha=0\.05"):
        TssdEwma(chart(0, 3.0), rows=3)
