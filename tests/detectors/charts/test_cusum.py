from __future__ import annotations

import numpy as np
import pytest

from detectors.base import Array, Factor
from detectors.charts.cusum import SLACKS, CusumBank
from detectors.learners.moments import CLIP


def bank(k: int = 1, thresholds: tuple[float, ...] = (20.0, 8.0)) -> CusumBank:
    return CusumBank(np.zeros(k), np.ones(k), thresholds, factor=Factor.COVARIATE)


def column(*values: float) -> Array:
    return np.array(values, dtype=np.float64)[:, None]


def by_hand(rows: Array, thresholds: tuple[float, ...]) -> list[tuple[int, int]]:
    """Page's recursion written out, sum by sum; alarms as (row, run length)."""
    keys = [(c, j, sign) for c in range(rows.shape[1]) for j in (0, 1) for sign in (1, -1)]
    sums, zero_at = dict.fromkeys(keys, 0.0), dict.fromkeys(keys, -1)
    found = []
    for i, row in enumerate(rows):
        over = []
        for c, j, sign in keys:
            key = (c, j, sign)
            if np.isfinite(row[c]):
                z = sign * float(np.clip(row[c], -CLIP, CLIP))
                sums[key] = max(0.0, sums[key] + z - SLACKS[j])
            if sums[key] == 0.0:
                zero_at[key] = i
            if sums[key] > thresholds[j]:
                over.append((sums[key] / thresholds[j], i - zero_at[key]))
        if over:
            found.append((i, max(over)[1]))
            sums, zero_at = dict.fromkeys(keys, 0.0), dict.fromkeys(keys, i)
    return found


def test_the_seeded_stream_alarms_exactly_here() -> None:
    rng = np.random.default_rng(11)
    rows = rng.normal(size=(600, 3))
    rows[300:, 2] -= 0.8
    alarms = bank(3, (40.0, 14.0)).update(rows)
    assert [(a.row, a.run_length, a.columns) for a in alarms][:2] == [
        (328, 28, (2,)),
        (359, 23, (2,)),
    ]


def test_it_follows_pages_recursion() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(500, 4)) + np.where(np.arange(500) < 250, 0, 0.5)[:, None]
    rows[rng.random(rows.shape) < 0.1] = np.nan
    expected = by_hand(rows, (20.0, 8.0))
    assert len(expected) > 5
    assert [(a.row, a.run_length) for a in bank(4).update(rows)] == expected


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_both_directions_alarm_alike(sign: float) -> None:
    (alarm,) = bank(thresholds=(np.inf, 8.0)).update(column(*[sign] * 13))
    assert alarm.row == 12  # 13 rows of 1 - 0.35 are the first above 8
    assert alarm.run_length == 13
    assert alarm.statistic == pytest.approx(13 * 0.65)
    assert alarm.threshold == 8.0


def test_the_run_length_counts_from_the_last_zero() -> None:
    (alarm,) = bank(thresholds=(np.inf, 8.0)).update(column(*[1.0] * 3, *[-4.0], *[1.0] * 13))
    assert (alarm.row, alarm.run_length) == (16, 13)


def test_rows_where_nothing_was_seen_keep_the_sums_and_count_as_time() -> None:
    (alarm,) = bank(thresholds=(np.inf, 8.0)).update(column(*[1.0] * 5, *[np.nan] * 7, *[1.0] * 8))
    assert (alarm.row, alarm.run_length) == (19, 20)
    assert alarm.statistic == pytest.approx(13 * 0.65)


def test_one_wild_row_is_no_alarm() -> None:
    assert bank().update(column(1e9, *[0.0] * 50)) == []


def test_a_row_raises_one_alarm_naming_every_column_over_its_threshold_strongest_first() -> None:
    rows = np.tile([0.0, 1.0, 2.0, -2.5], (4, 1)) * 1.0
    (alarm,) = bank(4, (np.inf, 3.0)).update(np.vstack([rows[:1], rows[:1]]))
    assert alarm.columns == (3, 2)
    assert alarm.statistic == pytest.approx(2 * (2.5 - 0.35))


def test_every_sum_starts_again_after_an_alarm() -> None:
    detector = bank(2, (np.inf, 8.0))
    first, second = detector.update(np.tile([1.0, 0.6], (26, 1)))
    assert (first.row, second.row) == (12, 25)
    assert second.run_length == 13
    assert detector.statistics.tolist() == [0.0, 0.0]


def test_statistics_say_how_near_each_column_is() -> None:
    detector = bank(2, (np.inf, 8.0))
    detector.update(np.tile([1.0, 0.0], (5, 1)))
    assert detector.statistics == pytest.approx([5 * 0.65 / 8, 0.0])


def test_scores_are_standardised() -> None:
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(800, 2)) + np.where(np.arange(800) < 500, 0, 1)[:, None]
    mean, scale = np.array([3.0, -1.0]), np.array([10.0, 0.01])
    scaled = CusumBank(mean, scale, (40.0, 12.0), factor=Factor.COVARIATE)
    plain = bank(2, (40.0, 12.0))
    found = [alarm.row for alarm in scaled.update(rows * scale + mean)]
    assert found == [alarm.row for alarm in plain.update(rows)]


@pytest.mark.parametrize(
    ("mean", "scale", "thresholds", "slacks", "message"),
    [
        ([0.0, 0.0], [1.0], [1.0, 1.0], [0.1, 0.3], "one length"),
        ([np.nan], [1.0], [1.0, 1.0], [0.1, 0.3], "mean must be finite"),
        ([0.0], [0.0], [1.0, 1.0], [0.1, 0.3], "scale must be finite and positive"),
        ([0.0], [np.inf], [1.0, 1.0], [0.1, 0.3], "scale must be finite and positive"),
        ([0.0], [1.0], [1.0], [0.1, 0.3], "every slack needs one threshold"),
        ([0.0], [1.0], [1.0, -1.0], [0.1, 0.3], "thresholds must be positive"),
        ([0.0], [1.0], [1.0, np.nan], [0.1, 0.3], "thresholds must be positive"),
        ([0.0], [1.0], [1.0, 1.0], [0.1, -0.3], "slacks must not be negative"),
    ],
)
def test_impossible_parameters_are_refused(
    mean: list[float],
    scale: list[float],
    thresholds: list[float],
    slacks: list[float],
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        CusumBank(mean, scale, thresholds, slacks=slacks, factor=Factor.COVARIATE)


def test_a_snapshot_of_another_bank_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 2, 3\)"):
        bank(3).restore(bank(2).snapshot())
