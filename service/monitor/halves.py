"""What waits for its other half: observations for their label, labels for their observation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from detectors.base import State
from service.domain.waiting import Pruned, Side, SpillChanges, Spilled
from service.monitor.ageing import Ageing
from service.monitor.in_memory import EarlyLabels, Observations
from service.monitor.label_outcomes import Counted, Ended, Outcome
from service.monitor.spilling import Spilling


class Halves:
    """What waits on either side, in memory or in the store.

    Parameters
    ----------
    max_pending
        Entries on each side in memory; positive. The oldest leave first.
    spilling
        Those that have left.
    ageing
        The stream's time.
    is_labelled
        Whether a label has come by itself, from when on what leaves the memory is spilled.

    Attributes
    ----------
    counted
        What became of entries that met nothing.
    """

    def __init__(
        self, max_pending: int, *, spilling: Spilling, ageing: Ageing, is_labelled: bool
    ) -> None:
        self.max_pending = max_pending
        self.observations = Observations()
        self.early = EarlyLabels()
        self.spilling = spilling
        self.ageing = ageing
        self.is_labelled = is_labelled
        self.counted: Counted = Counter()
        self._n_given_up = 0

    @property
    def oldest_time(self) -> float | None:
        """Time of the oldest observation whose label can still meet it, or None.

        Of those in the store it is as of when it was last written.
        """
        oldest = self.spilling.oldest
        if oldest is not None and self.spilling.n[Side.OBSERVATION]:
            return oldest
        return self.observations.oldest_between(*self.ageing.alive)

    def take_counted(self) -> Counted:
        """What was counted since this was last asked."""
        counted, self.counted = self.counted, Counter()
        if self._n_given_up:
            counted[Ended.GIVEN_UP] += self._n_given_up
            self._n_given_up = 0
        counted.update(self.ageing.mistimed)
        self.ageing.mistimed.clear()
        return counted

    def give_up(self, side: Side, n: int = 1) -> None:
        """Count entries of a side that can meet nothing any more."""
        if side is Side.OBSERVATION:
            self._n_given_up += n  # of a stream without labels each observation
        elif n:
            self.counted[Outcome.UNKNOWN] += n

    # -- observations --------------------------------------------------------------------------

    @property
    def is_simple(self) -> bool:
        """Whether an observation of an id that does not wait meets nothing and spills nothing."""
        spills = self.spilling.max_spilled and self.is_labelled
        return not self.early and self.spilling.is_empty and not spills

    def push_out(self) -> tuple[str, int, Spilled | None]:
        """The oldest observation leaves the memory: id, index, and itself if it is spilled."""
        id_, index, time = self.observations.push_out()
        return id_, index, self._spill(Spilled(id_, Side.OBSERVATION, 0, index, time))

    def meet_early(self, id_: str) -> str | None:
        """The label that waits for an observation which has just come; it waits no longer."""
        early = self.early.pop(id_)
        if early is not None:
            label, came = early
            if not self.ageing.is_old(came):
                return label
            self.give_up(Side.LABEL)
        entry = self.find(id_)
        if entry is None:
            return None
        self.spilling.drop(entry)
        if entry.side is Side.OBSERVATION:
            self.counted[Ended.SUPERSEDED] += 1
            return None
        return entry.value

    # -- labels --------------------------------------------------------------------------------

    def put_early(self, id_: str, label: str, time: float) -> None:
        """A label waits for its observation."""
        self.early.put(id_, label, time)
        if len(self.early) > self.max_pending:
            old, its_label, came = self.early.push_out()
            self._spill(Spilled(old, Side.LABEL, 0, -1, came, its_label))

    def early_label(self, id_: str, entry: Spilled | None) -> str | None:
        """The label that an id has already, though its observation has not come.

        `entry` is what is spilled of the id.
        """
        early = self.early.get(id_)
        if early is None:
            return None if entry is None else entry.value
        label, came = early
        if not self.ageing.is_old(came):
            return label
        self.early.pop(id_)
        self.give_up(Side.LABEL)
        return None

    # -- age -----------------------------------------------------------------------------------

    def grow_old(self, before: float, now: float) -> None:
        """Give up what the stream's new time makes too old."""
        if now < before:
            ended = self.spilling.set_back(before)
            self.observations.age_all_before(ended[Side.OBSERVATION])
            self.give_up(Side.LABEL, self.early.drop_before(ended[Side.LABEL]))
        while self.ageing.is_old(self.early.oldest_time):
            self.early.push_out()
            self.give_up(Side.LABEL)

    # -- those without room --------------------------------------------------------------------

    def _spill(self, entry: Spilled) -> Spilled | None:
        if not self.spilling.max_spilled or not self.is_labelled:
            self.give_up(entry.side)
            return None
        self.spilling.add(entry)
        return entry

    def find(self, id_: str) -> Spilled | None:
        """The spilled entry of an id, if it can still meet."""
        entry = self.spilling.find(id_)
        if entry is None:
            return None
        if self.spilling.is_over(entry, self.ageing.now):
            self.spilling.drop(entry)
            self.give_up(entry.side)
            return None
        return entry

    def wanted(self, ids: Iterable[str]) -> list[str]:
        """Those of these ids that have to be looked up among the spilled entries."""
        return self.spilling.wanted(ids, self.observations, self.early)

    def unwritten(self) -> SpillChanges:
        """What is to be written of the spilled entries."""
        return self.spilling.unwritten(self.ageing.now, self.ageing.alive)

    def written(self, pruned: Pruned) -> None:
        """Note that the unwritten is written."""
        self.spilling.written(pruned)
        for side, n in pruned.deleted.items():
            self.give_up(side, n)

    # -- snapshot ------------------------------------------------------------------------------

    def snapshot(self) -> State:
        """Everything needed to go on; but for what is in the store."""
        return {
            "observations": self.observations.snapshot(),
            "early": self.early.snapshot(),
            "spilling": self.spilling.snapshot(),
            "ageing": self.ageing.snapshot(),
            "is_labelled": self.is_labelled,
        }

    def restore(self, state: State, n_spilled: dict[Side, int]) -> None:
        """Go on from a snapshot; `n_spilled` are the entries in the store."""
        self.observations.restore(state["observations"])
        self.early.restore(state["early"])
        self.spilling.restore(state["spilling"], n_spilled)
        self.ageing.restore(state["ageing"])
        self.is_labelled = state["is_labelled"]
        self.counted.clear()
        self._n_given_up = 0
