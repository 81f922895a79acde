"""The merge of partitions by record time: one order, whatever the order of arrival."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.records.block import Block, Run
from service.records.record import Record
from service.sources.kafka.merge import Merge, free_until_ms, hold_ms
from service.sources.source import Partition

Logs = dict[Partition, Block]
WAIT_MS = 500


def block_of(partition: Partition, times: Sequence[int], first: int = 0) -> Block:
    offsets = range(first, first + len(times))
    runs = [Run(*partition, len(times))] if times else []
    return Block(runs, offsets, [b"%d" % n for n in offsets], times_ms=times)


def logs_of(times: dict[Partition, list[int]]) -> Logs:
    return {p: block_of(p, log) for p, log in times.items()}


def in_order(logs: Logs) -> list[Record]:
    """The rule in its plainest form: again and again the smallest of the first records."""
    left = {p: list(zip(log.times_ms or (), log, strict=True)) for p, log in logs.items()}
    found = []
    while any(left.values()):
        first = min((log[0][0], p) for p, log in left.items() if log)[1]
        found.append(left[first].pop(0)[1])
    return found


def merge_of(logs: Logs) -> Merge:
    merge = Merge(WAIT_MS)
    merge.restart(logs)
    return merge


def put(merge: Merge, block: Block, arrived_ms: float = 0.0, now_ms: float = 1e9) -> None:
    """Give records to the merge; by default they are so old that they need not wait."""
    merge.put(block.place(0), block, arrived_ms, now_ms)


def take(
    merge: Merge, max_records: int, now_ms: float, at_end: Callable[[Partition], bool]
) -> list[Record]:
    return list(Block.gathered(merge.take(max_records, now_ms, at_end)))


PARTITIONS = [("events", 0), ("events", 1), ("labels", 0)]
LOGS = st.fixed_dictionaries(
    {p: st.lists(st.integers(-1, 12), max_size=12) for p in PARTITIONS}
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

    waiting: dict[Partition, list[tuple[int, float, Record]]] = field(default_factory=dict)

    def put(self, partition: Partition, block: Block, arrived_ms: float, now_ms: float) -> None:
        for time_ms, record in zip(block.times_ms or (), block, strict=True):
            release_ms = arrived_ms + hold_ms(time_ms, now_ms, WAIT_MS)
            self.waiting[partition].append((time_ms, release_ms, record))

    def first(self) -> tuple[Partition, float] | None:
        places = [(w[0][0], p, w[0][1]) for p, w in self.waiting.items() if w]
        return min(places)[1:] if places else None

    def take(
        self, max_records: int, now_ms: float, at_end: Callable[[Partition], bool]
    ) -> list[Record]:
        found: list[Record] = []
        while len(found) < max_records and (first := self.first()) is not None:
            partition, release_ms = first
            empty = [p for p, w in self.waiting.items() if not w]
            if empty and not (release_ms <= now_ms and all(at_end(p) for p in empty)):
                break
            found.append(self.waiting[partition].pop(0)[2])
        return found


@settings(deadline=None, max_examples=300)
@given(st.integers(1, 3), st.data())
def test_runs_are_taken_as_record_by_record(n_partitions: int, data: st.DataObject) -> None:
    partitions = PARTITIONS[:n_partitions]
    merge, rule = Merge(WAIT_MS), RecordByRecord({p: [] for p in partitions})
    merge.restart(partitions)
    ends = dict.fromkeys(partitions, 0)
    arrived_ms, now_ms = 0, 1_000_000
    for _ in range(data.draw(st.integers(1, 15))):
        arrived_ms += data.draw(st.sampled_from([0, 0, 1, 100, 499, 600]))
        now_ms += data.draw(st.sampled_from([0, 1, 100, 600, -300]))  # a clock may be set
        partition = data.draw(st.sampled_from(partitions))
        near = st.integers(now_ms - 2 * WAIT_MS, now_ms + WAIT_MS)
        # Few different times, so that many are equal.
        times = data.draw(st.lists(st.integers(-1, 6) | near, max_size=6))
        block = block_of(partition, times, ends[partition])
        ends[partition] += len(times)
        for one in (merge, rule):
            one.put(partition, block, arrived_ms, now_ms)
        at_end = data.draw(st.fixed_dictionaries(dict.fromkeys(partitions, st.booleans())))
        most = data.draw(st.integers(0, 9))
        later_ms = arrived_ms + data.draw(st.integers(0, 500))
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
    logs = logs_of({("b", 0): [5, 3], ("a", 1): [5], ("a", 0): [5, 5]})
    merge = merge_of(logs)
    for log in logs.values():
        put(merge, log)
    found = [(r.topic, r.partition, r.offset) for r in take(merge, 9, 0.0, lambda p: True)]
    assert found == [("a", 0, 0), ("a", 0, 1), ("a", 1, 0), ("b", 0, 0), ("b", 0, 1)]


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
    assert (merge.count(EVENTS), merge.size(EVENTS)) == (11, 12)
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
