from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from service.domain.incident import Incident, IncidentState, Point
from service.notify.messages import ALL, USUAL, Subscriber, messages, subscribers
from service.settings.service import Settings

INCIDENT = Incident(
    "inc-1", "s", IncidentState.CONFIRMED, "covariate", ("covariate",), Point(700), Point(900)
)
EVIDENCE = ({"test": "two-sample", "p_value": 0.001},)
USUAL_HOOK = Subscriber("0", "webhook:0", USUAL)
PICKY_HOOK = Subscriber("1", "webhook:1", frozenset({"incident.resolved", "incident.folded"}))
TOPIC = Subscriber("kafka", "kafka:incidents", ALL)


@pytest.mark.parametrize(
    ("state", "evidence", "told"),
    [
        (IncidentState.SUSPECTED, (), ["0", "kafka"]),
        (IncidentState.SUSPECTED, EVIDENCE, []),  # a look that goes on
        (IncidentState.DISMISSED, EVIDENCE, ["0", "kafka"]),
        (IncidentState.CONFIRMED, EVIDENCE, ["0", "kafka"]),
        (IncidentState.REPAIRING, EVIDENCE, ["0", "kafka"]),
        (IncidentState.RESOLVED, EVIDENCE, ["0", "1", "kafka"]),
        (IncidentState.FOLDED, EVIDENCE, ["1", "kafka"]),
    ],
)
def test_each_state_is_told_to_those_who_want_it(
    state: IncidentState, evidence: tuple[dict[str, Any], ...], told: list[str]
) -> None:
    incident = replace(INCIDENT, state=state, evidence=evidence)
    found = messages(incident, (USUAL_HOOK, PICKY_HOOK, TOPIC))
    assert [a.id.rpartition(":")[2] for a in found] == told
    for action in found:
        assert action.payload == {"event": f"incident.{state}", "data": incident.to_json()}
        assert (action.stream, action.incident_id) == ("s", "inc-1")


def test_a_message_has_one_id_however_often_it_is_written() -> None:
    (first,), (again,) = messages(INCIDENT, [TOPIC]), messages(replace(INCIDENT), [TOPIC])
    assert first == again


def test_a_state_that_an_incident_comes_to_twice_is_told_twice() -> None:
    (first,) = messages(INCIDENT, [TOPIC])
    (second,) = messages(replace(INCIDENT, detail="candidate rejected"), [TOPIC])
    assert first.id != second.id


def test_the_subscribers_are_those_of_the_settings() -> None:
    hook = {"url": "https://example.org/hook", "secret": "whsec_" + "A" * 32}
    settings = Settings.model_validate(
        {
            "webhooks": [hook, {**hook, "events": ["incident.resolved", "incident.folded"]}],
            "source": {
                "kind": "kafka",
                "bootstrap_servers": "127.0.0.1:1",
                "topics": {"features": "e", "incidents": "i"},
            },
            "streams": [{"name": "s", "problem": "x_to_y"}],
        }
    )
    assert subscribers(settings) == (USUAL_HOOK, PICKY_HOOK, TOPIC)
    quiet = settings.model_copy(update={"webhooks": (), "source": type(settings.source)()})
    assert subscribers(quiet) == ()
