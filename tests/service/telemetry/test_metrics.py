import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from service.monitor.label_outcomes import Ended, Outcome
from service.telemetry.metrics import MAX_CLASSES, PREFIX, SPECS, Metrics, Spec, Type, reference

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "metrics.md"
UNITS = ("_seconds", "_bytes", "_ratio", "_observations", "_info", "_value", "_version", "_records")
UNITLESS = {"incident_open", "stream_failed", "lanes_owned", "labels_pending", "prior"}
"""States, numbers, shares."""


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def series(registry: CollectorRegistry, name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == f"{PREFIX}_{name}"
    }


# -- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_a_name_follows_the_rules_that_promtool_checks(spec: Spec) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", spec.name)
    assert (spec.type is Type.COUNTER) == spec.name.endswith("_total")
    assert not spec.name.endswith(("_count", "_sum", "_bucket", "_created"))
    assert not re.search(r"(^|_)(counter|gauge|histogram|summary)(_|$)", spec.name)
    assert not re.search(r"_(ms|milliseconds|minutes|hours|days|percent|kb|mb)(_|$)", spec.name)
    if spec.type is Type.HISTOGRAM:
        assert spec.name.endswith(("_seconds", "_observations"))
        assert list(spec.buckets) == sorted(spec.buckets)
    if spec.type is Type.GAUGE:
        assert spec.name.endswith(UNITS) or spec.name in UNITLESS
    for label in spec.labels:
        assert re.fullmatch(r"[a-z][a-z_]*", label)
        assert label not in {"le", "quantile", "job", "instance"}
    assert re.fullmatch(r"\S.*\.", spec.help)


def test_every_metric_is_an_attribute_with_its_type(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry)
    annotated = {name: str(type_) for name, type_ in Metrics.__annotations__.items()}
    assert {spec.attribute for spec in SPECS} == annotated.keys()
    for spec in SPECS:
        assert type(getattr(metrics, spec.attribute)).__name__ == annotated[spec.attribute]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_accepts_the_page(registry: CollectorRegistry) -> None:
    fill(Metrics(registry))
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=generate_latest(registry),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def fill(metrics: Metrics) -> None:
    metrics.add_stream("digits")
    metrics.add_endpoint("ops")
    metrics.add_topic("events")
    for spec in SPECS:
        values = [next(iter(values), "x") for values in spec.labels.values()]
        metric = getattr(metrics, spec.attribute)
        child = metric.labels(*values) if values else metric
        match spec.type:
            case Type.COUNTER:
                child.inc()
            case Type.GAUGE:
                child.set(1)
            case Type.HISTOGRAM:
                child.observe(1)


def test_every_metric_can_be_used_and_is_shown(registry: CollectorRegistry) -> None:
    fill(Metrics(registry))
    page = generate_latest(registry).decode()
    for spec in SPECS:
        assert f"# HELP {PREFIX}_{spec.name} " in page
    assert "_created" not in page


# -- label values ------------------------------------------------------------------------------


def values_of(name: str, label: str) -> set[str]:
    (spec,) = (s for s in SPECS if s.name == name)
    return set(spec.labels[label])


def test_the_outcomes_of_labels_are_those_of_the_join() -> None:
    assert values_of("labels_total", "outcome") == {o.value for o in Outcome}
    assert values_of("observations_unlabelled_total", "reason") == {e.value for e in Ended}


def test_every_reason_that_the_code_gives_starts_at_zero() -> None:
    service = Path(__file__).parents[3] / "service"
    text = "\n".join(path.read_text(encoding="utf-8") for path in service.rglob("*.py"))
    given = set(re.findall(r'DecodeError\(\s*"([a-z_]+)"', text))
    assert "not_json" in given
    assert given <= values_of("dead_letters_total", "reason")


def test_counters_of_a_known_stream_start_at_zero(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry)
    assert series(registry, "observations_total") == {}
    metrics.add_stream("digits")
    assert series(registry, "observations_total") == {("digits",): 0}
    assert set(series(registry, "labels_total")) == {("digits", o.value) for o in Outcome}
    assert set(series(registry, "suspicions_total").values()) == {0}
    assert set(series(registry, "incident_open").values()) == {0}
    assert series(registry, "dead_letters_total")["not_json",] == 0
    metrics.add_endpoint("ops")
    assert series(registry, "webhook_deliveries_total")["ops", "failed"] == 0
    metrics.add_topic("events")
    assert series(registry, "records_consumed_total") == {("events",): 0}


def test_a_gauge_says_nothing_before_something_is_known(registry: CollectorRegistry) -> None:
    Metrics(registry).add_stream("digits")
    for name in ("accuracy_ratio", "test_p_value", "last_label_timestamp_seconds"):
        assert series(registry, name) == {}


def test_adding_a_stream_again_keeps_its_counts(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry)
    metrics.add_stream("digits")
    metrics.observations.labels("digits").inc(5)
    metrics.add_stream("digits")
    assert series(registry, "observations_total") == {("digits",): 5}


def test_a_prior_shows_every_class_and_forgets_those_that_are_gone(
    registry: CollectorRegistry,
) -> None:
    metrics = Metrics(registry)
    metrics.set_prior("digits", {"a": 0.25, "b": 0.75})
    metrics.set_prior("other", {"a": 1.0})
    assert series(registry, "prior")[("digits", "b")] == 0.75
    metrics.set_prior("digits", {"b": 0.5, "c": 0.5})
    assert series(registry, "prior") == {
        ("digits", "b"): 0.5,
        ("digits", "c"): 0.5,
        ("other", "a"): 1.0,
    }
    metrics.set_prior("digits", {})
    assert series(registry, "prior") == {("other", "a"): 1.0}


def test_a_stream_of_many_classes_has_no_series_by_class(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry)
    for n, shown in ((MAX_CLASSES, MAX_CLASSES), (MAX_CLASSES + 1, 0)):
        metrics.set_prior("digits", {f"c{i}": 1 / n for i in range(n)})
        assert len(series(registry, "prior")) == shown


def test_two_registries_do_not_share_anything() -> None:
    one, two = CollectorRegistry(), CollectorRegistry()
    Metrics(one).add_stream("a")
    Metrics(two).add_stream("b")
    assert series(two, "observations_total") == {("b",): 0}


# -- the page ----------------------------------------------------------------------------------


def test_the_reference_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "run: make docs"
