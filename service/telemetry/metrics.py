"""Every metric of the service, as data: one table makes the series and their reference page."""

from __future__ import annotations

import itertools
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)

from detectors.base import Factor, Kind
from service import __version__

PREFIX = "shiftwatch"
MAX_CLASSES = 50
"""A stream with more has no series by class: who pays for the series should not be surprised."""

_UNIT = re.compile(r"(_total|_timestamp_seconds|_seconds|_ratio)$")


class Type(StrEnum):
    """The metric types of Prometheus that are used here."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Spec:
    """One metric.

    Attributes
    ----------
    name
        Without the prefix.
    type
        Counter, gauge or histogram.
    help
        One sentence for `# HELP` and the reference page.
    labels
        Label names, each with the values it can take, or none where the data decides.
    is_zero_at_start
        Whether the series exist, at 0, as soon as their stream is known. Not for a gauge whose 0
        says something that is not so.
    buckets
        Upper limits of a histogram's buckets.
    """

    name: str
    type: Type
    help: str
    labels: Mapping[str, tuple[str, ...]]
    is_zero_at_start: bool = False
    buckets: tuple[float, ...] = ()

    @property
    def attribute(self) -> str:
        """Its attribute of `Metrics`: the name without its unit."""
        return _UNIT.sub("", self.name)


_FACTORS = tuple(f.value for f in Factor)
_KINDS = tuple(k.value for k in Kind if k is not Kind.NONE)
_STREAM: Mapping[str, tuple[str, ...]] = {"stream": ()}
_STREAM_FACTOR: Mapping[str, tuple[str, ...]] = {"stream": (), "factor": _FACTORS}


def _counter(name: str, help_: str, labels: Mapping[str, tuple[str, ...]]) -> Spec:
    return Spec(name, Type.COUNTER, help_, labels, is_zero_at_start=True)


def _gauge(name: str, help_: str, labels: Mapping[str, tuple[str, ...]]) -> Spec:
    return Spec(name, Type.GAUGE, help_, labels)


_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_DELAYS_S = (1, 10, _MINUTE, 600, _HOUR, 6 * _HOUR, _DAY, 3 * _DAY, 7 * _DAY, 14 * _DAY, 30 * _DAY)


SPECS = (
    # -- what comes in
    _counter("records_consumed_total", "Records read from the source.", {"topic": ()}),
    _counter(
        "records_ignored_total",
        "Records that are in order and not needed, by reason: `inference_response` is an answer "
        "that KServe logged.",
        {"reason": ("inference_response",)},
    ),
    _counter(
        "ingest_requests_total",
        "Requests to `POST /api/v1/events` by the answer's status; only where `source.kind` is "
        "`http`.",
        {"code": ("202", "400", "401", "403", "413", "415", "422", "429", "500", "503")},
    ),
    _gauge(
        "ingest_spool_bytes",
        "Bytes of events that were taken over HTTP and are not processed yet; at "
        "`source.max_backlog_bytes` no more are taken.",
        {},
    ),
    _counter("observations_total", "Observations taken by the stream's monitor.", _STREAM),
    _counter(
        "labels_total",
        "Labels by what became of them: `joined` met their observation, `early` came before it, "
        "`duplicate` and `conflict` repeat or contradict one that was there, `expired` came when "
        "their observation was too old, `unknown` are early ones that never met one.",
        {
            "stream": (),
            "outcome": ("joined", "early", "duplicate", "conflict", "expired", "unknown"),
        },
    ),
    _counter(
        "observations_unlabelled_total",
        "Observations whose label is not waited for any more, though none came: `superseded` by a "
        "newer one with the same id, `given_up` for want of room or for their age.",
        {"stream": (), "reason": ("superseded", "given_up")},
    ),
    _counter(
        "records_mistimed_total",
        "Records whose own time is further from the stream's than `labels.max_age_s`: `ahead` of "
        "it by a wrong clock, or the first 1,100 after a long pause; `behind` it by a wrong clock, "
        "or because they are old.",
        {"stream": (), "direction": ("ahead", "behind")},
    ),
    _gauge(
        "labels_pending",
        "What waits for its other half: observations for their label, labels for their "
        "observation; in memory, or in the store because `labels.max_pending` others are there.",
        {"stream": (), "side": ("observation", "label"), "where": ("memory", "store")},
    ),
    Spec(
        "label_delay_seconds",
        Type.HISTOGRAM,
        "From the time of an observation's record to that of its label's, for labels that came "
        "later by themselves.",
        _STREAM,
        buckets=_DELAYS_S,
    ),
    Spec(
        "label_delay_observations",
        Type.HISTOGRAM,
        "Observations between an observation and its label, for labels that came later by "
        "themselves.",
        _STREAM,
        buckets=(1, 10, 100, 1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000),
    ),
    _gauge(
        "label_watermark_timestamp_seconds",
        "Record time up to which every observation is labelled or given up: that of the oldest "
        "that waits, or else the latest, but for wrong clocks; no series for a stream without "
        "times.",
        _STREAM,
    ),
    _counter(
        "dead_letters_total",
        "Records that could not be used, by reason.",
        {
            "reason": (
                "empty",
                "not_json",
                "duplicate_key",
                "not_an_object",
                "missing_field",
                "unknown_field",
                "conflict",
                "wrong_type",
                "not_finite",
                "out_of_range",
                "bad_time",
                "bad_text",
                "too_large",
                "not_an_image",
                "unknown_format",
                "bad_gzip",
                "bad_envelope",
                "batch",
                "bad_avro",
                "unknown_schema",
                "unknown_stream",
                "missing_feature",
                "new_feature",
                "uri_not_allowed",
                "unreachable",
                "stream_failed",
            )
        },
    ),
    Spec(
        "stream_failed",
        Type.GAUGE,
        "1 from when the stream raised an error that it does not get over, until the process is "
        "started again; its records go to the dead letters meanwhile.",
        _STREAM,
        is_zero_at_start=True,
    ),
    _gauge(
        "label_join_ratio",
        "Share of the observations taken so far that have their label.",
        _STREAM,
    ),
    _gauge(
        "last_observation_timestamp_seconds",
        "When the stream's last observation was taken, in Unix time.",
        _STREAM,
    ),
    _gauge(
        "last_label_timestamp_seconds",
        "When the stream's last label was taken, in Unix time; no series before the first one.",
        _STREAM,
    ),
    _gauge(
        "consumer_lag_records",
        "Records in the partition that are not processed yet, as the broker last said; only lanes "
        "of this process.",
        {"topic": (), "partition": ()},
    ),
    _counter(
        "offset_resets_total",
        "Times that a stored offset was not in the partition any more, so that records may have "
        "been passed over or are read again: deleted too early, or a topic that was created anew.",
        {"topic": (), "partition": ()},
    ),
    # -- detection
    _counter(
        "alarms_total", "Stage-1 alarms by the factor whose monitor raised them.", _STREAM_FACTOR
    ),
    _counter(
        "suspicions_total",
        "Suspicions opened by an alarm, and how they ended.",
        {"stream": (), "outcome": ("opened", "confirmed", "dismissed")},
    ),
    _counter(
        "suspicions_expected_total",
        "Suspicions that the calibration allows while nothing moves: grows with every observation "
        'watched, and is to be compared with `suspicions_total{outcome="opened"}`.',
        _STREAM,
    ),
    _gauge(
        "false_alarm_promised_interval_observations",
        "Mean number of observations between false confirmed incidents, as configured.",
        _STREAM,
    ),
    _gauge(
        "drift_statistic_ratio",
        "Largest statistic of the factor's monitors as a share of its threshold; 1 is an alarm.",
        _STREAM_FACTOR,
    ),
    _gauge(
        "test_p_value",
        "p-value of the factor's last test in the confirm stage; no series before the first one.",
        _STREAM_FACTOR,
    ),
    _counter(
        "incidents_total",
        "Confirmed incidents by verdict, without those that were folded into another partition's.",
        {"stream": (), "kind": _KINDS},
    ),
    Spec(
        "incident_open",
        Type.GAUGE,
        "1 while a confirmed incident of the factor is open, otherwise 0.",
        _STREAM_FACTOR,
        is_zero_at_start=True,
    ),
    _gauge(
        "prior",
        "Share of each class that the scores are corrected to, or while they are not, the "
        "reference's; only streams that have scores, labels in the reference and at most "
        f"{MAX_CLASSES} classes.",
        {"stream": (), "class": ()},
    ),
    _gauge(
        "accuracy_ratio",
        "Share of right predictions among the stream's recent labelled observations.",
        _STREAM,
    ),
    # -- repair
    _gauge("champion_version", "Version of the stream's champion.", _STREAM),
    _counter(
        "retrain_runs_total",
        "Trainings by outcome: `promoted` and `rejected` are the gate's decision.",
        {"stream": (), "outcome": ("promoted", "rejected", "failed", "cancelled")},
    ),
    Spec(
        "retrain_duration_seconds",
        Type.HISTOGRAM,
        "Time that a training took, whatever its outcome.",
        {},
        buckets=(10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14_400),
    ),
    # -- the service itself
    _counter(
        "webhook_deliveries_total",
        "Attempts to deliver a webhook by outcome.",
        {"endpoint": (), "outcome": ("delivered", "retried", "failed")},
    ),
    _gauge("lanes_owned", "Lanes (partition numbers) that this process works on.", {}),
    _counter(
        "lanes_fenced_total",
        "Lanes whose new owner was noticed when this process tried to write; nothing was written.",
        {},
    ),
    _counter("store_errors_total", "Attempts to write to the store that failed.", {}),
    _gauge(
        "checkpoint_last_success_timestamp_seconds",
        "When states, offsets, incidents and actions were last written, in Unix time.",
        {},
    ),
    Spec(
        "checkpoint_duration_seconds",
        Type.HISTOGRAM,
        "Time that a checkpoint took.",
        {},
        buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    ),
    _gauge(
        "build_info",
        "Always 1; the labels say what is running.",
        {"version": (), "python": ()},
    ),
)


class Metrics:
    """The metrics of one process; each is an attribute named by its `Spec`.

    Parameters
    ----------
    registry
        Where they are registered; a registry takes them once.
    """

    records_consumed: Counter
    ingest_requests: Counter
    ingest_spool_bytes: Gauge
    observations: Counter
    labels: Counter
    observations_unlabelled: Counter
    records_mistimed: Counter
    labels_pending: Gauge
    label_delay: Histogram
    label_delay_observations: Histogram
    label_watermark: Gauge
    dead_letters: Counter
    records_ignored: Counter
    stream_failed: Gauge
    label_join: Gauge
    last_observation: Gauge
    last_label: Gauge
    alarms: Counter
    suspicions: Counter
    suspicions_expected: Counter
    false_alarm_promised_interval_observations: Gauge
    drift_statistic: Gauge
    test_p_value: Gauge
    incidents: Counter
    incident_open: Gauge
    prior: Gauge
    accuracy: Gauge
    champion_version: Gauge
    retrain_runs: Counter
    retrain_duration: Histogram
    webhook_deliveries: Counter
    checkpoint_last_success: Gauge
    checkpoint_duration: Histogram
    lanes_owned: Gauge
    lanes_fenced: Counter
    store_errors: Counter
    consumer_lag_records: Gauge
    offset_resets: Counter
    build_info: Gauge

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        # A `_created` series for every counter doubles what Prometheus stores, and is not used.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        for spec in SPECS:
            setattr(self, spec.attribute, _make(spec, registry))
        self._classes: dict[str, set[str]] = {}
        for spec in SPECS:
            if spec.is_zero_at_start:
                self._start_at_zero(spec, {})
        self.build_info.labels(__version__, platform.python_version()).set(1)

    def add_stream(self, stream: str) -> None:
        """Make the stream's counters appear at 0, so that their first increase shows as one."""
        self._add("stream", stream)

    def add_endpoint(self, endpoint: str) -> None:
        """Make a webhook endpoint's counters appear at 0."""
        self._add("endpoint", endpoint)

    def add_topic(self, topic: str) -> None:
        """Make a topic's counter appear at 0."""
        self._add("topic", topic)

    def set_prior(self, stream: str, prior: Mapping[str, float]) -> None:
        """Show the share of each class; nothing for a stream with more than `MAX_CLASSES`.

        Parameters
        ----------
        stream
            The stream.
        prior
            Share by class, summing to 1; empty where it is not known.
        """
        shown = prior if len(prior) <= MAX_CLASSES else {}
        for class_ in self._classes.get(stream, set()) - shown.keys():
            self.prior.remove(stream, class_)
        for class_, share in shown.items():
            self.prior.labels(stream, class_).set(share)
        self._classes[stream] = set(shown)

    def _add(self, label: str, value: str) -> None:
        for spec in SPECS:
            if spec.is_zero_at_start and label in spec.labels:
                self._start_at_zero(spec, {label: (value,)})

    def _start_at_zero(self, spec: Spec, known: Mapping[str, tuple[str, ...]]) -> None:
        values = [known.get(label, values) for label, values in spec.labels.items()]
        # An open label without a value makes the product empty: nothing is started.
        for combination in itertools.product(*values) if values else ():
            getattr(self, spec.attribute).labels(*combination)


