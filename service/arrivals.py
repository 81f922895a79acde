"""What goes into a monitor and what comes out of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from detectors.base import Alarm, Array, Evidence
from service.incidents import Incident
from service.labels import Ended, Mistimed, Outcome
from service.policy import Decision
from service.representation import Raw
from service.rows import Spilled

Coordinates = tuple[str, int, int]
"""Topic, partition and offset of a record."""

# `Arrival` and `Seen` are not frozen: there is one of each for every record, and a frozen one takes
# five times as long to make.


@dataclass(slots=True)
class Arrival:
    """A record that decoded, on its way into the monitor; nobody changes one.

    Attributes
    ----------
    at
        The record's coordinates.
    id
        The observation's id, which its label names.
    time
        ISO-8601 time of the record, or an empty string.
    raw
        What the representation reads; None for a label that came by itself.
    label
        The label, if the record carried one.
    prediction
        The class predicted upstream; None where the service scores or nothing predicted.
    scores
        Scores by class in the order of the monitor's `score_classes`, shape (K,), or None.
    segment
        Values of the observation's segments by name, such as {"camera": "7"}.
    seconds
        `time` in Unix seconds; not a number if there is none.
    """

    at: Coordinates
    id: str
    time: str
    raw: Raw | None
    label: str | None
    prediction: str | None = None
    scores: Array | None = None
    segment: Mapping[str, str] = field(default_factory=dict)
    seconds: float = math.nan


@dataclass(slots=True)
class Seen:
    """An observation, at its place in the stream; nobody changes one.

    `spilled` is the older one that it pushed out of memory, if that one's label can still come.
    """

    at: Coordinates
    time: str
    index: int
    raw: Raw
    prediction: str | None
    scores: Array | None
    segment: Mapping[str, str]
    spilled: Spilled | None = None


@dataclass(frozen=True, slots=True)
class Labelled:
    """The moment at which an observation's label is known; `index` is the observation's.

    `spilled` is the observation where it had left the memory: its row is gone.
    """

    at: Coordinates
    time: str
    index: int
    label: str
    spilled: Spilled | None = None


Event = Seen | Labelled


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
