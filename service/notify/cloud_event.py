"""An incident as a CloudEvent, short enough for whoever is told."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from service.domain.action import Action

TYPE_PREFIX = "io.shiftwatch."
CONTENT_TYPE = "application/cloudevents+json"
MAX_BODY_BYTES = 20_000
"""The specification's advice: receivers refuse large bodies."""
MAX_REFERENCE_CHARS = 200


def attributes_of(action: Action, *, id_: str, source: str = "shiftwatch") -> dict[str, str]:
    """The attributes of the event that an action carries.

    Parameters
    ----------
    action
        As the store has it; its payload has `event`, such as `incident.confirmed`.
    id_
        Of the event: the same at every attempt.
    source
        Which service speaks.
    """
    return {
        "specversion": "1.0",
        "id": id_,
        "source": source,
        "type": f"{TYPE_PREFIX}{action.payload['event']}",
        "subject": action.stream,
        "time": datetime.fromtimestamp(action.created_at, UTC).isoformat(),
        "datacontenttype": "application/json",
    }


def cloud_event(attributes: Mapping[str, str], incident: Mapping[str, Any]) -> str:
    """Write the event as JSON, with as much of the incident as 20 kB hold.

    Parameters
    ----------
    attributes
        Of the CloudEvent.
    incident
        Its data. What does not fit goes in this order: older evidence, small contributions, older
        actions; then `truncated` is true.
    """

    def write(data: Mapping[str, Any]) -> str:
        return json.dumps({**attributes, "data": data}, ensure_ascii=False, separators=(",", ":"))

    text = write(incident)
    data = {**incident, "truncated": True}
    for keep in (20, 5, 0):
        if len(text.encode()) < MAX_BODY_BYTES:
            return text
        data["evidence"] = _last(data.get("evidence"), keep)
        data["contributions"] = _largest(data.get("contributions"), keep)
        data["actions"] = _last(data.get("actions"), keep)
        text = write(data)
    if len(text.encode()) < MAX_BODY_BYTES:
        return text
    # Something that should be short is not: what is left names the incident.
    return write(
        {
            key: value[:MAX_REFERENCE_CHARS]
            for key, value in data.items()
            if key in {"id", "stream", "state", "kind", "detail"} and isinstance(value, str)
        }
        | {"truncated": True}
    )


def _last(items: Sequence[object] | None, n: int) -> list[object]:
    return list(items or ())[-n:] if n else []


def _largest(shares: Mapping[str, float] | None, n: int) -> dict[str, float]:
    return dict(sorted((shares or {}).items(), key=lambda item: -item[1])[:n])
