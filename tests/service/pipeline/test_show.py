"""Metrics after a batch: looked up once a stream, and the same as if they were looked up anew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.pipeline.pipeline import Pipeline
from service.pipeline.show import Shows
from service.pipeline.stream import Batch
from service.sources.listed import ListSource
from service.telemetry.metrics import Metrics
from tests.service.runs import open_store, pipeline_of, settings_of, work_off
from tests.service.streams import x_to_y_records


class Counted:
    """A metric that counts how often a series of it is looked up."""

    def __init__(self, metric: Counter | Gauge | Histogram) -> None:
        self._metric = metric
        self.n = 0

    def labels(self, *labels: str) -> Any:
        self.n += 1
        return self._metric.labels(*labels)


class CountedMetrics(Metrics):
    """Metrics whose look-ups are counted."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        for name, metric in list(vars(self).items()):
            if isinstance(metric, Counter | Gauge | Histogram):
                setattr(self, name, Counted(metric))

    @property
    def n(self) -> int:
        return sum(m.n for m in vars(self).values() if isinstance(m, Counted))


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    settings = settings_of(tmp_path)
    with closing(open_store(settings.store.url)) as store:
        pipeline = pipeline_of(settings, ListSource(x_to_y_records(700, seed=8)), store)
        work_off(pipeline)
        yield pipeline


def test_series_are_looked_up_once_a_stream(pipeline: Pipeline) -> None:
    lane, registry = pipeline.lanes[0], CollectorRegistry()
    metrics = CountedMetrics(registry)
    shows = Shows(metrics, lambda: 7.0)
    batches = [(lane.streams["s"], Batch(n_observations=3))]
    assert shows.batches(lane, batches) == []
    first = metrics.n
    assert first > 5
    for _ in range(10):
        shows.batches(lane, batches)
    assert metrics.n == first
    labels = {"stream": "s"}
    assert registry.get_sample_value("shiftwatch_observations_total", labels) == 33
    assert registry.get_sample_value("shiftwatch_last_observation_timestamp_seconds", labels) == 7


def test_no_series_appears_that_nothing_was_said_of(pipeline: Pipeline) -> None:
    lane, registry = pipeline.lanes[0], CollectorRegistry()
    Shows(Metrics(registry), lambda: 7.0).batches(lane, [(lane.streams["s"], Batch())])
    names = {s.name for family in registry.collect() for s in family.samples if s.labels}
    assert "shiftwatch_last_label_timestamp_seconds" not in names
    assert "shiftwatch_test_p_value" not in names
    assert "shiftwatch_label_join_ratio" in names
