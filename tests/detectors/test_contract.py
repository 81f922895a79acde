"""The promises that every online detector keeps, each checked on all of them."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import detectors
from detectors.adapters.alibi import AlibiDetector
from detectors.adapters.river import RiverDetector
from detectors.base import Alarm, Array, Detector, Factor
from detectors.charts.adwin import Adwin
from detectors.charts.cusum import CusumBank
from detectors.charts.ewma import EwmaBank
from detectors.charts.kswin import Kswin
from detectors.charts.msd_ewma import MsdEwma
from detectors.charts.newma import Newma
from detectors.charts.page_hinkley import PageHinkley
from detectors.charts.sd_ewma import SdEwma
from detectors.charts.tsmsd_ewma import TsmsdEwma
from detectors.charts.tssd_ewma import TssdEwma
from detectors.martingales.conditional_e_detector import ConditionalEDetector
from detectors.martingales.conformal import ConformalShiryaevRoberts
from detectors.martingales.label_e_detector import LabelEDetector
from detectors.martingales.mondrian import MondrianShiryaevRoberts

N_ROWS = 700
CHANGE = 400

Make = Callable[[], Detector]


def bank(kind: type[CusumBank] | type[EwmaBank], **options: Any) -> Make:
    return lambda: kind(np.zeros(3), np.ones(3), factor=Factor.COVARIATE, **options)


def river(name: Any) -> Make:
    return lambda: RiverDetector(name, factor=Factor.CONCEPT, memory=300)


def reference(n: int = 160, k: int = 3) -> Array:
    return np.random.default_rng(6).normal(size=(n, k))


def two_classes(n: int = 160) -> npt.NDArray[np.int64]:
    return np.random.default_rng(7).integers(0, 2, n)


def sd_ewma() -> SdEwma:
    return SdEwma.fit(reference(), width=1.96, factor=Factor.COVARIATE)


def msd_ewma() -> MsdEwma:
    return MsdEwma.fit(reference(), factor=Factor.COVARIATE)


@lru_cache
def rule() -> ConditionalEDetector:
    rows = reference(600, 2)
    return ConditionalEDetector.learn(
        rows, (rows[:, 0] > 0).astype(np.int64), n_classes=2, arl0=100, seed=0
    )


def conditional_e() -> ConditionalEDetector:
    return deepcopy(rule())  # learned once: its trees take a second


MAKERS: Mapping[str, Make] = {
    "cusum": bank(CusumBank, thresholds=(40.0, 10.0)),
    "ewma": bank(EwmaBank),
    "adwin": lambda: Adwin(3, delta=0.05, factor=Factor.COVARIATE),
    "page_hinkley": lambda: PageHinkley(3, threshold=20.0, factor=Factor.COVARIATE),
    "kswin": lambda: Kswin(3, window_size=60, stat_size=20, factor=Factor.COVARIATE),
    "ddm": river("ddm"),
    "eddm": river("eddm"),
    "hddm_a": river("hddm_a"),
    "hddm_w": river("hddm_w"),
    "sd_ewma": sd_ewma,
    "tssd_ewma": lambda: TssdEwma(sd_ewma(), rows=12),
    "msd_ewma": msd_ewma,
    "tsmsd_ewma": lambda: TsmsdEwma(msd_ewma(), n_reference=160),
    "newma": lambda: Newma.learn(reference(), arl0=500, window=60, n_features=100, seed=0),
    "conformal": lambda: ConformalShiryaevRoberts.learn(
        reference(), arl0=100, factor=Factor.COVARIATE, seed=0
    ),
    "mondrian": lambda: MondrianShiryaevRoberts.learn(
        reference(k=2), two_classes(), n_classes=2, arl0=100, seed=0
    ),
    "label_e": lambda: LabelEDetector.learn(
        np.arange(400) % 100 < 15, n_classes=2, arl0=100, tolerance=0.05
    ),
    "conditional_e": conditional_e,
}
ERRORS = {"ddm", "eddm", "hddm_a", "hddm_w", "label_e"}
LABELLED = {"mondrian", "conditional_e"}
"""Their last column is the class code."""

crossed = pytest.mark.parametrize("name", MAKERS)


def stream(name: str) -> Array:
    """Rows whose distribution changes at `CHANGE`, of the shape the detector takes."""
    rng = np.random.default_rng(3)
    if name in ERRORS:
        rate = np.where(np.arange(N_ROWS) < CHANGE, 0.15, 0.6)
        return (rng.random((N_ROWS, 1)) < rate[:, None]).astype(np.float64)
    rows = rng.normal(size=(N_ROWS, 3))
    rows[CHANGE:] += 1.2
    if name == "conditional_e":
        rows[CHANGE:] -= 1.2
        rows[:, -1] = (rows[:, 0] > 0) == (np.arange(N_ROWS) < CHANGE)
    elif name in LABELLED:
        rows[:, -1] = rng.integers(0, 2, N_ROWS)
    return rows


def with_holes(rows: Array) -> Array:
    holed = rows.copy()
    holed[np.random.default_rng(4).random(rows.shape) < 0.2] = np.nan
    return holed


def cut(detector: Detector, rows: Array, edges: list[int]) -> list[Alarm]:
    """The alarms of a stream taken in batches, with rows counted from the stream's start."""
    alarms: list[Alarm] = []
    starts = [0, *edges]
    for start, end in zip(starts, [*edges, len(rows)], strict=True):
        found = detector.update(rows[start:end])
        alarms += [replace(alarm, row=alarm.row + start) for alarm in found]
    return alarms


