"""Which messages the new state of an incident asks for: a pure decision, tested as a table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from service.domain.action import Action
from service.domain.incident import Incident, IncidentState
from service.notify.incident_topic import INCIDENTS_KIND
from service.settings.service import Settings


@dataclass(frozen=True, slots=True)
class Subscriber:
    """Somebody who is told about incidents.

    Attributes
    ----------
    name
        Ends the ids of its messages; short and constant.
    kind
        Of the actions that carry its messages.
    events
        The events that it wants, such as `incident.confirmed`.
    """

    name: str
    kind: str
    events: frozenset[str]


ALL = frozenset(f"incident.{state}" for state in IncidentState)
USUAL = ALL - {"incident.folded"}
"""What a webhook gets that asks for nothing in particular: of one cause in several partitions the
one incident that goes on."""


def subscribers(settings: Settings) -> tuple[Subscriber, ...]:
    """Everybody who is configured: the webhooks in their order, then the topic of incidents."""
    found = [
        Subscriber(str(n), f"webhook:{n}", frozenset(hook.events) or USUAL)
        for n, hook in enumerate(settings.webhooks)
    ]
    topics = settings.source.topics
    if topics is not None and topics.incidents is not None:
        found.append(Subscriber("kafka", INCIDENTS_KIND, ALL))
    return tuple(found)


def messages(incident: Incident, to: Iterable[Subscriber]) -> list[Action]:
    """The messages about an incident's new state; none about a look that decided nothing."""
    if has_decided_nothing(incident):
        return []
    event = f"incident.{incident.state}"
    document = incident.to_json()
    # An incident can come to a state twice; what a replay writes again has the same digest.
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:8]
    return [
        Action(
            id=f"{incident.id}:{incident.state}:{digest}:{subscriber.name}",
            stream=incident.stream,
            incident_id=incident.id,
            kind=subscriber.kind,
            payload={"event": event, "data": document},
        )
        for subscriber in to
        if event in subscriber.events
    ]


def has_decided_nothing(incident: Incident) -> bool:
    """Whether it is as a look left it that goes on."""
    return incident.state is IncidentState.SUSPECTED and bool(incident.evidence)
