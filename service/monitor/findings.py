"""A verdict as fields of an incident."""

from __future__ import annotations

import dataclasses
from typing import Any

from detectors.base import Kind, Verdict
from service.domain.incident import Incident, IncidentState
from service.monitor import elsewhere
from service.monitor.representation import NEWLY_MISSING


def findings(verdict: Verdict) -> dict[str, Any]:
    """The fields of an incident that a verdict decides about."""
    return {
        "kind": verdict.kind,
        "factors": tuple(sorted(str(f) for f in verdict.factors)),
        "evidence": tuple(dataclasses.asdict(e) for e in verdict.evidence),
        # That nothing newly misses goes without saying.
        "contributions": {
            name: share
            for name, share in verdict.contributions.items()
            if share or name != NEWLY_MISSING
        },
    }


def renamed(incident: Incident, verdict: Verdict) -> Incident:
    """An incident after a later verdict on the part's own evidence."""
    explanation = elsewhere.unpooled(incident.explanation)
    return dataclasses.replace(incident, explanation=explanation, **findings(verdict))


def dismissed(incident: Incident, detail: str) -> Incident:
    """A suspicion that came to nothing."""
    return dataclasses.replace(
        incident,
        state=IncidentState.DISMISSED,
        kind=Kind.UNDETERMINED,
        factors=(),
        detail=detail,
    )


def staying(explanation: dict[str, Any]) -> dict[str, Any]:
    """What of an earlier verdict's explanation stays with a later one."""
    return {key: value for key, value in explanation.items() if key in ("provisional", "parts")}
