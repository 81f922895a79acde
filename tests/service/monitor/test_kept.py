"""What is kept is what was added and not dropped, however much comes and goes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.monitor.kept import Kept

STEPS = st.lists(
    st.tuples(
        st.lists(st.integers(1, 3), max_size=60),  # gaps between indices that are added
        st.lists(st.integers(0, 4000), max_size=60),  # indices that are dropped
    ),
    max_size=30,
)


@given(STEPS)
@settings(deadline=None)
def test_it_is_a_dictionary_of_what_was_added_and_not_dropped(
    steps: list[tuple[list[int], list[int]]],
) -> None:
    kept, expected, newest = Kept((2,)), dict[int, list[float]](), -1
    for gaps, gone in steps:
        index = newest + np.cumsum(np.array(gaps, np.int64))
        rows = np.column_stack([index, -index]).astype(np.float64)
        kept.add(index, rows)
        expected |= dict(zip(index.tolist(), rows.tolist(), strict=True))
        newest = int(index[-1]) if len(index) else newest
        kept.drop(np.array(gone, np.int64))
        for n in gone:
            expected.pop(n, None)
        assert len(kept) == len(expected)
        assert kept.index.tolist() == list(expected)
        assert kept.values.tolist() == list(expected.values())
        asked = np.array([*gone, *expected, newest + 1], np.int64)
        values, found = kept.of(asked)
        assert found.tolist() == [n in expected for n in asked.tolist()]
        assert values[found].tolist() == [expected[n] for n in asked.tolist() if n in expected]


def test_room_is_made_of_what_was_dropped() -> None:
    kept = Kept()
    for n in range(0, 100_000, 100):
        kept.add(np.arange(n, n + 100), np.zeros(100))
        kept.drop(np.arange(n - 100, n))
    assert len(kept) == 100
    assert len(kept._index) <= 1024


def test_texts_can_be_kept_too() -> None:
    kept = Kept(dtype=object)
    kept.add(np.array([3, 9]), np.array(["a", None], object))
    assert kept.of(np.array([9, 3]))[0].tolist() == [None, "a"]


@pytest.mark.parametrize("index", [[5], [7, 7], [8, 6]])
def test_indices_have_to_increase(index: list[int]) -> None:
    kept = Kept()
    kept.add(np.array([5]), np.zeros(1))
    with pytest.raises(ValueError, match=r"indices must increase, got \[\d.* behind 5"):
        kept.add(np.array(index), np.zeros(len(index)))


def test_cleared_it_begins_anew() -> None:
    kept = Kept()
    kept.add(np.array([5]), np.zeros(1))
    kept.clear()
    kept.add(np.array([2]), np.ones(1))
    assert (kept.index.tolist(), kept.values.tolist()) == ([2], [1.0])