def size(state: Any) -> int:
    """Bytes in the arrays of a state; also checks that it holds nothing but plain values."""
    if isinstance(state, dict):
        return sum(size(value) for value in state.values())
    if isinstance(state, list):
        return sum(size(value) for value in state)
    if isinstance(state, np.ndarray):
        assert state.dtype != object
        return state.nbytes
    assert state is None or type(state) in {int, float, str, bool}
    return 8


def test_every_detector_of_the_package_is_crossed() -> None:
    found = set()
    for module in pkgutil.walk_packages(detectors.__path__, "detectors."):
        for _, item in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if item.__module__.startswith("detectors.") and issubclass(item, Detector):
                found.add(item)
    # alibi-detect is an optional dependency: `test_alibi` keeps these promises where it is.
    assert found - {Detector, AlibiDetector} == {type(make()) for make in MAKERS.values()}


@crossed
def test_the_change_raises_an_alarm_that_knows_its_row(name: str) -> None:
    alarms = MAKERS[name]().update(stream(name))
    assert any(alarm.row >= CHANGE for alarm in alarms)
    assert [alarm.row for alarm in alarms] == sorted({alarm.row for alarm in alarms})
    for alarm in alarms:
        assert 0 <= alarm.row < N_ROWS
        assert 1 <= alarm.run_length <= alarm.row + 1
        assert alarm.statistic >= alarm.threshold > 0
        assert type(alarm.row) is int
        assert type(alarm.statistic) is float


@crossed
def test_batch_cuts_change_nothing(name: str) -> None:
    rows = with_holes(stream(name))
    whole = MAKERS[name]()
    expected = cut(whole, rows, [])
    assert expected
    rng = np.random.default_rng(5)
    for n_cuts in (5, 60):
        edges = sorted(rng.integers(0, N_ROWS, n_cuts).tolist())  # equal edges are empty batches
        pieces = MAKERS[name]()
        assert cut(pieces, rows, edges) == expected
        np.testing.assert_equal(pieces.snapshot(), whole.snapshot())


