"""What is done about a verdict, and what there is to do it with."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ActionKind(StrEnum):
    """What can be done about a confirmed shift."""

    FINE_TUNE = "fine_tune"
    REWEIGHT = "reweight"
    ALERT_ONLY = "alert_only"


@dataclass(frozen=True, slots=True)
class Means:
    """What a stream has at hand to act with.

    Attributes
    ----------
    has_model
        The service scores the stream, so it can train and promote a model for it.
    has_scores
        Scores per class are there, so they can be re-weighted.
    jobs_left
        Trainings left in today's budget.
    """

    has_model: bool
    has_scores: bool
    jobs_left: int


@dataclass(frozen=True, slots=True)
class Decision:
    """An action and the reason that people read."""

    action: ActionKind
    reason: str
