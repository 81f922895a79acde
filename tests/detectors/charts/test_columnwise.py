"""Banks of River's ADWIN, Page-Hinkley and KSWIN alarm at the rows of River's, column by column."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.base import Array, Factor
from detectors.charts.adwin import Adwin
from detectors.charts.columnwise import Columnwise
from detectors.charts.kswin import Kswin, critical_distance
from detectors.charts.page_hinkley import PageHinkley
from detectors.rows import LARGEST

Bank = Callable[..., Columnwise]

LEVELS = st.sampled_from(
    [0.0, -0.0, 1.0, -1.0, 0.1, 7.3, 1e-300, 5e-324, 1e12, 1e12 + 1, 1e30, -1e30, 2.0**119]
)
SEGMENT = st.tuples(
    st.sampled_from(["constant", "normal", "rounded", "flags", "walk", "cauchy"]),
    st.integers(1, 300),
    LEVELS,
    st.sampled_from([0.0, 1e-160, 1.0, 5.0, 1e6, 1e30]),
)
STREAM = st.tuples(st.lists(SEGMENT, min_size=1, max_size=5), st.integers(0, 2**32 - 1))


def values_of(stream: tuple[list[tuple[str, int, float, float]], int]) -> Array:
    """Segments of their own shape, level and scale, one after the other."""
    segments, seed = stream
    rng = np.random.default_rng(seed)
    parts = []
    for shape, n, level, scale in segments:
        noise = {
            "constant": lambda n=n: np.zeros(n),
            "normal": lambda n=n: rng.normal(size=n),
            "rounded": lambda n=n: np.round(rng.normal(size=n)),
            "flags": lambda n=n: (rng.random(n) < 0.3).astype(np.float64),
            "walk": lambda n=n: np.cumsum(rng.normal(size=n)),
            "cauchy": lambda n=n: rng.standard_cauchy(n),
        }[shape]()
        parts.append(level + scale * noise)
    # What is larger counts as that: `detectors.rows.bounded`.
    return np.clip(np.concatenate(parts), -LARGEST, LARGEST)


def rows_of_river(detector: Any, values: Array) -> list[int]:
    rows = []
    for row, value in enumerate(values.tolist()):
        detector.update(value)
        if detector.drift_detected:
            rows.append(row)
    return rows


def rows_by_column(bank: Columnwise, rows: Array, cuts: Sequence[int] = ()) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in range(rows.shape[1])]
    for start, part in zip((0, *cuts), np.split(rows, cuts), strict=True):
        for alarm in bank.update(part):
            for column in alarm.columns:
                found[column].append(start + alarm.row)
    return found


@settings(max_examples=150, deadline=None)
@given(
    streams=st.lists(STREAM, min_size=1, max_size=2),
    delta=st.sampled_from([0.002, 0.05, 0.3, 0.9]),
    clock=st.sampled_from([1, 5, 32, 100]),
    max_buckets=st.sampled_from([2, 5, 9]),
    shortest=st.sampled_from([1, 5, 20]),
    grace=st.sampled_from([1, 10, 50]),
)
def test_adwin_cuts_where_river_does(
    streams: list[Any], delta: float, clock: int, max_buckets: int, shortest: int, grace: int
) -> None:
    from river.drift import ADWIN

    options = {
        "delta": delta,
        "clock": clock,
        "max_buckets": max_buckets,
        "min_window_length": shortest,
        "grace_period": grace,
    }
    columns = [values_of(s) for s in streams]
    n = min(len(c) for c in columns)
    rows = np.stack([c[:n] for c in columns], axis=1)
    expected = [rows_of_river(ADWIN(**options), rows[:, c]) for c in range(rows.shape[1])]
    bank = Adwin(rows.shape[1], factor=Factor.COVARIATE, **options)
    assert rows_by_column(bank, rows, (n // 3, n // 2)) == expected


@settings(max_examples=150, deadline=None)
@given(
    streams=st.lists(STREAM, min_size=1, max_size=2),
    min_instances=st.sampled_from([1, 5, 30]),
    delta=st.sampled_from([0.0, 0.005, 0.1, 1.0]),
    threshold=st.sampled_from([0.5, 5.0, 50.0]),
    alpha=st.sampled_from([1.0, 0.9999, 0.9]),
    mode=st.sampled_from(["up", "down", "both"]),
)
def test_page_hinkley_alarms_where_river_does(
    streams: list[Any],
    min_instances: int,
    delta: float,
    threshold: float,
    alpha: float,
    mode: Any,
) -> None:
    from river.drift import PageHinkley as Rivers

    options = {
        "min_instances": min_instances,
        "delta": delta,
        "threshold": threshold,
        "alpha": alpha,
        "mode": mode,
    }
    columns = [values_of(s) for s in streams]
    n = min(len(c) for c in columns)
    rows = np.stack([c[:n] for c in columns], axis=1)
    expected = [rows_of_river(Rivers(**options), rows[:, c]) for c in range(rows.shape[1])]
    bank = PageHinkley(rows.shape[1], factor=Factor.COVARIATE, **options)
    assert rows_by_column(bank, rows, (n // 3, n // 2)) == expected


@settings(max_examples=40, deadline=None)
@given(stream=STREAM, size=st.sampled_from([8, 10, 30]), alpha=st.sampled_from([0.05, 0.02, 0.005]))
def test_kswin_alarms_where_river_does_if_river_leaves_nothing_to_chance(
    stream: Any, size: int, alpha: float
) -> None:
    from river.drift import KSWIN

    values = values_of(stream)[:400]
    expected = rows_of_river(
        KSWIN(alpha=alpha, window_size=2 * size, stat_size=size, seed=1), values
    )
    bank = Kswin(1, alpha=alpha, window_size=2 * size, stat_size=size, factor=Factor.COVARIATE)
    assert rows_by_column(bank, values[:, None], (len(values) // 2,)) == [expected]


@settings(max_examples=40, deadline=None)
@given(stream=STREAM, n_old=st.integers(10, 50), n_new=st.integers(10, 30))
def test_kswin_measures_the_distance_of_all_older_values(
    stream: Any, n_old: int, n_new: int
) -> None:
    """Beside scipy's test of the same two parts, at every row up to the first alarm."""
    from scipy.stats import ks_2samp

    values = values_of(stream)[:150]
    window, alpha = n_old + n_new, 1e-4
    limit = critical_distance(n_old, n_new, alpha) / (n_old * n_new)
    bank = Kswin(1, alpha=alpha, window_size=window, stat_size=n_new, factor=Factor.COVARIATE)
    for row, value in enumerate(values):
        alarms = bank.update(np.array([[value]]))
        if row + 1 < window:
            assert not alarms
            continue
        part = values[row + 1 - window : row + 1]
        found = ks_2samp(part[:n_old], part[n_old:], method="exact")
        if alarms:
            assert found.pvalue <= alpha
            assert alarms[0].statistic == pytest.approx(found.statistic, abs=1e-12)
            break
        assert bank.statistic * limit == pytest.approx(found.statistic, abs=1e-12)


