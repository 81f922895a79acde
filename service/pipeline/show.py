"""What batches did to the streams, as metrics and as what others see."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from operator import is_
from typing import Generic, TypeVar

from prometheus_client import Counter, Gauge, Histogram

from service.domain.incident import IncidentState
from service.domain.waiting import Side
from service.monitor.label_outcomes import Ended, Outcome
from service.monitor.outcomes import Outcomes
from service.monitor.phase import Phase
from service.monitor.reweighting import prior_in_force
from service.pipeline.containment import StreamFailedError, contained
from service.pipeline.lane import Lane
from service.pipeline.stream import Batch, Stream
from service.pipeline.unwritten import Unwritten
from service.pipeline.view import StreamView, View
from service.telemetry.metrics import Metrics

M = TypeVar("M", Counter, Gauge, Histogram)


class _Children(Generic[M]):
    """A metric's series of one stream, each looked up once; none exists before it is asked for."""

    __slots__ = ("_found", "_metric", "_stream")

    def __init__(self, metric: M, stream: str) -> None:
        self._metric: M = metric
        self._stream = stream
        self._found: dict[tuple[str, ...], M] = {}

    def __call__(self, *labels: str) -> M:
        child = self._found.get(labels)
        if child is None:
            child = self._found[labels] = self._metric.labels(self._stream, *labels)
        return child


class Shows:
    """Shows what batches did to streams: in the metrics, and in the view that others read.

    Parameters
    ----------
    metrics
        All metrics.
    clock
        Unix seconds, for timestamps in the metrics.
    """

    def __init__(self, metrics: Metrics, clock: Callable[[], float]) -> None:
        self.view = View()
        self._metrics = metrics
        self._clock = clock
        self._series: dict[str, Series] = {}

    def batches(
        self, lane: Lane, batches: Iterable[tuple[Stream, Batch]]
    ) -> list[StreamFailedError]:
        """Bring metrics and views up to date; returns what streams raise over it."""
        views, failed, now = dict(lane.views), [], self._clock()
        for stream, batch in batches:
            try:
                with contained(stream.name, lane.number):
                    view = views[stream.name] = StreamView.of(stream, lane.number)
                    self._of(stream.name).show(stream, batch, view, now)
            except StreamFailedError as error:
                failed.append(error)
        lane.views = views
        return failed

    def written(self, lane: Lane, unwritten: Unwritten) -> list[StreamFailedError]:
        """Have streams know which waiting labels are written, and show which were given up.

        Returns what streams raise over it.
        """
        failed = []
        for name, pruned in unwritten.pruned.items():
            stream = lane.streams[name]
            try:
                with contained(name, lane.number):
                    given_up = stream.monitor.spill_written(pruned)
                    self._of(name).show_labels(stream, *given_up)
            except StreamFailedError as error:
                failed.append(error)
        return failed

    def publish(self, lanes: Iterable[Lane], *, is_ready: bool) -> None:
        """Have others see the streams as they were shown last."""
        views, now = tuple(lane.views for lane in lanes), self.view
        is_same = len(views) == len(now.lanes) and all(map(is_, views, now.lanes))
        if not is_same or now.is_ready != is_ready:
            self.view = View(views, is_ready)

    def _of(self, stream: str) -> Series:
        found = self._series.get(stream)
        if found is None:
            found = self._series[stream] = Series(self._metrics, stream)
        return found


