"""The join of labels: every outcome, its bounds, and that the bounds show in nothing else."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.domain.waiting import Pruned, Side, Spilled
from service.monitor.clock import StreamClock
from service.monitor.label_outcomes import Change, Counted, Ended, Joined, Mistimed, Outcome
from service.monitor.labels import LabelJoin
from service.store.states import dumps, loads
from service.store.store import Store

DAY = 86_400.0


def quick(leap_s: float = math.inf, window: int = 2, patience: int = 1) -> StreamClock:
    """A clock that few records set: by default two in a row."""
    return StreamClock(leap_s, window=window, every=1, patience=patience)


def test_a_label_in_the_same_record_is_joined_at_once() -> None:
    join = LabelJoin(10)
    assert join.observe("a", 0, "y") == Change(Outcome.JOINED, Joined(0, "y", 0))
    assert join.n_waiting == 0


def test_a_late_label_meets_its_observation_and_knows_its_delay() -> None:
    join = LabelJoin(10)
    join.observe("a", 0, None, 100.0)
    join.observe("b", 1, None)
    assert join.label("a", "y", 1, 160.0) == Change(Outcome.JOINED, Joined(0, "y", 1, 60.0))
    assert join.label("b", "y", 1, 160.0) == Change(Outcome.JOINED, Joined(1, "y", 0, None))
    assert join.n_waiting == 0


def test_an_early_label_waits_for_its_observation() -> None:
    join = LabelJoin(10)
    assert join.label("a", "y", -1) == Change(Outcome.EARLY)
    assert join.n_early == 1
    assert join.observe("a", 0, None) == Change(Outcome.JOINED, Joined(0, "y", 0))


def test_the_first_of_two_labels_stays_and_the_second_is_named() -> None:
    join = LabelJoin(10)
    join.observe("a", 0, None)
    join.label("a", "y", 0)
    assert join.label("a", "y", 5) == Change(Outcome.DUPLICATE)
    assert join.label("a", "z", 5) == Change(Outcome.CONFLICT)


@pytest.mark.parametrize(("early", "named"), [("y", Outcome.DUPLICATE), ("z", Outcome.CONFLICT)])
def test_an_early_label_of_an_observation_with_its_own_is_a_repeat(
    early: str, named: Outcome
) -> None:
    join = LabelJoin(10)
    join.label("a", early, -1)
    assert join.observe("a", 0, "y") == Change(Outcome.JOINED, Joined(0, "y", 0))
    assert join.counted() == {named: 1}
    assert join.counted() == {}


def test_both_sides_stay_bounded_and_say_what_they_dropped() -> None:
    join = LabelJoin(3)
    for i in range(5):
        join.observe(f"o{i}", i, None)
    assert join.n_waiting == 3
    assert join.counted() == {Ended.GIVEN_UP: 2}
    outcomes = [join.label(f"unknown{i}", "y", 5).outcome for i in range(5)]
    assert outcomes == [Outcome.EARLY] * 5
    assert join.n_early == 3
    assert join.counted() == {Outcome.UNKNOWN: 2}


@pytest.mark.parametrize("label", [None, "y"])
def test_labels_mean_the_newest_observation_of_an_id(label: str | None) -> None:
    join = LabelJoin(10)
    join.observe("a", 0, None)
    change = join.observe("a", 1, label)
    assert change.forgotten == (0, "a")
    assert join.counted() == {Ended.SUPERSEDED: 1}
    assert join.n_waiting == (label is None)
    later = join.label("a", "y", 1)
    assert later.outcome is (Outcome.JOINED if label is None else Outcome.DUPLICATE)
    if later.joined is not None:
        assert later.joined.index == 1


def test_a_restored_join_goes_on_as_if_nothing_had_happened() -> None:
    join, copy = LabelJoin(4), LabelJoin(4)
    for i in range(6):
        join.observe(str(i), i, None, 10.0 * i if i % 2 else math.nan)
    join.label("5", "y", 6)
    join.label("early", "z", 6)
    join.counted()
    copy.restore(loads(dumps(join.snapshot())))
    for key in ("3", "5", "early", "new", "0"):
        assert copy.label(key, "q", 9, 70.0) == join.label(key, "q", 9, 70.0)
    assert dumps(copy.snapshot()) == dumps(join.snapshot())


def test_a_join_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="max_pending must be positive, got 0"):
        LabelJoin(0)


def test_what_waits_is_told_as_of_the_event_that_was_read_last() -> None:
    join = LabelJoin(2)
    join.observe("a", 0, None)
    join.observe("b", 1, None)
    join.label("a", "y", 1)
    join.observe("c", 2, "y")
    join.observe("b", 3, None)  # the older one of this id waits no longer
    join.observe("d", 4, None)
    join.observe("e", 5, None)  # no room for the oldest
    # The events: a, b, a's label, c and its label, b, d, e; each with the newest one's index.
    told = []
    for newest in (0, 1, 1, 2, 2, 3, 4, 5):
        join.read()
        told.append(join.ids(range(newest + 1)))
    assert told[:5] == [["a"], ["a", "b"], ["b"], ["b"], ["b"]]
    assert told[5:] == [["b"], ["b", "d"], ["d", "e"]]
    assert join.ids([1, 3]) == []


def test_an_observation_that_is_forgotten_waits_until_the_next_event() -> None:
    join = LabelJoin(10)
    join.observe("a", 0, None)
    join.read()
    assert join.forget("a") == Change(forgotten=(0, "a"))
    assert join.forget("unknown") == Change()
    assert join.ids([0]) == ["a"]
    join.observe("b", 1, None)
    join.read()
    assert join.ids([0, 1]) == ["b"]


def test_a_join_that_recalls_nothing_takes_a_repeat_for_an_early_label() -> None:
    join = LabelJoin(10, recall=0)
    join.observe("a", 0, "y")
    assert join.label("a", "y", 0) == Change(Outcome.EARLY)


# -- age ---------------------------------------------------------------------------------------


def tell(join: LabelJoin, time: float) -> None:
    """Two records that say it is this time."""
    join.observe("", 1000, "y", time)
    join.observe("", 1001, "y", time)


def test_a_label_that_comes_too_late_is_expired_and_later_unknown() -> None:
    join = LabelJoin(10, max_age_s=DAY, clock=quick())
    for id_ in "abc":
        join.observe(id_, 0, None, 0.0)
    tell(join, DAY)
    assert join.label("a", "y", 0).outcome is Outcome.JOINED
    tell(join, DAY + 1)
    assert join.label("b", "y", 0).outcome is Outcome.EXPIRED
    tell(join, 2 * DAY)
    assert join.label("b", "z", 0).outcome is Outcome.EXPIRED
    tell(join, 2 * DAY + 1)
    assert join.label("c", "y", 0).outcome is Outcome.EARLY


def test_an_early_label_that_is_too_old_is_unknown() -> None:
    join = LabelJoin(10, max_age_s=DAY, clock=quick())
    for id_ in "abc":
        join.label(id_, "y", -1, 0.0)
    tell(join, DAY)
    assert join.observe("a", 0, None).outcome is Outcome.JOINED
    tell(join, DAY + 1)
    assert join.n_early == 0
    assert join.counted() == {Outcome.UNKNOWN: 2}
    assert join.observe("b", 0, None).outcome is None
    assert join.label("c", "z", 0).outcome is Outcome.EARLY


def test_an_old_early_label_behind_a_younger_one_meets_nothing_either() -> None:
    join = LabelJoin(10, max_age_s=DAY, clock=quick())
    join.label("young", "y", -1, DAY)
    for id_ in "ab":
        join.label(id_, "y", -1, 0.0)
    tell(join, DAY + 1)
    assert join.n_early == 3
    assert join.observe("a", 0, None).outcome is None
    assert join.label("b", "z", 0).outcome is Outcome.EARLY
    # The first of the two records that tell the time is ahead of the stream's.
    assert join.counted() == {Outcome.UNKNOWN: 2, Mistimed.AHEAD: 1}


def test_one_record_with_a_wrong_time_makes_nothing_old() -> None:
    join = LabelJoin(10, max_age_s=DAY, clock=quick())
    join.observe("a", 0, None, 0.0)
    join.observe("b", 1, None, 1.0)
    join.observe("wrong", 2, None, 100 * DAY)
    join.observe("c", 3, None, 2.0)
    assert join.clock == 2.0
    assert join.label("a", "y", 3).outcome is Outcome.JOINED


def test_what_has_no_time_has_no_age() -> None:
    join = LabelJoin(10, max_age_s=DAY, clock=quick())
    join.observe("a", 0, None)
    join.label("b", "y", 0)
    tell(join, 100 * DAY)
    assert join.label("a", "y", 0).outcome is Outcome.JOINED
    assert join.observe("b", 0, None).outcome is Outcome.JOINED


def test_the_watermark_is_the_oldest_that_can_still_get_its_label() -> None:
    join = LabelJoin(10, max_age_s=DAY, clock=quick())
    assert join.oldest_time is None
    for n, time in enumerate((math.nan, 5.0, 6.0, 7.0)):
        join.observe(f"o{n}", n, None, time)
    assert join.oldest_time == 5.0
    join.label("o1", "y", 3)
    assert join.oldest_time == 6.0
    tell(join, 6.5 + DAY)
    assert join.oldest_time == 7.0
    tell(join, 8.0 + DAY)
    assert join.oldest_time is None


# -- clocks that are wrong ---------------------------------------------------------------------

YEAR = 365 * DAY


def in_order(wrong: Callable[[int], float], n: int = 4000, late: int = 30) -> Counter[str]:
    """What became of the labels of right and of wrong clocks, `late` minutes after each record."""
    join = LabelJoin(10_000, max_age_s=30 * DAY)
    told = Counter[str]()
    for i in range(n):
        join.observe(str(i), i, None, 60.0 * i + wrong(i))
        if (k := i - late) >= 0:
            change = join.label(str(k), "y", i, 60.0 * i)
            told[f"{change.outcome}{', wrong' if wrong(k) else ''}"] += 1
    told.update({str(what): n for what, n in join.counted().items()})
    return told


@pytest.mark.parametrize(
    "wrong",
    [
        lambda i: YEAR * (i in {900, 901}),
        lambda i: YEAR * (i < 60),
        lambda i: YEAR * (i % 20 == 7),
        lambda i: YEAR * (1000 <= i < 1900),
        lambda i: 253e9 * (i % 40 == 1),
    ],
)
def test_clocks_that_are_ahead_cost_no_label(wrong: Callable[[int], float]) -> None:
    found = in_order(wrong)
    n = sum(map(bool, map(wrong, range(3970))))
    # Before 128 records have told a time nothing is ahead of it.
    ahead = sum(map(bool, map(wrong, range(79, 4000))))
    assert found == Counter({"joined": 3970 - n, "joined, wrong": n, "ahead": ahead})


@pytest.mark.parametrize("by", [YEAR, 50 * YEAR])
def test_clocks_that_are_behind_cost_their_own_labels(by: float) -> None:
    found = in_order(lambda i: -by * (i >= 500 and i % 20 == 7))
    # Too old by more than twice the age, their labels are of no known observation.
    n = len(range(507, 3970, 20))
    behind = len(range(507, 4000, 20))
    expected = {"joined": 3970 - n, "early, wrong": n, "behind": behind, "given_up": n}
    assert found == Counter(expected)


def test_the_delay_of_a_wrong_clock_is_not_told() -> None:
    join = LabelJoin(10, max_age_s=DAY)
    join.observe("a", 0, None, YEAR)
    join.observe("b", 1, None, 50.0)
    assert join.label("a", "y", 1, 60.0).joined == Joined(0, "y", 1, None)
    assert join.label("b", "y", 1, 60.0).joined == Joined(1, "y", 0, 10.0)


def test_the_watermark_is_not_that_of_a_clock_that_is_ahead() -> None:
    join = LabelJoin(10, max_age_s=DAY, clock=quick(DAY / 2))
    tell(join, 1.0)
    join.observe("wrong", 0, None, YEAR)
    join.observe("right", 1, None, 5.0)
    assert join.oldest_time == 5.0


def test_what_was_too_old_stays_so_when_the_time_is_set_back() -> None:
    join = LabelJoin(10, max_age_s=DAY, clock=quick(DAY / 2))
    join.observe("a", 0, None, 0.0)
    join.label("e", "y", 0, 0.0)
    tell(join, 3 * DAY)
    join.observe("b", 1, None, 3 * DAY)
    tell(join, 1.0)
    assert join.clock == 1.0
    assert join.label("a", "y", 1, 1.0).outcome is Outcome.EARLY
    assert join.observe("e", 2, None, 1.0).outcome is None
    assert join.label("b", "y", 2, 1.0).outcome is Outcome.JOINED
    join.observe("c", 3, None, 1.0)
    assert join.label("c", "y", 3, 1.0).outcome is Outcome.JOINED


def test_the_time_is_told_as_of_the_event_that_was_read_last() -> None:
    join = LabelJoin(10, clock=quick())
    read = []
    for n in range(5):
        join.observe(str(n), n, None, float(n))
        join.label(f"early {n}", "y", n, float(n))
    for _ in range(5):
        join.read()
        read.append(join.read_time)
    assert read == [-math.inf, 0.0, 1.0, 2.0, 3.0]
    copy = LabelJoin(10, clock=quick())
    copy.restore(loads(dumps(join.snapshot())))
    copy.observe("5", 5, None)
    copy.read()
    assert (join.clock, copy.read_time) == (4.0, 4.0)


# -- what is spilled ---------------------------------------------------------------------------


class MemoryTable:
    """What the table of the store does, in memory."""

    def __init__(self) -> None:
        self.rows: dict[str, Spilled] = {}

    def find(self, ids: Collection[str]) -> list[Spilled]:
        return [replace(self.rows[i]) for i in ids if i in self.rows]

    def count(self) -> Counter[Side]:
        return Counter(row.side for row in self.rows.values())

    def write(self, join: LabelJoin) -> None:
        changes = join.unwritten()
        self.rows |= {entry.id: replace(entry) for entry in changes.put}
        for id_ in changes.dropped:
            self.rows.pop(id_, None)
        deleted = Counter[Side]()
        for side, bounds in changes.over.items():
            mine = [row for row in self.rows.values() if row.side is side]
            for row in mine:
                if any(bound.holds(row) for bound in bounds):
                    del self.rows[row.id]
                    deleted[side] += 1
        since, until = changes.alive
        times = [r.time for r in self.rows.values() if r.side is Side.OBSERVATION]
        oldest = min((t for t in times if since <= t <= until), default=None)
        join.written(Pruned(dict(deleted), oldest))


class StoreTable:
    """The table of a real store."""

    def __init__(self, store: Store, lane: int = 3) -> None:
        self.store = store
        self._lane = lane

    def find(self, ids: Collection[str]) -> list[Spilled]:
        return self.store.spilled("s", ids, self._lane)

    def count(self) -> dict[Side, int]:
        return self.store.count_spilled("s", self._lane)

    def write(self, join: LabelJoin) -> None:
        changes = join.unwritten()
        if changes:
            with self.store.transaction() as tx:
                pruned = tx.put_spilled("s", changes, self._lane)
            join.written(pruned)


Table = MemoryTable | StoreTable


def test_what_has_no_room_in_memory_still_meets() -> None:
    join, table = LabelJoin(2, max_spilled=100), MemoryTable()
    changes = [join.observe(f"o{i}", i, None, float(i)) for i in range(5)]
    assert [c.forgotten for c in changes] == [None, None, (0, "o0"), (1, "o1"), (2, "o2")]
    assert [c.spilled.index for c in changes if c.spilled] == [0, 1, 2]
    changes[2].spilled.value = "served"  # type: ignore[union-attr]
    assert (join.n_waiting, join.n_spilled) == (2, {Side.OBSERVATION: 3, Side.LABEL: 0})
    unwritten = join.label("o1", "y", 4, 5.0)
    assert unwritten.joined is not None
    assert (unwritten.joined.index, unwritten.joined.delay, unwritten.joined.seconds) == (1, 3, 4.0)
    table.write(join)
    assert sorted(table.rows) == ["o0", "o2"]
    assert join.oldest_time == 0.0
    assert join.wanted(["o0", "o0", "o1", "o2", "o4"]) == ["o0", "o1", "o2"]
    join.at_hand(table.find(join.wanted(["o0", "o1"])))
    written = join.label("o0", "y", 4)
    assert written.outcome is Outcome.JOINED
    assert written.joined is not None
    assert written.joined.spilled is not None
    assert written.joined.spilled.value == "served"
    assert join.label("o0", "z", 4).outcome is Outcome.CONFLICT
    assert join.counted() == {}


def test_what_is_joined_is_not_found_again_before_it_is_deleted() -> None:
    join, table = LabelJoin(1, max_spilled=100, recall=0), MemoryTable()
    join.observe("a", 0, None)
    join.observe("b", 1, None)
    table.write(join)
    join.at_hand(table.find(["a"]))
    assert join.label("a", "y", 1).outcome is Outcome.JOINED
    join.at_hand(table.find(["a"]))
    assert join.label("a", "y", 1).outcome is Outcome.EARLY
    assert join.n_spilled[Side.OBSERVATION] == 0


def test_an_observation_that_was_spilled_is_superseded_too() -> None:
    join, table = LabelJoin(1, max_spilled=100), MemoryTable()
    join.observe("a", 0, None)
    join.observe("b", 1, None)
    table.write(join)
    join.at_hand(table.find(join.wanted(["a"])))
    join.observe("a", 2, "y")
    assert join.counted() == {Ended.SUPERSEDED: 1}
    table.write(join)
    assert list(table.rows) == []
    assert join.label("a", "y", 2).outcome is Outcome.DUPLICATE


@pytest.mark.parametrize("writes", [True, False])
@pytest.mark.parametrize("side", Side)
def test_the_newest_of_the_spilled_stay(side: Side, writes: bool) -> None:
    join, table = LabelJoin(1, max_spilled=2), MemoryTable()
    counted: Counted = Counter()
    for i in range(6):
        if side is Side.OBSERVATION:
            join.observe(f"id{i}", i, None)
        else:
            join.label(f"id{i}", "y", -1)
        if writes:
            table.write(join)
            counted += join.counted()
            assert len(table.rows) <= 2
    join.at_hand(table.find(join.wanted(f"id{i}" for i in range(6))))
    if side is Side.OBSERVATION:
        met = [i for i in range(6) if join.label(f"id{i}", "y", 5).joined]
    else:
        met = [i for i in range(6) if join.observe(f"id{i}", i, None).joined]
    assert met == [3, 4, 5]
    counted += join.counted()
    assert counted == {Outcome.UNKNOWN if side is Side.LABEL else Ended.GIVEN_UP: 3}


def test_the_spilled_that_are_too_old_are_deleted_and_counted() -> None:
    join, table = LabelJoin(1, max_spilled=100, max_age_s=DAY, clock=quick()), MemoryTable()
    for i in range(4):
        join.observe(f"o{i}", i, None, float(i))
        join.label(f"e{i}", "y", i, float(i))
    table.write(join)
    tell(join, DAY + 1.5)
    table.write(join)
    assert sorted(table.rows) == ["e2", "o0", "o1", "o2"]
    assert join.counted() == {Outcome.UNKNOWN: 2}
    assert join.oldest_time == 2.0
    join.at_hand(table.find(["o1", "o2"]))
    assert join.label("o1", "y", 9).outcome is Outcome.EXPIRED
    assert join.label("o2", "y", 9).outcome is Outcome.JOINED
    tell(join, 2 * DAY + 0.5)
    table.write(join)
    assert sorted(table.rows) == ["o1"]
    assert join.counted() == {Ended.GIVEN_UP: 1, Outcome.UNKNOWN: 2}


def test_a_join_without_a_store_looks_nothing_up() -> None:
    join = LabelJoin(1)
    for i in range(5):
        join.observe(f"o{i}", i, None)
        join.label(f"e{i}", "y", i)
    assert join.wanted(["o0", "e0"]) == []
    assert not join.unwritten()


# -- whatever comes, wherever it is cut --------------------------------------------------------

Make = Callable[[], LabelJoin]
Record = tuple[str, str | None, float, bool]
"""Id, label, seconds since the last record, and whether it is an observation."""

RECORDS = st.lists(
    st.tuples(
        st.sampled_from([f"id{n}" for n in range(8)]),
        st.sampled_from([None, None, "y", "z"]),
        st.sampled_from([0.0, 0.0, 1.0, 3.0, -2.0, 40.0, math.nan, 900.0, -900.0]),
        st.booleans(),
    ),
    max_size=80,
)
LANES = itertools.count(0, 2)
AGES = st.sampled_from([5.0, 50.0, math.inf])
PACES = st.sampled_from([(2, 1), (2, 3), (3, 2)])
"""Window and patience of the clock, in records."""
CUTS = st.lists(st.sampled_from(["", "", "", "batch", "write", "restart"]), max_size=40)


def maker(age: float = math.inf, pace: tuple[int, int] = (2, 1), **limits: Any) -> Make:
    """Makes equal joins."""
    window, patience = pace
    leap_s = max(age / 2, 1.0)

    def make() -> LabelJoin:
        clock = quick(leap_s, window=window, patience=patience)
        return LabelJoin(**limits, max_age_s=age, clock=clock)

    return make


def feed(
    make: Make, records: Sequence[Record], cuts: Sequence[str], table: Table
) -> tuple[list[Change], LabelJoin, Counted]:
    """All changes, where batches end, checkpoints come and the process restarts as told."""
    join = make()
    counted: Counted = Counter()
    changes = []
    batches: list[tuple[str, list[Record]]] = [("", [])]
    for n, record in enumerate(records):
        batches[-1][1].append(record)
        cut = cuts[n % len(cuts)] if cuts else ""
        if cut:
            batches.append((cut, []))
    index, time = 0, 1000.0
    for before, batch in batches:
        counted += join.counted()
        if before in {"write", "restart"}:
            table.write(join)
            counted += join.counted()
        if before == "restart":
            state = loads(dumps(join.snapshot()))
            join = make()
            join.restore(state, table.count())
        wanted = join.wanted(id_ for id_, *_ in batch)
        join.at_hand(table.find(wanted) if wanted else ())
        for id_, label, gap, is_observation in batch:
            time += 0 if math.isnan(gap) else gap
            at = math.nan if math.isnan(gap) else time
            if is_observation:
                changes.append(join.observe(id_, index, label, at))
                index += 1
            else:
                changes.append(join.label(id_, label or "y", index - 1, at))
    counted += join.counted()
    table.write(join)
    counted += join.counted()
    assert join.n_spilled == {side: table.count().get(side, 0) for side in Side}
    return changes, join, counted


def told(changes: Sequence[Change]) -> list[tuple[Any, ...]]:
    """What does not depend on where an observation waits."""
    return [
        (c.outcome, c.joined and (c.joined.index, c.joined.label, c.joined.delay, c.joined.seconds))
        for c in changes
    ]


@given(records=RECORDS, cuts=CUTS, age=AGES, pace=PACES)
def test_a_tiny_memory_joins_what_a_large_one_joins(
    records: list[Record], cuts: list[str], age: float, pace: tuple[int, int]
) -> None:
    limits: dict[str, Any] = {"recall": 4, "age": age, "pace": pace}
    large, _, _ = feed(maker(max_pending=1000, **limits), records, [], MemoryTable())
    tiny_limits = {"max_pending": 1, "max_spilled": 1000, **limits}
    tiny, _, _ = feed(maker(**tiny_limits), records, cuts, MemoryTable())
    assert told(tiny) == told(large)


@given(
    records=RECORDS,
    cuts=CUTS,
    age=AGES,
    pace=PACES,
    room=st.tuples(st.integers(1, 4), st.integers(0, 4)),
)
def test_cuts_checkpoints_and_restarts_change_nothing(
    records: list[Record],
    cuts: list[str],
    age: float,
    pace: tuple[int, int],
    room: tuple[int, int],
) -> None:
    make = maker(age, pace, max_pending=room[0], max_spilled=room[1], recall=3)
    whole, at_end, counted = feed(make, records, [], MemoryTable())
    cut, cut_at_end, cut_counted = feed(make, records, cuts, MemoryTable())
    assert told(cut) == told(whole)
    assert [c.forgotten for c in cut] == [c.forgotten for c in whole]
    assert cut_counted == counted
    assert dumps(cut_at_end.snapshot()) == dumps(at_end.snapshot())
    n_early = sum(c.outcome is Outcome.EARLY for c in cut)
    left = at_end.n_early + at_end.n_spilled[Side.LABEL]
    assert counted[Outcome.UNKNOWN] + left <= n_early


def test_the_store_keeps_no_more_than_there_is_room_for(any_database: str) -> None:
    table = StoreTable(Store(any_database, lambda: 0.0))
    join = LabelJoin(1, max_spilled=2, max_age_s=DAY, clock=quick())
    for i in range(6):
        join.observe(f"id{i}", i, None, float(i))
    table.write(join)
    assert sorted(entry.id for entry in table.find([f"id{i}" for i in range(6)])) == ["id3", "id4"]
    assert join.oldest_time == 3.0
    assert join.counted() == {Ended.GIVEN_UP: 3}
    tell(join, 2 * DAY + 3.0)
    table.write(join)
    assert table.count() == {Side.OBSERVATION: 2}
    tell(join, 2 * DAY + 3.5)
    table.write(join)
    assert table.count() == {Side.OBSERVATION: 1}
    table.store.close()


@pytest.mark.parametrize("first", [YEAR, math.nan])
def test_what_never_grows_old_does_not_keep_the_others_in_the_store(
    any_database: str, first: float
) -> None:
    table = StoreTable(Store(any_database, lambda: 0.0))
    join = LabelJoin(1, max_spilled=100, max_age_s=DAY, clock=quick(DAY))
    tell(join, 0.0)
    join.observe("first", 0, None, first)
    for i in range(4):
        join.observe(f"id{i}", i, None, float(i))
    table.write(join)
    assert join.oldest_time == 0.0
    for days in (1, 2):
        tell(join, days * DAY)
    tell(join, 2 * DAY + 1.5)
    table.write(join)
    ids = ["first", *(f"id{i}" for i in range(4))]
    assert sorted(entry.id for entry in table.find(ids)) == ["first", "id2"]
    assert join.counted()[Ended.GIVEN_UP] == 2
    table.store.close()


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_the_store_does_what_its_twin_in_memory_does(
    any_database: str, data: st.DataObject
) -> None:
    room, age = data.draw(st.tuples(st.integers(1, 3), st.integers(0, 5))), data.draw(AGES)
    make = maker(age, data.draw(PACES), max_pending=room[0], max_spilled=room[1])
    records, cuts = data.draw(RECORDS), data.draw(CUTS)
    with closing(Store(any_database, lambda: 0.0)) as store:
        # Every example has lanes of its own, with another one beside it that has the same ids.
        lane = next(LANES)
        twin, table, beside = MemoryTable(), StoreTable(store, lane), StoreTable(store, lane + 1)
        expected = feed(make, records, cuts, twin)
        feed(maker(max_pending=1, max_spilled=9), records, [], beside)
        n_beside = beside.count()
        found = feed(make, records, cuts, table)
        assert told(found[0]) == told(expected[0])
        assert found[2] == expected[2]
        assert sorted(map(str, table.find(twin.rows))) == sorted(map(str, twin.rows.values()))
        assert table.count() == twin.count()
        assert beside.count() == n_beside


def test_nothing_is_spilled_before_the_first_label_that_comes_by_itself() -> None:
    join = LabelJoin(2, max_spilled=100, from_first_label=True)
    for k in range(5):
        join.observe(f"e{k}", k, None)
    join.observe("inline", 5, "1")
    assert join.n_spilled[Side.OBSERVATION] == 0
    join.label("e4", "1", 5)
    for k in range(6, 10):
        join.observe(f"e{k}", k, None)
    assert join.n_spilled[Side.OBSERVATION] == 3
    copy = LabelJoin(2, max_spilled=100, from_first_label=True)
    copy.restore(join.snapshot(), join.n_spilled)
    copy.observe("e10", 10, None)
    assert copy.n_spilled[Side.OBSERVATION] == 4


def test_a_label_that_is_twice_too_late_waits_in_place_of_its_observation() -> None:
    join, table = LabelJoin(1, max_spilled=9, max_age_s=DAY, clock=quick()), MemoryTable()
    join.observe("a", 7, None, 0.0)
    tell(join, 2 * DAY + 1)
    assert join.label("a", "y", 7) == Change(Outcome.EARLY, None, (7, "a"))
    assert join.n_waiting == 0
    join.label("b", "y", 7)  # no room for the first one in memory
    table.write(join)
    assert join.wanted(["a"]) == ["a"]
    join.at_hand(table.find(["a"]))
    assert join.label("a", "z", 7).outcome is Outcome.CONFLICT
    assert join.counted()[Ended.GIVEN_UP] == 1
