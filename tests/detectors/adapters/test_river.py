from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from detectors.adapters.river import RiverDetector
from detectors.base import Array, Factor


def errors(*rates_and_rows: tuple[float, int]) -> Array:
    rng = np.random.default_rng(0)
    rates = np.concatenate([np.full(n, rate) for rate, n in rates_and_rows])
    return (rng.random(len(rates)) < rates).astype(np.float64)[:, None]


def test_alarms_are_those_of_river_itself() -> None:
    from river.drift import ADWIN

    values = np.r_[np.zeros(300), np.ones(300), np.zeros(300)] + np.random.default_rng(1).normal(
        size=900
    )
    plain, expected = ADWIN(delta=0.01), []
    for row, value in enumerate(values):
        plain.update(value)
        if plain.drift_detected:
            expected.append(row)
    detector = RiverDetector("adwin", factor=Factor.CONCEPT, delta=0.01)
    assert len(expected) >= 2
    assert [alarm.row for alarm in detector.update(values[:, None])] == expected


def test_the_seeded_stream_alarms_exactly_here() -> None:
    alarms = RiverDetector("ddm", factor=Factor.CONCEPT).update(errors((0.1, 500), (0.5, 300)))
    assert [(a.row, a.run_length) for a in alarms] == [(535, 16)]


def test_the_run_length_is_the_warning_time() -> None:
    (alarm, *_) = RiverDetector("hddm_a", factor=Factor.CONCEPT).update(
        errors((0.1, 500), (0.5, 300))
    )
    assert 500 < alarm.row < 600
    assert 1 <= alarm.run_length <= alarm.row - 480


def test_it_remembers_a_bounded_past_and_goes_on_alike() -> None:
    quiet = errors((0.2, 1000))
    detector = RiverDetector("hddm_w", factor=Factor.CONCEPT, memory=100)
    detector.update(quiet)
    assert len(detector.snapshot()["values"]) < 100
    assert detector.update(np.ones((60, 1)))


def test_values_that_are_no_rate_are_refused_where_rates_are_due() -> None:
    with pytest.raises(ValueError, match=r"eddm takes values in \[0, 1\], got 1.5 at row 2"):
        RiverDetector("eddm", factor=Factor.CONCEPT).update(np.array([[0.0], [np.nan], [1.5]]))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("adwn", {}, "name must be one of adwin, page_hinkley"),
        ("adwin", {"memory": 1}, "memory must be at least 2"),
        ("kswin", {}, "kswin draws at random and needs a seed"),
        ("adwin", {"detla": 0.1}, r"adwin refuses \['detla'\]"),
    ],
)
def test_impossible_parameters_are_refused(
    name: str, options: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        RiverDetector(name, factor=Factor.CONCEPT, **options)  # type: ignore[arg-type]


def test_a_snapshot_with_more_memory_is_refused() -> None:
    large = RiverDetector("ddm", factor=Factor.CONCEPT, memory=100)
    large.update(np.zeros((60, 1)))
    with pytest.raises(ValueError, match="fewer than 50 values, the snapshot has 60"):
        RiverDetector("ddm", factor=Factor.CONCEPT, memory=50).restore(large.snapshot())


def test_river_is_imported_only_when_a_detector_is_made() -> None:
    code = "import detectors.adapters.river, sys; sys.exit('river' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("suffix", ["HDDM_A", "HDDMA"])
def test_both_of_rivers_names_are_found(suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from river.drift import binary

    found = next(getattr(binary, n) for n in ("HDDMA", "HDDM_A") if hasattr(binary, n))
    for name in ("HDDMA", "HDDM_A"):
        monkeypatch.delattr(binary, name, raising=False)
    monkeypatch.setattr(binary, suffix, found, raising=False)
    assert RiverDetector("hddm_a", factor=Factor.CONCEPT).update(np.zeros((5, 1))) == []
