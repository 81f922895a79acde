from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.domain.decision import ActionKind, Decision
from service.domain.incident import Incident, IncidentState, Point
from service.domain.job import Job, JobState
from service.domain.waiting import Pruned
from service.monitor.outcomes import Outcomes
from service.notify.messages import ALL, Subscriber
from service.pipeline.unwritten import Unwritten
from service.repair.ending import Ending, Finished

TO = [Subscriber("0", "webhook:0", ALL)]
EVIDENCE = ({"test": "two-sample"},)
SUSPECTED = Incident("i", "s", IncidentState.SUSPECTED, "undetermined", (), Point(700))
CONFIRMED = replace(
    SUSPECTED,
    state=IncidentState.CONFIRMED,
    kind="covariate",
    factors=("covariate",),
    confirmed_at=Point(900),
    evidence=EVIDENCE,
)
TRAIN = Decision(ActionKind.FINE_TUNE, "train")
ALERT = Decision(ActionKind.ALERT_ONLY, "alert")


def noted(*incidents: Incident, decision: Decision | None = None, **where: Any) -> Unwritten:
    unwritten = Unwritten()
    decisions = [] if decision is None else [(incidents[-1], decision)]
    outcomes = Outcomes(incidents=list(incidents), decisions=decisions)
    place = {"stream": "s", "lane": 3, "day": "2026-11-23", **where}
    unwritten.note(outcomes, to=TO, **place)
    return unwritten


@pytest.mark.parametrize(
    ("state", "evidence", "urgent"),
    [
        (IncidentState.SUSPECTED, (), True),
        (IncidentState.SUSPECTED, EVIDENCE, False),
        (IncidentState.DISMISSED, EVIDENCE, False),
        (IncidentState.CONFIRMED, EVIDENCE, True),
        (IncidentState.RESOLVED, EVIDENCE, True),
    ],
)
def test_what_nobody_waits_for_is_written_when_it_is_due(
    state: IncidentState, evidence: tuple[dict[str, Any], ...], urgent: bool
) -> None:
    unwritten = Unwritten(incidents=[replace(SUSPECTED, state=state, evidence=evidence)])
    assert unwritten
    assert unwritten.is_urgent is urgent


def test_incidents_get_their_lane_and_their_messages_say_so() -> None:
    unwritten = noted(SUSPECTED, CONFIRMED)
    assert [i.lane for i in unwritten.incidents] == [3, 3]
    assert [a.payload["data"] for a in unwritten.actions] == [
        i.to_json() for i in unwritten.incidents
    ]


@pytest.mark.parametrize(("decision", "n_jobs"), [(TRAIN, 1), (ALERT, 0)])
def test_a_training_is_asked_for_where_the_policy_says_so(decision: Decision, n_jobs: int) -> None:
    unwritten = noted(CONFIRMED, decision=decision)
    assert unwritten.confirmed == {"i": ("s", "covariate")}
    assert [(j.spec.lane, j.spec.day) for j in unwritten.jobs] == [(3, "2026-11-23")] * n_jobs


def test_a_confirmation_that_is_taken_back_leaves_the_suspicion() -> None:
    unwritten = noted(SUSPECTED, CONFIRMED, decision=TRAIN)
    unwritten.take_back(unwritten.incidents[-1], is_over=True)
    assert [i.state for i in unwritten.incidents] == ["suspected"]
    assert [a.payload["event"] for a in unwritten.actions] == ["incident.suspected"]
    assert (unwritten.jobs, unwritten.confirmed) == ([], {})


def test_a_confirmation_that_is_narrowed_is_still_repaired_and_counted() -> None:
    unwritten = noted(SUSPECTED, CONFIRMED, decision=TRAIN)
    unwritten.take_back(unwritten.incidents[-1], is_over=False)
    assert len(unwritten.jobs) == len(unwritten.confirmed) == 1


def everything(stream: str) -> Unwritten:
    """Something in every field, all of one stream."""
    unwritten = noted(
        replace(CONFIRMED, id=f"i-{stream}", stream=stream), decision=TRAIN, stream=stream
    )
    job = Job(f"j-{stream}", stream, f"i-{stream}", "fine_tune")
    finished = Finished(job, JobState.FAILED, {}, Path())
    unwritten.touched.add(stream)
    unwritten.samples[stream] = []
    unwritten.labels[stream] = [(1, "a")]
    unwritten.pruned[stream] = Pruned()
    unwritten.endings.append(Ending(finished, "", False, None, 0, "failed"))
    return unwritten


def test_what_a_stream_did_is_forgotten_and_nothing_else() -> None:
    both, other = everything("s"), everything("t")
    both.incidents += other.incidents
    both.actions += other.actions
    both.jobs += other.jobs
    both.endings += other.endings
    both.touched |= other.touched
    for mine, its in (
        (both.samples, other.samples),
        (both.labels, other.labels),
        (both.pruned, other.pruned),
        (both.confirmed, other.confirmed),
    ):
        mine.update(its)  # type: ignore[attr-defined]
    both.drop("s")
    assert both == other


@pytest.mark.parametrize(
    ("unwritten", "is_something"),
    [
        (Unwritten(), False),
        (Unwritten(offsets={("events", 0): 1}), True),
        (Unwritten(n_records=1), True),
        (Unwritten(touched={"s"}), True),
        (Unwritten(endings=everything("s").endings), True),
    ],
)
def test_it_knows_whether_there_is_anything_to_write(
    unwritten: Unwritten, is_something: bool
) -> None:
    assert bool(unwritten) is is_something
