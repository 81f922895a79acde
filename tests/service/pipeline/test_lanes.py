"""Lanes that come, go and begin again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from service.domain.decision import Means
from service.pipeline.pipeline import Pipeline
from service.pipeline.stream import Batch, Stream
from service.records.block import Block
from service.records.reading import Given
from service.records.record import Record
from service.sources.listed import ListSource
from service.sources.source import NotNowError, Partition
from service.store.errors import StoreError
from service.store.store import Store
from tests.service.runs import open_store, pipeline_of, settings_of, work_off
from tests.service.streams import x_to_y_records


def spread(n: int, n_lanes: int = 2) -> list[Record]:
    """Records in turn in every partition."""
    return [
        dataclasses.replace(r, partition=k % n_lanes, offset=k // n_lanes)
        for k, r in enumerate(x_to_y_records(n))
    ]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(open_store(settings_of(tmp_path).store.url)) as store:
        yield store


def opened(folder: Path, store: Store, records: Sequence[Record], **more: Any) -> Pipeline:
    return pipeline_of(settings_of(folder), ListSource(records), store, **more)


def test_a_lane_that_is_revoked_is_written_first(store: Store, tmp_path: Path) -> None:
    pipeline = opened(tmp_path, store, spread(100))
    pipeline.step(timeout_s=0)
    pipeline.lanes.revoked({1})
    assert set(pipeline.lanes) == {0}
    assert store.offsets() == {("events", 1): 50}


def test_a_lane_that_is_lost_is_not_written(store: Store, tmp_path: Path) -> None:
    pipeline = opened(tmp_path, store, spread(100))
    pipeline.step(timeout_s=0)
    pipeline.lanes.lost({1})
    pipeline.write()
    assert store.offsets() == {("events", 0): 50}


def test_a_lane_with_another_owner_is_let_go_of_and_the_others_are_written(
    store: Store, tmp_path: Path
) -> None:
    pipeline = opened(tmp_path, store, spread(100))
    pipeline.step(timeout_s=0)
    store.claim(1)
    assert pipeline.write()
    assert set(pipeline.lanes) == {0}
    assert store.offsets() == {("events", 0): 50}


class Away(Store):
    """A store that is away for the first questions of a kind."""

    left = 0

    def states(self, lane: int) -> dict[str, bytes]:
        if self.left:
            self.left -= 1
            raise StoreError("away")
        return super().states(lane)


def test_a_lane_is_not_taken_over_from_a_store_that_is_away(tmp_path: Path) -> None:
    with closing(Away(settings_of(tmp_path).store.url, lambda: 0.0)) as store:
        pipeline = opened(tmp_path, store, spread(100))
        pipeline.lanes.lost({0, 1})
        store.left = 1
        with pytest.raises(NotNowError, match="away"):
            pipeline.lanes.assigned({0, 1}, 2)
        assert len(pipeline.lanes) == 0
        assert pipeline.lanes.assigned({0, 1}, 2) == {}
        assert set(pipeline.lanes) == {0, 1}


class Allergic(Stream):
    """A stream that cannot take one of its records."""

    def take(self, given: Given, means: Means) -> Batch:
        if "e60" in given.ids:
            raise ValueError("e60")
        return super().take(given, means)


class Seeking(ListSource):
    """Notes where it is sent."""

    def __init__(self, items: Sequence[Record]) -> None:
        super().__init__(items)
        self.sought: list[Mapping[Partition, int]] = []

    def poll(self, max_records: int = 500, timeout_s: float = 1.0) -> Block:
        return super().poll(min(max_records, 40), timeout_s)

    def seek(self, offsets: Mapping[Partition, int]) -> None:
        self.sought.append(offsets)
        super().seek(offsets)


def test_a_lane_begins_again_where_the_store_has_it_and_claims_nothing(
    store: Store, tmp_path: Path
) -> None:
    source = Seeking(spread(200))
    pipeline = pipeline_of(settings_of(tmp_path), source, store, stream_of=Allergic)
    epochs = {n: lane.epoch for n, lane in pipeline.lanes.items()}
    pipeline.step(timeout_s=0)
    pipeline.write()
    work_off(pipeline)
    # e60 is record 30 of lane 0; 20 of them were written by then.
    assert source.sought[1:] == [{("events", 0): 20}]
    assert {n: lane.epoch for n, lane in pipeline.lanes.items()} == epochs
    assert [f.lane for f in pipeline.failures] == [0]
    assert len(store.dead_letters()) == 80
    assert store.offsets() == {("events", 0): 100, ("events", 1): 100}


@pytest.mark.parametrize("begins", [0, 7])
def test_a_partition_that_the_store_has_not_begins_again_at_its_first_record(
    begins: int, store: Store, tmp_path: Path
) -> None:
    """As in a topic whose first records were deleted, or a file that is new in its directory."""
    records = [dataclasses.replace(r, offset=r.offset + begins) for r in spread(200, 1)]
    source = Seeking(records)
    pipeline = pipeline_of(settings_of(tmp_path), source, store, stream_of=Allergic)
    pipeline.lanes.begun({("events", 0): begins, ("labels", 0): 3})
    work_off(pipeline)
    assert source.sought[1:] == [{("events", 0): begins, ("labels", 0): 3}]
    assert store.offsets() == {("events", 0): 200 + begins, ("labels", 0): 3}
    assert len(store.dead_letters(limit=1000)) == 200


def test_what_was_polled_and_not_taken_comes_again_too(tmp_path: Path) -> None:
    with closing(Away(settings_of(tmp_path).store.url, lambda: 0.0)) as store:
        records = spread(100, 1)
        pipeline = opened(tmp_path, store, records, stream_of=Allergic)
        late = dataclasses.replace(records[0], topic="late", offset=5)
        pipeline.lanes[0].polled = Block.of([*records[:70], late])
        pipeline.step(timeout_s=0)  # fails at e60
        assert pipeline.lanes[0].begins == {("events", 0): 0, ("late", 0): 5}
        assert not pipeline.write(), "there is something to be read again"


def test_a_lane_waits_to_begin_again_until_the_store_answers(tmp_path: Path) -> None:
    with closing(Away(settings_of(tmp_path).store.url, lambda: 0.0)) as store:
        ticks = iter(range(10**6))
        pipeline = opened(
            tmp_path, store, spread(200), stream_of=Allergic, monotonic=ticks.__next__
        )
        store.left = 3
        work_off(pipeline)
        assert store.left == 0
        assert store.offsets() == {("events", 0): 100, ("events", 1): 100}


@pytest.mark.parametrize("how", ["lost", "revoked"])
def test_a_lane_that_is_to_begin_again_can_be_lost(how: str, store: Store, tmp_path: Path) -> None:
    source = Seeking(spread(200))
    pipeline = pipeline_of(settings_of(tmp_path), source, store, stream_of=Allergic)
    while not pipeline.failures:
        pipeline.step(timeout_s=0)
    assert pipeline.lanes.must_begin_again
    getattr(pipeline.lanes, how)({0})
    assert not pipeline.lanes.must_begin_again
    assert set(pipeline.lanes) == {1}
    assert store.offsets().get(("events", 0), 0) <= 20, "the failed batch was passed over"
