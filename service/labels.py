"""Joins labels to observations by id, bounded in memory and age."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from detectors.base import State


class Outcome(StrEnum):
    """What became of a label; every label has exactly one outcome, and each is counted."""

    JOINED = "joined"
    """It met its observation."""
    EARLY = "early"
    """It came before its observation and waits for it."""
    DUPLICATE = "duplicate"
    """The observation has this label already."""
    CONFLICT = "conflict"
    """The observation has another label already; the first one stays."""
    EXPIRED = "expired"
    """An early label whose observation did not come while there was room for it."""


@dataclass(frozen=True, slots=True)
class Joined:
    """A label that met its observation.

    Attributes
    ----------
    index
        The observation's index in its stream.
    label
        The label.
    prediction
        What the model had predicted, or None.
    delay
        Observations between the observation and its label; 0 if they came together.
    """

    index: int
    label: str
    prediction: str | None
    delay: int


class LabelJoin:
    """Observations that wait for their label, and labels that wait for their observation.

    Both sides hold at most `max_pending` entries; the oldest leave first. The ids of the last
    `max_pending` labelled observations are kept to tell duplicates and conflicts from unknown ids.

    Parameters
    ----------
    max_pending
        Entries on each side; positive.
    """

    def __init__(self, max_pending: int) -> None:
        if max_pending < 1:
            raise ValueError(f"max_pending must be positive, got {max_pending}")
        self.max_pending = max_pending
        self._waiting: OrderedDict[str, tuple[int, str | None]] = OrderedDict()
        self._early: OrderedDict[str, str] = OrderedDict()
        self._done: OrderedDict[str, str] = OrderedDict()
        self.unlabelled_evicted = 0

    @property
    def n_waiting(self) -> int:
        """Observations without a label so far."""
        return len(self._waiting)

    def oldest_waiting(self) -> int | None:
        """Index of the oldest observation that can still be labelled."""
        return next(iter(self._waiting.values()))[0] if self._waiting else None

    def ids(self, indices: Sequence[int]) -> list[str]:
        """Ids of observations that wait for their label, in the order asked for."""
        wanted = set(indices)
        found = {i: k for k, (i, _) in self._waiting.items() if i in wanted}
        return [found[i] for i in indices if i in found]

    def observe(
        self, id_: str, index: int, prediction: str | None, label: str | None
    ) -> tuple[Outcome | None, Joined | None]:
        """Take an observation; it may bring its label along or find one waiting.

        An id that was seen before is a new observation all the same: the newest one waits.
        """
        outcome: Outcome | None = None
        early = self._early.pop(id_, None)
        if label is not None:
            outcome = Outcome.JOINED
        elif early is not None:
            label, outcome = early, Outcome.JOINED
        if label is not None:
            self._remember(id_, label)
            return outcome, Joined(index, label, prediction, 0)
        self._waiting.pop(id_, None)
        self._waiting[id_] = (index, prediction)
        if len(self._waiting) > self.max_pending:
            self._waiting.popitem(last=False)
            self.unlabelled_evicted += 1
        return None, None

    def label(self, id_: str, label: str, newest_index: int) -> tuple[Outcome, Joined | None]:
        """Take a label that came by itself."""
        waiting = self._waiting.pop(id_, None)
        if waiting is not None:
            index, prediction = waiting
            self._remember(id_, label)
            return Outcome.JOINED, Joined(index, label, prediction, newest_index - index)
        known = self._done.get(id_) or self._early.get(id_)
        if known is not None:
            return (Outcome.DUPLICATE if known == label else Outcome.CONFLICT), None
        self._early[id_] = label
        if len(self._early) > self.max_pending:
            self._early.popitem(last=False)
            return Outcome.EXPIRED, None
        return Outcome.EARLY, None

    def _remember(self, id_: str, label: str) -> None:
        self._done.pop(id_, None)
        self._done[id_] = label
        if len(self._done) > self.max_pending:
            self._done.popitem(last=False)

    def snapshot(self) -> State:
        """Everything needed to go on."""
        return {
            "waiting": [[k, i, p] for k, (i, p) in self._waiting.items()],
            "early": [[k, v] for k, v in self._early.items()],
            "done": [[k, v] for k, v in self._done.items()],
            "evicted": self.unlabelled_evicted,
        }

    def restore(self, state: State) -> None:
        """Go on from a snapshot."""
        self._waiting = OrderedDict((k, (i, p)) for k, i, p in state["waiting"])
        self._early = OrderedDict((k, v) for k, v in state["early"])
        self._done = OrderedDict((k, v) for k, v in state["done"])
        self.unlabelled_evicted = state["evicted"]