BANKS: dict[str, Bank] = {
    "adwin": lambda k: Adwin(k, delta=0.3, clock=8, factor=Factor.COVARIATE),
    "page_hinkley": lambda k: PageHinkley(k, threshold=5.0, factor=Factor.COVARIATE),
    "kswin": lambda k: Kswin(k, window_size=40, stat_size=12, factor=Factor.COVARIATE),
}
each = pytest.mark.parametrize("make", BANKS.values(), ids=BANKS.keys())


@each
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(0, 500), max_size=6))
def test_a_missing_value_is_as_if_it_had_not_been(make: Bank, seed: int, cuts: list[int]) -> None:
    """Each column goes on with the values it has, whatever the others lack."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(500, 3))
    rows[250:] += rng.normal(size=3) * 2
    holes = rng.random(rows.shape) < 0.2
    rows[holes] = rng.choice([np.nan, np.inf, -np.inf], holes.sum())
    found = rows_by_column(make(3), rows, sorted(cuts))
    for column in range(3):
        seen = np.flatnonzero(~holes[:, column])
        (alone,) = rows_by_column(make(1), rows[seen, column][:, None])
        assert found[column] == seen[alone].tolist()


@each
@pytest.mark.parametrize("at", [0, 3, 130, 333])
def test_a_snapshot_goes_on_to_the_last_bit(make: Bank, at: int) -> None:
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(600, 2))
    rows[300:] += 1.5
    first = make(2)
    first.update(rows[:at])
    second = make(2)
    second.restore(first.snapshot())
    assert second.statistic == first.statistic
    assert list(first.update(rows[at:])) == list(second.update(rows[at:]))
    assert second.statistic == first.statistic


@each
def test_a_snapshot_of_other_columns_is_refused(make: Bank) -> None:
    with pytest.raises(ValueError, match=r"snapshot has"):
        make(2).restore(make(3).snapshot())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Adwin(0, factor=Factor.PRIOR), "n_columns must be at least 1, got 0"),
        (lambda: Adwin(1, delta=1.0, factor=Factor.PRIOR), r"delta must be in \(0, 1\), got 1.0"),
        (lambda: Adwin(1, clock=0, factor=Factor.PRIOR), "clock must be at least 1, got 0"),
        (
            lambda: Adwin(1, max_buckets=1, factor=Factor.PRIOR),
            "max_buckets must be at least 2, got 1",
        ),
        (
            lambda: PageHinkley(1, threshold=0.0, factor=Factor.PRIOR),
            "threshold must be",
        ),
        (lambda: PageHinkley(1, alpha=0.0, factor=Factor.PRIOR), "alpha must be"),
        (
            lambda: Kswin(1, window_size=30, stat_size=30, factor=Factor.PRIOR),
            "stat_size must be positive and below window_size, got 30, 30",
        ),
        (lambda: Kswin(1, alpha=0.2, factor=Factor.PRIOR), r"alpha must be in \(0, 0.1\], got 0.2"),
        (
            lambda: Kswin(1, window_size=6, stat_size=2, alpha=0.001, factor=Factor.PRIOR),
            "samples of 4 and 2 values never differ at level 0.001",
        ),
    ],
)
def test_impossible_parameters_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
