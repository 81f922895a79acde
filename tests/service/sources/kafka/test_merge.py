"""The merge of partitions by record time: one order, whatever the order of arrival."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.records.block import Block, Run
from service.records.record import Record
from service.sources.kafka.ahead import AHEAD_BYTES
from service.sources.kafka.merge import Merge, free_until_ms, hold_ms
from service.sources.source import Partition

Logs = dict[Partition, Block]
WAIT_MS = 500
AHEAD = 3


def block_of(partition: Partition, times: Sequence[int], first: int = 0) -> Block:
    offsets = range(first, first + len(times))
    runs = [Run(*partition, len(times))] if times else []
    return Block(runs, offsets, [b"%d" % 7 ** (n % 9) for n in offsets], times_ms=times)


def logs_of(times: dict[Partition, list[int]]) -> Logs:
    return {p: block_of(p, log) for p, log in times.items()}


def time_of(times: Sequence[int]) -> int:
    """The time that the first record counts with."""
    behind = sorted(t for t in times[1 : AHEAD + 1] if t >= 0)
    return min([times[0], *behind[(len(behind) - 1) // 2 :][:1]])


def in_order(logs: Logs) -> list[Record]:
    """The rule in its plainest form: again and again the smallest of the first records."""
    left = {p: (list(log.times_ms or ()), list(log)) for p, log in logs.items()}
    found = []
    while any(times for times, _ in left.values()):
        first = min((time_of(times), p) for p, (times, _) in left.items() if times)[1]
        found.append(left[first][1].pop(0))
        left[first][0].pop(0)
    return found


def merge_of(logs: Logs, ahead: int = AHEAD) -> Merge:
    merge = Merge(WAIT_MS, ahead)
    merge.restart(logs)
    return merge


def put(merge: Merge, block: Block, arrived_ms: float = 0.0, now_ms: float = 1e12) -> None:
    """Give records to the merge; by default they are so old that they need not wait."""
    merge.put(block.place(0), block, arrived_ms, now_ms)


def take(
    merge: Merge, max_records: int, now_ms: float, at_end: Callable[[Partition], bool]
) -> list[Record]:
    return list(Block.gathered(merge.take(max_records, now_ms, at_end)))


PARTITIONS = [("events", 0), ("events", 1), ("labels", 0)]
LOGS = st.fixed_dictionaries(
    {p: st.lists(st.integers(-1, 12) | st.just(10**9), max_size=12) for p in PARTITIONS}
).map(logs_of)


def run(logs: Logs, draw: st.DataObject) -> list[Record]:
    """Merge the logs in pieces that arrive in any order, taking in between."""
    merge = merge_of(logs)
    given = dict.fromkeys(logs, 0)
    found: list[Record] = []

    def at_end(partition: Partition) -> bool:
        return given[partition] == len(logs[partition])

    while len(found) < sum(map(len, logs.values())):
        behind = [p for p in logs if not at_end(p)]
        if behind:
            partition = draw.draw(st.sampled_from(behind))
            size = draw.draw(st.integers(1, 5))
            put(merge, logs[partition][given[partition] :][:size])
            given[partition] = min(given[partition] + size, len(logs[partition]))
        most = draw.draw(st.integers(1, 6))
        taken = take(merge, most, 0.0, at_end)
        assert len(taken) <= most
        found += taken
    return found


@settings(deadline=None)
@given(LOGS, st.data())
def test_what_is_in_the_log_has_one_order_however_it_arrives(
    logs: Logs, data: st.DataObject
) -> None:
    assert run(logs, data) == in_order(logs)


@settings(deadline=None)
@given(LOGS, st.data())
def test_a_restart_behind_the_last_delivered_records_goes_on_in_the_same_order(
    logs: Logs, data: st.DataObject
) -> None:
    whole = in_order(logs)
    cut = data.draw(st.integers(0, len(whole)))
    done = [(r.topic, r.partition) for r in whole[:cut]]
    rest = {p: log[done.count(p) :] for p, log in logs.items()}
    assert run(rest, data) == whole[cut:]


# -- record by record --------------------------------------------------------------------------


@dataclass
class RecordByRecord:
    """The rule of the merge with every question asked for every record."""

    ahead: int
    ahead_bytes: int
    waiting: dict[Partition, list[tuple[int, float, Record]]] = field(default_factory=dict)

    def put(self, partition: Partition, block: Block, arrived_ms: float, now_ms: float) -> None:
        for time_ms, record in zip(block.times_ms or (), block, strict=True):
            release_ms = arrived_ms + hold_ms(time_ms, now_ms, WAIT_MS)
            self.waiting[partition].append((time_ms, release_ms, record))

    def is_told(self, partition: Partition) -> bool:
        waiting = self.waiting[partition]
        n_bytes = sum(len(record.value) for _, _, record in waiting)
        return len(waiting) > self.ahead or n_bytes >= self.ahead_bytes

    def time_ms(self, partition: Partition) -> int:
        own, _, record = self.waiting[partition][0]
        behind = []
        size = len(record.value)
        for time_ms, _, one in self.waiting[partition][1 : self.ahead + 1]:
            size += len(one.value)
            if size >= self.ahead_bytes:
                break
            if time_ms >= 0:
                behind.append(time_ms)
        return min(own, sorted(behind)[(len(behind) - 1) // 2]) if behind else own

    def first(self) -> tuple[Partition, float] | None:
        places = [(self.time_ms(p), p, w[0][1]) for p, w in self.waiting.items() if w]
        return min(places)[1:] if places else None

    def take(
        self, max_records: int, now_ms: float, at_end: Callable[[Partition], bool]
    ) -> list[Record]:
        found: list[Record] = []
        while len(found) < max_records and (first := self.first()) is not None:
            partition, release_ms = first
            if len(self.waiting) > 1:
                if not all(self.is_told(p) or at_end(p) for p in self.waiting):
                    break
                if release_ms > now_ms and not all(self.waiting.values()):
                    break
            found.append(self.waiting[partition].pop(0)[2])
        return found


@settings(deadline=None, max_examples=300)
@given(st.integers(1, 3), st.integers(1, 4), st.sampled_from([20, 1000]), st.data())
def test_runs_are_taken_as_record_by_record(
    n_partitions: int, ahead: int, ahead_bytes: int, data: st.DataObject
) -> None:
    partitions = PARTITIONS[:n_partitions]
    merge = Merge(WAIT_MS, ahead)
    merge.restart(partitions)
    rule = RecordByRecord(ahead, ahead_bytes, {p: [] for p in partitions})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.sources.kafka.ahead.AHEAD_BYTES", ahead_bytes)
        check_same(merge, rule, data)


def check_same(merge: Merge, rule: RecordByRecord, data: st.DataObject) -> None:
    """Put and take at random, and compare everything that both say."""
    partitions = list(merge.partitions)
    ends = dict.fromkeys(partitions, 0)
    arrived_ms, now_ms = 0, 1_000_000
    for _ in range(data.draw(st.integers(1, 15))):
        arrived_ms += data.draw(st.sampled_from([0, 0, 1, 100, 499, 600]))
        now_ms += data.draw(st.sampled_from([0, 1, 100, 600, -300]))  # a clock may be set
        partition = data.draw(st.sampled_from(partitions))
        near = st.sampled_from([-1000, -501, -500, -499, -1, 0, 1, 900]).map(now_ms.__add__)
        # Few different times, so that many are equal or just on one side of another.
        times = data.draw(st.lists(st.integers(-1, 6) | near | st.just(10**9), max_size=8))
        if data.draw(st.booleans()):
            times.sort()
        block = block_of(partition, times, ends[partition])
        ends[partition] += len(times)
        for one in (merge, rule):
            one.put(partition, block, arrived_ms, now_ms)
        at_end = data.draw(st.fixed_dictionaries(dict.fromkeys(partitions, st.booleans())))
        most = data.draw(st.integers(0, 9))
        later_ms = arrived_ms + data.draw(st.sampled_from([0, 1, 2, 499, 500]))
        first = rule.first()
        wait_ms = None if first is None else max(first[1] - later_ms, 0)
        assert merge.wait_ms(later_ms) == wait_ms
        expected = rule.take(most, later_ms, at_end.__getitem__)
        assert take(merge, most, later_ms, at_end.__getitem__) == expected
        for at, waiting in rule.waiting.items():
            assert merge.count(at) == len(waiting)
            assert merge.size(at) == sum(len(record.value) for _, _, record in waiting)


def test_a_run_is_one_piece_of_what_arrived_together() -> None:
    logs = logs_of({("events", 0): [*range(1000), 5000], ("labels", 0): [2000, 2000]})
    merge = merge_of(logs)
    for block in logs.values():
        put(merge, block)
    pieces = merge.take(10_000, 0.0, lambda p: True)
    assert [(block.place(start), stop - start) for block, start, stop in pieces] == [
        (("events", 0), 1000),
        (("labels", 0), 2),
        (("events", 0), 1),
    ]


# -- by example --------------------------------------------------------------------------------


def test_equal_times_are_ordered_by_topic_then_partition_and_offsets_never_change() -> None:
    logs = logs_of({("b", 0): [5, 3, 9], ("a", 1): [3], ("a", 0): [3, 3]})
    merge = merge_of(logs)
    for log in logs.values():
        put(merge, log)
    found = [(r.topic, r.partition, r.offset) for r in take(merge, 9, 0.0, lambda p: True)]
    assert found == [("a", 0, 0), ("a", 0, 1), ("a", 1, 0), ("b", 0, 0), ("b", 0, 1), ("b", 0, 2)]


EVENTS, LABELS = ("events", 0), ("labels", 0)


def test_a_record_waits_for_a_partition_that_has_one_written_however_long() -> None:
    merge = merge_of({EVENTS: Block.of([]), LABELS: Block.of([])})
    put(merge, block_of(EVENTS, [10]))
    assert take(merge, 9, 1e9, lambda p: False) == []


def test_a_silent_partition_is_waited_for_until_the_hold_ends_and_no_longer() -> None:
    merge = merge_of({EVENTS: Block.of([]), LABELS: Block.of([])})
    put(merge, block_of(EVENTS, [10]), arrived_ms=0, now_ms=10)
    assert take(merge, 9, 499, lambda p: True) == []
    assert merge.wait_ms(499) == 1
    assert [r.offset for r in take(merge, 9, 500, lambda p: True)] == [0]
    assert merge.wait_ms(500) is None


@pytest.mark.parametrize("ahead", [1, 64])
def test_a_run_ends_at_the_record_whose_hold_has_not_ended(ahead: int) -> None:
    merge = merge_of({EVENTS: Block.of([]), LABELS: Block.of([])}, ahead)
    # The one at offset n is n ms younger than what need not wait.
    put(merge, block_of(EVENTS, range(100, 110)), arrived_ms=0, now_ms=100 + WAIT_MS)
    for waited_ms, offsets in [(0, [0]), (3, [1, 2, 3]), (3, []), (7, [4, 5, 6, 7]), (99, [8, 9])]:
        assert [r.offset for r in take(merge, 99, waited_ms, lambda _: True)] == offsets


def test_a_record_that_comes_within_the_hold_takes_its_place() -> None:
    merge = merge_of({EVENTS: Block.of([]), LABELS: Block.of([])})
    put(merge, block_of(EVENTS, [10]), arrived_ms=0, now_ms=10)
    assert take(merge, 9, 100, lambda p: True) == []
    put(merge, block_of(LABELS, [9]), arrived_ms=100, now_ms=110)
    assert [r.topic for r in take(merge, 9, 600, lambda p: True)] == ["labels", "events"]


def test_a_record_that_comes_later_is_handled_in_the_order_of_arrival() -> None:
    merge = merge_of({EVENTS: Block.of([]), LABELS: Block.of([])})
    put(merge, block_of(EVENTS, [10]))
    assert len(take(merge, 9, 0, lambda p: True)) == 1
    put(merge, block_of(LABELS, [9]))
    assert [r.topic for r in take(merge, 9, 0, lambda p: True)] == ["labels"]


def test_one_partition_never_waits() -> None:
    merge = merge_of({EVENTS: Block.of([])})
    put(merge, block_of(EVENTS, [10, 9, 8]), arrived_ms=0, now_ms=0)
    assert [r.offset for r in take(merge, 2, 0, lambda p: False)] == [0, 1]


def test_records_without_a_time_come_first() -> None:
    merge = merge_of({EVENTS: Block.of([]), LABELS: Block.of([])})
    put(merge, Block.of_partition(*LABELS, [0, 1], [b"a", b"b"]))
    put(merge, block_of(EVENTS, [0]))
    assert [r.topic for r in take(merge, 9, 0, lambda p: True)] == ["labels", "labels", "events"]


def test_the_waiting_records_are_counted_and_forgotten_on_a_restart() -> None:
    merge = merge_of({EVENTS: Block.of([]), LABELS: Block.of([])})
    put(merge, block_of(EVENTS, [1] * 11))
    assert (merge.count(EVENTS), merge.size(EVENTS)) == (11, 37)
    merge.restart([EVENTS])
    assert (merge.count(EVENTS), merge.size(EVENTS)) == (0, 0)
    assert take(merge, 9, 0, lambda p: True) == []
    with pytest.raises(KeyError):
        merge.put(LABELS, Block.of([]), 0, 0)


@pytest.mark.parametrize(
    ("time_ms", "now_ms", "expected"),
    [(1000, 1000, 500), (1000, 1200, 300), (1000, 1500, 0), (1000, 9e9, 0), (9e9, 1000, 500)],
)
def test_a_record_is_held_until_the_wait_after_its_own_time(
    time_ms: int, now_ms: float, expected: float
) -> None:
    assert hold_ms(time_ms, now_ms, 500) == expected


@given(st.integers(-1, 3000), st.integers(0, 3000), st.integers(0, 3000), st.integers(0, 1000))
def test_the_newest_time_that_is_free_is_that_whose_hold_has_ended(
    time_ms: int, waited_ms: int, now_ms: int, wait_ms: int
) -> None:
    has_ended = hold_ms(time_ms, now_ms, wait_ms) <= waited_ms
    assert (time_ms <= free_until_ms(waited_ms, now_ms, wait_ms)) == has_ended


# -- clocks that are wrong ---------------------------------------------------------------------

YEAR_MS = 365 * 86_400_000


def spoiled(wrong: set[int], by: int = YEAR_MS, n: int = 400) -> Logs:
    """Events once a second, and the label of each half a second later."""
    events = [1000 * i + by * (i in wrong) for i in range(n)]
    return logs_of({EVENTS: events, LABELS: [1000 * i + 500 for i in range(n)]})


def merged(logs: Logs) -> list[tuple[str, int]]:
    """The topics and offsets of the records that are in the logs, as they are merged."""
    merge = merge_of(logs, ahead=64)
    for block in logs.values():
        put(merge, block)
    return [(r.topic, r.offset) for r in take(merge, 1000, 0.0, lambda _: True)]


@pytest.mark.parametrize("wrong", [{100, 101}, set(range(7, 400, 20)), set(range(100, 133))])
def test_records_a_year_ahead_do_not_hold_their_partition(wrong: set[int]) -> None:
    order = merged(spoiled(wrong))
    assert len(order) == 800
    place = {record: n for n, record in enumerate(order)}
    # A wrong record is taken for one of those behind it: half of those that tell, at most.
    late = max(place["labels", i] - place["events", i] for i in range(400))
    early = max(place["events", i] - place["labels", i] for i in range(400))
    assert (early < 100, late) == (True, 1)
    before = min(wrong)
    assert order[: 2 * before] == [(t, i) for i in range(before) for t in ("events", "labels")]


def test_a_record_a_year_behind_costs_the_others_nothing() -> None:
    order = merged(spoiled({100, 101}, by=-YEAR_MS))
    right = [(t, i) for i in range(400) for t in ("events", "labels") if i not in {100, 101}]
    assert [record for record in order if record[1] not in {100, 101}] == right


def test_a_live_record_a_year_ahead_waits_no_longer_than_others() -> None:
    merge = merge_of({EVENTS: Block.of([]), LABELS: Block.of([])}, ahead=64)
    put(merge, block_of(EVENTS, [YEAR_MS]), arrived_ms=0, now_ms=10)
    put(merge, block_of(LABELS, [10]), arrived_ms=0, now_ms=10)
    assert [r.topic for r in take(merge, 9, 0, lambda _: True)] == ["labels"]
    assert take(merge, 9, 499, lambda _: True) == []
    assert [r.topic for r in take(merge, 9, 500, lambda _: True)] == ["events"]


def test_what_tells_whether_a_time_is_wrong_is_waited_for() -> None:
    merge = merge_of({EVENTS: Block.of([]), LABELS: Block.of([])}, ahead=2)
    put(merge, block_of(LABELS, [10] * 3))
    put(merge, block_of(EVENTS, [YEAR_MS, 1]))
    assert take(merge, 9, 0, lambda _: False) == []
    put(merge, block_of(EVENTS, [2], first=2))
    assert [r.topic for r in take(merge, 9, 0, lambda _: False)] == ["events"]


def test_a_partition_of_large_records_that_is_not_read_on_is_not_waited_for() -> None:
    merge = merge_of({EVENTS: Block.of([]), LABELS: Block.of([])}, ahead=64)
    large = [bytes(AHEAD_BYTES // 2)] * 2
    put(merge, Block([Run(*EVENTS, 2)], [0, 1], large, times_ms=[YEAR_MS, 1]))
    put(merge, block_of(LABELS, [10]))
    found = take(merge, 1, 0, lambda p: p == LABELS)
    assert [(r.topic, r.offset) for r in found] == [("labels", 0)]
