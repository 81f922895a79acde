"""The straight line end to end on small streams: verdicts, bad input, and the guarantee."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.domain.incident import Incident, IncidentState
from service.records.block import Block
from service.records.record import Record
from service.sources.source import Owner
from tests.service.runs import (
    DyingSource,
    DyingStore,
    Fuse,
    confirmed,
    incidents_of,
    open_store,
    pipeline_of,
    run_to_end,
    settings_of,
)
from tests.service.streams import as_records, x_to_y_records

CHANGE = 700


class ShakenSource(DyingSource):
    """Takes its lane away and gives it back, now and then, in a poll that returns records too."""

    def start(self, owner: Owner) -> None:
        self._owner = owner
        super().start(owner)

    def poll(self, max_records: int = 500, timeout_s: float = 1.0) -> Block:
        if self._fuse.steps % 7 == 3:
            self._owner.lost({0})
            begin = dict.fromkeys(self._next, 0)
            self.seek({**begin, **(self._owner.assigned({0}, 1) or {})})
        return super().poll(max_records, timeout_s)


def run(
    records: Sequence[Record],
    folder: Path,
    fuse: Fuse | None = None,
    most: int = 100,
    source_of: type[DyingSource] = DyingSource,
    **stream: Any,
) -> list[Incident]:
    """Run to the end, starting again after a kill; the incidents, oldest first."""
    burning = fuse or Fuse(None)
    return run_to_end(
        settings_of(folder, **stream),
        lambda: source_of(records, burning, most),
        lambda _, store: incidents_of(store),
        store_of=lambda url: DyingStore(url, burning),
    )


@pytest.mark.parametrize("shift", ["none", "covariate", "concept", "both"])
def test_what_moved_is_named_and_nothing_before_it_moved(shift: str, tmp_path: Path) -> None:
    records = x_to_y_records(2200, shift=shift, at=CHANGE, seed=5)
    found = confirmed(run(records, tmp_path))
    expected = {
        "none": [],
        "covariate": [("covariate", ("covariate",))],
        "concept": [("concept", ("concept",))],
        "both": [("mixed", ("concept", "covariate"))],
    }[shift]
    assert [(str(i.kind), i.factors) for i in found] == expected
    for incident in found:
        assert incident.opened_at.index >= CHANGE
        assert incident.state is IncidentState.CONFIRMED
        assert incident.change_point is not None
        assert abs(incident.change_point - CHANGE) < 150
        assert incident.actions[0]["kind"] == "alert_only"


def test_labels_that_come_late_and_not_always_name_the_concept_all_the_same(tmp_path: Path) -> None:
    records = x_to_y_records(3000, shift="concept", at=CHANGE, delay=150, share=0.6, seed=6)
    found = confirmed(run(records, tmp_path))
    assert [i.factors for i in found] == [("concept",)]


def test_without_labels_a_moved_input_is_undetermined_and_says_what_is_possible(
    tmp_path: Path,
) -> None:
    records = x_to_y_records(2500, shift="covariate", at=CHANGE, share=0.0, seed=7)
    found = confirmed(run(records, tmp_path))
    assert [(str(i.kind), i.factors) for i in found] == [("undetermined", ("concept", "covariate"))]
    assert "label" in " ".join(e["note"] for e in found[0].evidence)


RUN = x_to_y_records(1300, shift="covariate", at=CHANGE, delay=20, seed=8)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Incident], int]:
    fuse = Fuse(None)
    found = run(RUN, tmp_path_factory.mktemp("uninterrupted"), fuse)
    assert confirmed(found)
    return found, fuse.steps


@pytest.mark.slow
def test_a_kill_at_any_step_leaves_the_same_incidents(
    uninterrupted: tuple[list[Incident], int], tmp_path: Path
) -> None:
    expected, steps = uninterrupted
    for at in range(1, steps + 1):
        folder = tmp_path / str(at)
        folder.mkdir()
        assert run(RUN, folder, Fuse(at)) == expected, f"killed at step {at} of {steps}"


def test_a_lane_that_is_lost_while_records_come_in_loses_none_of_them(
    uninterrupted: tuple[list[Incident], int], tmp_path: Path
) -> None:
    assert run(RUN, tmp_path, source_of=ShakenSource) == uninterrupted[0]


@pytest.mark.parametrize("most", [1, 7, 333])
def test_how_the_stream_is_cut_into_batches_changes_nothing(
    most: int, uninterrupted: tuple[list[Incident], int], tmp_path: Path
) -> None:
    assert run(RUN, tmp_path, most=most) == uninterrupted[0]


def test_each_new_state_of_an_incident_is_one_webhook_message(tmp_path: Path) -> None:
    run(RUN, tmp_path)
    store = open_store(f"sqlite:///{tmp_path}/s.db")
    sent = [(a.payload["event"], a.id) for a in store.actions()]
    store.close()
    assert [event for event, _ in sent] == ["incident.suspected", "incident.confirmed"]
    assert len({id_ for _, id_ in sent}) == len(sent)


GOOD = {"x0": 0.1, "x1": 0.2, "x2": 0.3}


def test_an_alarm_is_written_at_once_and_no_other_lane_with_it(tmp_path: Path) -> None:
    moved = x_to_y_records(CHANGE + 300, shift="covariate", at=CHANGE, stream="s")
    quiet = x_to_y_records(len(moved), seed=2, stream="t")
    records = [r for a, b in zip(moved, quiet, strict=True) for r in (a, replace(b, partition=1))]
    settings = settings_of(tmp_path)
    other = settings.streams[0].model_copy(update={"name": "t"})
    settings = settings.model_copy(
        update={
            "streams": [*settings.streams, other],
            "checkpoint": settings.checkpoint.model_copy(update={"every_records": 10**9}),
        }
    )
    store = open_store(settings.store.url)
    pipeline = pipeline_of(settings, DyingSource(records, Fuse(None), 100), store)
    while not store.incidents(limit=None):
        assert pipeline.step(timeout_s=0)
    assert {i.stream for i in store.incidents(limit=None)} == {"s"}
    assert set(store.offsets()) == {("events", 0)}
    pipeline.write()
    assert set(store.offsets()) == {("events", 0), ("events", 1)}
    store.close()


BAD = [
    (b"not json", "not_json"),
    (b'{"stream":"s","id":"n","features":{"x0":NaN,"x1":1,"x2":1}}', "not_finite"),
    (b'{"stream":"s","id":"n","features":{"x0":1e999,"x1":1,"x2":1}}', "out_of_range"),
    ({"stream": "s", "id": "n", "features": {"x0": 1.0, "x1": 1.0}}, "missing_feature"),
    ({"stream": "s", "id": "n", "features": {**GOOD, "x9": 1.0}}, "new_feature"),
    ({"stream": "s", "id": "n", "features": {**GOOD, "x0": "tall"}}, "wrong_type"),
    ({"stream": "nobody", "id": "n", "features": GOOD}, "unknown_stream"),
    ({"stream": "s", "features": GOOD}, "missing_field"),
]


def test_bad_records_are_kept_with_their_reason_and_harm_nothing(tmp_path: Path) -> None:
    clean = x_to_y_records(1300, shift="covariate", at=CHANGE, delay=20, seed=8)
    bodies: list[object] = []
    placed: list[int] = []
    bad = itertools.cycle(BAD)
    for n, record in enumerate(clean):
        if n % 40 == 30:
            placed.append(len(bodies))
            bodies.append(next(bad)[0])
        bodies.append(record.value)
    (tmp_path / "clean").mkdir()
    (tmp_path / "dirty").mkdir()
    expected = run(clean, tmp_path / "clean")
    found = run(as_records(bodies), tmp_path / "dirty")
    # The coordinates differ, so the ids do; everything else is the same.
    same = [(i.opened_at, i.confirmed_at, i.factors, i.change_point) for i in expected]
    assert [(i.opened_at, i.confirmed_at, i.factors, i.change_point) for i in found] == same
    lines = (tmp_path / "dirty" / "dead.jsonl").read_text().splitlines()
    letters = [json.loads(line) for line in lines]
    assert [letter["offset"] for letter in letters] == placed
    reasons = [reason for _, reason in BAD]
    assert [letter["reason"] for letter in letters] == list(
        itertools.islice(itertools.cycle(reasons), len(letters))
    )
    assert all(letter["message"] for letter in letters)
