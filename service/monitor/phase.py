"""Where a monitor is in its cycle, and where it goes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from service.monitor.outcomes import NOTHING, Outcomes, all_of


class Phase(StrEnum):
    """Where a monitor is in its cycle."""

    WARMING_UP = "warming_up"
    """Collecting the reference window."""
    WATCHING = "watching"
    """Stage 1 runs on every event."""
    SUSPECTING = "suspecting"
    """An alarm is under test on fresh evidence."""
    OPEN = "open"
    """A confirmed shift persists; the stream is compared with the reference now and then."""
    REPAIRING = "repairing"
    """A model is being trained."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What a step comes to.

    Attributes
    ----------
    outcomes
        What changed.
    phase
        Where the monitor goes; None if it stays. Into `WARMING_UP` it goes with a new reference.
    """

    outcomes: Outcomes = NOTHING
    phase: Phase | None = None


STAY = Turn()
"""Nothing has changed, and nothing is to."""


def turn_of(turns: Iterable[Turn]) -> Turn:
    """What several turns come to, in their order."""
    taken = [turn for turn in turns if turn is not STAY]
    if len(taken) <= 1:
        return taken[0] if taken else STAY
    phases = [turn.phase for turn in taken if turn.phase is not None]
    return Turn(all_of(turn.outcomes for turn in taken), phases[-1] if phases else None)
