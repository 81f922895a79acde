"""Labels that come long after there is room for their observations in memory, end to end."""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from service.domain.incident import Incident
from service.domain.waiting import Spilled
from service.pipeline.pipeline import Pipeline
from service.records.record import Record
from service.sources.listed import ListSource
from service.store.errors import StoreError
from service.store.states import loads
from service.store.store import Store
from service.telemetry.metrics import PREFIX
from tests.service.monitor.test_segments import events
from tests.service.runs import (
    DyingSource,
    DyingStore,
    Fuse,
    KilledError,
    confirmed,
    incidents_of,
    run_to_end,
    settings_of,
    work_off,
)
from tests.service.runs import pipeline_of as plain_pipeline_of
from tests.service.streams import as_records, x_to_y_records

N = 1500
MAX_PENDING = 40


def mixed(n: int, shift: str = "covariate") -> list[Record]:
    """A stream of which half of the labels come 20 observations late, and half come 170 late."""
    rng = random.Random(5)
    place = {}
    for k, record in enumerate(x_to_y_records(n, shift=shift, at=700, delay=20, seed=8)):
        body = json.loads(record.value)
        is_label = "features" not in body
        if not is_label:
            body["prediction"] = int(body["features"]["x0"] > 0)
        place[json.dumps(body)] = k + 300 * (is_label and rng.random() < 0.5)
    return as_records([text.encode() for text in sorted(place, key=lambda text: place[text])])


LATE = mixed(N)
N_LABELS = N - 20

Found = tuple[list[Incident], dict[str, Any], list[Spilled], dict[str, Any]]


class Fuses(Fuse):
    """Kills at several steps."""

    def __init__(self, ats: Collection[int]) -> None:
        super().__init__(None)
        self._ats = set(ats)

    def step(self) -> None:
        self.steps += 1
        if self.steps in self._ats:
            raise KilledError


def run(
    records: Sequence[Record],
    url: str,
    folder: Path,
    fuse: Fuse | None = None,
    most: int = 100,
    every: int = 200,
    stream: Mapping[str, Any] | None = None,
    **labels: Any,
) -> Found:
    """Run to the end, starting again after a kill.

    Returns the incidents, the monitor's state, what still waits in the store, and the segments'
    state.
    """
    burning = fuse or Fuse(None)
    settings = settings_of(folder, labels={"spill_from_start": True, **labels}, **(stream or {}))
    checkpoint = settings.checkpoint.model_copy(update={"every_records": every})
    settings = settings.model_copy(update={"checkpoint": checkpoint})

    def found(_: Pipeline, store: Store) -> Found:
        state = store.state("s")
        assert state is not None
        waiting = store.spilled("s", [f"e{n}" for n in range(len(records))])
        assert len(waiting) == sum(store.count_spilled("s").values())
        waiting.sort(key=lambda w: w.number)
        return incidents_of(store), loads(state)["monitor"], waiting, loads(state)["segments"]

    return run_to_end(
        settings,
        lambda: DyingSource(records, burning, most),
        found,
        store_of=lambda url: DyingStore(url, burning),
        url=url,
    )


def alike(one: Any, other: Any) -> bool:
    """Equal, but for the last bits of sums that were taken over other batches."""
    if isinstance(one, np.ndarray):
        if one.dtype.kind == "f":
            return one.shape == other.shape and np.allclose(one, other, 1e-9, equal_nan=True)
        return np.array_equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    return bool(one == other) or str(one) == str(other) == "nan"


def same(one: Found, other: Found) -> bool:
    """Equal incidents, states and entries that wait."""
    return [str(e) for e in (one[0], one[2])] == [str(e) for e in (other[0], other[2])] and alike(
        [one[1], one[3]], [other[1], other[3]]
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Found, int]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    fuse = Fuse(None)
    found = run(LATE, f"sqlite:///{folder}/s.db", folder, fuse, max_pending=MAX_PENDING)
    assert confirmed(found[0])
    assert found[1]["n_labelled"] == N_LABELS
    assert len(found[1]["served"]["right"]) == 500
    return found, fuse.steps


