"""A batch's outcome as metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping

from service.domain.incident import IncidentState
from service.domain.waiting import Side
from service.monitor.labels import Ended, Outcome
from service.monitor.phase import Phase
from service.monitor.reweighting import prior_in_force
from service.pipeline.stream import Batch, Stream
from service.telemetry.metrics import Metrics


def show(metrics: Metrics, stream: Stream, batch: Batch, now: float) -> None:
    """Bring a stream's metrics up to date after a batch; `now` is in Unix seconds."""
    name, monitor, outcomes = stream.name, stream.monitor, batch.outcomes
    metrics.observations.labels(name).inc(batch.n_observations)
    show_labels(metrics, stream, outcomes.labels, outcomes.unlabelled)
    for direction, n in outcomes.mistimed.items():
        metrics.records_mistimed.labels(name, str(direction)).inc(n)
    for observations, seconds in outcomes.delays:
        metrics.label_delay_observations.labels(name).observe(observations)
        if seconds is not None:
            metrics.label_delay.labels(name).observe(max(seconds, 0.0))
    if batch.n_observations:
        metrics.last_observation.labels(name).set(now)
    if outcomes.labels.get(Outcome.JOINED):
        metrics.last_label.labels(name).set(now)
    if monitor.n_seen:
        metrics.label_join.labels(name).set(monitor.n_labelled / monitor.n_seen)
    if monitor.accuracy is not None:
        metrics.accuracy.labels(name).set(monitor.accuracy)
    if monitor.phase is Phase.WATCHING:
        metrics.suspicions_expected.labels(name).inc(
            batch.n_observations / monitor.suspicion_interval
        )
    _show_detection(metrics, stream, batch)
    metrics.set_prior(name, prior_in_force(*stream.correction, monitor.baseline))


def show_labels(
    metrics: Metrics,
    stream: Stream,
    labels: Mapping[Outcome, int],
    unlabelled: Mapping[Ended, int],
) -> None:
    """Count what became of labels and of observations without one, and show what still waits."""
    name, waiting = stream.name, stream.monitor.waiting
    for outcome, n in labels.items():
        metrics.labels.labels(name, str(outcome)).inc(n)
    for ended, n in unlabelled.items():
        metrics.observations_unlabelled.labels(name, str(ended)).inc(n)
    in_memory = {Side.OBSERVATION: waiting.n_waiting, Side.LABEL: waiting.n_early}
    for side in Side:
        metrics.labels_pending.labels(name, str(side), "memory").set(in_memory[side])
        metrics.labels_pending.labels(name, str(side), "store").set(waiting.n_spilled[side])
    oldest = waiting.oldest_time
    reached = waiting.latest_time if oldest is None else oldest
    if math.isfinite(reached):
        metrics.label_watermark.labels(name).set(reached)


def _show_detection(metrics: Metrics, stream: Stream, batch: Batch) -> None:
    name, monitor, outcomes = stream.name, stream.monitor, batch.outcomes
    for alarm in outcomes.alarms:
        metrics.alarms.labels(name, str(alarm.factor)).inc()
        metrics.suspicions.labels(name, "opened").inc()
    for factor, ratio in monitor.statistics.items():
        metrics.drift_statistic.labels(name, str(factor)).set(ratio)
    for evidence in outcomes.evidence:
        if evidence.p_value is not None:
            metrics.test_p_value.labels(name, str(evidence.factor)).set(evidence.p_value)
    for incident in outcomes.incidents:
        if incident.state is IncidentState.DISMISSED:
            metrics.suspicions.labels(name, "dismissed").inc()
    for _ in outcomes.decisions:
        metrics.suspicions.labels(name, "confirmed").inc()
    for factor in stream.settings.problem.factors:
        is_open = any(factor in i.factors for i in monitor.standing)
        metrics.incident_open.labels(name, str(factor)).set(is_open)
