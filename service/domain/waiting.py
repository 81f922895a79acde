"""Observations and labels that wait for each other outside of the memory."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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
