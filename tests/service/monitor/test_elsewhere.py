"""What parts of a stream make of each other's incidents."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from detectors.base import Evidence, Factor
from service.domain.incident import Incident, IncidentState, Point
from service.monitor import elsewhere as parts


def incident(id_: str = "inc-1", **fields: Any) -> Incident:
    evidence = dataclasses.asdict(Evidence("two-sample", Factor.COVARIATE, 1.0, 0.01, 0.1, 100, 50))
    defaults: dict[str, Any] = {
        "stream": "s",
        "state": IncidentState.SUSPECTED,
        "kind": "undetermined",
        "factors": (),
        "opened_at": Point(100, "2026-01-01T00:10:00+00:00"),
        "evidence": (json.loads(json.dumps(evidence)),),
    }
    return Incident(id=id_, **{**defaults, **fields})


NOW = Point(180, "2026-01-01T00:18:00+00:00")


@pytest.mark.parametrize(
    ("other", "counts"),
    [
        ({}, True),
        ({"evidence": ()}, True),
        ({"opened_at": Point(9000, "2026-01-01T00:01:00+00:00")}, True),
        ({"opened_at": Point(100, "2026-01-01T00:19:00+00:00")}, False),
        ({"confirmed_at": Point(9, "2026-01-01T00:09:00+00:00")}, False),
        ({"confirmed_at": Point(9, "2026-01-01T00:11:00+00:00")}, True),
        ({"opened_at": Point(600)}, True),
        ({"opened_at": Point(601)}, False),
    ],
    ids=[
        "under test",
        "without evidence",
        "opened earlier",
        "opened later",
        "confirmed before",
        "confirmed meanwhile",
        "without time, near",
        "without time, far",
    ],
)
def test_parts_are_alongside_if_both_were_under_test_at_one_time(
    other: dict[str, Any], counts: bool
) -> None:
    found = parts.alongside(incident("own"), NOW, [incident(**other)], within=500)
    assert bool(found) is counts


def test_evidence_of_another_version_is_read_as_far_as_it_is_known() -> None:
    [document] = incident().evidence
    known = parts.evidence_of(incident())
    assert [e.factor for e in known] == [Factor.COVARIATE]
    assert parts.evidence_of(incident(evidence=({**document, "new": 1},))) == known
    del document["note"]
    assert parts.evidence_of(incident(evidence=(document,))) == ()


def test_a_further_factor_needs_the_level_of_a_recheck() -> None:
    concept = {**incident().evidence[0], "factor": "concept"}
    both = incident(
        factors=("concept", "covariate"),
        kind="mixed",
        evidence=(incident().evidence[0], {**concept, "p_value": 0.0004}),
    )
    assert parts.further(both, ["covariate"], 0.0005) == {Factor.CONCEPT}
    assert parts.further(both, ["covariate"], 0.0003) == frozenset()
    assert parts.further(both, ["covariate", "concept"], 0.0005) == frozenset()
    untested = dataclasses.replace(
        both, kind="undetermined", evidence=(both.evidence[0], {**concept, "p_value": None})
    )
    assert parts.further(untested, ["covariate"], 0.0005) == frozenset()


def test_an_incident_of_an_earlier_version_has_lane_0() -> None:
    document = incident().to_json()
    del document["lane"]
    assert Incident.from_json(document).lane == 0
    assert Incident.from_json(incident(lane=3).to_json()).lane == 3
