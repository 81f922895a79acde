"""Detectors that a stream asks for by name: each is fed what it reads, and survives a restart."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pytest

from detectors.base import Array, Factor, IntArray, Kind, Problem
from detectors.charts.newma import Newma
from detectors.learners.class_model import ClassModel
from detectors.names import DetectorName
from detectors.synthetic import Stream
from detectors.watches import build as stage_1
from detectors.watches import named as watch_named
from detectors.watches.build import Learned, build_watches, watch_from_snapshot
from detectors.watches.contract import Feed, Watching

NAMED = [
    pytest.param(name, marks=pytest.mark.alibi if name.needs_alibi else ())
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
        ).watches
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


TOO_RARE = np.repeat([0, 1], [580, 20])  # for a model of one class against the other


def learned(
    feed: Feed,
    *detectors: DetectorName,
    labels: IntArray = TOO_RARE,
    left_out: Collection[str] = (),
) -> Learned:
    rows = np.random.default_rng(105).normal(size=(len(labels), 2))
    return build_watches(
        feed,
        Problem.X_TO_Y,
        rows,
        labels,
        n_classes=2,
        arl0=500.0,
        seed=1,
        detectors=detectors,
        left_out=left_out,
    )


@pytest.fixture
def promised(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Rows between false alarms that the watch of each name was last asked to promise."""
    seen: dict[str, float] = {}
    bank, named = stage_1.Watch.learn, watch_named.NamedWatch

    def learn(name: str, *args: Any, **options: Any) -> Watching:
        seen[name] = options["arl0"]
        return (bank if name in stage_1._BANKS[Problem.X_TO_Y] else named)(name, *args, **options)

    monkeypatch.setattr(stage_1.Watch, "learn", learn)
    monkeypatch.setattr(stage_1, "NamedWatch", learn)
    return seen


def test_a_detector_that_cannot_learn_is_left_out_and_says_why() -> None:
    found = learned(Feed.LABELLED, DetectorName.CUSUM, DetectorName.E_DETECTOR)
    assert [w.name for w in found.watches] == ["residuals"]
    assert found.left_out == {
        "e-detector of the rule": "a reference needs 30 rows of two classes, got [580, 20]"
    }
    assert not learned(Feed.LABELLED, DetectorName.CUSUM).left_out


def test_the_promise_is_shared_among_those_that_are_left(promised: dict[str, float]) -> None:
    asked = [DetectorName.CUSUM, DetectorName.E_DETECTOR, DetectorName.ADWIN, DetectorName.NEWMA]
    learned(Feed.SEEN, *asked)
    assert promised == {"inputs": 2500.0, "newma on inputs": 2500.0}  # of 5, if labels suffice
    promised.clear()
    found = learned(Feed.LABELLED, *asked)
    rate = 2 / 2500 + sum(1 / promised[w.name] for w in found.watches)
    assert len(found.watches) == 2
    assert rate == pytest.approx(1 / 500)
    promised.clear()
    learned(Feed.LABELLED, *asked, labels=np.tile([0, 1], 300), left_out=["newma on inputs"])
    assert set(promised.values()) == {2000.0}  # 4 are left


def test_the_banks_step_in_where_nothing_of_what_was_asked_for_is_left() -> None:
    found = learned(Feed.LABELLED, DetectorName.E_DETECTOR)
    assert [w.name for w in found.watches] == ["residuals"]
    assert list(found.left_out) == ["e-detector of the rule"]
    assert learned(Feed.SEEN, DetectorName.E_DETECTOR) == Learned([])  # no inputs were asked for
    few = learned(Feed.LABELLED, DetectorName.E_DETECTOR, labels=TOO_RARE[:40])
    assert not few.watches
    assert list(few.left_out) == ["e-detector of the rule", "residuals"]


def test_a_reference_too_small_for_anything_is_refused() -> None:
    with pytest.raises(ValueError, match="n at least 50"):
        learned(Feed.SEEN, DetectorName.CUSUM, labels=TOO_RARE[:40])


def test_newma_still_sees_a_stream_with_a_nearly_empty_column() -> None:
    rng = np.random.default_rng(107)

    def draw(n: int, shift: float) -> Array:
        rows = rng.normal(size=(n, 2))
        rows[rng.random(n) < 0.99, 1] = np.nan
        return np.asarray(rows + np.array([shift, 0.0]))

    found = build_watches(
        Feed.SEEN,
        Problem.X_TO_Y,
        draw(1000, 0.0),
        np.full(1000, -1),
        n_classes=2,
        arl0=2000.0,
        seed=1,
        detectors=[DetectorName.NEWMA],
    )
    (newma,) = found.watches
    assert newma.name == "newma on inputs"
    none = np.full(500, -1)
    assert not newma.update(draw(500, 0.0), none)
    again = watch_from_snapshot(newma.snapshot())
    moved = draw(500, 1.5)
    alarms = newma.update(moved, none)
    assert alarms
    assert again.update(moved, none) == alarms


def test_a_column_that_vanishes_does_not_look_like_its_median() -> None:
    filled = watch_named._Filled(np.array([[1.0, np.nan], [3.0, 5.0], [2.0, 6.0]]))
    assert filled(np.array([[np.nan, np.nan], [7.0, np.inf]])).tolist() == [
        [2.0, 5.5, 1.0, 1.0],
        [7.0, 5.5, 1.0, 0.0],
    ]


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