class Series:
    """The metrics of one stream, whose parts share them.

    Parameters
    ----------
    metrics
        All metrics.
    stream
        The stream's name.
    """

    def __init__(self, metrics: Metrics, stream: str) -> None:
        self._name = stream
        self._metrics = metrics
        self._prior_of: tuple[object, ...] = ()
        """What the prior that is shown was computed from."""
        self._observations = _Children(metrics.observations, stream)
        self._labels = _Children(metrics.labels, stream)
        self._unlabelled = _Children(metrics.observations_unlabelled, stream)
        self._pending = _Children(metrics.labels_pending, stream)
        self._watermark = _Children(metrics.label_watermark, stream)
        self._mistimed = _Children(metrics.records_mistimed, stream)
        self._delay = _Children(metrics.label_delay, stream)
        self._delay_observations = _Children(metrics.label_delay_observations, stream)
        self._join = _Children(metrics.label_join, stream)
        self._last_observation = _Children(metrics.last_observation, stream)
        self._last_label = _Children(metrics.last_label, stream)
        self._accuracy = _Children(metrics.accuracy, stream)
        self._alarms = _Children(metrics.alarms, stream)
        self._suspicions = _Children(metrics.suspicions, stream)
        self._expected = _Children(metrics.suspicions_expected, stream)
        self._statistic = _Children(metrics.drift_statistic, stream)
        self._p_value = _Children(metrics.test_p_value, stream)
        self._open = _Children(metrics.incident_open, stream)

    def show(self, stream: Stream, batch: Batch, view: StreamView, now: float) -> None:
        """Bring the metrics up to date after a batch; `now` is in Unix seconds."""
        outcomes, n = batch.outcomes, batch.n_observations
        self.show_labels(stream, outcomes.labels, outcomes.unlabelled)
        for direction, n_mistimed in outcomes.mistimed.items():
            self._mistimed(str(direction)).inc(n_mistimed)
        for observations, seconds in outcomes.delays:
            self._delay_observations().observe(observations)
            if seconds is not None:
                self._delay().observe(max(seconds, 0.0))
        if n:
            self._observations().inc(n)
            self._last_observation().set(now)
            if view.phase == Phase.WATCHING:
                self._expected().inc(n / stream.monitor.suspicion_interval)
        if outcomes.labels.get(Outcome.JOINED):
            self._last_label().set(now)
        if view.observations:
            self._join().set(view.labels / view.observations)
        if view.accuracy is not None:
            self._accuracy().set(view.accuracy)
        self._show_detection(stream, outcomes, view)
        self._show_prior(stream, outcomes, view)

    def show_labels(
        self, stream: Stream, labels: Mapping[Outcome, int], unlabelled: Mapping[Ended, int]
    ) -> None:
        """Count what became of labels and of observations without one, and what still waits."""
        waiting = stream.monitor.waiting
        for outcome, n in labels.items():
            self._labels(str(outcome)).inc(n)
        for ended, n in unlabelled.items():
            self._unlabelled(str(ended)).inc(n)
        in_memory = {Side.OBSERVATION: waiting.n_waiting, Side.LABEL: waiting.n_early}
        in_store = waiting.n_spilled
        for side in Side:
            self._pending(side.value, "memory").set(in_memory[side])
            self._pending(side.value, "store").set(in_store[side])
        oldest = waiting.oldest_time
        reached = waiting.latest_time if oldest is None else oldest
        if math.isfinite(reached):
            self._watermark().set(reached)

    def _show_detection(self, stream: Stream, outcomes: Outcomes, view: StreamView) -> None:
        for alarm in outcomes.alarms:
            self._alarms(str(alarm.factor)).inc()
            self._suspicions("opened").inc()
        for factor, ratio in view.statistics.items():
            self._statistic(factor.value).set(ratio)
        for evidence in outcomes.evidence:
            if evidence.p_value is not None:
                self._p_value(str(evidence.factor)).set(evidence.p_value)
        for incident in outcomes.incidents:
            if incident.state is IncidentState.DISMISSED:
                self._suspicions("dismissed").inc()
        for _ in outcomes.decisions:
            self._suspicions("confirmed").inc()
        standing = stream.monitor.standing.all
        for factor in view.settings.problem.factors:
            self._open(factor.value).set(any(factor in i.factors for i in standing))

    def _show_prior(self, stream: Stream, outcomes: Outcomes, view: StreamView) -> None:
        baseline = stream.monitor.baseline
        # Without a correction it is the reference's, which late labels still join.
        source = (*view.classes, view.correction, baseline, baseline.labelled)
        is_same = len(source) == len(self._prior_of) and all(map(is_, source, self._prior_of))
        if outcomes.joined or not is_same:
            self._prior_of = source
            prior = prior_in_force(view.classes, view.correction, baseline)
            self._metrics.set_prior(self._name, prior)
