"""What goes into a monitor once labels are joined: observations, and labels when they are known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from detectors.base import IntArray
from service.domain.waiting import Spilled
from service.monitor.label_outcomes import Change, Counted


class Delay(NamedTuple):
    """How long after its observation a label came.

    Attributes
    ----------
    observations
        Of the stream, between the two.
    seconds
        Between their own times; None where one is missing or wrong.
    """

    observations: int
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Events:
    """The records of a batch after the join, as columns: each event is an observation or a label.

    A record brings no event, one, or an observation and behind it its label.

    Attributes
    ----------
    records
        The record of each event, shape (n,).
    is_label
        Whether an event is a label, shape (n,); else it is an observation.
    index
        Index in the stream of the event's observation, shape (n,).
    labels
        The label of each event that is one, else None.
    pushed_out
        Observations that an event pushed out of the memory, and whose label can still come, by the
        event's place.
    spilled
        Where an event is a label whose observation had been pushed out: that one, by the event's
        place; its row is gone.
    ended
        Indices of the observations whose wait has ended in this batch, by whichever record.
    counted
        What happened to labels and observations besides, and how many records were mistimed.
    delays
        Of each label that came later than its observation.
    changes
        What each record changed among the observations that wait; empty if nobody asked.
    """

    records: IntArray
    is_label: npt.NDArray[np.bool_]
    index: IntArray
    labels: Sequence[str | None]
    pushed_out: Mapping[int, Spilled] = field(default_factory=dict)
    spilled: Mapping[int, Spilled] = field(default_factory=dict)
    ended: IntArray = field(default_factory=lambda: np.empty(0, np.int64))
    counted: Counted = field(default_factory=Counter)
    delays: Sequence[Delay] = ()
    changes: Sequence[Change] = ()

    def __len__(self) -> int:
        return len(self.index)

    def in_memory(self, places: IntArray) -> npt.NDArray[np.bool_]:
        """Which of some labels are for observations that had not been pushed out of memory."""
        if not self.spilled:
            return np.ones(len(places), np.bool_)
        return np.array([place not in self.spilled for place in places.tolist()], np.bool_)
