"""Observations and labels that wait in a store, because others fill the memory."""

from __future__ import annotations

import math
from collections.abc import Collection, Container, Iterable, Mapping
from typing import Protocol

from detectors.base import State
from service.domain.waiting import NOTHING, Bound, Pruned, Side, SpillChanges, Spilled


class Spill(Protocol):
    """Where those wait that have no room in memory."""

    def find(self, ids: Collection[str], /) -> Iterable[Spilled]:
        """Those of these ids that were written and not deleted."""
        ...

    def count(self) -> Mapping[Side, int]:
        """How many were written and not deleted."""
        ...


AGES = {Side.OBSERVATION: 2, Side.LABEL: 1}
"""How many times `max_age_s` an entry is kept: a label that comes too late is to be told from one
of an unknown id."""


class Spilling:
    """The entries of a join that are spilled: which ones, and what of that is not written.

    Parameters
    ----------
    max_spilled
        Entries on each side; 0 to spill nothing.
    max_age_s
        Seconds of the stream's time after which an entry meets nothing any more.

    Attributes
    ----------
    n
        Of each side, written or not.
    oldest
        As of when it was last written: the earliest time of an observation whose label can still
        meet it, or None.
    """

    def __init__(self, max_spilled: int, max_age_s: float) -> None:
        self.max_spilled = max_spilled
        self._max_age_s = max_age_s
        self.n = dict.fromkeys(Side, 0)
        self.oldest: float | None = None
        self._numbers = dict.fromkeys(Side, 0)
        self._changed: dict[str, Spilled | None] = {}
        self._at_hand: dict[str, Spilled] = {}
        self._passed = dict.fromkeys(Side, NOTHING)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is spilled."""
        return not any(self.n.values())

    def add(self, entry: Spilled) -> None:
        """Spill an entry."""
        self._numbers[entry.side] += 1
        self.n[entry.side] += 1
        entry.number = self._numbers[entry.side]
        self._changed[entry.id] = entry

    def find(self, id_: str) -> Spilled | None:
        """The spilled entry of an id; ask `is_over` whether it can still meet."""
        if self.is_empty:
            return None
        return self._changed[id_] if id_ in self._changed else self._at_hand.get(id_)

    def is_over(self, entry: Spilled, now: float) -> bool:
        """Whether an entry can meet nothing any more."""
        return any(bound.holds(entry) for bound in self._over(entry.side, now))

    def drop(self, entry: Spilled) -> None:
        """An entry waits no longer."""
        self._changed[entry.id] = None
        self.n[entry.side] -= 1

    def _over(self, side: Side, now: float) -> list[Bound]:
        """Those without room, those too old, and those that were too old before it was set back."""
        bounds = (
            Bound(self._numbers[side] - self.max_spilled, math.inf),
            Bound(math.inf, now - AGES[side] * self._max_age_s),
            self._passed[side],
        )
        return [b for b in bounds if b.number > 0 and b.time > -math.inf]

    def set_back(self, before: float) -> Mapping[Side, float]:
        """Keep what was too old by the stream's time before as it was: it may be deleted already.

        One bound does for all times that the stream is set back: the latest, of all entries so far.

        Returns
        -------
        Mapping[Side, float]
            Up to which time entries of each side are over.
        """
        for side, times in AGES.items():
            ended = max(self._passed[side].time, before - times * self._max_age_s)
            self._passed[side] = Bound(self._numbers[side], ended)
        self.oldest = None
        return {side: bound.time for side, bound in self._passed.items()}

    # -- the store -----------------------------------------------------------------------------

    def wanted(self, ids: Iterable[str], *held: Container[str]) -> list[str]:
        """Those of these ids that have to be looked up; those that are held elsewhere have not."""
        if self.is_empty:
            return []
        here: tuple[Container[str], ...] = (self._changed, *held)
        return [i for i in dict.fromkeys(ids) if not any(i in each for each in here)]

    def at_hand(self, found: Iterable[Spilled]) -> None:
        """Take what was found for the ids of the next records."""
        self._at_hand = {entry.id: entry for entry in found}

    def unwritten(self, now: float, alive: tuple[float, float]) -> SpillChanges:
        """What is to be written at a time of the stream; `alive` as in `SpillChanges`."""
        return SpillChanges(
            [entry for entry in self._changed.values() if entry is not None],
            [id_ for id_, entry in self._changed.items() if entry is None],
            {side: self._over(side, now) for side, n in self.n.items() if n},
            alive,
        )

    def written(self, pruned: Pruned) -> None:
        """Note that the unwritten is written."""
        self._changed.clear()
        self._at_hand.clear()
        self.oldest = pruned.oldest
        for side, n in pruned.deleted.items():
            self.n[side] = max(self.n[side] - n, 0)

    def snapshot(self) -> State:
        """Everything needed to go on; but for what is in the store."""
        return {
            "passed": [list(self._passed[side]) for side in Side],
            "numbers": [self._numbers[side] for side in Side],
        }

    def restore(self, state: State, n_spilled: Mapping[Side, int]) -> None:
        """Go on from a snapshot; `n_spilled` are the entries in the store."""
        self._passed = {s: Bound(*p) for s, p in zip(Side, state["passed"], strict=True)}
        self._numbers = dict(zip(Side, state["numbers"], strict=True))
        self.n = {side: n_spilled.get(side, 0) for side in Side}
        self._changed.clear()
        self._at_hand.clear()
        self.oldest = None
