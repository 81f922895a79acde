"""alibi-detect's detectors behind the contract; `make test-alibi` has it installed."""

from __future__ import annotations

import doctest
import sys
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from detectors.adapters import alibi
from detectors.adapters.alibi import AlibiDetector, Name, is_installed
from detectors.base import Alarm, Array, Detector, Factor, State

NAMES: tuple[Name, ...] = ("mmd", "lsdd", "cvm", "fet")
WINDOW = 10
N_ROWS = 120
CHANGE = 70


def reference(name: Name, seed: int = 100, n: int = 120) -> Array:
    rng = np.random.default_rng(seed)
    if name == "fet":
        return (rng.random((n, 1)) < 0.15).astype(np.float64)
    return rng.normal(size=(n, 2)) * [1.0, 5.0]


def stream(name: Name, seed: int = 101) -> Array:
    """Rows whose distribution changes at `CHANGE`."""
    rows = reference(name, seed, N_ROWS)
    rng = np.random.default_rng(seed + 1000)
    if name == "fet":
        rows[CHANGE:] = rng.random((N_ROWS - CHANGE, 1)) < 0.8
    else:
        rows[CHANGE:] += [2.0, 10.0]
    return rows


@lru_cache
def configured(name: Name) -> State:
    return AlibiDetector(name, reference(name), **options()).configured


def options(**changed: Any) -> dict[str, Any]:
    return {"arl0": 40, "window": WINDOW, "seed": 7, "factor": Factor.COVARIATE} | changed


def made(name: Name) -> AlibiDetector:
    return AlibiDetector(name, reference(name), **options(configured=configured(name)))


def cut(detector: Detector, rows: Array, edges: list[int]) -> list[Alarm]:
    alarms: list[Alarm] = []
    starts = [0, *edges]
    for start, end in zip(starts, [*edges, len(rows)], strict=True):
        alarms += [replace(a, row=a.row + start) for a in detector.update(rows[start:end])]
    return alarms


crossed = pytest.mark.parametrize("name", NAMES)


@pytest.mark.alibi
@crossed
def test_the_change_raises_an_alarm_that_knows_its_row(name: Name) -> None:
    detector = made(name)
    assert isinstance(detector, Detector)
    rows = stream(name)
    before = rows.copy()
    alarms = detector.update(rows)
    assert np.array_equal(rows, before)
    found = next(alarm for alarm in alarms if alarm.row >= CHANGE)
    assert found.row < CHANGE + 3 * WINDOW
    assert found.detector == f"alibi_{name}"
    for alarm in alarms:
        assert 1 <= alarm.run_length <= min(WINDOW, alarm.row + 1)
        assert alarm.statistic >= alarm.threshold > 0
        assert type(alarm.row) is int
        assert type(alarm.statistic) is float
    if name == "cvm":
        assert found.columns


@pytest.mark.alibi
@crossed
def test_batch_cuts_and_holes_change_nothing(name: Name) -> None:
    rows = stream(name)
    rows[np.random.default_rng(102).random(N_ROWS) < 0.1, 0] = np.nan
    whole, pieces = made(name), made(name)
    expected = cut(whole, rows, [])
    assert expected
    assert cut(pieces, rows, [0, 3, 3, 40, 71, 72]) == expected
    np.testing.assert_equal(pieces.snapshot(), whole.snapshot())
    kept = np.isfinite(rows).all(axis=1)
    without = made(name).update(rows[kept])
    assert [np.flatnonzero(kept)[a.row] for a in without] == [a.row for a in expected]


@pytest.mark.alibi
@crossed
@pytest.mark.parametrize("at", [0, 4, 37, CHANGE + 5])
def test_restoring_a_snapshot_changes_nothing(name: Name, at: int) -> None:
    rows = stream(name)
    running, restored = made(name), made(name)
    running.update(rows[:at])
    state = running.snapshot()
    restored.update(rows[:25])  # what was there before must not shine through
    restored.restore(state)
    assert list(restored.update(rows[at:])) == list(running.update(rows[at:]))
    np.testing.assert_equal(restored.snapshot(), running.snapshot())


@pytest.mark.alibi
@crossed
def test_a_snapshot_is_small_plain_and_a_copy(name: Name) -> None:
    detector = made(name)
    rows = stream(name)[:CHANGE]
    for _ in range(3):
        detector.update(rows)
    state, twin = detector.snapshot(), detector.snapshot()
    assert len(state["rows"]) <= WINDOW
    assert len(state["statistics"]) <= 1
    assert {type(value) for value in state.values()} == {np.ndarray, int}
    detector.update(rows)
    np.testing.assert_equal(state, twin)
    # What theirs keeps is bounded too, though alibi-detect itself records every row.
    theirs = detector._alibi
    assert max(len(theirs.test_stats), len(theirs.drift_preds)) <= 1
    assert len(getattr(theirs, "xs", ())) <= WINDOW


@pytest.mark.alibi
@crossed
def test_configured_spares_the_simulation_and_is_all_it_found(name: Name) -> None:
    first = AlibiDetector(name, reference(name), **options())
    spared = AlibiDetector(name, reference(name), **options(configured=first.configured))
    np.testing.assert_equal(spared.configured, first.configured)
    assert {type(value) for value in first.configured.values()} == {np.ndarray}
    assert list(spared.update(stream(name))) == list(first.update(stream(name)))


