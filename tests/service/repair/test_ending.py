from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.domain.job import Job, JobState
from service.repair.ending import Finished, ending

JOB = Job("inc-1-fine-tune", "s", "inc-1", "fine_tune")
REASON = "why"
ACCURATE = {"anchor_champion_accuracy": 0.9, "anchor_n": 400, "champion_accuracy": 0.9, "n": 400}
WORSE = {**ACCURATE, "champion_accuracy": 0.6}
UNKNOWN = {**ACCURATE, "anchor_champion_accuracy": None}


def finished(state: JobState = JobState.SUCCEEDED, **gate: Any) -> Finished:
    result: dict[str, Any] = {"gate": {"reason": REASON, **gate}, "elapsed_s": 12.5}
    if state is JobState.FAILED:
        result = {"error": "no memory"}
    return Finished(JOB, state, result, Path("jobs"))


APPROVAL = "shiftwatch models promote CONFIG VERSION --stream s"
FAILED = finished(JobState.FAILED)
BETTER = finished(promote=True, **WORSE)
HOLDS = finished(promote=False, **ACCURATE)
REJECTED = finished(promote=False, **WORSE)
# Without rows from before the change nothing shows that the champion holds.
UNCLEAR = finished(promote=False, **UNKNOWN)


@pytest.mark.parametrize(
    ("training", "version", "needs_approval", "detail", "is_repaired", "promoted", "outcome"),
    [
        (FAILED, None, False, "training failed: no memory", False, None, "failed"),
        (FAILED, None, True, "training failed: no memory", False, None, "failed"),
        (BETTER, 3, False, "version 3 promoted: why", True, 3, "promoted"),
        (
            *(BETTER, 3, True, f"version 3 is better and waits for approval: {APPROVAL}"),
            *(False, None, "promoted"),
        ),
        *(
            (
                *(HOLDS, None, approval, "champion kept, it is as good as before: why"),
                *(True, None, "rejected"),
            )
            for approval in (False, True)
        ),
        (REJECTED, None, False, "candidate rejected: why", False, None, "rejected"),
        (REJECTED, None, True, "candidate rejected: why", False, None, "rejected"),
        (UNCLEAR, None, False, "candidate rejected: why", False, None, "rejected"),
    ],
)
def test_each_end_of_a_training_has_its_consequences(
    training: Finished,
    version: int | None,
    needs_approval: bool,
    detail: str,
    is_repaired: bool,
    promoted: int | None,
    outcome: str,
) -> None:
    end = ending(training, version=version, needs_approval=needs_approval, index=900)
    assert (end.detail, end.is_repaired, end.promoted) == (detail, is_repaired, promoted)
    assert (end.outcome, end.index, end.finished) == (outcome, 900, training)


def test_what_a_training_took_is_known_if_it_said_so() -> None:
    taken = [
        ending(training, version=None, needs_approval=False).elapsed_s
        for training in (REJECTED, FAILED)
    ]
    assert taken == [12.5, 0.0]


def test_a_better_candidate_has_to_be_published_first() -> None:
    with pytest.raises(ValueError, match=r"inc-1-fine-tune: .* was not published"):
        ending(BETTER, version=None, needs_approval=False)


def test_a_training_can_fail_after_all() -> None:
    training = finished(promote=True, **WORSE).failed("could not be published: disk full")
    assert not training.is_better
    end = ending(training, version=None, needs_approval=False)
    assert (end.detail, end.elapsed_s) == (
        "training failed: could not be published: disk full",
        12.5,
    )