@crossed
@pytest.mark.parametrize("at", [0, 37, 350, CHANGE + 5])
def test_restoring_a_snapshot_changes_nothing(name: str, at: int) -> None:
    rows = with_holes(stream(name))
    running = MAKERS[name]()
    running.update(rows[:at])
    state = running.snapshot()
    restored = MAKERS[name]()
    restored.update(rows[:200])  # what was there before must not shine through
    restored.restore(state)
    assert list(restored.update(rows[at:])) == list(running.update(rows[at:]))
    np.testing.assert_equal(restored.snapshot(), running.snapshot())


@crossed
def test_a_snapshot_is_a_copy(name: str) -> None:
    rows = stream(name)
    detector = MAKERS[name]()
    detector.update(rows[:100])
    state, twin = detector.snapshot(), detector.snapshot()
    detector.update(rows[100:])
    np.testing.assert_equal(state, twin)
    restored = MAKERS[name]()
    restored.restore(state)
    restored.update(rows[100:])
    np.testing.assert_equal(state, twin)


@crossed
def test_runs_repeat(name: str) -> None:
    first, second = (MAKERS[name]().update(stream(name)) for _ in range(2))
    assert list(first) == list(second)


@crossed
def test_inputs_are_neither_changed_nor_kept(name: str) -> None:
    rows = stream(name)
    expected = list(MAKERS[name]().update(rows))
    before = rows.copy()
    detector = MAKERS[name]()
    alarms = list(detector.update(rows[:300]))
    assert np.array_equal(rows, before)
    first_part = rows[:300]
    first_part[:] = 0.5
    alarms += cut(detector, rows[300:], [])
    assert [alarm.statistic for alarm in alarms] == [alarm.statistic for alarm in expected]
    frozen = stream(name)
    frozen.setflags(write=False)
    assert list(MAKERS[name]().update(frozen)) == expected


@crossed
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_skipped(name: str, poison: float) -> None:
    rows = stream(name)
    clean, poisoned = MAKERS[name](), MAKERS[name]()
    expected = [alarm.row for alarm in clean.update(rows)]
    assert list(poisoned.update(np.full((5, rows.shape[1]), poison))) == []
    assert [alarm.row for alarm in poisoned.update(rows)] == expected


@pytest.mark.parametrize("name", sorted(MAKERS.keys() - ERRORS))
@pytest.mark.parametrize("size", [np.finfo(np.float64).max, 1e200, 5e-324])
def test_no_finite_value_makes_a_number_that_is_none(name: str, size: float) -> None:
    rows = stream(name)
    wild = size * np.where(np.random.default_rng(8).random(rows.shape) < 0.5, -1.0, 1.0)
    if name in LABELLED:
        wild[:, -1] = rows[:, -1]
    detector = MAKERS[name]()
    alarms = [*detector.update(rows[:300]), *detector.update(wild), *detector.update(rows)]
    assert np.isfinite([alarm.statistic for alarm in alarms]).all()
    assert numbers_of(detector.snapshot()) <= numbers_of(MAKERS[name]().snapshot())


def numbers_of(state: Any) -> bool:
    """Whether a state has a value that is no number."""
    if isinstance(state, dict):
        return any(map(numbers_of, state.values()))
    if isinstance(state, np.ndarray) and state.dtype.kind == "f":
        return bool(np.isnan(state).any())
    return isinstance(state, float) and np.isnan(state)


@crossed
def test_memory_is_bounded(name: str) -> None:
    detector = MAKERS[name]()
    detector.update(stream(name))
    sizes = []
    quiet = stream(name)[:CHANGE]
    for _ in range(2):
        detector.update(quiet)
        sizes.append(size(detector.snapshot()))
    assert max(sizes) <= 300 * 8 + 8


@crossed
def test_rows_of_another_width_are_refused(name: str) -> None:
    width = stream(name).shape[1]
    with pytest.raises(ValueError, match=rf"{width} columns, got shape \(4, {width + 1}\)"):
        MAKERS[name]().update(np.zeros((4, width + 1)))
