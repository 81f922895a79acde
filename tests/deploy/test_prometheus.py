import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.test_metrics_named import DASHBOARD, ROOT, RULES, expressions

FOLDER = RULES.parent
promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not on PATH (Debian: apt-get install prometheus)",
)


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def run(*arguments: str) -> str:
    done = subprocess.run(
        ["promtool", *arguments], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@promtool
def test_promtool_accepts_the_configuration_and_the_rules() -> None:
    assert f"{len(alerts())} rules found" in run("check", "rules", "alerts.yml")
    run("check", "config", "prometheus.yml")


@promtool
def test_every_alert_fires_when_it_should_and_only_then() -> None:
    run("test", "rules", "alerts_test.yml")


@promtool
def test_promtool_accepts_the_queries_of_the_dashboard(tmp_path: Path) -> None:
    queries = [q for q in expressions(json.loads(DASHBOARD.read_text())) if "label_values" not in q]
    rules = [
        {"record": f"query:n{n}", "expr": re.sub(r"\$__(rate_interval|range)", "5m", query)}
        for n, query in enumerate(queries)
    ]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(queries)} rules found" in run("check", "rules", str(file))


def test_every_alert_has_a_case_in_which_it_fires() -> None:
    tests = yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    fires = {case["alertname"] for case in cases if case["exp_alerts"]}
    assert fires == {alert["alert"] for alert in alerts()}


def test_every_alert_has_a_camel_case_name_a_severity_and_a_text() -> None:
    for alert in alerts():
        assert re.fullmatch(r"Shiftwatch([A-Z][a-z]+)+", alert["alert"])
        assert alert["labels"]["severity"] in {"warning", "critical"}
        assert set(alert["annotations"]) == {"summary", "description"}


def test_every_alert_says_what_to_do() -> None:
    page = (ROOT / "deploy/README.md").read_text()
    listed = re.findall(r"^\| `(Shiftwatch\w+)` \|", page, re.MULTILINE)
    assert sorted(listed) == sorted(alert["alert"] for alert in alerts())


def test_the_scrape_job_has_the_name_that_the_alerts_look_for() -> None:
    jobs = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]
    named = {name for alert in alerts() for name in re.findall(r'job="(\w+)"', alert["expr"])}
    assert named == {job["job_name"] for job in jobs}
