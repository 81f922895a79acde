"""Joins labels to observations by id, bounded in memory, in the store and in age."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from detectors.base import Array, IntArray, State
from service.domain.waiting import Pruned, Side, SpillChanges, Spilled
from service.monitor.ageing import Ageing
from service.monitor.ahead import Ahead
from service.monitor.clock import StreamClock
from service.monitor.halves import Halves
from service.monitor.label_outcomes import (
    NO_CHANGE,
    Change,
    Counted,
    Ended,
    Joined,
    Outcome,
    repeated,
)
from service.monitor.spilling import Spilling
from service.settings.stream import LabelSettings


class LabelJoin:
    """Observations that wait for their label, and labels that wait for their observation.

    Both sides hold at most `max_pending` entries in memory. The oldest leave first: they are
    spilled, and of those the newest `max_spilled` of each side can still meet. What is spilled is
    found by its id like any other; whoever holds the store looks it up for the next records
    (`wanted`, `at_hand`), and writes what has changed (`unwritten`, `written`). When that is done
    has no influence on any result. The ids of the last `recall` labelled observations are kept to
    tell duplicates and conflicts from unknown ids.

    An entry's age is the stream's time less its own. The stream's time is one that most of its
    newest records have reached (`service.monitor.clock`), so that no wrong clock makes the entries
    of others old. What has no time has no age. What was too old once stays so, also where the
    stream's time is set back.

    Records are joined a batch at a time, ahead of the reader who then takes their events one by
    one: an event is an observation, or a label at the moment it is joined. The reader says so with
    `read`, and `ids` answers as of the event that was read last, however long the batch is.

    Parameters
    ----------
    max_pending
        Entries on each side in memory; positive.
    max_spilled
        Spilled entries on each side; 0 to spill nothing.
    max_age_s
        Seconds of the stream's time after which an entry meets nothing any more. A label that comes
        within twice this time is known to be too late.
    recall
        Labelled observations to recognise again; `max_pending` if None.
    from_first_label
        Spill observations only once a label has come by itself, so that a stream whose labels never
        do pays nothing for it.
    clock
        Tells the stream's time; None for one that doubts steps by more than half of `max_age_s`.
    """

    def __init__(
        self,
        max_pending: int,
        *,
        max_spilled: int = 0,
        max_age_s: float = math.inf,
        recall: int | None = None,
        from_first_label: bool = False,
        clock: StreamClock | None = None,
    ) -> None:
        if max_pending < 1:
            raise ValueError(f"max_pending must be positive, got {max_pending}")
        self.max_pending = max_pending
        self.max_age_s = max_age_s
        self._recall = max_pending if recall is None else recall
        self._ageing = Ageing(max_age_s, clock)
        self._halves = Halves(
            max_pending,
            spilling=Spilling(max_spilled, max_age_s),
            ageing=self._ageing,
            is_labelled=not from_first_label,
        )
        self._done: OrderedDict[str, str] = OrderedDict()
        self._ahead = Ahead()

    @property
    def n_waiting(self) -> int:
        """Observations in memory that have no label so far."""
        return len(self._halves.observations)

    @property
    def n_early(self) -> int:
        """Labels in memory that wait for their observation."""
        return len(self._halves.early)

    @property
    def n_spilled(self) -> Mapping[Side, int]:
        """Spilled observations and labels, written or not."""
        return dict(self._halves.spilling.n)

    @property
    def clock(self) -> float:
        """The stream's time, in Unix seconds; minus infinity before there is one."""
        return self._ageing.now

    @property
    def latest_time(self) -> float:
        """The latest time of the newest records, but for wrong clocks; minus infinity for none."""
        return self._ageing.latest

    @property
    def read_time(self) -> float:
        """The stream's time as of the event that was read last."""
        return self._ahead.read_time

    @property
    def oldest_time(self) -> float | None:
        """As of `Halves.oldest_time`."""
        return self._halves.oldest_time

    def counted(self) -> Counted:
        """What happened besides the outcomes that the changes tell, since this was last asked."""
        return self._halves.take_counted()

    def read(self, n: int = 1) -> None:
        """Note that the reader has come `n` events further."""
        self._ahead.read(n)

    def restart_time(self) -> None:
        """Forget the stream's time: what comes next is of another one than what came."""
        self._ageing.restart()
        self._ahead.forget_time()

    def ids(self, indices: Sequence[int]) -> list[str]:
        """Ids of observations that wait in memory for their label, in the order asked for.

        They are those that waited when the last event was read, each of them read as well.
        """
        return self._ahead.ids(indices, self._halves.observations.index)

    # -- records -------------------------------------------------------------------------------

    def observe(self, id_: str, index: int, label: str | None, time: float = math.nan) -> Change:
        """Take an observation; it may bring its label along or find one waiting.

        An id that was seen before is a new observation all the same: the newest one waits.
        """
        self._tick(time)
        forgotten = None
        halves = self._halves
        if id_ in halves.observations:
            forgotten = self._end(id_)
            halves.counted[Ended.SUPERSEDED] += 1
        early = halves.meet_early(id_)
        if early is not None:
            if label is None:
                label = early
            else:
                halves.counted[repeated(early, label)] += 1
        if label is not None:
            self._ahead.n_joined += 2
            self._remember(id_, label)
            return Change(Outcome.JOINED, Joined(index, label, 0), forgotten)
        spilled = None
        halves.observations.add(id_, index, time)
        if len(halves.observations) > self.max_pending:
            old, its_index, spilled = halves.push_out()
            self._ahead.ends(its_index, old)
            forgotten = its_index, old
        self._ahead.n_joined += 1
        return NO_CHANGE if forgotten is None else Change(None, None, forgotten, spilled)

    def observe_all(
        self,
        ids: Sequence[str],
        first: int,
        labels: Sequence[str | None] | None,
        times: Array,
    ) -> list[tuple[int, int, str]] | None:
        """Take observations of which nothing is known, as `observe` one after the other does.

        Parameters
        ----------
        ids
            Of n observations, in order.
        first
            Index of the first; those of the others follow.
        labels
            What they bring along; None for nothing.
        times
            In Unix seconds, shape (n,), NaN for none.

        Returns
        -------
        list or None
            Of each observation that had to leave the memory for one of these: the place among them
            of the one that came, the index of the one that left, and its id. None if they have to
            be taken one after the other; then nothing has changed.
        """
        known = self._halves.observations.index.keys()
        if not self._halves.is_simple or not known.isdisjoint(ids) or len(set(ids)) < len(ids):
            return None
        has_label = np.array([y is not None for y in labels or ()], np.bool_)
        if not len(has_label):
            has_label = np.zeros(len(ids), np.bool_)
        # Events before each of them: an observation is one, and its label another.
        before = np.arange(len(ids)) + np.cumsum(has_label) - has_label
        base = self._ahead.n_joined
        left: list[tuple[int, int, str]] = []
        done = 0
        for at, then, now in self._ageing.tick_all(times):
            if now < then:  # what came before is told of it
                which = slice(done, at)
                left += self._wait_all(ids, first, has_label, times, which, base + before)
                done = at
            self._ahead.n_joined = base + int(before[at])
            self._set(then, now)
        end = slice(done, len(ids))
        left += self._wait_all(ids, first, has_label, times, end, base + before)
        for n in np.flatnonzero(has_label).tolist():
            assert labels is not None
            self._remember(ids[n], str(labels[n]))
        self._ahead.n_joined = base + len(ids) + int(has_label.sum())
        return left

    def _wait_all(
        self,
        ids: Sequence[str],
        first: int,
        has_label: npt.NDArray[np.bool_],
        times: Array,
        which: slice,
        before: IntArray,
    ) -> list[tuple[int, int, str]]:
        """Wait for the labels of some observations; who had to leave for them."""
        new = np.arange(len(ids))[which][~has_label[which]]
        waiting = self._halves.observations
        room = self.max_pending - len(waiting)
        wait = new.tolist()
        waiting.add_all([ids[n] for n in wait], first + new, times[new])
        for_these = new[max(room, 0) :]
        out = waiting.push_out_all(len(for_these))
        self._ahead.all_end((before[for_these] + 1).tolist(), out)
        self._halves.give_up(Side.OBSERVATION, len(out))
        return [(n, index, id_) for n, (id_, index) in zip(for_these.tolist(), out, strict=True)]

    def label(self, id_: str, label: str, newest_index: int, time: float = math.nan) -> Change:
        """Take a label that came by itself."""
        self._tick(time)
        halves = self._halves
        halves.is_labelled = True
        forgotten = None
        index = halves.observations.index.get(id_)
        if index is not None:
            began = halves.observations.time_of(id_)
            if not self._ageing.is_old(began, 2):
                if self._ageing.is_old(began):
                    return Change(Outcome.EXPIRED)
                self._end(id_)
                joined = Joined(index, label, newest_index - index, time - began)
                return self._join(id_, label, joined)
            # It can meet nothing any more, and in the store there is one place for both.
            forgotten = self._end(id_)
            halves.give_up(Side.OBSERVATION)
        entry = halves.find(id_)
        if entry is not None and entry.side is Side.OBSERVATION:
            if self._ageing.is_old(entry.time):
                return Change(Outcome.EXPIRED)
            halves.spilling.drop(entry)
            delay = newest_index - entry.index
            joined = Joined(entry.index, label, delay, time - entry.time, entry)
            return self._join(id_, label, joined)
        known = self._done.get(id_) or halves.early_label(id_, entry)
        if known is not None:
            return Change(repeated(label, known), None, forgotten)
        halves.put_early(id_, label, time)
        return Change(Outcome.EARLY, None, forgotten)

    def forget(self, id_: str) -> Change:
        """Wait no longer for the label of an observation."""
        return Change(forgotten=self._end(id_))

    def _join(self, id_: str, label: str, joined: Joined) -> Change:
        self._ahead.n_joined += 1
        self._remember(id_, label)
        if joined.seconds is not None and not abs(joined.seconds) <= self.max_age_s:
            joined = Joined(joined.index, label, joined.delay, None, joined.spilled)
        return Change(Outcome.JOINED, joined)

    def _end(self, id_: str) -> tuple[int, str] | None:
        """End the wait of an observation with the event that comes next."""
        index = self._halves.observations.end(id_)
        if index is None:
            return None
        self._ahead.ends(index, id_)
        return index, id_

    def _remember(self, id_: str, label: str) -> None:
        self._done.pop(id_, None)
        self._done[id_] = label
        if len(self._done) > self._recall:
            self._done.popitem(last=False)

    # -- age -----------------------------------------------------------------------------------

    def _tick(self, time: float) -> None:
        """Note a record's time."""
        if (changed := self._ageing.tick(time)) is not None:
            self._set(*changed)

    def _set(self, before: float, now: float) -> None:
        """The stream's time has changed."""
        self._halves.grow_old(before, now)
        self._ahead.time_is(now)

    # -- the store -----------------------------------------------------------------------------

    def wanted(self, ids: Iterable[str]) -> list[str]:
        """Those of these ids that have to be looked up among the spilled entries."""
        return self._halves.wanted(ids)

    def at_hand(self, found: Iterable[Spilled]) -> None:
        """Take what was found for the ids of the next records."""
        self._halves.spilling.at_hand(found)

    def unwritten(self) -> SpillChanges:
        """What is to be written of the spilled entries."""
        return self._halves.unwritten()

    def written(self, pruned: Pruned) -> None:
        """Note that the unwritten is written."""
        self._halves.written(pruned)

    # -- snapshot ------------------------------------------------------------------------------

    def snapshot(self) -> State:
        """Everything needed to go on, once every event is read; but for what is spilled."""
        return {
            "halves": self._halves.snapshot(),
            "done": [list(self._done), list(self._done.values())],
            "read_time": self._ahead.read_time,
        }

    def restore(self, state: State, n_spilled: Mapping[Side, int] | None = None) -> None:
        """Go on from a snapshot; `n_spilled` are the entries in the store."""
        self._halves.restore(state["halves"], dict(n_spilled or {}))
        self._done = OrderedDict(zip(*state["done"], strict=True))
        self._ahead.restart(state["read_time"], self._ageing.now)


def join_of(settings: LabelSettings, *, spills: bool, joined_before: bool) -> LabelJoin:
    """The join of a stream.

    Parameters
    ----------
    settings
        How much may wait, and for how long.
    spills
        Whether there is a store for those that have no room in memory.
    joined_before
        Whether somebody else has joined the labels: then nothing grows old, and no id comes again.
    """
    return LabelJoin(
        settings.max_pending,
        max_spilled=settings.max_spilled if spills else 0,
        max_age_s=math.inf if joined_before else settings.max_age_s,
        recall=0 if joined_before else None,
        from_first_label=not settings.spill_from_start,
    )
