"""What becomes of labels, and of observations that wait for one; each is counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from service.domain.waiting import Spilled


class Outcome(StrEnum):
    """What became of a label; each is counted.

    A label that comes has one of the first five. One that came early gets a second outcome later.
    """

    JOINED = "joined"
    """It met its observation."""
    EARLY = "early"
    """It came before its observation and waits for it."""
    DUPLICATE = "duplicate"
    """The observation has this label already."""
    CONFLICT = "conflict"
    """The observation has another label already; the first one stays."""
    EXPIRED = "expired"
    """It came for an observation that is too old."""
    UNKNOWN = "unknown"
    """An early label whose observation did not come while there was room and time for it."""


class Ended(StrEnum):
    """Why no label is waited for any more, though none came; each is counted."""

    SUPERSEDED = "superseded"
    """A newer observation has the same id, and labels mean that one."""
    GIVEN_UP = "given_up"
    """There was no room for it any more, or it was too old."""


class Mistimed(StrEnum):
    """How a record's own time differs from the stream's by more than `max_age_s`; counted."""

    AHEAD = "ahead"
    """It lies ahead. Such an entry does not grow old: it leaves when there is no room for it."""
    BEHIND = "behind"
    """It lies behind. Such an observation is too old for a label when it comes."""


Counted = Counter[Outcome | Ended | Mistimed]


@dataclass(frozen=True, slots=True)
class Joined:
    """A label that met its observation.

    Attributes
    ----------
    index
        The observation's index in its stream.
    label
        The label.
    delay
        Observations between the observation and its label; 0 if they came together.
    seconds
        From the observation's time to its label's, of a label that came later; None where one of
        the two records has no time, and where they are further apart than `max_age_s`: one of the
        clocks is wrong.
    spilled
        The observation, if it had been spilled; then its row is not in memory any more.
    """

    index: int
    label: str
    delay: int
    seconds: float | None = None
    spilled: Spilled | None = None


class Change(NamedTuple):
    """What a record did to the observations and labels that wait for each other.

    Attributes
    ----------
    outcome
        Of the label that the record brought or met; None if there was none.
    joined
        The label that met its observation, or None.
    forgotten
        Index and id of the observation that left the memory without a label, or None.
    spilled
        The same observation, if its label can still come.
    """

    outcome: Outcome | None = None
    joined: Joined | None = None
    forgotten: tuple[int, str] | None = None
    spilled: Spilled | None = None


NO_CHANGE = Change()


def repeated(label: str, known: str) -> Outcome:
    """What becomes of the label of an observation that has one."""
    return Outcome.DUPLICATE if known == label else Outcome.CONFLICT