@pytest.mark.alibi
@crossed
def test_the_seed_decides_and_global_random_state_does_not_move(name: Name) -> None:
    import tensorflow as tf

    def thresholds(seed: int) -> Array:
        detector = AlibiDetector(name, reference(name), **options(seed=seed))
        return np.asarray(detector.configured["thresholds"])

    np.random.seed(1)
    tf.random.set_seed(1)
    expected = np.random.random(), float(tf.random.uniform(()))
    np.random.seed(1)
    tf.random.set_seed(1)
    one = thresholds(3)
    made(name).update(stream(name))
    assert (np.random.random(), float(tf.random.uniform(()))) == expected
    assert np.array_equal(one, thresholds(3), equal_nan=True)
    assert not np.array_equal(one, thresholds(4), equal_nan=True)


@pytest.mark.alibi
@pytest.mark.parametrize(
    ("name", "references", "streams"),
    [
        ("fet", 30, 1),
        ("cvm", 12, 1),
        # A simulation of these takes many seconds, so that one reference has several streams.
        pytest.param("lsdd", 1, 8, marks=pytest.mark.slow),
        pytest.param("mmd", 1, 8, marks=pytest.mark.slow),
    ],
)
def test_false_alarms_come_about_as_often_as_promised_and_a_change_within_a_window(
    name: Name, references: int, streams: int
) -> None:
    """The mean of alarms in 400 quiet rows is near 2, and a strong change takes about a window.

    Measured at an expected run time of 200 rows, 200 reference rows, a window of 20 and 4
    normal columns, on seeds from 100 (mean and standard error): fet 1.9 ± 0.3 in 30 runs with a
    rate of 0.15, cvm 1.8 ± 0.3 in 12, lsdd 2.1 ± 0.5 in 12. First alarms scatter: from row 34 on.
    """
    arl0, window, n_rows = 200, 20, 400
    flags, delays = [], []
    for seed in range(200, 200 + references):
        rng = np.random.default_rng(seed)

        def rows(n: int, moved: bool, rng: np.random.Generator = rng) -> Array:
            if name == "fet":
                return (rng.random((n, 1)) < (0.6 if moved else 0.15)).astype(np.float64)
            return rng.normal(size=(n, 4)) + moved

        detector = AlibiDetector(
            name, rows(200, False), **options(arl0=arl0, window=window, seed=seed)
        )
        fresh = detector.snapshot()
        for _ in range(streams):
            detector.restore(fresh)
            flags.append(len(detector.update(rows(n_rows, False))))
            detector.restore(fresh)
            alarms = detector.update(rows(100, True))
            delays.append(alarms[0].row + 1 if alarms else 100)
    promised = n_rows / arl0
    assert promised / 3 < np.mean(flags) < promised * 2
    assert np.median(delays) <= 1.5 * window


@pytest.mark.alibi
def test_mmd_sees_a_column_of_any_scale() -> None:
    rng = np.random.default_rng(103)
    rows = rng.normal(size=(120, 2)) * [1.0, 1000.0]
    moved = rng.normal(size=(40, 2)) * [1.0, 1000.0] + [3.0, 0.0]
    assert AlibiDetector("mmd", rows, **options()).update(moved)


ONES, GONE = np.ones((90, 1)), np.full((90, 1), np.nan)


@pytest.mark.parametrize(
    ("message", "name", "rows", "changed"),
    [
        ("name must be one of mmd, lsdd, cvm, fet, got 'ks'", "ks", ONES, {}),
        ("arl0 must be above 1 row, got 1", "mmd", ONES, {"arl0": 1}),
        ("window must be at least 2 rows, got 1", "mmd", ONES, {"window": 1}),
        ("cvm needs at least 50 complete reference rows, got 0", "cvm", GONE, {}),
        ("simulations must be at least 2 arl0, got 9", "cvm", ONES, {"simulations": 9}),
        ("fet takes one column, got 2", "fet", np.ones((90, 2)), {}),
        ("fet takes 0 and 1, got 2 at row 0", "fet", 2 * ONES, {}),
        ("fet needs a reference with 0 and 1, got 1 only", "fet", ONES, {}),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_imported(
    message: str, name: Any, rows: Array, changed: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=message):
        AlibiDetector(name, rows, **options(**changed))


@pytest.mark.alibi
def test_rows_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match=r"cvm takes rows of 2 columns, got shape \(4, 3\)"):
        made("cvm").update(np.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"fet takes 0 and 1, got 0\.5 at row 2"):
        made("fet").update(np.array([[0.0], [np.nan], [0.5]]))


def test_without_alibi_detect_the_import_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "alibi_detect", None)
    for loaded in [m for m in sys.modules if m.startswith("alibi_detect.")]:
        monkeypatch.delitem(sys.modules, loaded)
    with pytest.raises(ModuleNotFoundError, match="alibi_detect"):
        AlibiDetector("cvm", reference("cvm"), **options())


@pytest.mark.parametrize(
    ("found", "expected"),
    [("0.13.0", True), ("0.14.1.dev0", True), ("1.0", True), ("0.4.4", False), ("0.11.4", False)],
)
def test_a_version_without_these_detectors_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, found: str, expected: bool
) -> None:
    monkeypatch.setattr(alibi, "version", lambda _: found)
    assert is_installed() is expected


@pytest.mark.alibi
def test_the_example_in_the_docstring_is_true() -> None:
    text = (AlibiDetector.__doc__ or "").replace("# doctest: +SKIP", "")
    example = doctest.DocTestParser().get_doctest(text, vars(alibi).copy(), "alibi", None, None)
    assert doctest.DocTestRunner(verbose=False).run(example).failed == 0
