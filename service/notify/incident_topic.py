"""Incidents on a topic of their own, as CloudEvents."""

from __future__ import annotations

import json

from service.domain.action import Action
from service.notify.cloud_event import CONTENT_TYPE, attributes_of, cloud_event
from service.notify.outbox import Delivery
from service.notify.publisher import Message, Publisher, is_too_large

INCIDENTS_KIND = "kafka:incidents"
"""Kind of the actions that write to the topic of incidents."""


class IncidentTopic:
    """Writes incidents to their topic as CloudEvents; a handler for the outbox.

    The key is the stream's name, so a compacted topic keeps the newest incident of each stream.
    Every attempt writes the same bytes: the event's id is that of the action.

    Parameters
    ----------
    publisher
        Of the topic; closed by who made it.
    """

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    def deliver(self, action: Action) -> Delivery:
        """Try once."""
        failed = self._publisher.send([incident_message(action)])
        if failed and is_too_large(failed[0][1]):
            failed = self._publisher.send([incident_message(action, is_short=True)])
        if not failed:
            return Delivery.done(f"written to {self._publisher.topic}")
        error = failed[0][1]
        return Delivery.retry(f"{self._publisher.topic}: {error or type(error).__name__}")


def incident_message(action: Action, *, is_short: bool = False) -> Message:
    """The CloudEvent of an action whose payload has `event` and `data`, the incident's document.

    Parameters
    ----------
    action
        As the store has it.
    is_short
        Whether to leave out what the webhooks leave out of a large incident.
    """
    attributes, data = attributes_of(action, id_=action.id), action.payload["data"]
    text = (
        cloud_event(attributes, data)
        if is_short
        else json.dumps({**attributes, "data": data}, ensure_ascii=False, separators=(",", ":"))
    )
    headers = (("content-type", f"{CONTENT_TYPE}; charset=UTF-8".encode()),)
    return Message(action.stream.encode(), text.encode(), headers)
