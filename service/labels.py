"""Joins labels to observations by id, bounded in memory and age."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

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


class Change(NamedTuple):
    """What a record did to the observations and labels that wait for each other.

    Attributes
    ----------
    outcome
        Of the label that the record brought or met; None if there was none.
    joined
        The label that met its observation, or None.
    forgotten
        Index and id of the observation whose label cannot come any more, or None.
    """

    outcome: Outcome | None = None
    joined: Joined | None = None
    forgotten: tuple[int, str] | None = None


NO_CHANGE = Change()


class LabelJoin:
    """Observations that wait for their label, and labels that wait for their observation.

    Both sides hold at most `max_pending` entries; the oldest leave first. The ids of the last
    `recall` labelled observations are kept to tell duplicates and conflicts from unknown ids.

    Records are joined a batch at a time, ahead of the reader who then takes their events one by
    one: an event is an observation, or a label at the moment it is joined. The reader says so with
    `read`, and `ids` answers as of the event that was read last, however long the batch is.

    Parameters
    ----------
    max_pending
        Entries on each side; positive.
    recall
        Labelled observations to recognise again; `max_pending` if None.
    """

    def __init__(self, max_pending: int, *, recall: int | None = None) -> None:
        if max_pending < 1:
            raise ValueError(f"max_pending must be positive, got {max_pending}")
        self.max_pending = max_pending
        self._recall = max_pending if recall is None else recall
        self._waiting: OrderedDict[str, int] = OrderedDict()
        self._predicted: dict[str, str] = {}  # of those that wait, where it was told
        self._early: OrderedDict[str, str] = OrderedDict()
        self._done: OrderedDict[str, str] = OrderedDict()
        self.unlabelled_evicted = 0
        self._n_joined = 0
        self._n_read = 0
        # Waits that end in an event which is not read yet: its number, and the observation.
        self._ending: deque[tuple[int, int, str]] = deque()

    @property
    def n_waiting(self) -> int:
        """Observations without a label so far."""
        return len(self._waiting)

    def read(self) -> None:
        """Note that the reader has come to the next event."""
        self._n_read += 1
        while self._ending and self._ending[0][0] <= self._n_read:
            self._ending.popleft()

    def ids(self, indices: Sequence[int]) -> list[str]:
        """Ids of observations that wait for their label, in the order asked for.

        They are those that waited when the last event was read, each of them read as well.
        """
        wanted = set(indices)
        found = {i: k for k, i in self._waiting.items() if i in wanted}
        found |= {i: k for _, i, k in self._ending if i in wanted}
        return [found[i] for i in indices if i in found]

    def observe(self, id_: str, index: int, prediction: str | None, label: str | None) -> Change:
        """Take an observation; it may bring its label along or find one waiting.

        An id that was seen before is a new observation all the same: the newest one waits.
        """
        if self._early:
            early = self._early.pop(id_, None)
            label = early if label is None else label
        if label is not None:
            self._n_joined += 2
            self._remember(id_, label)
            return Change(Outcome.JOINED, Joined(index, label, prediction, 0))
        forgotten = self._end(id_) if id_ in self._waiting else None
        self._waiting[id_] = index
        if prediction is not None:
            self._predicted[id_] = prediction
        if len(self._waiting) > self.max_pending:
            forgotten = self._end(next(iter(self._waiting)))
            self.unlabelled_evicted += 1
        self._n_joined += 1
        return NO_CHANGE if forgotten is None else Change(None, None, forgotten)

    def label(self, id_: str, label: str, newest_index: int) -> Change:
        """Take a label that came by itself."""
        index = self._waiting.get(id_)
        if index is not None:
            prediction = self._predicted.get(id_)
            self._end(id_)
            self._n_joined += 1
            self._remember(id_, label)
            joined = Joined(index, label, prediction, newest_index - index)
            return Change(Outcome.JOINED, joined)
        known = self._done.get(id_) or self._early.get(id_)
        if known is not None:
            return Change(Outcome.DUPLICATE if known == label else Outcome.CONFLICT)
        self._early[id_] = label
        if len(self._early) > self.max_pending:
            self._early.popitem(last=False)
            return Change(Outcome.EXPIRED)
        return Change(Outcome.EARLY)

    def forget(self, id_: str) -> Change:
        """Wait no longer for the label of an observation."""
        return Change(forgotten=self._end(id_))

    def _end(self, id_: str) -> tuple[int, str] | None:
        """End the wait of an observation with the event that comes next."""
        index = self._waiting.pop(id_, None)
        if index is None:
            return None
        self._predicted.pop(id_, None)
        self._ending.append((self._n_joined + 1, index, id_))
        return index, id_

    def _remember(self, id_: str, label: str) -> None:
        self._done.pop(id_, None)
        self._done[id_] = label
        if len(self._done) > self._recall:
            self._done.popitem(last=False)

    def snapshot(self) -> State:
        """Everything needed to go on, once every event is read."""
        return {
            # Columns, because a checkpoint has up to `max_pending` of them: lists of pairs took
            # ten times as long.
            "waiting": [list(self._waiting), list(self._waiting.values())],
            "predicted": dict(self._predicted),
            "early": [list(self._early), list(self._early.values())],
            "done": [list(self._done), list(self._done.values())],
            "evicted": self.unlabelled_evicted,
        }

    def restore(self, state: State) -> None:
        """Go on from a snapshot."""
        ids, indices = state["waiting"]
        self._waiting = OrderedDict(zip(ids, indices, strict=True))
        self._predicted = dict(state["predicted"])
        self._early = OrderedDict(zip(*state["early"], strict=True))
        self._done = OrderedDict(zip(*state["done"], strict=True))
        self.unlabelled_evicted = state["evicted"]
        self._n_joined = self._n_read = 0
        self._ending.clear()
