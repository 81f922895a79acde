"""What other threads see: whole, of one moment, and never the streams themselves."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from service.pipeline.containment import Failure
from service.pipeline.view import StreamView, View
from service.settings.stream import StreamSettings
from service.sources.listed import ListSource
from tests.service.runs import open_store, pipeline_of, settings_of, work_off
from tests.service.streams import x_to_y_records

SETTINGS = StreamSettings.model_validate({"name": "s", "problem": "x_to_y"})
OTHER = StreamSettings.model_validate({"name": "t", "problem": "x_to_y"})


def part(lane: int, observations: int, **fields: Any) -> StreamView:
    return StreamView(SETTINGS, lane, "watching", observations=observations, **fields)


def test_of_a_stream_in_several_lanes_the_part_seen_most_of_is_shown() -> None:
    view = View(({"s": part(0, 10)}, {"s": part(1, 30), "t": StreamView(OTHER, 1)}))
    assert view.stream("s").lane == 1
    assert [p.lane for p in view.parts("s")] == [0, 1]
    assert view.names == ["s", "t"]


def test_a_part_that_has_failed_is_shown_before_the_others() -> None:
    failure = Failure("s", 0, "ValueError: x", "events[0]@7", "events[0]@9")
    view = View(({"s": part(0, 10).failed(failure)}, {"s": part(1, 30)}))
    seen = view.stream("s")
    assert (seen.is_failed, seen.phase, seen.observations) == (True, "failed", 10)
    assert seen.reason == "stream 's' failed at events[0]@7 to events[0]@9: ValueError: x"


def test_a_stream_that_is_not_there_is_named() -> None:
    with pytest.raises(LookupError, match="there is no stream 'x'"):
        View().stream("x")
    assert View().parts("x") == []


def test_an_incident_is_open_in_any_part() -> None:
    view = View(({"s": part(0, 10)}, {"s": part(1, 30, open_incidents=("inc-1",))}))
    assert view.has_open("inc-1")
    assert not view.has_open("inc-2")


def test_what_was_published_never_changes(tmp_path: Path) -> None:
    """Every view that the loop published is still what it was when it was published."""
    settings = settings_of(tmp_path)
    records = x_to_y_records(1300, shift="covariate", at=700, seed=8)
    published: list[tuple[View, Mapping[str, Any]]] = []
    with closing(open_store(settings.store.url)) as store:
        pipeline = pipeline_of(settings, ListSource(records), store)

        def keep(*_: object) -> None:
            view = pipeline.view
            published.append((view, dataclasses.asdict(view.stream("s"))))

        pipeline.on_batch = keep
        work_off(pipeline)
    assert len(published) >= 3
    for view, as_it_was in published:
        assert dataclasses.asdict(view.stream("s")) == as_it_was
    seen = [view.stream("s").observations for view, _ in published]
    assert seen == sorted(set(seen)), "a batch was not published before it was told of"
    assert published[-1][0].stream("s").open_incidents


def test_it_is_ready_from_the_first_step_to_the_end(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    with closing(open_store(settings.store.url)) as store:
        pipeline = pipeline_of(settings, ListSource(x_to_y_records(10)), store)
        assert not pipeline.view.is_ready
        pipeline.step(timeout_s=0)
        assert pipeline.view.is_ready
        pipeline.run(threading.Event())
        assert not pipeline.view.is_ready


def test_streams_of_a_lost_lane_are_not_shown_any_more(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    records = [dataclasses.replace(r, partition=k % 2) for k, r in enumerate(x_to_y_records(500))]
    with closing(open_store(settings.store.url)) as store:
        pipeline = pipeline_of(settings, ListSource(records), store)
        work_off(pipeline)
        assert [p.lane for p in pipeline.view.parts("s")] == [0, 1]
        pipeline.lanes.lost([1])
        pipeline.step(timeout_s=0)
        assert [p.lane for p in pipeline.view.parts("s")] == [0]
