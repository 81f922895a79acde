"""From a verdict to a confirmed incident: what it says, and whether what persists has changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from detectors.base import Alarm, Factor, Kind, Verdict
from detectors.learners.prior import PriorCorrection
from service.domain.decision import ActionKind, Decision
from service.domain.incident import Incident, IncidentState, Point, incident_id
from service.monitor.examiner import aloud
from service.monitor.findings import findings, staying
from service.records.columns import Coordinates

RETURN_ALPHA = 0.05
"""Evidence counts as returned to the reference when no factor is rejected at this level."""


def opened(stream: str, at: Coordinates, now: Point, alarm: Alarm, change_point: int) -> Incident:
    """The incident of a suspicion, which the record at some coordinates has opened."""
    return Incident(
        id=incident_id(stream, *at),
        stream=stream,
        state=IncidentState.SUSPECTED,
        kind=Kind.UNDETERMINED,
        factors=(),
        opened_at=now,
        change_point=change_point,
        detail=f"{alarm.detector} on {alarm.factor}: "
        f"{alarm.statistic:.3g} over {alarm.threshold:.3g}",
    )


def added(
    stream: str, at: Coordinates, began: Point, verdict: Verdict, change_point: int
) -> Incident:
    """The incident of what has moved beside what was known to have, as a comparison found."""
    return Incident(
        id=incident_id(f"{stream}/{verdict.kind}", *at),
        stream=stream,
        state=IncidentState.SUSPECTED,
        opened_at=began,
        change_point=change_point,
        **findings(verdict),
    )


def confirmed(
    incident: Incident,
    decision: Decision,
    explanation: Mapping[str, Any],
    action: Mapping[str, Any],
    now: Point,
) -> Incident:
    """An incident whose verdict is known, with the decision about it.

    Parameters
    ----------
    incident
        With the verdict's findings.
    decision, action
        What is done about it, and the same as `action_of` describes it.
    explanation
        What goes with the verdict.
    now
        The newest observation.
    """
    is_alert = decision.action is ActionKind.ALERT_ONLY
    return dataclasses.replace(
        incident,
        state=IncidentState.CONFIRMED if is_alert else IncidentState.REPAIRING,
        confirmed_at=incident.confirmed_at or now,
        detail="; ".join([decision.reason, *aloud(explanation)]),
        explanation={**staying(incident.explanation), **explanation},
        actions=(*incident.actions, dict(action)),
    )


def action_of(
    decision: Decision,
    now: Point,
    classes: Sequence[str] = (),
    correction: PriorCorrection | None = None,
) -> dict[str, Any]:
    """An action as an incident lists it; with a correction, the prior of the scores' classes."""
    document: dict[str, Any] = {
        "kind": str(decision.action),
        "index": now.index,
        "reason": decision.reason,
    }
    if correction is not None:
        document["method"] = str(correction.method)
        document["prior"] = {
            c: round(float(p), 4) for c, p in zip(classes, correction.target_prior, strict=True)
        }
    return document


def has_returned(verdict: Verdict, standing: Sequence[Incident]) -> bool:
    """Whether a comparison finds the reference again, by every test that told of a change."""
    tested = {e.test: e.p_value for e in verdict.evidence if e.p_value is not None}
    told = {e["test"] for i in standing for e in i.evidence if e["p_value"] is not None}
    return bool(tested) and told <= tested.keys() and min(tested.values()) > RETURN_ALPHA


def further(verdict: Verdict, standing: Sequence[Incident]) -> Verdict | None:
    """What of a comparison's verdict is not known to have moved; None if that is nothing."""
    fresh = verdict.factors - {Factor(f) for i in standing for f in i.factors}
    if not fresh:
        return None
    return dataclasses.replace(verdict, kind=Kind(min(fresh)), factors=fresh)
