"""What the store keeps besides incidents, as frozen records with a line per field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class ActionState(StrEnum):
    """Where an action of the outbox is."""

    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Action:
    """Something to carry out once the transaction that asked for it is written.

    Attributes
    ----------
    id
        Constant idempotency key: the same over retries, restarts and replays.
    stream, incident_id
        What it is about.
    kind
        Names the handler that carries it out.
    payload
        What the handler needs; values that JSON can hold.
    state
        Pending until a handler says otherwise.
    attempts
        Deliveries tried so far.
    due_at
        Unix seconds before which it is not tried; the default means at once.
    detail
        What the last attempt said.
    created_at
        Unix seconds; set by the store when the action is added.
    leased_until
        Unix seconds until which it is one process's to deliver; None if it is nobody's.
    """

    id: str
    stream: str
    incident_id: str
    kind: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    state: ActionState = ActionState.PENDING
    attempts: int = 0
    due_at: float = 0.0
    detail: str = ""
    created_at: float = 0.0
    leased_until: float | None = None


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


@dataclass(frozen=True, slots=True)
class Champion:
    """One entry of a stream's history of promotions and roll-backs; the last one holds.

    Attributes
    ----------
    stream
        Whose champion it is.
    sequence
        1, 2, ... within the stream.
    version
        The version that became champion.
    reason
        Why, for people.
    index
        Observations of the stream seen by then.
    recorded_at
        Unix seconds; set by the store.
    """

    stream: str
    sequence: int
    version: int
    reason: str
    index: int
    recorded_at: float


class Side(StrEnum):
    """What waits for its other half."""

    OBSERVATION = "observation"
    """For its label."""
    LABEL = "label"
    """For its observation."""


@dataclass(slots=True)
class Spilled:
    """An observation or a label that waits in the store, because others fill the memory.

    Attributes
    ----------
    id
        The observation's id.
    side
        Which of the two it is.
    number
        1, 2, ... in the order in which those of its side were spilled.
    index
        The observation's index in its lane; -1 for a label.
    time
        The record's own time in Unix seconds; not a number if it has none.
    value
        The label; or what was served for the observation, None if nothing was.
    """

    id: str
    side: Side
    number: int
    index: int
    time: float
    value: str | None = None


class ContentKind(StrEnum):
    """How the content of a stored sample is to be read."""

    IMAGE = "image"
    """PNG or JPEG."""
    FEATURES = "features"
    """The features as a JSON object in UTF-8."""


@dataclass(frozen=True, slots=True)
class StoredSample:
    """An observation kept for training.

    Attributes
    ----------
    index
        The observation's index in its stream.
    id
        The observation's id.
    time
        ISO-8601 time of the observation, or an empty string.
    content
        The image or the features.
    kind
        How to read `content`.
    label
        Ground truth, once it is known.
    """

    index: int
    id: str
    time: str
    content: bytes
    kind: ContentKind
    label: str | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that does not decode, with its coordinates and the reason.

    Attributes
    ----------
    topic, partition, offset
        Where the record stands.
    stream
        Whose record it is, or an empty string where that could not be read.
    reason
        Short slug, as counted by the metric.
    message
        What is wrong, which value, and where.
    value
        The record's bytes; the store keeps the first 64 KiB.
    key, headers, timestamp_ms
        As in the record; the store keeps none of them.
    """

    topic: str
    partition: int
    offset: int
    stream: str
    reason: str
    message: str
    value: bytes
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp_ms: int | None = None
