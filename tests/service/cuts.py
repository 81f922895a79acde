"""All that a run tells and keeps, to compare runs that are cut at other places."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from detectors.base import Alarm, State
from service.domain.decision import ActionKind
from service.domain.incident import Incident, IncidentState, Point
from service.monitor.outcomes import Outcomes
from service.store.states import dumps
from tests.service.streams import joined_of

HANDS = 400
"""Records between the times at which somebody does something about the stream."""
LEADER = Incident(
    "inc-leader",
    "s",
    IncidentState.CONFIRMED,
    "covariate",
    ("covariate",),
    Point(700, "2026-01-05T20:40:00+00:00"),
    Point(720, "2026-01-06T00:00:00+00:00"),
    lane=2,
)
"""The incident of another part, which others are given up for."""


class Others:
    """What other parts of the stream have found."""

    def __init__(self) -> None:
        self.found: list[Incident] = []

    def __call__(self) -> list[Incident]:
        return self.found


@dataclasses.dataclass(slots=True)
class Told:
    """All that a run has told, in its order, and what it kept.

    The incidents are those of the whole stream, and of each of its segments.
    """

    incidents: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    decisions: list[tuple[str, ActionKind]] = dataclasses.field(default_factory=list)
    joined: list[tuple[int, str, str | None]] = dataclasses.field(default_factory=list)
    counted: Counter[str] = dataclasses.field(default_factory=Counter)
    delays: list[Any] = dataclasses.field(default_factory=list)
    alarms: list[Alarm] = dataclasses.field(default_factory=list)
    evidence: list[Any] = dataclasses.field(default_factory=list)
    renewed: list[int] = dataclasses.field(default_factory=list)
    refused: list[str] = dataclasses.field(default_factory=list)
    samples: list[Any] = dataclasses.field(default_factory=list)
    states: list[bytes] = dataclasses.field(default_factory=list)
    happened: set[str] = dataclasses.field(default_factory=set)

    def note(self, outcomes: Outcomes) -> None:
        """Add what a batch has changed."""
        for incident in outcomes.incidents:
            whose = json.dumps(dict(incident.segment))
            self.incidents.setdefault(whose, []).append(json.dumps(incident.to_json()))
            self.happened |= {str(incident.state), *incident.explanation, *incident.segment}
            if incident.confirmed_at is not None:
                self.happened.add(str(incident.kind))
            if "returned" in incident.detail:
                self.happened.add("returned")
        self.decisions += [(i.id, decision.action) for i, decision in outcomes.decisions]
        self.happened |= {str(decision.action) for _, decision in outcomes.decisions}
        self.joined += joined_of(outcomes)
        for counts in (outcomes.labels, outcomes.unlabelled, outcomes.mistimed):
            self.count(Counter({str(what): n for what, n in counts.items()}))
        self.delays += outcomes.delays
        self.alarms += map(placeless, outcomes.alarms)
        self.evidence += outcomes.evidence
        self.renewed += outcomes.renewed
        self.happened |= {"renewed"} if outcomes.renewed else set()

    def count(self, counts: Counter[str]) -> None:
        """Add what became of labels, observations and times."""
        self.counted.update({str(what): n for what, n in counts.items()})
        self.happened |= {str(what) for what in counts}


def placeless(alarm: Alarm) -> Alarm:
    """An alarm without its row, which is one of its batch; see also `state_of`."""
    return dataclasses.replace(alarm, row=0, statistic=float(f"{alarm.statistic:.9g}"))


def state_of(snapshot: State) -> bytes:
    """The bytes of a monitor's snapshot, with the sums of its charts to nine digits.

    The scores that they sum up come from products of matrices, whose last bits depend on the number
    of rows; all else has to be the same to the last bit.
    """
    for watch in snapshot["watches"]["watches"]:
        if "bank" in watch:
            sums = watch["bank"]["sums"]
            watch["bank"]["sums"] = np.array([float(f"{x:.9g}") for x in sums.ravel()])
    return dumps(snapshot)


def cuts_of(n: int, seed: int) -> dict[str, tuple[Sequence[int], set[int]]]:
    """Where batches of n records end, and where the process begins again."""
    rng = np.random.default_rng(seed)
    some = np.flatnonzero(rng.random(n) < 0.03).tolist()
    return {
        "one": (range(1, n), set()),
        "seven": (range(7, n, 7), set()),
        "250": (range(250, n, 250), set()),
        "all": ((), set()),
        "some, and restarts": (some, set(some[::3])),
    }


def assert_same(runs: dict[str, Told]) -> Told:
    """All have to have told and kept the same; return it."""
    first, *others = runs
    for name in others:
        for field in dataclasses.fields(Told):
            mine, theirs = (getattr(runs[n], field.name) for n in (first, name))
            if field.name == "states":
                differs = [n for n, (a, b) in enumerate(zip(mine, theirs, strict=True)) if a != b]
                assert not differs, f"{name}: states {differs} differ from those of {first}"
            assert theirs == mine, f"{name}: {field.name} differ from those of {first}"
    return runs[first]
