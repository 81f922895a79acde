"""What comes out of a monitor."""

from __future__ import annotations

from dataclasses import dataclass, field

from detectors.base import Alarm, Evidence
from service.domain.decision import Decision
from service.domain.incident import Incident
from service.monitor.labels import Ended, Mistimed, Outcome


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What an update changed.

    Attributes
    ----------
    incidents
        Incidents that are new or changed, in order; the last one of an id holds.
    decisions
        Actions to take, by incident.
    joined
        Index, label and served prediction of every observation labelled by this update.
    labels
        Labels by what became of them.
    unlabelled
        Observations whose label is not waited for any more, by why.
    mistimed
        Records whose own time is far from the stream's, by how.
    delays
        Of every label that came later than its observation: observations, and seconds or None.
    alarms
        Stage-1 alarms that opened a suspicion.
    evidence
        Every test that ran.
    renewed
        Indices at which a new reference began.
    left_out
        For each watch that a reference could not teach, the reason.
    """

    incidents: list[Incident] = field(default_factory=list)
    decisions: list[tuple[Incident, Decision]] = field(default_factory=list)
    joined: list[tuple[int, str, str | None]] = field(default_factory=list)
    labels: dict[Outcome, int] = field(default_factory=dict)
    unlabelled: dict[Ended, int] = field(default_factory=dict)
    mistimed: dict[Mistimed, int] = field(default_factory=dict)
    delays: list[tuple[int, float | None]] = field(default_factory=list)
    alarms: list[Alarm] = field(default_factory=list)
    evidence: list[Evidence] = field(default_factory=list)
    renewed: list[int] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
