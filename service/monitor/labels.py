"""Joins labels to observations by id, bounded in memory, in the store and in age."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

import numpy as np

from detectors.base import State
from service.domain.waiting import NOTHING, Bound, Pruned, Side, SpillChanges, Spilled
from service.monitor.clock import StreamClock

LEAP = 0.5
"""Part of `max_age_s` by which the stream's time may go on without patience: a step that makes at
most half of what waits older than it may be."""


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


class Spill(Protocol):
    """Where those wait that have no room in memory."""

    def find(self, ids: Collection[str], /) -> Iterable[Spilled]:
        """Those of these ids that were written and not deleted."""
        ...

    def count(self) -> Mapping[Side, int]:
        """How many were written and not deleted."""
        ...


_AGES = {Side.OBSERVATION: 2, Side.LABEL: 1}
"""How many times `max_age_s` an entry is kept: a label that comes too late is to be told from one
of an unknown id."""


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
        self.max_spilled = max_spilled
        self.max_age_s = max_age_s
        self._recall = max_pending if recall is None else recall
        self._is_labelled = not from_first_label
        self._waiting: OrderedDict[str, int] = OrderedDict()
        self._times: dict[str, float] = {}  # of those that wait and have one, in the same order
        self._early: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._done: OrderedDict[str, str] = OrderedDict()
        self._clock = StreamClock(LEAP * max_age_s) if clock is None else clock
        self._read_time = -math.inf
        self._numbers = dict.fromkeys(Side, 0)
        self._n_spilled = dict.fromkeys(Side, 0)
        self._changed: dict[str, Spilled | None] = {}
        self._at_hand: dict[str, Spilled] = {}
        self._oldest: float | None = None
        self._passed = dict.fromkeys(Side, NOTHING)
        self._counted: Counted = Counter()
        self._n_given_up = 0
        self._n_joined = 0
        self._n_read = 0
        # Waits that end in an event which is not read yet: its number, and the observation.
        self._ending: deque[tuple[int, int, str]] = deque()
        # The stream's time from an event on which is not read yet, by the event's number.
        self._coming: deque[tuple[int, float]] = deque()

    @property
    def n_waiting(self) -> int:
        """Observations in memory that have no label so far."""
        return len(self._waiting)

    @property
    def n_early(self) -> int:
        """Labels in memory that wait for their observation."""
        return len(self._early)

    @property
    def n_spilled(self) -> Mapping[Side, int]:
        """Spilled observations and labels, written or not."""
        return dict(self._n_spilled)

    @property
    def clock(self) -> float:
        """The stream's time, in Unix seconds; minus infinity before there is one."""
        return self._clock.now

    @property
    def latest_time(self) -> float:
        """The latest time of the newest records, but for wrong clocks; minus infinity for none."""
        return self._clock.latest

    @property
    def read_time(self) -> float:
        """The stream's time as of the event that was read last."""
        return self._read_time

    @property
    def oldest_time(self) -> float | None:
        """Time of the oldest observation whose label can still meet it, or None.

        Of those in the store it is as of when it was last written.
        """
        if self._oldest is not None and self._n_spilled[Side.OBSERVATION]:
            return self._oldest
        since, until = self._alive
        return next((t for t in self._times.values() if since <= t <= until), None)

    def counted(self) -> Counted:
        """What happened besides the outcomes that the changes tell, since this was last asked."""
        counted, self._counted = self._counted, Counter()
        if self._n_given_up:
            counted[Ended.GIVEN_UP] += self._n_given_up
            self._n_given_up = 0
        return counted

    def read(self) -> None:
        """Note that the reader has come to the next event."""
        self._n_read += 1
        while self._ending and self._ending[0][0] <= self._n_read:
            self._ending.popleft()
        while self._coming and self._coming[0][0] <= self._n_read:
            self._read_time = self._coming.popleft()[1]

    def restart_time(self) -> None:
        """Forget the stream's time: what comes next is of another one than what came."""
        self._clock.restart()
        self._coming.clear()
        self._read_time = -math.inf

    def ids(self, indices: Sequence[int]) -> list[str]:
        """Ids of observations that wait in memory for their label, in the order asked for.

        They are those that waited when the last event was read, each of them read as well.
        """
        wanted = set(indices)
        found = {i: k for k, i in self._waiting.items() if i in wanted}
        found |= {i: k for _, i, k in self._ending if i in wanted}
        return [found[i] for i in indices if i in found]

    # -- records -------------------------------------------------------------------------------

    def observe(self, id_: str, index: int, label: str | None, time: float = math.nan) -> Change:
        """Take an observation; it may bring its label along or find one waiting.

        An id that was seen before is a new observation all the same: the newest one waits.
        """
        self._tick(time)
        forgotten = None
        if id_ in self._waiting:
            forgotten = self._end(id_)
            self._counted[Ended.SUPERSEDED] += 1
        early = self._meet_early(id_)
        if early is not None:
            if label is None:
                label = early
            else:
                self._counted[_repeated(early, label)] += 1
        if label is not None:
            self._n_joined += 2
            self._remember(id_, label)
            return Change(Outcome.JOINED, Joined(index, label, 0), forgotten)
        spilled = None
        self._waiting[id_] = index
        if not math.isnan(time):
            self._times[id_] = time
        if len(self._waiting) > self.max_pending:
            forgotten, spilled = self._push_out()
        self._n_joined += 1
        return NO_CHANGE if forgotten is None else Change(None, None, forgotten, spilled)

    def label(self, id_: str, label: str, newest_index: int, time: float = math.nan) -> Change:
        """Take a label that came by itself."""
        self._tick(time)
        self._is_labelled = True
        forgotten = None
        index = self._waiting.get(id_)
        if index is not None:
            began = self._time_of(id_)
            if not self._is_old(began, 2):
                if self._is_old(began):
                    return Change(Outcome.EXPIRED)
                self._end(id_)
                joined = Joined(index, label, newest_index - index, time - began)
                return self._join(id_, label, joined)
            # It can meet nothing any more, and in the store there is one place for both.
            forgotten = self._end(id_)
            self._give_up(Side.OBSERVATION)
        entry = self._find(id_) if self._may_be_spilled else None
        if entry is not None and entry.side is Side.OBSERVATION:
            if self._is_old(entry.time):
                return Change(Outcome.EXPIRED)
            self._drop(entry)
            delay = newest_index - entry.index
            joined = Joined(entry.index, label, delay, time - entry.time, entry)
            return self._join(id_, label, joined)
        known = self._done.get(id_) or self._early_label(id_, entry)
        if known is not None:
            return Change(_repeated(label, known), None, forgotten)
        self._early[id_] = (label, time)
        if len(self._early) > self.max_pending:
            old, (its_label, came) = self._early.popitem(last=False)
            self._spill(Spilled(old, Side.LABEL, 0, -1, came, its_label))
        return Change(Outcome.EARLY, None, forgotten)

    def forget(self, id_: str) -> Change:
        """Wait no longer for the label of an observation."""
        return Change(forgotten=self._end(id_))

    def _join(self, id_: str, label: str, joined: Joined) -> Change:
        self._n_joined += 1
        self._remember(id_, label)
        if joined.seconds is not None and not abs(joined.seconds) <= self.max_age_s:
            joined = Joined(joined.index, label, joined.delay, None, joined.spilled)
        return Change(Outcome.JOINED, joined)

    def _meet_early(self, id_: str) -> str | None:
        """The label that waits for an observation which has just come; it waits no longer."""
        early = self._early.pop(id_, None) if self._early else None
        if early is not None:
            label, came = early
            if not self._is_old(came):
                return label
            self._give_up(Side.LABEL)
        entry = self._find(id_) if self._may_be_spilled else None
        if entry is None:
            return None
        self._drop(entry)
        if entry.side is Side.OBSERVATION:
            self._counted[Ended.SUPERSEDED] += 1
            return None
        return entry.value

    def _early_label(self, id_: str, entry: Spilled | None) -> str | None:
        """The label that an id has already, though its observation has not come."""
        if id_ not in self._early:
            return None if entry is None else entry.value
        label, came = self._early[id_]
        if not self._is_old(came):
            return label
        del self._early[id_]
        self._give_up(Side.LABEL)
        return None

    def _end(self, id_: str) -> tuple[int, str] | None:
        """End the wait of an observation with the event that comes next."""
        index = self._waiting.pop(id_, None)
        if index is None:
            return None
        self._times.pop(id_, None)
        self._ending.append((self._n_joined + 1, index, id_))
        return index, id_

    def _remember(self, id_: str, label: str) -> None:
        self._done.pop(id_, None)
        self._done[id_] = label
        if len(self._done) > self._recall:
            self._done.popitem(last=False)

    # -- age -----------------------------------------------------------------------------------

    def _tick(self, time: float) -> None:
        """Note a record's time."""
        if math.isnan(time):
            return
        before = self._clock.now
        self._clock.tick(time)
        now = self._clock.now
        if now != before:
            self._set(before, now)
        if abs(now - time) > self.max_age_s and math.isfinite(now):
            self._counted[Mistimed.AHEAD if time > now else Mistimed.BEHIND] += 1

    def _set(self, before: float, now: float) -> None:
        """Give up what the stream's new time makes too old."""
        if now < before:
            self._set_back(before)
        while self._early and self._is_old(next(iter(self._early.values()))[1]):
            self._early.popitem(last=False)
            self._give_up(Side.LABEL)
        if self._coming and self._coming[-1][0] == self._n_joined + 1:
            self._coming.pop()
        self._coming.append((self._n_joined + 1, now))

    def _set_back(self, before: float) -> None:
        """Keep what was too old by the stream's time before as it was: it may be deleted already.

        One bound does for all times that the stream is set back: the latest, of all entries so far.
        """
        for side, times in _AGES.items():
            ended = max(self._passed[side].time, before - times * self.max_age_s)
            self._passed[side] = Bound(self._numbers[side], ended)
        ended = self._passed[Side.OBSERVATION].time
        self._times = {id_: -math.inf if t < ended else t for id_, t in self._times.items()}
        ended = self._passed[Side.LABEL].time
        for id_ in [id_ for id_, (_, came) in self._early.items() if came < ended]:
            del self._early[id_]
            self._give_up(Side.LABEL)
        self._oldest = None

    def _time_of(self, id_: str) -> float:
        """The time of an observation that waits; not a number if it has none."""
        return self._times.get(id_, math.nan)

    def _is_old(self, time: float, times: int = 1) -> bool:
        # What has no time, not a number, is not.
        return self._clock.now - time > times * self.max_age_s

    @property
    def _alive(self) -> tuple[float, float]:
        """Between which times an observation is neither too old for a label nor wrong."""
        now = self._clock.now
        until = now + self.max_age_s if math.isfinite(now) else math.inf
        return now - self.max_age_s, until

    # -- those without room --------------------------------------------------------------------

    @property
    def _may_be_spilled(self) -> bool:
        return any(self._n_spilled.values())

    def _push_out(self) -> tuple[tuple[int, str] | None, Spilled | None]:
        """Make room for the observation that came last."""
        id_, index = next(iter(self._waiting.items()))
        entry = Spilled(id_, Side.OBSERVATION, 0, index, self._time_of(id_))
        return self._end(id_), self._spill(entry)

    def _spill(self, entry: Spilled) -> Spilled | None:
        if not self.max_spilled or not self._is_labelled:
            if entry.side is Side.OBSERVATION:
                self._n_given_up += 1  # for each observation of a stream without labels
            else:
                self._give_up(entry.side)
            return None
        self._numbers[entry.side] += 1
        self._n_spilled[entry.side] += 1
        entry.number = self._numbers[entry.side]
        self._changed[entry.id] = entry
        return entry

    def _find(self, id_: str) -> Spilled | None:
        """The spilled entry of an id, if it can still meet."""
        entry = self._changed[id_] if id_ in self._changed else self._at_hand.get(id_)
        if entry is None:
            return None
        if any(bound.holds(entry) for bound in self._over(entry.side)):
            self._drop(entry)
            self._give_up(entry.side)
            return None
        return entry

    def _drop(self, entry: Spilled) -> None:
        self._changed[entry.id] = None
        self._n_spilled[entry.side] -= 1

    def _give_up(self, side: Side, n: int = 1) -> None:
        self._counted[Outcome.UNKNOWN if side is Side.LABEL else Ended.GIVEN_UP] += n

    def _over(self, side: Side) -> list[Bound]:
        """Those without room, those too old, and those that were too old before it was set back."""
        bounds = (
            Bound(self._numbers[side] - self.max_spilled, math.inf),
            Bound(math.inf, self._clock.now - _AGES[side] * self.max_age_s),
            self._passed[side],
        )
        return [b for b in bounds if b.number > 0 and b.time > -math.inf]

    def wanted(self, ids: Iterable[str]) -> list[str]:
        """Those of these ids that have to be looked up among the spilled entries."""
        if not self._may_be_spilled:
            return []
        here = (self._changed, self._waiting, self._early)
        return [i for i in dict.fromkeys(ids) if not any(i in held for held in here)]

    def at_hand(self, found: Iterable[Spilled]) -> None:
        """Take what was found for the ids of the next records."""
        self._at_hand = {entry.id: entry for entry in found}

    def unwritten(self) -> SpillChanges:
        """What is to be written of the spilled entries."""
        return SpillChanges(
            [entry for entry in self._changed.values() if entry is not None],
            [id_ for id_, entry in self._changed.items() if entry is None],
            {side: self._over(side) for side, n in self._n_spilled.items() if n},
            self._alive,
        )

    def written(self, pruned: Pruned) -> None:
        """Note that the unwritten is written."""
        self._changed.clear()
        self._at_hand.clear()
        self._oldest = pruned.oldest
        for side, n in pruned.deleted.items():
            self._n_spilled[side] = max(self._n_spilled[side] - n, 0)
            self._give_up(side, n)

    # -- snapshot ------------------------------------------------------------------------------

    def snapshot(self) -> State:
        """Everything needed to go on, once every event is read; but for what is spilled."""
        return {
            # Columns, because a checkpoint has up to `max_pending` of them: lists of pairs took
            # ten times as long.
            "waiting": [
                list(self._waiting),
                np.fromiter(self._waiting.values(), np.int64, len(self._waiting)),
                np.fromiter(map(self._time_of, self._waiting), np.float64, len(self._waiting)),
            ],
            "early": [
                list(self._early),
                [label for label, _ in self._early.values()],
                np.array([time for _, time in self._early.values()], np.float64),
            ],
            "done": [list(self._done), list(self._done.values())],
            "clock": self._clock.snapshot(),
            "read_time": self._read_time,
            "passed": [list(self._passed[side]) for side in Side],
            "is_labelled": self._is_labelled,
            "numbers": [self._numbers[side] for side in Side],
        }

    def restore(self, state: State, n_spilled: Mapping[Side, int] | None = None) -> None:
        """Go on from a snapshot; `n_spilled` are the entries in the store."""
        ids, indices, times = state["waiting"]
        self._waiting = OrderedDict(zip(ids, indices.tolist(), strict=True))
        timed = zip(ids, times.tolist(), strict=True)
        self._times = {id_: time for id_, time in timed if not math.isnan(time)}
        ids, labels, times = state["early"]
        early = zip(labels, times.tolist(), strict=True)
        self._early = OrderedDict(zip(ids, early, strict=True))
        self._done = OrderedDict(zip(*state["done"], strict=True))
        self._clock.restore(state["clock"])
        self._read_time = state["read_time"]
        self._passed = {s: Bound(*p) for s, p in zip(Side, state["passed"], strict=True)}
        self._is_labelled = state["is_labelled"]
        self._numbers = dict(zip(Side, state["numbers"], strict=True))
        self._n_spilled = {side: (n_spilled or {}).get(side, 0) for side in Side}
        self._changed.clear()
        self._at_hand.clear()
        self._oldest = None
        self._counted.clear()
        self._n_given_up = 0
        self._n_joined = self._n_read = 0
        self._ending.clear()
        self._coming.clear()
        if self._clock.now != self._read_time:
            self._coming.append((1, self._clock.now))


def _repeated(label: str, known: str) -> Outcome:
    return Outcome.DUPLICATE if known == label else Outcome.CONFLICT
