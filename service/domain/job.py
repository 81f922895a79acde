"""A training that runs in a process of its own, and what it is asked to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from service.domain.incident import Incident

SPEC_VERSION = 1
"""Of the document that `JobSpec.to_json` writes; a release reads this one and all older ones."""


class JobState(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_pending(self) -> bool:
        """Whether it keeps the stream's next job out."""
        return self in {JobState.QUEUED, JobState.RUNNING}


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What a training needs to know of the incident that it repairs.

    Attributes
    ----------
    change_point
        Index of the first observation after the change, in the lane's part of the stream.
    factors
        The factors that moved.
    lane
        The partition whose samples it is trained on, and whose owner trains.
    day
        The stream's own day on which it was asked for, as `2026-11-23`; the daily budget counts
        it. Empty where the records have no times.
    """

    change_point: int = 0
    factors: tuple[str, ...] = ()
    lane: int = 0
    day: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return a document that JSON can hold; `version` says how to read it."""
        return {
            "version": SPEC_VERSION,
            "change_point": self.change_point,
            "factors": list(self.factors),
            "lane": self.lane,
            "day": self.day,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> JobSpec:
        """Read what `to_json` wrote, or what releases wrote whose documents had no version.

        Raises
        ------
        ValueError
            If a newer release wrote it, or a field has a value that it cannot have; names which.
        """
        version = document.get("version", 0)
        if version not in range(SPEC_VERSION + 1):
            raise ValueError(
                f"job specification: has version {version!r}, this release knows {SPEC_VERSION}"
            )
        try:
            return cls(
                # Those without a version have only what the release of their time knew.
                change_point=int(document.get("change_point", 0)),
                factors=tuple(map(str, document.get("factors", ()))),
                lane=int(document.get("lane", 0)),
                day=str(document.get("day", "")),
            )
        except (TypeError, ValueError) as error:
            raise ValueError(f"job specification {dict(document)}: {error}") from error


@dataclass(frozen=True, slots=True)
class Job:
    """A training that runs in its own process; a stream has at most one that is pending.

    Attributes
    ----------
    id
        Constant over replays, as an action's.
    stream, incident_id
        What it repairs.
    kind
        What is trained.
    spec
        What the process needs.
    state
        Queued until a process starts it.
    attempts
        Starts so far; more than one after a crash.
    result
        What the process reported; empty until it ended.
    created_at, started_at, finished_at
        Unix seconds set by the store; None for what has not happened.
    """

    id: str
    stream: str
    incident_id: str
    kind: str
    spec: JobSpec = field(default_factory=JobSpec)
    state: JobState = JobState.QUEUED
    attempts: int = 0
    result: Mapping[str, Any] = field(default_factory=dict)
    created_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None


def fine_tuning(incident: Incident, day: str) -> Job:
    """The training that repairs an incident; equal for equal incidents, as in a replay.

    Parameters
    ----------
    incident
        A confirmed one, with its lane.
    day
        As in `JobSpec`.
    """
    return Job(
        id=f"{incident.id}-fine-tune",
        stream=incident.stream,
        incident_id=incident.id,
        kind="fine_tune",
        spec=JobSpec(
            change_point=incident.change_point or 0,
            factors=tuple(map(str, incident.factors)),
            lane=incident.lane,
            day=day,
        ),
    )
