"""Detectors that a stream asks for by name: each is fed what it reads, and survives a restart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detectors import watch_named
from detectors.alibi import is_installed
from detectors.base import Array, Factor, IntArray, Kind, Problem
from detectors.class_model import ClassModel
from detectors.names import DetectorName
from detectors.newma import Newma
from detectors.synthetic import Stream
from detectors.watch import Feed, Watching, build_watches, watch_from_snapshot

ABSENT = "alibi-detect is not installed: pip install 'shiftwatch[alibi]'"
NAMED = [
    pytest.param(
        name, marks=pytest.mark.skipif(name.needs_alibi and not is_installed(), reason=ABSENT)
    )
    for name in DetectorName
    if name is not DetectorName.CUSUM
]
KEEP_A_PROMISE = [DetectorName.NEWMA, DetectorName.CONFORMAL, DetectorName.E_DETECTOR]
Rows = tuple[Array, IntArray]


@pytest.fixture(autouse=True)
def _quick_simulations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_named, "ALIBI_ARL0", 40.0)


def built(name: DetectorName, problem: Problem, reference: Rows) -> list[Watching]:
    return [
        watch
        for feed in Feed
        for watch in build_watches(
            feed, problem, *reference, n_classes=2, arl0=2000.0, seed=1, detectors=[name]
        )
    ]


@pytest.mark.parametrize("problem", list(Problem))
@pytest.mark.parametrize("name", NAMED)
def test_a_restored_watch_goes_on_as_if_never_interrupted(
    name: DetectorName, problem: Problem
) -> None:
    stream = Stream(problem, Kind.MIXED, n_features=3, strength="strong", seed=100)
    reference, rows = stream.draw(600, shifted=False), stream.draw(400, shifted=True)
    for watch in built(name, problem, reference):
        watch.update(rows[0][:150], rows[1][:150])
        again = watch_from_snapshot(watch.snapshot())
        assert again.name == watch.name
        assert again.feed is watch.feed
        late = rows[0][150:], rows[1][150:]
        assert again.update(*late) == watch.update(*late)
        mark = watch.mark()
        watch.reset()
        watch.back(mark)
        assert watch.statistic == again.statistic


@pytest.mark.parametrize("problem", list(Problem))
@pytest.mark.parametrize("name", KEEP_A_PROMISE)
def test_those_with_a_promise_see_a_strong_mixed_shift_and_are_quiet_before(
    name: DetectorName, problem: Problem
) -> None:
    stream = Stream(problem, Kind.MIXED, n_features=3, strength="strong", seed=101)
    watches = built(name, problem, stream.draw(1500, shifted=False))
    calm, moved = stream.draw(500, shifted=False), stream.draw(3000, shifted=True)
    assert sum(len(watch.update(*calm)) for watch in watches) == 0
    assert sum(len(watch.update(*moved)) for watch in watches) > 0


def test_missing_inputs_are_not_seen_and_poison_nothing() -> None:
    stream = Stream(Problem.X_TO_Y, Kind.COVARIATE, n_features=3, strength="strong", seed=102)
    reference, moved = stream.draw(600, shifted=False), stream.draw(600, shifted=True)
    for name in (DetectorName.NEWMA, DetectorName.CONFORMAL, DetectorName.SD_EWMA):
        watch = built(name, Problem.X_TO_Y, reference)[0]
        watch.update(np.full((5, 3), np.nan), np.full(5, -1))
        assert watch.update(*moved), name


@pytest.mark.parametrize(
    ("name", "shape", "window"),
    [
        ("alibi_mmd on inputs", (500, 3), 20),
        ("alibi_cvm on inputs", (200, 3), 20),
        ("alibi_fet on errors", (600, 1), 30),
    ],
)
def test_what_alibi_detect_is_given(
    monkeypatch: pytest.MonkeyPatch, name: str, shape: tuple[int, int], window: int
) -> None:
    given: dict[str, Any] = {}

    def pretend(name: str, reference: Array, **options: Any) -> Newma:
        given.update(options, reference=reference)
        return Newma.learn(reference, arl0=500, window=60, n_features=10, seed=0)

    monkeypatch.setattr(watch_named, "AlibiDetector", pretend)
    stream = Stream(Problem.X_TO_Y, Kind.CONCEPT, n_features=3, strength="strong", seed=103)
    rows, labels = stream.draw(600, shifted=False)
    rows[5] = np.nan
    watch = watch_named.NamedWatch(
        name,
        Factor.COVARIATE,
        np.nan_to_num(rows) if name.endswith("errors") else rows,
        labels,
        n_classes=2,
        arl0=1000.0,
        seed=4,
        configured={"thresholds": np.ones(2)},
    )
    assert given["reference"].shape == shape
    assert np.isfinite(given["reference"]).all()
    assert (given["arl0"], given["window"], given["seed"]) == (40.0, window, 4)
    assert list(given["configured"]) == ["thresholds"]
    assert watch.name == name


def test_errors_to_compare_with_are_those_on_rows_that_were_not_learned() -> None:
    rng = np.random.default_rng(104)
    rows, labels = rng.normal(size=(200, 12)), rng.integers(0, 2, 200)
    learned = ClassModel(2).fit(rows, labels, seed=0).predict(rows).argmax(axis=1) != labels
    lesson = watch_named._Lesson(rows, labels, 2, 100.0, 0, None)
    found = watch_named._errors(lesson).mean()
    assert 0.4 < found < 0.6  # coins cannot be predicted
    assert learned.mean() < found - 0.1


def test_a_perfect_reference_has_one_error_to_compare_with() -> None:
    rows = np.linspace(-1, 1, 300)[:, None]
    labels = np.zeros(300, np.int64)
    lesson = watch_named._Lesson(rows, labels, 2, 100.0, 0, None)
    assert watch_named._errors(lesson).sum() == 1


def test_an_unknown_name_says_which_there_are() -> None:
    with pytest.raises(ValueError, match=r"adwin on errors.*got 'magic'"):
        watch_named.NamedWatch(
            "magic",
            Factor.CONCEPT,
            np.zeros((9, 1)),
            np.zeros(9, np.int64),
            n_classes=2,
            arl0=9.0,
            seed=0,
        )