def test_without_the_store_these_labels_would_come_too_late(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    _, state, waiting, _ = run(LATE, url, tmp_path, max_pending=MAX_PENDING, max_spilled=0)
    assert N_LABELS / 3 < state["n_labelled"] < N_LABELS * 2 / 3
    assert waiting == []


@pytest.mark.parametrize(("most", "every"), [(1, 1), (7, 90), (500, 10_000)])
def test_where_batches_and_checkpoints_end_changes_nothing(
    most: int, every: int, uninterrupted: tuple[Found, int], tmp_path: Path
) -> None:
    records = LATE if most > 1 else LATE[:900]
    url = f"sqlite:///{tmp_path}/s.db"
    found = run(records, url, tmp_path, most=most, every=every, max_pending=MAX_PENDING)
    expected = uninterrupted[0]
    if most == 1:
        (tmp_path / "b").mkdir()
        url = f"sqlite:///{tmp_path}/b/s.db"
        expected = run(records, url, tmp_path / "b", max_pending=MAX_PENDING)
    assert same(found, expected)


def test_a_watch_reads_the_labels_whose_rows_are_in_memory(tmp_path: Path) -> None:
    records = mixed(1000, "none")
    found = []
    for most in (100, 500):
        (tmp_path / str(most)).mkdir()
        url = f"sqlite:///{tmp_path}/{most}/s.db"
        found.append(run(records, url, tmp_path / str(most), most=most, max_pending=MAX_PENDING))
    assert same(*found)
    assert found[0][1]["phase"] == "watching"
    ids = [json.loads(record.value)["id"] for record in records]
    first = {id_: k for k, id_ in reversed(list(enumerate(ids)))}
    soon = {int(id_[1:]) for k, id_ in enumerate(ids) if 0 < k - first[id_] < 100}
    read = found[0][1]["watches"]["labelled"].tolist()
    assert len(read) > 50
    # The stream ends before the labels of the last ones are late.
    assert {index for index in read if index < 800} <= soon


@pytest.mark.parametrize("seed", range(3))
def test_kills_change_nothing(
    seed: int, any_database: str, uninterrupted: tuple[Found, int], tmp_path: Path
) -> None:
    expected, steps = uninterrupted
    fuse = Fuses(random.Random(seed).sample(range(2, steps), 12))
    assert same(run(LATE, any_database, tmp_path, fuse, max_pending=MAX_PENDING), expected)


@pytest.mark.slow
def test_a_kill_at_every_other_step_changes_nothing(
    uninterrupted: tuple[Found, int], tmp_path: Path
) -> None:
    expected, steps = uninterrupted
    for at in range(1, steps + 1, 2):
        folder = tmp_path / str(at)
        folder.mkdir()
        url = f"sqlite:///{folder}/s.db"
        found = run(LATE, url, folder, Fuse(at), max_pending=MAX_PENDING)
        assert same(found, expected), f"killed at step {at} of {steps}"


@pytest.mark.slow
def test_labels_50_000_observations_late_survive_kills(any_database: str, tmp_path: Path) -> None:
    late = x_to_y_records(52_000, shift="covariate", at=700, delay=50_000, seed=8)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    fuse = Fuse(None)
    url = f"sqlite:///{tmp_path}/a/s.db"
    expected = run(late, url, tmp_path / "a", fuse, most=500, every=2000)
    assert expected[1]["n_labelled"] == 2000
    assert len(expected[2]) == 40_000
    assert confirmed(expected[0])
    ats = random.Random(1).sample(range(2, fuse.steps), 8)
    found = run(late, any_database, tmp_path / "b", Fuses(ats), most=500, every=2000)
    assert same(found, expected)


def test_segments_are_told_of_labels_whose_rows_are_in_memory(tmp_path: Path) -> None:
    stream = {"segments": {"by": ["camera"], "warm_up": 200}}
    records = events({"7"}, n=1200, late=100)
    told = []
    for n, (most, every, fuse) in enumerate([(100, 200, None), (13, 90, Fuses([9, 31, 50, 77]))]):
        folder = tmp_path / str(n)
        folder.mkdir()
        url = f"sqlite:///{folder}/s.db"
        limits: dict[str, Any] = {"stream": stream, "max_pending": 99}
        found = run(records, url, folder, fuse, most, every, **limits)
        parts = found[3]["parts"]
        told.append((found, [(p["key"], p["monitor"]["n_labelled"]) for p in parts]))
    assert same(told[0][0], told[1][0])
    assert told[0][0][1]["n_labelled"] == 1100
    assert told[0][1] == told[1][1]
    assert {n for _, n in told[0][1]} == {0}


class DeafStore(Store):
    """Does not answer some look-ups."""

    def __init__(self, url: str) -> None:
        super().__init__(url, lambda: 0.0)
        self.asked = 0
        self.unanswered = 0

    def spilled(self, *args: Any, **kwargs: Any) -> list[Spilled]:
        self.asked += 1
        if self.asked % 3:
            self.unanswered += 1
            raise StoreError("deaf for now")
        return super().spilled(*args, **kwargs)


def pipeline_of(
    records: Sequence[Record],
    store: Store,
    folder: Path,
    registry: CollectorRegistry,
    **labels: Any,
) -> Pipeline:
    return plain_pipeline_of(
        settings_of(folder, labels={"spill_from_start": True, **labels}),
        ListSource(list(records)),
        store,
        registry,
        monotonic=iter(range(10**9)).__next__,
    )


def test_a_look_up_that_fails_is_made_again_and_nothing_is_taken_twice(
    uninterrupted: tuple[Found, int], tmp_path: Path
) -> None:
    with closing(DeafStore(f"sqlite:///{tmp_path}/s.db")) as store:
        pipeline = pipeline_of(LATE, store, tmp_path, CollectorRegistry(), max_pending=MAX_PENDING)
        work_off(pipeline)
        assert store.unanswered > 3
        assert incidents_of(store) == uninterrupted[0][0]
        assert pipeline.streams["s"].monitor.n_labelled == N_LABELS


# -- what the metrics say ----------------------------------------------------------------------


def body(id_: str, time: int | None, *, label: str | None = None, seen: bool = True) -> object:
    """An observation or a label, `time` minutes after the first."""
    found: dict[str, object] = {"stream": "s", "id": id_}
    if seen:
        found["features"] = {"x0": 1.0, "x1": 2.0}
    if time is not None:
        found["time"] = f"2026-01-01T{time // 60:02d}:{time % 60:02d}:00Z"
    if label is not None:
        found["label"] = label
    return found


def until(*times: int) -> list[object]:
    """Observations with their labels, as many as it takes for the stream to reach these times."""
    return [body(f"at {t}, {n}", t, label="y") for t in times for n in range(80)]


def series(registry: CollectorRegistry, name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(v for k, v in sample.labels.items() if k != "stream"): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == f"{PREFIX}_{name}"
    }


@pytest.fixture
def told(tmp_path: Path, any_database: str) -> Iterator[CollectorRegistry]:
    """The metrics after a stream in which everything happens that can happen to a label."""
    bodies = [
        # Enough for the features to be known.
        *[body(f"n{n}", 0, label="y") for n in range(200)],
        *[body(f"o{n}", n) for n in range(6)],  # o0 to o3 go to the store
        body("o0", 10, label="y", seen=False),
        body("o0", 10, label="y", seen=False),
        body("o0", 10, label="z", seen=False),
        body("o4", 10),  # superseded
        body("e0", 10, label="y", seen=False),
        body("e0", 11),
        body("o4", 11, label="y", seen=False),
        *[body(f"e{n}", 11, label="y", seen=False) for n in range(1, 5)],  # two go to the store
        *until(25, 50, 80),  # they are unknown by now
        body("o1", 80, label="y", seen=False),  # too late
        *until(100, 122),  # o1 is given up by now
    ]
    registry = CollectorRegistry()
    with closing(Store(any_database, lambda: 0.0)) as store:
        labels = {"max_pending": 2, "max_age_s": 3600.0}
        pipeline = pipeline_of(as_records(bodies), store, tmp_path, registry, **labels)
        work_off(pipeline)
        yield registry


def test_every_outcome_is_counted(told: CollectorRegistry) -> None:
    assert series(told, "labels_total") == {
        ("joined",): 200 + 3 + 5 * 80,
        ("early",): 5,
        ("duplicate",): 1,
        ("conflict",): 1,
        ("expired",): 1,
        ("unknown",): 4,
    }
    assert series(told, "observations_unlabelled_total") == {("superseded",): 1, ("given_up",): 1}


def test_what_waits_is_shown_with_its_place(told: CollectorRegistry) -> None:
    assert series(told, "labels_pending") == {
        ("observation", "memory"): 1,
        ("observation", "store"): 2,
        ("label", "memory"): 0,
        ("label", "store"): 0,
    }


def test_delays_are_those_of_labels_that_came_later(told: CollectorRegistry) -> None:
    assert series(told, "label_delay_seconds_count") == {(): 2}
    assert series(told, "label_delay_seconds_sum") == {(): 600 + 60}
    assert series(told, "label_delay_observations_count") == {(): 2}
    assert series(told, "label_delay_observations_sum") == {(): 5 + 2 - 1}


def test_the_watermark_is_a_record_time(tmp_path: Path) -> None:
    begin = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    bodies = [body(f"n{n}", 0, label="y") for n in range(200)]
    bodies += [body(f"o{n}", n) for n in range(5, 10)]
    reached = []
    with closing(Store(f"sqlite:///{tmp_path}/s.db", lambda: 0.0)) as store:
        for ids in ([], ["o5"], ["o6"], ["o7", "o8", "o9"]):
            bodies += [body(id_, 20, label="y", seen=False) for id_ in ids]
            registry = CollectorRegistry()
            records = as_records(bodies)
            pipeline = pipeline_of(records, store, tmp_path, registry, max_pending=2)
            work_off(pipeline)
            (at,) = series(registry, "label_watermark_timestamp_seconds").values()
            reached.append((at - begin) / 60)
    assert reached == [5, 6, 7, 20]
