"""What comes out of a monitor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from detectors.base import Alarm, Evidence, IntArray
from service.domain.decision import Decision
from service.domain.incident import Incident
from service.monitor.events import Delay
from service.monitor.label_outcomes import Counted, Ended, Mistimed, Outcome
from service.monitor.representation import Placeholder


@dataclass(frozen=True, slots=True)
class Joined:
    """Observations whose label is known now, in the order of the labels.

    Attributes
    ----------
    index
        Of each observation, shape (n,).
    labels
        Of each of them.
    served
        What had been predicted for each; None where nothing was, or it is not known any more.
    """

    index: IntArray = field(default_factory=lambda: np.empty(0, np.int64))
    labels: Sequence[str] = ()
    served: Sequence[str | None] = ()


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
        Every observation labelled by this update.
    labels
        Labels by what became of them.
    unlabelled
        Observations whose label is not waited for any more, by why.
    mistimed
        Records whose own time is far from the stream's, by how.
    delays
        Of every label that came later than its observation.
    alarms
        Stage-1 alarms that opened a suspicion.
    evidence
        Every test that ran.
    renewed
        Indices at which a new reference began.
    left_out
        For each watch that a reference could not teach, the reason.
    placeholders
        Values of a reference that was completed which stand for none.
    """

    incidents: Sequence[Incident] = ()
    decisions: Sequence[tuple[Incident, Decision]] = ()
    joined: Joined = field(default_factory=Joined)
    labels: Mapping[Outcome, int] = field(default_factory=dict)
    unlabelled: Mapping[Ended, int] = field(default_factory=dict)
    mistimed: Mapping[Mistimed, int] = field(default_factory=dict)
    delays: Sequence[Delay] = ()
    alarms: Sequence[Alarm] = ()
    evidence: Sequence[Evidence] = ()
    renewed: Sequence[int] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    placeholders: Sequence[Placeholder] = ()


NOTHING = Outcomes()
"""Nothing changed: what nearly every step of a monitor comes to."""


def all_of(steps: Iterable[Outcomes]) -> Outcomes:
    """What several steps changed, in their order; what is counted is the batch's and not theirs."""
    changed = [step for step in steps if step is not NOTHING]
    if len(changed) <= 1:
        return changed[0] if changed else NOTHING
    return Outcomes(
        incidents=[i for step in changed for i in step.incidents],
        decisions=[d for step in changed for d in step.decisions],
        alarms=[a for step in changed for a in step.alarms],
        evidence=[e for step in changed for e in step.evidence],
        renewed=[n for step in changed for n in step.renewed],
        left_out={name: why for step in changed for name, why in step.left_out.items()},
        placeholders=[p for step in changed for p in step.placeholders],
    )


def by_kind(
    counted: Counted,
) -> tuple[dict[Outcome, int], dict[Ended, int], dict[Mistimed, int]]:
    """What happened to labels, to observations, and to times."""
    return (
        {what: n for what, n in counted.items() if isinstance(what, Outcome)},
        {what: n for what, n in counted.items() if isinstance(what, Ended)},
        {what: n for what, n in counted.items() if isinstance(what, Mistimed)},
    )
