"""What is done about a verdict, and what there is to do it with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum


class ActionKind(StrEnum):
    """What can be done about a confirmed shift."""

    FINE_TUNE = "fine_tune"
    REWEIGHT = "reweight"
    ALERT_ONLY = "alert_only"


@dataclass(frozen=True, slots=True)
class Means:
    """What a stream has at hand to act with, as of a batch.

    Attributes
    ----------
    has_model
        The service scores the stream, so it can train and promote a model for it.
    has_scores
        Scores per class are there, so they can be re-weighted.
    per_day
        Trainings that a day of the stream's time may have.
    asked
        Trainings that were asked for, by that day.
    """

    has_model: bool = False
    has_scores: bool = False
    per_day: int = 0
    asked: Mapping[str, int] = field(default_factory=dict)

    def jobs_left(self, day: str) -> int:
        """Trainings left of a day."""
        return self.per_day - self.asked.get(day, 0)

    def after(self, day: str) -> Means:
        """What is left when another training has been asked for."""
        return replace(self, asked={**self.asked, day: self.asked.get(day, 0) + 1})


@dataclass(frozen=True, slots=True)
class Decision:
    """An action and the reason that people read."""

    action: ActionKind
    reason: str