def _make(spec: Spec, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    name, labels = f"{PREFIX}_{spec.name}", tuple(spec.labels)
    match spec.type:
        case Type.COUNTER:
            return Counter(name, spec.help, labels, registry=registry)
        case Type.GAUGE:
            return Gauge(name, spec.help, labels, registry=registry)
        case Type.HISTOGRAM:
            return Histogram(name, spec.help, labels, registry=registry, buckets=spec.buckets)


def reference() -> str:
    """Return the text of `docs/reference/metrics.md`."""
    lines = [
        "# Metrics",
        "",
        "Served at `/metrics`. Generated from `service/telemetry/metrics.py` (`make docs`).",
        "Counters of a stream exist, at 0, as soon as the stream is known. Timestamps are exported",
        "instead of ages: an age is `time() - shiftwatch_last_label_timestamp_seconds`.",
        "",
        "| metric | type | labels | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for spec in SPECS:
        labels = ", ".join(f"`{label}`" for label in spec.labels) or "none"
        lines.append(f"| `{PREFIX}_{spec.name}` | {spec.type} | {labels} | {spec.help} |")
    lines += ["", "## Values of labels", ""]
    values = {(label, values) for spec in SPECS for label, values in spec.labels.items() if values}
    for label, options in sorted(values):
        used = [f"`{spec.name}`" for spec in SPECS if spec.labels.get(label) == options]
        shown = ", ".join(f"`{option}`" for option in options)
        lines.append(f"- `{label}` of {', '.join(used)}: {shown}.")
    return "\n".join(lines) + "\n"
