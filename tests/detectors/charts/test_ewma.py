from __future__ import annotations

import math

import numpy as np
import pytest

from detectors.base import Factor
from detectors.charts.ewma import EwmaBank


def bank(k: int = 1, *, weight: float = 0.1, width: float = 2.814) -> EwmaBank:
    mean, scale = np.zeros(k), np.ones(k)
    return EwmaBank(mean, scale, weight=weight, width=width, factor=Factor.COVARIATE)


def test_the_seeded_stream_alarms_exactly_here() -> None:
    rng = np.random.default_rng(11)
    rows = rng.normal(size=(300, 2))
    rows[200:, 1] += 1.0
    alarms = bank(2, width=3.5).update(rows)
    assert [(a.row, a.run_length, a.columns) for a in alarms][:1] == [(215, 15, (1,))]


def test_the_run_length_without_a_change_is_the_charts() -> None:
    # Lucas and Saccucci give 500 rows; 400 runs have a standard error of 5 %
    rng = np.random.default_rng(0)
    n_alarms = len(bank().update(rng.normal(size=(200_000, 1))))
    assert 420 < 200_000 / n_alarms < 580


def test_the_average_and_its_limit_are_the_textbooks() -> None:
    detector = bank(weight=0.2, width=3.0)
    assert detector.update(np.ones((3, 1))) == []
    limit = 3.0 * math.sqrt(0.2 / 1.8)
    assert detector.statistics == pytest.approx([(1 - 0.8**3) / limit])
    (alarm,) = detector.update(np.full((1, 1), 9.0))
    assert alarm.statistic == pytest.approx(0.2 * 9.0 + 0.8 * (1 - 0.8**3))
    assert alarm.threshold == pytest.approx(limit)


def test_the_run_length_counts_from_the_change_of_sign() -> None:
    rows = np.r_[np.full(20, -0.5), np.full(30, 2.0)][:, None]
    (alarm, *_) = bank().update(rows)
    assert alarm.row - alarm.run_length in {19, 20, 21}


def test_the_strongest_column_names_the_alarm() -> None:
    (alarm,) = bank(3, weight=1.0, width=2.0).update(np.array([[3.0, -5.0, 1.0]]))
    assert alarm.columns == (1, 0)
    assert alarm.statistic == 5.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": 0.0}, r"weight must be in \(0, 1\], got 0"),
        ({"weight": 1.1}, "weight must be in"),
        ({"width": -1.0}, "width must be positive"),
    ],
)
def test_impossible_parameters_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bank(1, **options)


def test_impossible_moments_are_refused() -> None:
    with pytest.raises(ValueError, match="one length"):
        EwmaBank([0.0], [1.0, 1.0], factor=Factor.COVARIATE)
    with pytest.raises(ValueError, match="mean must be finite"):
        EwmaBank([np.nan], [1.0], factor=Factor.COVARIATE)
    with pytest.raises(ValueError, match="scale must be finite and positive"):
        EwmaBank([0.0], [0.0], factor=Factor.COVARIATE)


def test_a_snapshot_of_another_bank_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3,\)"):
        bank(3).restore(bank(2).snapshot())
