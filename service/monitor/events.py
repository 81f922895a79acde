"""What goes into a monitor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from detectors.base import Array
from service.domain.waiting import Spilled
from service.monitor.representation import Raw

Coordinates = tuple[str, int, int]
"""Topic, partition and offset of a record."""

# `Arrival` and `Seen` are not frozen: there is one of each for every record, and a frozen one takes
# five times as long to make.


@dataclass(slots=True)
class Arrival:
    """A record that decoded, on its way into the monitor; nobody changes one.

    Attributes
    ----------
    at
        The record's coordinates.
    id
        The observation's id, which its label names.
    time
        ISO-8601 time of the record, or an empty string.
    raw
        What the representation reads; None for a label that came by itself.
    label
        The label, if the record carried one.
    prediction
        The class predicted upstream; None where the service scores or nothing predicted.
    scores
        Scores by class in the order of the monitor's `score_classes`, shape (K,), or None.
    segment
        Values of the observation's segments by name, such as {"camera": "7"}.
    seconds
        `time` in Unix seconds; not a number if there is none.
    """

    at: Coordinates
    id: str
    time: str
    raw: Raw | None
    label: str | None
    prediction: str | None = None
    scores: Array | None = None
    segment: Mapping[str, str] = field(default_factory=dict)
    seconds: float = math.nan


@dataclass(slots=True)
class Seen:
    """An observation, at its place in the stream; nobody changes one.

    `spilled` is the older one that it pushed out of memory, if that one's label can still come.
    """

    at: Coordinates
    time: str
    index: int
    raw: Raw
    prediction: str | None
    scores: Array | None
    segment: Mapping[str, str]
    spilled: Spilled | None = None


@dataclass(frozen=True, slots=True)
class Labelled:
    """The moment at which an observation's label is known; `index` is the observation's.

    `spilled` is the observation where it had left the memory: its row is gone.
    """

    at: Coordinates
    time: str
    index: int
    label: str
    spilled: Spilled | None = None


Event = Seen | Labelled
