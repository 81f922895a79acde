import json
from dataclasses import replace
from typing import Any

import pytest

from service.domain.incident import Incident, IncidentState, Point
from service.domain.job import SPEC_VERSION, JobSpec, fine_tuning

SPEC = JobSpec(change_point=205, factors=("concept", "prior"), lane=3, day="2026-11-23")


def test_a_specification_comes_back_from_its_document() -> None:
    document = json.loads(json.dumps(SPEC.to_json()))
    assert document["version"] == SPEC_VERSION
    assert JobSpec.from_json(document) == SPEC


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (
            {"lane": 3, "change_point": 205, "factors": ["concept", "prior"], "day": "2026-11-23"},
            SPEC,
        ),
        ({"change_point": 205, "factors": ["concept"]}, JobSpec(205, ("concept",))),
        ({}, JobSpec()),
    ],
    ids=["the last without a version", "before lanes and budgets", "empty"],
)
def test_documents_of_earlier_releases_are_read(
    document: dict[str, Any], expected: JobSpec
) -> None:
    assert JobSpec.from_json(document) == expected


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"version": SPEC_VERSION + 1}, f"has version {SPEC_VERSION + 1}, this release knows"),
        ({"version": "1"}, "has version '1'"),
        ({"change_point": None}, "job specification"),
        ({"lane": "three"}, "three"),
    ],
)
def test_a_document_that_cannot_be_read_says_why(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        JobSpec.from_json({**SPEC.to_json(), **wrong})


def test_equal_incidents_ask_for_equal_trainings() -> None:
    incident = Incident(
        "inc-1",
        "s",
        IncidentState.REPAIRING,
        "mixed",
        ("concept", "prior"),
        Point(300),
        change_point=205,
        lane=3,
    )
    job = fine_tuning(incident, "2026-11-23")
    assert (job.id, job.stream, job.incident_id) == ("inc-1-fine-tune", "s", "inc-1")
    assert job.spec == SPEC
    assert job == fine_tuning(replace(incident, detail="another"), "2026-11-23")
