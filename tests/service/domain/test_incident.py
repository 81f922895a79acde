import json
import math

import numpy as np
import pytest

from detectors.base import Factor, Kind
from service.domain.incident import Incident, IncidentState, Point, incident_id, plain

INCIDENT = Incident(
    id=incident_id("digits", "events", 0, 205),
    stream="digits",
    state=IncidentState.RESOLVED,
    kind=Kind.PRIOR,
    factors=(Factor.PRIOR,),
    opened_at=Point(205, "2026-11-23T10:00:00+00:00"),
    confirmed_at=Point(455, ""),
    resolved_at=Point(900, "2026-11-23T12:00:00+00:00"),
    change_point=200,
    evidence=({"test": "bbse", "p_value": 0.001},),
    contributions={"amount": 0.75, "country": 0.25},
    actions=({"kind": "reweight"},),
    detail="reweighted",
)


def test_the_document_has_exactly_the_public_fields():
    assert list(INCIDENT.to_json()) == [
        "id",
        "stream",
        "state",
        "kind",
        "factors",
        "opened_at",
        "confirmed_at",
        "resolved_at",
        "change_point",
        "evidence",
        "contributions",
        "actions",
        "detail",
        "segment",
        "explanation",
        "lane",
    ]
    assert INCIDENT.to_json()["opened_at"] == {"index": 205, "time": "2026-11-23T10:00:00+00:00"}
    assert INCIDENT.to_json()["confirmed_at"] == {"index": 455, "time": None}
    assert INCIDENT.to_json()["change_point"] == {"index": 200}


def test_an_incident_survives_json():
    document = json.loads(json.dumps(INCIDENT.to_json(), allow_nan=False))
    assert Incident.from_json(document) == INCIDENT


def test_what_has_not_happened_is_null():
    new = Incident("inc-1", "s", IncidentState.SUSPECTED, Kind.UNDETERMINED, (), Point(0))
    document = new.to_json()
    assert document["confirmed_at"] is document["resolved_at"] is document["change_point"] is None
    assert Incident.from_json(document) == new


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"state": "open"}, "'open'"),
        ({"kind": "drift"}, "'drift'"),
        ({"factors": ["data"]}, "'data'"),
        ({"opened_at": {"time": None}}, "index"),
        ({"change_point": 3}, "int"),
    ],
)
def test_a_document_that_is_none_names_the_incident_and_the_value(change, message):
    with pytest.raises(ValueError, match=message) as caught:
        Incident.from_json({**INCIDENT.to_json(), **change})
    assert INCIDENT.id in str(caught.value)


def test_an_id_depends_on_every_coordinate_and_on_nothing_else():
    at = ("digits", "events", 0, 205)
    others = [("d", *at[1:]), ("digits", "e", 0, 205), ("digits", "events", 1, 205)]
    ids = {incident_id(*at), incident_id(*at)}
    assert len(ids) == 1
    assert len(ids | {incident_id(*o) for o in others} | {incident_id(*at[:3], 206)}) == 5
    assert incident_id("a", "b-1", 0, 2) != incident_id("a-b", "1", 0, 2)


def test_numbers_that_json_lacks_become_null():
    messy = {"a": math.nan, "b": (np.float64("inf"), np.int64(3)), "c": np.array([1.0, np.nan])}
    assert plain(messy) == {"a": None, "b": [None, 3], "c": [1.0, None]}
    json.dumps(plain({"f": frozenset({Factor.PRIOR, Factor.CONCEPT})}), allow_nan=False)


def test_only_resolved_dismissed_and_folded_incidents_are_over():
    assert [s for s in IncidentState if s.is_over] == ["resolved", "dismissed", "folded"]
