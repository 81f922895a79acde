import itertools
import json
from typing import Any

import yaml

from tests.deploy.test_metrics_named import DASHBOARD, ROOT

PROVISIONING = ROOT / "deploy/grafana/provisioning"
ROWS = (
    "What moved",
    "Statistics against threshold",
    "p-values",
    "Expected and observed suspicions",
    "Accuracy",
    "Labels",
    "Champion versions",
    "Service health",
)


def dashboard() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return document


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def test_every_question_has_its_row() -> None:
    assert tuple(p["title"] for p in dashboard()["panels"] if p["type"] == "row") == ROWS


def test_every_query_goes_to_the_provisioned_data_source() -> None:
    file = PROVISIONING / "datasources/prometheus.yaml"
    (source,) = yaml.safe_load(file.read_text())["datasources"]
    expected = {"type": source["type"], "uid": source["uid"]}
    asking = [
        *panels(),
        *(target for panel in panels() for target in panel["targets"]),
        *dashboard()["templating"]["list"],
        *dashboard()["annotations"]["list"],
    ]
    assert all(part["datasource"] == expected for part in asking)


def test_every_panel_says_what_it_shows_and_has_its_own_place() -> None:
    ids = [panel["id"] for panel in dashboard()["panels"]]
    assert len(set(ids)) == len(ids)
    assert all(panel["title"] and panel["description"] for panel in panels())
    places = [panel["gridPos"] for panel in dashboard()["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for a, b in itertools.combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or above, (a, b)


def test_what_is_told_by_stream_follows_the_choice_of_streams() -> None:
    for panel in panels():
        for target in panel["targets"]:
            if "by (stream" in target["expr"]:
                assert 'stream=~"$stream"' in target["expr"], panel["title"]


def test_grafana_reads_the_dashboards_from_where_they_are_mounted() -> None:
    providers = yaml.safe_load((PROVISIONING / "dashboards/shiftwatch.yaml").read_text())
    compose = yaml.safe_load((ROOT / "deploy/docker-compose.yaml").read_text())
    mounts = {m.split(":")[1] for m in compose["services"]["grafana"]["volumes"]}
    assert {p["options"]["path"] for p in providers["providers"]} <= mounts
