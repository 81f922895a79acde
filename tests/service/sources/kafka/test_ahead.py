"""The times that records count with, many at once as one by one."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.sources.kafka.ahead import AHEAD_BYTES, counted_time, counted_times, n_told

TIMES = st.integers(-1, 20) | st.just(10**15)
SIZES = st.sampled_from([0, 1, 1, 1, 1000, AHEAD_BYTES // 4, AHEAD_BYTES])


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(TIMES, SIZES), max_size=40), st.integers(1, 6), st.data())
def test_many_at_once_count_as_one_by_one(
    records: list[tuple[int, int]], ahead: int, data: st.DataObject
) -> None:
    if data.draw(st.booleans()):
        records = [(abs(time), 1) for time, _ in records]  # plain ones
    times = [time for time, _ in records]
    ends = list(accumulate((size for _, size in records), initial=7))
    told = n_told(ends, ahead)
    start = data.draw(st.integers(0, told))
    found = counted_times(times, ends, start, told, ahead)
    assert list(found) == [counted_time(times, ends, n, ahead) for n in range(start, told)]


@given(st.lists(st.tuples(TIMES, SIZES), max_size=40), st.integers(1, 6), st.data())
def test_what_is_told_is_not_changed_by_what_comes_later(
    records: list[tuple[int, int]], ahead: int, data: st.DataObject
) -> None:
    times = [time for time, _ in records]
    ends = list(accumulate((size for _, size in records), initial=0))
    cut = data.draw(st.integers(0, len(records)))
    for n in range(n_told(ends[: cut + 1], ahead)):
        before = counted_time(times[:cut], ends[: cut + 1], n, ahead)
        assert before == counted_time(times, ends, n, ahead)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([5, 1, 2, 3], 2),  # dated ahead: the lower median of three
        ([5, 1, 9, 3], 3),
        ([5, 6, 7, 8], 5),
        ([5, 1, 2], 1),  # of two
        ([5, -1, -1, 3], 3),  # those without a time say nothing
        ([5, -1, -1, -1], 5),
        ([-1, 1, 2, 3], -1),
        ([5], 5),
    ],
)
def test_a_record_counts_as_most_of_those_behind_it(times: list[int], expected: int) -> None:
    assert counted_time(times, range(len(times) + 1), 0, ahead=3) == expected
