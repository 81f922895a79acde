"""An incident that is given up for one of another part of the stream."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from detectors.base import Kind, Problem
from service.domain.decision import ActionKind
from service.domain.incident import Incident, IncidentState, Point
from service.monitor.elsewhere import Elsewhere, nowhere
from service.monitor.monitor import Monitor
from service.monitor.phase import Phase
from service.store.states import dumps, loads
from tests.service.monitor.test_monitor import confirmed, events, monitor_of, run
from tests.service.streams import always


def leader(*factors: str) -> Incident:
    kind = factors[0] if len(factors) == 1 else "mixed"
    return Incident(
        "inc-leader", "s", IncidentState.CONFIRMED, kind, factors, Point(7), Point(9), lane=2
    )


def built(action: ActionKind = ActionKind.ALERT_ONLY, elsewhere: Elsewhere = nowhere) -> Monitor:
    plain = monitor_of(Problem.X_TO_Y)
    policy = always(action)
    return Monitor(plain.settings, plain.representation, policy, seed=1, others=elsewhere)


def opened(kind: Kind = Kind.COVARIATE, elsewhere: Elsewhere = nowhere) -> tuple[Monitor, Incident]:
    """A monitor that has confirmed its incident, 800 observations ago at most."""
    monitor = built(elsewhere=elsewhere)
    found = confirmed(run(monitor, events(Problem.X_TO_Y, kind, n=2200)))
    assert monitor.phase is Phase.OPEN
    return monitor, found[0]


def test_a_fold_names_the_leader_and_leaves_nothing_open() -> None:
    monitor, incident = opened()
    [folded] = monitor.fold(incident.id, leader("covariate"), ["covariate"]).incidents
    assert folded.state is IncidentState.FOLDED
    assert folded.kind == "covariate"
    assert folded.detail == "folded into inc-leader of partition 2: the same cause"
    assert folded.actions == ()
    assert monitor.standing.open == {}
    assert monitor.standing.all == [folded]
    assert monitor.phase is Phase.OPEN


def test_of_several_factors_a_plain_one_that_is_new_stays_an_incident() -> None:
    monitor, incident = opened(Kind.MIXED)
    assert incident.factors == ("concept", "covariate")
    [kept] = monitor.fold(incident.id, leader("covariate"), ["covariate"]).incidents
    assert (kept.state, kept.kind, kept.factors) == (
        IncidentState.CONFIRMED,
        "concept",
        ("concept",),
    )
    assert list(monitor.standing.open) == [incident.id]


def test_a_factor_that_is_not_plain_is_no_incident() -> None:
    monitor, incident = opened(Kind.MIXED)
    weak = tuple({**e, "p_value": 0.004} for e in incident.evidence)
    monitor.standing.open[incident.id] = dataclasses.replace(incident, evidence=weak)
    [folded] = monitor.fold(incident.id, leader("covariate"), ["covariate"]).incidents
    assert folded.state is IncidentState.FOLDED


@pytest.mark.parametrize("is_open", [True, False], ids=["leader open", "leader over"])
def test_a_folded_factor_is_confirmed_again_only_when_the_leader_is_over(is_open: bool) -> None:
    others: list[Incident] = []
    monitor, incident = opened(elsewhere=lambda: others)
    into = leader("covariate")
    others += [into] if is_open else []
    monitor.fold(incident.id, into, ["covariate"])
    taken = events(Problem.X_TO_Y, Kind.COVARIATE, n=6000)[2200:]
    shown = run(monitor, taken)
    assert [i.kind for i in confirmed(shown)] == ([] if is_open else ["covariate"])
    ended = [i for i in shown if i.state is IncidentState.FOLDED]
    assert len(ended) == (0 if is_open else 1)
    assert all(i.resolved_at is not None for i in ended)


def test_a_repair_ends_what_was_folded_and_what_is_under_test() -> None:
    monitor, incident = opened()
    monitor.fold(incident.id, leader("covariate"), ["covariate"])
    [ended] = monitor.repaired("version 2 promoted").incidents
    assert (ended.id, ended.state) == (incident.id, IncidentState.FOLDED)
    assert ended.resolved_at is not None
    suspecting = monitor_of(Problem.X_TO_Y)
    taken = events(Problem.X_TO_Y, Kind.COVARIATE)
    for event in taken:
        run(suspecting, [event])
        if suspecting.phase is Phase.SUSPECTING:
            break
    [dismissed] = suspecting.repaired("version 2 promoted").incidents
    assert dismissed.state is IncidentState.DISMISSED
    assert suspecting.phase is Phase.WARMING_UP


def test_a_monitor_that_has_folded_goes_on_after_a_restart() -> None:
    taken = events(Problem.X_TO_Y, Kind.COVARIATE, n=6000)[2200:]
    shown: list[list[dict[str, Any]]] = []
    for restarts in (False, True):
        monitor, incident = opened()
        monitor.fold(incident.id, leader("covariate"), ["covariate"])
        if restarts:
            other = monitor_of(Problem.X_TO_Y)
            other.restore(loads(dumps(monitor.snapshot())))
            monitor = other
        shown.append([i.to_json() for i in run(monitor, taken)])
    assert shown[0] == shown[1]
    assert shown[0]


def test_a_training_that_was_asked_for_is_not_waited_for() -> None:
    monitor = built(ActionKind.FINE_TUNE)
    found = run(monitor, events(Problem.X_TO_Y, Kind.COVARIATE, n=2200))
    assert monitor.phase is Phase.REPAIRING
    [folded] = monitor.fold(found[-1].id, leader("covariate"), ["covariate"]).incidents
    assert folded.actions == ()
    assert monitor.phase is Phase.OPEN
