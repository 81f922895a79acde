"""A training that runs in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


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
        What the process needs; values that JSON can hold.
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
    spec: Mapping[str, Any] = field(default_factory=dict)
    state: JobState = JobState.QUEUED
    attempts: int = 0
    result: Mapping[str, Any] = field(default_factory=dict)
    created_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None
