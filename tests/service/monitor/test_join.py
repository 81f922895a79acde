"""Joining a batch at once is joining its records one after the other."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from service.monitor.clock import StreamClock
from service.monitor.events import Events
from service.monitor.join import join
from service.monitor.labels import LabelJoin
from service.records.block import Block
from service.records.columns import GONE, LABEL, OBSERVATION, Columns, Features
from service.store.states import dumps

RECORDS = st.lists(
    st.tuples(
        st.sampled_from([OBSERVATION] * 8 + [LABEL, LABEL, GONE]),
        st.integers(0, 40) | st.none(),  # a known id, or a new one
        st.sampled_from([None, None, None, "x", "y"]),
        st.integers(0, 3),  # how far the clock goes on
        st.sampled_from([0.0] * 6 + [math.nan, 4e9, -4e6]),  # how wrong it is
    ),
    max_size=120,
)


def columns_of(records: list[Any], first: int) -> Columns:
    n = len(records)
    kinds = np.array([kind for kind, *_ in records], np.int8)
    labels = [
        (y or "z") if k == LABEL else (y if k == OBSERVATION else None) for k, _, y, *_ in records
    ]
    now = first * 60.0 + np.cumsum([60.0 * step for *_, step, _ in records])
    seconds = now + np.array([wrong for *_, wrong in records])
    return Columns(
        Block.of_partition("t", 0, range(n), [b""] * n),
        np.arange(n),
        kinds,
        [f"new {first + k}" if id_ is None else str(id_) for k, (_, id_, *_) in enumerate(records)],
        seconds if n else np.empty(0),
        None,
        labels if any(labels) else None,
        None,
        None,
        Features(np.zeros((int((kinds == OBSERVATION).sum()), 1))),
        None,
    )


def told(events: Events) -> Any:
    return (
        events.records.tolist(),
        events.is_label.tolist(),
        events.index.tolist(),
        list(events.labels),
        dict(events.pushed_out),
        dict(events.spilled),
        sorted(events.ended.tolist()),
        Counter(events.counted),
        list(events.delays),
        list(events.changes),
    )


@given(
    batches=st.lists(RECORDS, min_size=1, max_size=4),
    max_pending=st.integers(1, 60),
    max_spilled=st.sampled_from([0, 0, 5]),
    from_first_label=st.booleans(),
    recall=st.sampled_from([0, 3, None]),
)
@settings(max_examples=400, deadline=None)
def test_at_once_and_one_after_the_other_are_the_same(
    batches: list[list[Any]],
    max_pending: int,
    max_spilled: int,
    from_first_label: bool,
    recall: int | None,
) -> None:
    def waiting() -> LabelJoin:
        return LabelJoin(
            max_pending,
            max_spilled=max_spilled,
            max_age_s=86_400.0,
            recall=recall,
            from_first_label=from_first_label,
            clock=StreamClock(43_200.0, window=4, every=3, patience=6),
        )

    one, other = waiting(), waiting()
    index = n = 0
    for records in batches:
        columns = columns_of(records, n)
        quick = join(one, columns, index, with_changes=True, at_once=2)
        slow = join(other, columns, index, with_changes=True, at_once=10**9)
        assert told(quick) == told(slow)
        one.read(len(quick))
        other.read(len(slow))
        assert one.read_time == other.read_time
        assert dumps(one.snapshot()) == dumps(other.snapshot())
        wanted = list(range(index + columns.n_observations))
        assert one.ids(wanted) == other.ids(wanted)
        index += columns.n_observations
        n += len(records)
