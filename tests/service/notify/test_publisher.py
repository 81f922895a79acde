"""An incident as the message of its topic; the topic itself is in tests/kafka."""

from __future__ import annotations

import json

from service.domain.action import Action
from service.notify.cloud_event import MAX_BODY_BYTES
from service.notify.incident_topic import INCIDENTS_KIND, incident_message

DATA = {"id": "inc-1", "stream": "straße", "state": "confirmed", "evidence": []}
ACTION = Action(
    "inc-1:confirmed:0a1b2c3d:kafka",
    "straße",
    "inc-1",
    INCIDENTS_KIND,
    {"event": "incident.confirmed", "data": DATA},
    created_at=1_790_000_000.25,
)


def test_the_message_is_a_cloudevent_with_the_stream_as_key() -> None:
    message = incident_message(ACTION)
    assert message.key == "straße".encode()
    assert message.headers == (("content-type", b"application/cloudevents+json; charset=UTF-8"),)
    assert json.loads(message.value) == {
        "specversion": "1.0",
        "id": "inc-1:confirmed:0a1b2c3d:kafka",
        "source": "shiftwatch",
        "type": "io.shiftwatch.incident.confirmed",
        "subject": "straße",
        "time": "2026-09-21T14:13:20.250000+00:00",
        "datacontenttype": "application/json",
        "data": DATA,
    }
    assert incident_message(ACTION) == message


def test_a_short_one_holds_what_a_webhook_holds() -> None:
    evidence = [{"test": "two-sample", "note": "x" * 100}] * 1000
    payload = {"event": "incident.confirmed", "data": {**DATA, "evidence": evidence}}
    action = Action("a", "s", "inc-1", INCIDENTS_KIND, payload)
    assert len(incident_message(action).value) > 100_000
    short = incident_message(action, is_short=True).value
    assert len(short) < MAX_BODY_BYTES
    assert json.loads(short)["data"]["truncated"] is True
