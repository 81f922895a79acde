"""The merge of partitions by record time: one order, whatever the order of arrival."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.records.record import Record
from service.sources.kafka.merge import AHEAD_BYTES, Arrival, Merge, hold_ms
from service.sources.source import Partition

Logs = dict[Partition, list[Arrival]]


def arrival(partition: Partition, offset: int, time_ms: int, release_ms: float = 0.0) -> Arrival:
    return Arrival(Record(*partition, offset, None, b"%d" % offset), time_ms, release_ms)


def logs_of(times: dict[Partition, list[int]]) -> Logs:
    return {p: [arrival(p, n, t) for n, t in enumerate(log)] for p, log in times.items()}


AHEAD = 3


def time_of(log: list[Arrival]) -> int:
    """The time that the first record of a log counts with."""
    behind = sorted(a.time_ms for a in log[1 : AHEAD + 1] if a.time_ms >= 0)
    return min([log[0].time_ms, *behind[(len(behind) - 1) // 2 :][:1]])


def in_order(logs: Logs) -> list[Record]:
    """The rule in its plainest form: again and again the smallest of the first records."""
    left = {p: list(log) for p, log in logs.items()}
    found = []
    while any(left.values()):
        first = min((time_of(log), p) for p, log in left.items() if log)[1]
        found.append(left[first].pop(0).record)
    return found


def merge_of(logs: Logs, ahead: int = AHEAD) -> Merge:
    merge = Merge(ahead)
    merge.restart(logs)
    return merge


PARTITIONS = [("events", 0), ("events", 1), ("labels", 0)]
LOGS = st.fixed_dictionaries(
    {p: st.lists(st.integers(-1, 12) | st.just(10**9), max_size=12) for p in PARTITIONS}
).map(logs_of)


def run(logs: Logs, draw: st.DataObject) -> list[Record]:
    """Merge the logs in pieces that arrive in any order, taking in between."""
    merge = merge_of(logs)
    put = dict.fromkeys(logs, 0)
    found: list[Record] = []

    def at_end(partition: Partition) -> bool:
        return put[partition] == len(logs[partition])

    while len(found) < sum(map(len, logs.values())):
        behind = [p for p in logs if not at_end(p)]
        if behind:
            partition = draw.draw(st.sampled_from(behind))
            size = draw.draw(st.integers(1, 5))
            merge.put(partition, logs[partition][put[partition] :][:size])
            put[partition] = min(put[partition] + size, len(logs[partition]))
        most = draw.draw(st.integers(1, 6))
        taken = merge.take(most, 0.0, at_end)
        assert len(taken) <= most
        found += taken
    return found


@given(LOGS, st.data())
def test_what_is_in_the_log_has_one_order_however_it_arrives(
    logs: Logs, data: st.DataObject
) -> None:
    assert run(logs, data) == in_order(logs)


@given(LOGS, st.data())
def test_a_restart_behind_the_last_delivered_records_goes_on_in_the_same_order(
    logs: Logs, data: st.DataObject
) -> None:
    whole = in_order(logs)
    cut = data.draw(st.integers(0, len(whole)))
    done = [(r.topic, r.partition) for r in whole[:cut]]
    rest = {p: log[done.count(p) :] for p, log in logs.items()}
    assert run(rest, data) == whole[cut:]


def test_equal_times_are_ordered_by_topic_then_partition_and_offsets_never_change() -> None:
    logs = logs_of({("b", 0): [5, 3, 9], ("a", 1): [3], ("a", 0): [3, 3]})
    merge = merge_of(logs)
    for partition, log in logs.items():
        merge.put(partition, log)
    found = [(r.topic, r.partition, r.offset) for r in merge.take(9, 0.0, lambda p: True)]
    assert found == [("a", 0, 0), ("a", 0, 1), ("a", 1, 0), ("b", 0, 0), ("b", 0, 1), ("b", 0, 2)]


def test_a_record_waits_for_a_partition_that_has_one_written_however_long() -> None:
    merge = merge_of({("events", 0): [], ("labels", 0): []})
    merge.put(("events", 0), [arrival(("events", 0), 0, 10, release_ms=500)])
    assert merge.take(9, 1e9, lambda p: False) == []


def test_a_silent_partition_is_waited_for_until_the_hold_ends_and_no_longer() -> None:
    merge = merge_of({("events", 0): [], ("labels", 0): []})
    merge.put(("events", 0), [arrival(("events", 0), 0, 10, release_ms=500)])
    assert merge.take(9, 499, lambda p: True) == []
    assert merge.wait_ms(499) == 1
    assert [r.offset for r in merge.take(9, 500, lambda p: True)] == [0]
    assert merge.wait_ms(500) is None


def test_a_record_that_comes_within_the_hold_takes_its_place() -> None:
    merge = merge_of({("events", 0): [], ("labels", 0): []})
    merge.put(("events", 0), [arrival(("events", 0), 0, 10, release_ms=500)])
    assert merge.take(9, 100, lambda p: True) == []
    merge.put(("labels", 0), [arrival(("labels", 0), 0, 9, release_ms=600)])
    assert [r.topic for r in merge.take(9, 600, lambda p: True)] == ["labels", "events"]


def test_a_record_that_comes_later_is_handled_in_the_order_of_arrival() -> None:
    merge = merge_of({("events", 0): [], ("labels", 0): []})
    merge.put(("events", 0), [arrival(("events", 0), 0, 10)])
    assert len(merge.take(9, 0, lambda p: True)) == 1
    merge.put(("labels", 0), [arrival(("labels", 0), 0, 9)])
    assert [r.topic for r in merge.take(9, 0, lambda p: True)] == ["labels"]


def test_one_partition_never_waits() -> None:
    merge = merge_of({("events", 0): []})
    merge.put(("events", 0), [arrival(("events", 0), n, 10, release_ms=1e9) for n in range(3)])
    assert [r.offset for r in merge.take(2, 0, lambda p: False)] == [0, 1]


def test_the_waiting_records_are_counted_and_forgotten_on_a_restart() -> None:
    at = ("events", 0)
    merge = merge_of({at: [], ("labels", 0): []})
    merge.put(at, [arrival(at, n, 1) for n in range(11)])
    assert (merge.count(at), merge.size(at)) == (11, 12)
    merge.restart([at])
    assert (merge.count(at), merge.size(at)) == (0, 0)
    assert merge.take(9, 0, lambda p: True) == []
    with pytest.raises(KeyError):
        merge.put(("labels", 0), [])


@pytest.mark.parametrize(
    ("time_ms", "now_ms", "expected"),
    [(1000, 1000, 500), (1000, 1200, 300), (1000, 1500, 0), (1000, 9e9, 0), (9e9, 1000, 500)],
)
def test_a_record_is_held_until_the_wait_after_its_own_time(
    time_ms: int, now_ms: float, expected: float
) -> None:
    assert hold_ms(time_ms, now_ms, 500) == expected


# -- clocks that are wrong ---------------------------------------------------------------------

YEAR_MS = 365 * 86_400_000
EVENTS, LABELS = ("events", 0), ("labels", 0)


def spoiled(wrong: set[int], by: int = YEAR_MS, n: int = 400) -> Logs:
    """Events once a second, and the label of each half a second later."""
    events = [1000 * i + by * (i in wrong) for i in range(n)]
    return logs_of({EVENTS: events, LABELS: [1000 * i + 500 for i in range(n)]})


@pytest.mark.parametrize("wrong", [{100, 101}, set(range(7, 400, 20)), set(range(100, 133))])
def test_records_a_year_ahead_do_not_hold_their_partition(wrong: set[int]) -> None:
    merge = merge_of(logs := spoiled(wrong), ahead=64)
    for partition, log in logs.items():
        merge.put(partition, log)
    order = [(r.topic, r.offset) for r in merge.take(1000, 0.0, lambda _: True)]
    assert len(order) == 800
    place = {record: n for n, record in enumerate(order)}
    # A wrong record is taken for one of those behind it: half of those that tell, at most.
    late = max(place["labels", i] - place["events", i] for i in range(400))
    early = max(place["events", i] - place["labels", i] for i in range(400))
    assert (early < 100, late) == (True, 1)
    before = min(wrong)
    assert order[: 2 * before] == [(t, i) for i in range(before) for t in ("events", "labels")]


def test_a_record_a_year_behind_costs_the_others_nothing() -> None:
    merge = merge_of(logs := spoiled({100, 101}, by=-YEAR_MS), ahead=64)
    for partition, log in logs.items():
        merge.put(partition, log)
    order = [(r.topic, r.offset) for r in merge.take(1000, 0.0, lambda _: True)]
    right = [(t, i) for i in range(400) for t in ("events", "labels") if i not in {100, 101}]
    assert [record for record in order if record[1] not in {100, 101}] == right


def test_a_live_record_a_year_ahead_waits_no_longer_than_others() -> None:
    merge = merge_of({EVENTS: [], LABELS: []}, ahead=64)
    merge.put(EVENTS, [arrival(EVENTS, 0, YEAR_MS, release_ms=500)])
    merge.put(LABELS, [arrival(LABELS, 0, 10, release_ms=500)])
    assert [r.topic for r in merge.take(9, 0, lambda _: True)] == ["labels"]
    assert merge.take(9, 499, lambda _: True) == []
    assert [r.topic for r in merge.take(9, 500, lambda _: True)] == ["events"]


def test_what_tells_whether_a_time_is_wrong_is_waited_for() -> None:
    merge = merge_of({EVENTS: [], LABELS: []}, ahead=2)
    merge.put(LABELS, [arrival(LABELS, n, 10) for n in range(3)])
    merge.put(EVENTS, [arrival(EVENTS, 0, YEAR_MS), arrival(EVENTS, 1, 1)])
    assert merge.take(9, 0, lambda _: False) == []
    merge.put(EVENTS, [arrival(EVENTS, 2, 2)])
    assert [r.topic for r in merge.take(9, 0, lambda _: False)] == ["events"]


def test_a_partition_of_large_records_that_is_not_read_on_is_not_waited_for() -> None:
    merge = merge_of({EVENTS: [], LABELS: []}, ahead=64)
    large = [
        Arrival(Record(*EVENTS, n, None, bytes(AHEAD_BYTES // 2)), t, 0.0)
        for n, t in enumerate([YEAR_MS, 1])
    ]
    merge.put(EVENTS, large)
    merge.put(LABELS, [arrival(LABELS, 0, 10)])
    found = merge.take(1, 0, lambda p: p == LABELS)
    assert [(r.topic, r.offset) for r in found] == [("labels", 0)]
