"""Incidents: what users see of a shift, from the suspicion to the end."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

from detectors.base import Factor, Kind


class IncidentState(StrEnum):
    """Where an incident is in its life."""

    SUSPECTED = "suspected"
    CONFIRMED = "confirmed"
    REPAIRING = "repairing"
    RESOLVED = "resolved"
    DISMISSED = "dismissed"
    FOLDED = "folded"

    @property
    def is_over(self) -> bool:
        """Whether nothing will happen to the incident any more."""
        return self in {IncidentState.RESOLVED, IncidentState.DISMISSED, IncidentState.FOLDED}


@dataclass(frozen=True, slots=True)
class Point:
    """A moment in a stream.

    Attributes
    ----------
    index
        Observations of the stream before it.
    time
        ISO-8601 time of that observation, or an empty string where its record named none.
    """

    index: int
    time: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return `index` and `time`; a time that is not known is null."""
        return {"index": self.index, "time": self.time or None}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Point:
        """Read what `to_json` wrote."""
        return cls(int(document["index"]), document["time"] or "")


@dataclass(frozen=True, slots=True)
class Incident:
    """A suspicion with an id and a life cycle.

    Attributes
    ----------
    id
        Derived from coordinates: equal after a crash and in a replay; see `incident_id`.
    stream
        Whose incident it is.
    state
        Where it is in its life.
    kind
        Name of the verdict, a value of `detectors.base.Kind`.
    factors
        The factors that moved; for `undetermined`, those that remain possible.
    opened_at, confirmed_at, resolved_at
        When it was suspected, confirmed, resolved; None for what has not happened.
    change_point
        Estimated index of the first observation after the change.
    evidence
        The tests behind the verdict, as JSON objects.
    contributions
        Share of the change by feature; non-negative, sums to 1 or is empty.
    actions
        What was asked for or done about it, oldest first, as JSON objects.
    detail
        One sentence for people.
    segment
        Name and value of the part of the stream that it is about; empty for the whole stream.
    explanation
        What goes with the verdict, as a JSON object; see docs/reference/incidents.md.
    lane
        The partition whose part of the stream it is about; its indices count that part.
    """

    id: str
    stream: str
    state: IncidentState
    kind: str
    factors: tuple[str, ...]
    opened_at: Point
    confirmed_at: Point | None = None
    resolved_at: Point | None = None
    change_point: int | None = None
    evidence: tuple[dict[str, Any], ...] = ()
    contributions: dict[str, float] = field(default_factory=dict)
    actions: tuple[dict[str, Any], ...] = ()
    detail: str = ""
    segment: dict[str, str] = field(default_factory=dict)
    explanation: dict[str, Any] = field(default_factory=dict)
    lane: int = 0

    def __post_init__(self) -> None:
        # Checked here because they come from the store and over HTTP too.
        IncidentState(self.state)
        Kind(self.kind)
        for factor in self.factors:
            Factor(factor)

    def to_json(self) -> dict[str, Any]:
        """Return a document that JSON can hold; numbers that are not finite become null."""
        return {
            "id": self.id,
            "stream": self.stream,
            "state": str(self.state),
            "kind": str(self.kind),
            "factors": [str(factor) for factor in self.factors],
            "opened_at": self.opened_at.to_json(),
            "confirmed_at": self.confirmed_at.to_json() if self.confirmed_at else None,
            "resolved_at": self.resolved_at.to_json() if self.resolved_at else None,
            "change_point": None if self.change_point is None else {"index": self.change_point},
            "evidence": plain(self.evidence),
            "contributions": plain(self.contributions),
            "actions": plain(self.actions),
            "detail": self.detail,
            "segment": dict(self.segment),
            "explanation": plain(self.explanation),
            "lane": self.lane,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Incident:
        """Read what `to_json` wrote.

        Raises
        ------
        ValueError
            If a field is missing or has a value that it cannot have; names the incident.
        """
        try:
            change_point = document["change_point"]
            return cls(
                id=document["id"],
                stream=document["stream"],
                state=IncidentState(document["state"]),
                kind=document["kind"],
                factors=tuple(document["factors"]),
                opened_at=Point.from_json(document["opened_at"]),
                confirmed_at=_point(document["confirmed_at"]),
                resolved_at=_point(document["resolved_at"]),
                change_point=None if change_point is None else int(change_point["index"]),
                evidence=tuple(document["evidence"]),
                contributions=dict(document["contributions"]),
                actions=tuple(document["actions"]),
                detail=document["detail"],
                # Incidents that were stored by an earlier version have none of these.
                segment=dict(document.get("segment", {})),
                explanation=dict(document.get("explanation", {})),
                lane=int(document.get("lane", 0)),
            )
        except KeyError as error:
            raise ValueError(f"incident {document.get('id')!r}: has no {error}") from None
        except (TypeError, ValueError) as error:
            raise ValueError(f"incident {document.get('id')!r}: {error}") from error


def incident_id(stream: str, topic: str, partition: int, offset: int) -> str:
    """Return the id of the incident that the record at these coordinates opened.

    It depends on nothing else, so a replay after a crash gives the same id.

    Examples
    --------
    >>> incident_id("digits", "events.jsonl", 0, 205)
    'inc-0a84bda724214527'
    """
    # As JSON, because joined text would give two coordinates one id ("a-1", 2 and "a", "1-2").
    name = json.dumps([stream, topic, partition, offset])
    return f"inc-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def plain(value: Any) -> Any:
    """Return the value with what JSON cannot hold replaced.

    NumPy numbers and arrays become Python's, tuples and sets lists, and numbers that are not
    finite null.
    """
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        value = sorted(value)
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    return value


def _point(document: Mapping[str, Any] | None) -> Point | None:
    return None if document is None else Point.from_json(document)
