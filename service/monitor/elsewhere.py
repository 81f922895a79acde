"""What the parts of a stream in several partitions say to each other.

A part is what one lane has of a stream: a monitor with a reference and suspicions of its own. Parts
know of each other only what the store has, which is the incidents of the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any

from detectors.base import Evidence, Factor, Kind
from service.domain.decision import ActionKind
from service.domain.incident import Incident, IncidentState, Point

Elsewhere = Callable[[], Sequence[Incident]]
"""The open incidents of the stream's other parts, suspicions among them, as far as is known."""


_FIELDS = frozenset(f.name for f in dataclasses.fields(Evidence))


def nowhere() -> Sequence[Incident]:
    """Of a stream in one partition: there are no other parts."""
    return ()


def alongside(
    own: Incident, now: Point, others: Sequence[Incident], *, within: int
) -> list[Incident]:
    """Those incidents of other parts that were under test at a time when a suspicion was.

    That is between the times at which each was opened and confirmed, or is still not. Records
    without a time tell no such thing; then each part's own count stands for it, and both have to
    be opened within `within` observations.

    Parameters
    ----------
    own
        The suspicion.
    now
        The newest observation of its part.
    others
        Open incidents of other parts.
    within
        Observations that a suspicion lasts at most.
    """
    return [other for other in others if _is_alongside(own, now, other, within)]


def _is_alongside(own: Incident, now: Point, other: Incident, within: int) -> bool:
    until = other.confirmed_at
    times = [own.opened_at.time, now.time, other.opened_at.time, until.time if until else now.time]
    if not all(times):
        return abs(other.opened_at.index - own.opened_at.index) <= within
    # All are in UTC and of one form, so that their order is that of their text.
    begun, ends, other_begun, other_ends = times
    return other_begun <= ends and begun <= other_ends


def evidence_of(incident: Incident) -> tuple[Evidence, ...]:
    """The tests of the incident's own part alone, as far as this version knows them."""
    own: Sequence[dict[str, Any]] = incident.explanation.get("parts", {}).get("own", ())
    return tuple(
        Evidence(
            **{name: document[name] for name in _FIELDS} | {"factor": Factor(document["factor"])}
        )
        for document in own or incident.evidence
        # A process of another version may have written it.
        if document.keys() >= _FIELDS and document["effect"] is not None
    )


def told_of(others: Sequence[Incident], own: Sequence[Evidence]) -> dict[str, Any]:
    """What an explanation says of the parts whose evidence was pooled; empty if none was."""
    if not own:
        return {}
    lanes = sorted({other.lane for other in others if other.evidence})
    return {"parts": {"lanes": lanes, "own": [dataclasses.asdict(e) for e in own]}}


def unpooled(explanation: dict[str, Any]) -> dict[str, Any]:
    """An explanation for evidence of the part alone."""
    return {key: value for key, value in explanation.items() if key != "parts"}


def further(incident: Incident, known: Collection[str], level: float) -> frozenset[Factor]:
    """The factors of an incident that are not known to have moved, and plainly have.

    Every part has a say in whether a second factor moved, so each must be as sure as a comparison
    has to be that is made again and again.
    """
    return frozenset(
        Factor(e["factor"])
        for e in incident.evidence
        if e["factor"] in set(incident.factors) - set(known)
        and e["p_value"] is not None
        and e["p_value"] <= level
    )


def narrowed(incident: Incident, factors: frozenset[Factor]) -> Incident:
    """The incident as one of these factors alone."""
    kind = Kind(min(factors)) if len(factors) == 1 else incident.kind
    return dataclasses.replace(incident, kind=kind, factors=tuple(sorted(str(f) for f in factors)))


def folded(incident: Incident, into: Incident) -> Incident:
    """The incident, given up for one of another part that has the same cause."""
    return dataclasses.replace(
        incident,
        state=IncidentState.FOLDED,
        # Scores are re-weighted in each part, by its own prior; all else is done for the other one.
        actions=tuple(a for a in incident.actions if a["kind"] == ActionKind.REWEIGHT),
        detail=f"folded into {into.id} of partition {into.lane}: the same cause",
    )


def is_reweighted(incident: Incident) -> bool:
    """Whether a re-weighting is what is being done about it."""
    last = incident.actions[-1]["kind"] if incident.actions else None
    return incident.state is IncidentState.REPAIRING and last == ActionKind.REWEIGHT
