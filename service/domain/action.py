"""An action of the outbox: what is done about an incident once its transaction is written."""

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
