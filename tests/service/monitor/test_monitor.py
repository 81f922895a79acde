"""A monitor: whose suspicion it is, what is said while labels are late, and what with it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from detectors.base import Kind, Problem
from detectors.synthetic import Stream
from service.domain.decision import ActionKind
from service.domain.incident import Incident, IncidentState
from service.domain.waiting import Side
from service.monitor.monitor import Monitor
from service.monitor.outcomes import Outcomes
from service.monitor.representation import NEWLY_MISSING, Tabular
from service.records.gather import Body
from service.records.record import LabelRecord, Observation
from service.records.schema import FeatureSchema
from service.settings.stream import StreamSettings
from service.store.states import dumps, loads
from tests.service.streams import NO_MEANS, always, batches_of, columns_of, joined_of

WARM_UP = 800
CHANGE = 1500
NAMES = ["a", "b", "c"]
SCHEMA = FeatureSchema.declared(dict.fromkeys(NAMES, "numeric"))


def monitor_of(
    problem: Problem,
    *,
    action: ActionKind = ActionKind.ALERT_ONLY,
    spills: bool = False,
    **fields: Any,
) -> Monitor:
    settings = StreamSettings.model_validate(
        {
            "name": "s",
            "problem": str(problem),
            "reference": {"warm_up": WARM_UP},
            "false_alarm_every": 100_000,
            "confirm": {"looks": [150, 300], "max_wait": 900},
            **fields,
        }
    )
    return Monitor(
        settings,
        Tabular(SCHEMA),
        always(action),
        score_classes=settings.classes or (),
        seed=1,
        spills=spills,
    )


def events(
    problem: Problem,
    kind: Kind,
    *,
    n: int = 3000,
    late: int = 0,
    share: float = 1.0,
    seed: int = 104,
) -> list[Body]:
    stream = Stream(problem, kind, n_features=3, strength="strong", seed=seed)
    before, after = stream.draw(CHANGE, shifted=False), stream.draw(n - CHANGE, shifted=True)
    rows, labels = np.r_[before[0], after[0]], np.r_[before[1], after[1]]
    given = (np.random.default_rng(1).random(n) < share) | (np.arange(n) < WARM_UP)
    found: list[Body] = []
    for i in range(n):
        row = dict(zip(NAMES, rows[i].tolist(), strict=True))
        label = str(labels[i]) if given[i] and not late else None
        found.append(Observation("s", f"e{i}", None, row, label=label))
        if late and i >= late and given[i - late]:
            found.append(LabelRecord("s", f"e{i - late}", str(labels[i - late]), None))
    return found


def update(monitor: Monitor, taken: Sequence[Body]) -> Outcomes:
    columns = columns_of(taken, SCHEMA, monitor.served.classes)
    return monitor.update(columns, NO_MEANS)


def run(
    monitor: Monitor, taken: Sequence[Body], batch: int = 400, *, first: int = 0
) -> list[Incident]:
    columns = columns_of(taken, SCHEMA, monitor.served.classes, first)
    return [
        i for one in batches_of(columns, batch) for i in monitor.update(one, NO_MEANS).incidents
    ]


def confirmed(incidents: Sequence[Incident]) -> list[Incident]:
    return [i for i in incidents if i.state is IncidentState.CONFIRMED]


@pytest.mark.parametrize(
    "detectors", [["newma"], ["conformal"], ["sd_ewma"], ["cusum", "newma", "e_detector"]]
)
def test_whoever_suspects_the_verdict_is_the_same(detectors: list[str]) -> None:
    taken = events(Problem.X_TO_Y, Kind.COVARIATE)
    found = confirmed(run(monitor_of(Problem.X_TO_Y, detectors=detectors), taken))
    assert [i.kind for i in found] == ["covariate"]
    assert found[0].opened_at.index >= CHANGE - 300


def test_errors_are_watched_by_a_detector_of_river() -> None:
    taken = events(Problem.X_TO_Y, Kind.CONCEPT, seed=105)  # one that raises the error
    found = confirmed(run(monitor_of(Problem.X_TO_Y, detectors=["hddm_a"]), taken))
    assert [i.kind for i in found] == ["concept"]


def test_a_monitor_of_named_detectors_goes_on_after_a_restart() -> None:
    taken = events(Problem.Y_TO_X, Kind.PRIOR)
    detectors: dict[str, Any] = {"detectors": ["conformal", "e_detector", "adwin"]}
    expected = run(monitor_of(Problem.Y_TO_X, **detectors), taken)
    first, second = (monitor_of(Problem.Y_TO_X, **detectors) for _ in range(2))
    shown = run(first, taken[:1400])
    second.restore(loads(dumps(first.snapshot())))
    shown += run(second, taken[1400:], first=1400)
    assert [i.to_json() for i in shown] == [i.to_json() for i in expected]
    assert confirmed(shown)


def test_while_labels_are_late_the_inputs_give_a_provisional_verdict() -> None:
    taken = events(Problem.Y_TO_X, Kind.PRIOR, n=3600, late=700)
    shown = run(monitor_of(Problem.Y_TO_X), taken)
    kinds = [i.explanation["provisional"]["kind"] for i in shown if "provisional" in i.explanation]
    assert set(kinds) == {"prior"}
    first = next(i for i in shown if "provisional" in i.explanation)
    assert first.state is IncidentState.SUSPECTED
    final = confirmed(shown)
    assert [i.kind for i in final] == ["prior"]
    assert {e["test"] for e in final[0].evidence} == {"label frequencies", "two-sample by class"}


def test_an_undetermined_verdict_names_the_labels_that_would_settle_it() -> None:
    taken = events(Problem.X_TO_Y, Kind.COVARIATE, share=0.02)
    found = confirmed(run(monitor_of(Problem.X_TO_Y), taken))
    assert [i.kind for i in found] == ["undetermined"]
    assert set(found[0].factors) == {"covariate", "concept"}
    told = found[0].explanation
    assert told["labels_needed"] >= 50
    assert len(told["label_queries"]) >= 50
    assert all(int(id_[1:]) > CHANGE for id_ in told["label_queries"])


def test_a_confirmed_verdict_says_what_it_costs_and_how_sure_its_effects_are() -> None:
    taken = events(Problem.X_TO_Y, Kind.CONCEPT, seed=105)
    found = confirmed(run(monitor_of(Problem.X_TO_Y), taken))
    assert [i.kind for i in found] == ["concept"]
    severity = found[0].explanation["severity"]
    assert severity["loss"] == "reference classifier"
    assert severity["concept"]["low"] > 0
    for evidence in found[0].evidence:
        assert evidence["effect_low"] <= evidence["effect"] <= evidence["effect_high"]


def test_the_labels_that_were_asked_for_settle_the_verdict() -> None:
    taken = events(Problem.X_TO_Y, Kind.COVARIATE, share=0.02)
    truth = {e.id: e.label for e in events(Problem.X_TO_Y, Kind.COVARIATE) if e.label}
    monitor = monitor_of(Problem.X_TO_Y)
    found: list[Incident] = []
    n = 0
    while not found:
        found = confirmed(update(monitor, taken[n : n + 1]).incidents)
        n += 1
    assert [i.kind for i in found] == ["undetermined"]
    restored = monitor_of(Problem.X_TO_Y)
    restored.restore(loads(dumps(monitor.snapshot())))
    answers = [
        LabelRecord("s", id_, truth[id_], None) for id_ in found[0].explanation["label_queries"]
    ]
    named = confirmed(update(restored, answers).incidents)
    assert [i.kind for i in named] == ["covariate"]
    assert named[0].id == found[0].id
    assert "label_queries" not in named[0].explanation
    assert [i.to_json() for i in confirmed(update(monitor, answers).incidents)] == [
        i.to_json() for i in named
    ]
    run(restored, taken[n:])  # and the stream goes on


@pytest.mark.parametrize("gone", ["c", "constant"])
def test_a_feature_that_vanishes_is_confirmed_and_named(gone: str) -> None:
    schema = FeatureSchema.declared(dict.fromkeys([*NAMES, "constant"], "numeric"))
    monitor = Monitor(
        monitor_of(Problem.X_TO_Y).settings,
        Tabular(schema),
        always(ActionKind.ALERT_ONLY),
        seed=1,
    )
    out: list[Body] = []
    for n, event in enumerate(events(Problem.X_TO_Y, Kind.NONE)):
        assert isinstance(event, Observation)
        row = {**event.features, "constant": 1.0}
        if n >= CHANGE:
            row[gone] = None
        out.append(event._replace(features=row))
    incidents = monitor.update(columns_of(out, schema), NO_MEANS).incidents
    confirmed = [i for i in incidents if i.confirmed_at is not None]
    assert confirmed
    assert confirmed[0].opened_at.index >= CHANGE
    assert "covariate" in confirmed[0].factors
    assert max(confirmed[0].contributions, key=confirmed[0].contributions.__getitem__) in {
        gone,
        NEWLY_MISSING,
    }


def test_a_reweighting_is_not_judged_before_its_labels_have_come() -> None:
    late = 1000
    monitor = monitor_of(
        Problem.Y_TO_X,
        action=ActionKind.REWEIGHT,
        classes=["0", "1"],
        confirm={"looks": [150, 300], "max_wait": 1500},
    )
    rng = np.random.default_rng(3)
    labels = (rng.random(7000) < np.where(np.arange(7000) < CHANGE, 0.5, 0.9)).astype(int)
    x = rng.normal(size=7000) + 2.0 * labels - 1.0
    p = 1 / (1 + np.exp(-2 * x))
    judged = None
    for i in range(7000):
        row = {"a": float(x[i]), "b": 0.0, "c": 0.0}
        scores = {"0": 1 - p[i], "1": p[i]}
        own = str(labels[i]) if i < CHANGE else None
        batch: list[Body] = [Observation("s", str(i), None, row, scores=scores, label=own)]
        if i - late >= CHANGE:
            batch.append(LabelRecord("s", str(i - late), str(labels[i - late]), None))
        out = update(monitor, batch)
        if any(incident.state is IncidentState.RESOLVED for incident in out.incidents):
            judged = monitor.baseline.right
            break
    assert judged is not None
    assert judged[1] >= monitor.plan.min_labels


def test_labels_are_asked_for_as_far_as_events_were_read_wherever_batches_end() -> None:
    taken = events(Problem.X_TO_Y, Kind.COVARIATE, late=250, share=0.1)
    runs = [
        run(monitor_of(Problem.X_TO_Y, confirm={"looks": [150, 300], "max_wait": 400}), taken, size)
        for size in (1, 7, 100, 1000, len(taken))
    ]
    told = [[i.to_json() for i in r] for r in runs]
    assert all(other == told[0] for other in told[1:])
    (found,) = (i for i in confirmed(runs[0]) if "label_queries" in i.explanation)
    assert found.confirmed_at is not None
    # Some of them came soon after, where a long batch had them already.
    at = next(n for n, e in enumerate(taken) if e.id == f"e{found.confirmed_at.index}")
    later = {e.id for e in taken[at + 1 :] if isinstance(e, LabelRecord)}
    assert later & set(found.explanation["label_queries"])


SPILLING = {"max_pending": 1, "spill_from_start": True}


@pytest.mark.parametrize("is_repaired", [False, True])
@pytest.mark.parametrize("restarts", [False, True])
def test_what_was_served_before_a_repair_tells_nothing_of_the_new_champion(
    is_repaired: bool, restarts: bool
) -> None:
    monitor = monitor_of(Problem.X_TO_Y, spills=True, labels=SPILLING)
    row = dict.fromkeys(NAMES, 0.0)
    update(monitor, [Observation("s", f"e{n}", None, row, prediction="1") for n in range(3)])
    if is_repaired:
        monitor.repaired("tested only")
    if restarts:
        spilled = monitor.waiting.unwritten().put
        other = monitor_of(Problem.X_TO_Y, spills=True, labels=SPILLING)
        other.restore(loads(dumps(monitor.snapshot())), {Side.OBSERVATION: len(spilled)})
        other.waiting.at_hand(spilled)
        monitor = other
    out = update(monitor, [LabelRecord("s", "e0", "1", None)])
    assert joined_of(out) == [(0, "1", None if is_repaired else "1")]
    assert monitor.served.accuracy == (None if is_repaired else 1.0)


@pytest.mark.parametrize("batch", [7, 100, 900])
def test_the_day_is_that_of_the_streams_time_and_not_of_a_single_clock(batch: int) -> None:
    taken = events(Problem.X_TO_Y, Kind.NONE, n=2000)[:900]
    begin = datetime(2026, 3, 1, 12, tzinfo=UTC)
    for i, event in enumerate(taken):
        wrong = timedelta(days=365 * (i in {600, 601}))
        taken[i] = event._replace(time=begin + timedelta(minutes=i) + wrong)
    monitor = monitor_of(Problem.X_TO_Y)
    days = []
    for start in range(0, 900, batch):
        update(monitor, taken[start : start + batch])
        days += [monitor.day] * batch
    # Midnight is after 720 minutes; the stream's time is late by 65 to 80 of them.
    expected = ["", "2026-03-01", "2026-03-02"]
    assert [day for day in expected if day in days] == sorted(set(days))
    assert days[-1] == "2026-03-02"
    if batch == 7:
        assert 720 + 65 <= days.index("2026-03-02") + 7 <= 720 + 80 + 7


def test_the_times_of_a_reference_from_elsewhere_are_not_the_streams() -> None:
    taken = events(Problem.X_TO_Y, Kind.NONE, n=2000)[:WARM_UP]
    begin = datetime(1970, 1, 1, tzinfo=UTC)
    timed = [e._replace(time=begin + timedelta(minutes=i)) for i, e in enumerate(taken)]
    monitor = monitor_of(Problem.X_TO_Y)
    monitor.preload(columns_of(timed, SCHEMA))
    assert monitor.waiting.clock == -np.inf
    assert monitor.day == ""
