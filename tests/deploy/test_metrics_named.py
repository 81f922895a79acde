import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from service.telemetry.metrics import Metrics
from tests.deploy.queries import exposed, problems

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/alerts.yml"
DASHBOARD = ROOT / "deploy/grafana/dashboards/shiftwatch.json"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md")])


def expressions(node: Any) -> Iterator[str]:
    """Every query of a dashboard or of rules, however deep."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in {"expr", "definition"}:
                yield value
            else:
                yield from expressions(value)
    elif isinstance(node, list):
        for value in node:
            yield from expressions(value)


def test_every_metric_of_an_alert_exists() -> None:
    rules = list(expressions(yaml.safe_load(RULES.read_text())))
    assert rules
    assert [p for rule in rules for p in problems(rule)] == []


def test_every_metric_of_an_alert_test_exists() -> None:
    tests = yaml.safe_load((RULES.parent / "alerts_test.yml").read_text())["tests"]
    series = [series["series"] for test in tests for series in test["input_series"]]
    assert [p for name in series for p in problems(name)] == []


def test_every_metric_of_the_dashboard_exists() -> None:
    queries = list(expressions(json.loads(DASHBOARD.read_text())))
    assert len(queries) > 20
    assert [p for query in queries for p in problems(query)] == []


@pytest.mark.parametrize("page", PAGES, ids=[str(p.relative_to(ROOT)) for p in PAGES])
def test_every_metric_of_the_documentation_exists(page: Path) -> None:
    # A page may name a histogram as a whole.
    known = {f"shiftwatch_{spec.name}" for spec in exposed().values()}
    found = {problem.removesuffix(" is no metric") for problem in problems(page.read_text())}
    assert found - known == set()


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("rate(shiftwatch_labels[5m])", "shiftwatch_labels is no metric"),
        ("shiftwatch_incident_open_total", "shiftwatch_incident_open_total is no metric"),
        ("shiftwatch_checkpoint_duration_seconds", "duration_seconds is no metric"),
        ('shiftwatch_incident_open{model="s"}', "has no label model"),
        ('shiftwatch_suspicions_total{outcome="open"}', "has no outcome 'open'"),
        ("sum by (topics) (shiftwatch_records_consumed_total)", "no metric has a label topics"),
    ],
)
def test_a_query_of_something_that_does_not_exist_is_found(query: str, problem: str) -> None:
    assert any(problem in found for found in problems(query))


def test_the_names_are_those_that_the_service_exposes() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.add_stream("s")
    shown = generate_latest(registry).decode()
    declared = {name.removesuffix("_bucket") for name in exposed() if name.endswith("_bucket")}
    declared |= {n for n in exposed() if not n.endswith(("_bucket", "_sum", "_count"))}
    assert {line.split()[2] for line in shown.splitlines() if line.startswith("# TYPE")} == declared
