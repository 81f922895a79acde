"""What follows from a training that ended: a pure decision, tested as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.domain.accuracy import worse
from service.domain.job import Job, JobState


@dataclass(frozen=True, slots=True)
class Finished:
    """A training that ended.

    Attributes
    ----------
    job
        The job.
    state
        Succeeded or failed.
    result
        What the process reported; for a failure its `error`.
    folder
        Where its files are.
    """

    job: Job
    state: JobState
    result: Mapping[str, Any]
    folder: Path

    @property
    def is_better(self) -> bool:
        """Whether there is a candidate that the gate would promote."""
        return self.state is JobState.SUCCEEDED and bool(self.result["gate"]["promote"])

    @property
    def champion_holds(self) -> bool:
        """Whether nothing shows that the champion is worse since the change than before."""
        gate = self.result["gate"]
        before, now = gate["anchor_champion_accuracy"], gate["champion_accuracy"]
        if before is None or now is None:
            return False
        n, m = gate["anchor_n"], gate["n"]
        return not worse((round(before * n), n), (round(now * m), m))

    def failed(self, error: str) -> Finished:
        """The same training as one that failed after all."""
        return Finished(self.job, JobState.FAILED, {**self.result, "error": error}, self.folder)


@dataclass(frozen=True, slots=True)
class Ending:
    """What is written, told and counted of a training that ended.

    Attributes
    ----------
    finished
        The training; its end is written with its state and result.
    detail
        One sentence for people: of the incident, and of the promotion if there is one.
    is_repaired
        Whether the stream begins a new reference; otherwise its incident stays open.
    promoted
        The version that becomes champion, or None.
    index
        Observations that the stream's part had seen by then.
    outcome
        As the metric counts it: the gate's decision, or `failed`.
    """

    finished: Finished
    detail: str
    is_repaired: bool
    promoted: int | None
    index: int
    outcome: str

    @property
    def elapsed_s(self) -> float:
        """Seconds that the training took; 0 where it did not come to say."""
        return float(self.finished.result.get("elapsed_s", 0.0))


def ending(
    finished: Finished, *, version: int | None, needs_approval: bool, index: int = 0
) -> Ending:
    """Decide what follows.

    Parameters
    ----------
    finished
        The training.
    version
        What its candidate was published as; None where none is better (`Finished.is_better`).
    needs_approval
        Whether a better candidate waits for somebody to promote it.
    index
        As in `Ending`.

    Raises
    ------
    ValueError
        If a better candidate was not published.
    """
    stream = finished.job.stream
    if finished.state is not JobState.SUCCEEDED:
        detail = f"training failed: {finished.result.get('error', '')}"
        return Ending(finished, detail, False, None, index, "failed")
    reason = finished.result["gate"]["reason"]
    if not finished.is_better:
        if finished.champion_holds:
            detail = f"champion kept, it is as good as before: {reason}"
            return Ending(finished, detail, True, None, index, "rejected")
        return Ending(finished, f"candidate rejected: {reason}", False, None, index, "rejected")
    if version is None:
        raise ValueError(f"{finished.job.id}: the candidate is better and was not published")
    if needs_approval:
        detail = (
            f"version {version} is better and waits for approval: "
            f"shiftwatch models promote CONFIG VERSION --stream {stream}"
        )
        return Ending(finished, detail, False, None, index, "promoted")
    detail = f"version {version} promoted: {reason}"
    return Ending(finished, detail, True, version, index, "promoted")
