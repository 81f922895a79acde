"""The fence: nothing overflows, no order changes, and what is inside stays as it is."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from detectors.learners.fence import FAR, SPREADS, Fence
from detectors.rows import LARGEST

MAX = sys.float_info.max
FLOATS = st.floats(allow_nan=True, allow_infinity=False)
COLUMN = st.integers(1, 30).flatmap(lambda n: arrays(np.float64, (n, 1), elements=FLOATS))


@given(reference=COLUMN, rows=COLUMN)
def test_any_float_is_drawn_in_so_far_that_squares_and_single_precision_hold_it(
    reference: np.ndarray, rows: np.ndarray
) -> None:
    with np.errstate(all="raise", under="ignore"):
        drawn = Fence.fit(reference)(rows)
    assert np.array_equal(np.isnan(drawn), np.isnan(rows))
    assert (np.abs(drawn[~np.isnan(drawn)]) <= 2 * FAR).all()
    assert 2 * FAR < LARGEST < np.finfo(np.float32).max


@given(reference=COLUMN, rows=COLUMN)
def test_the_order_of_values_stays(reference: np.ndarray, rows: np.ndarray) -> None:
    fence = Fence.fit(reference)
    x = np.sort(rows[~np.isnan(rows)])
    assert (np.diff(fence(x[:, None])[:, 0]) >= 0).all()


@given(reference=COLUMN, rows=COLUMN)
def test_what_is_inside_stays_to_the_last_bit(reference: np.ndarray, rows: np.ndarray) -> None:
    fence = Fence.fit(reference)
    inside = ~fence.beyond(rows)
    drawn = fence(rows)
    assert np.array_equal(drawn[inside], rows[inside], equal_nan=True)
    assert np.array_equal(fence.beyond(drawn), ~inside)


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng: rng.normal(size=2000),
        lambda rng: rng.lognormal(sigma=1.5, size=2000),
        lambda rng: rng.integers(0, 5, 2000),
        lambda rng: np.where(rng.random(2000) < 0.95, 0.0, rng.lognormal(8.0, 1.0, 2000)),
        lambda rng: 1.76e9 + np.arange(2000.0),
        lambda rng: rng.random(2000) < 0.001,
        lambda rng: np.full(2000, 7.0),
    ],
)
def test_healthy_columns_are_not_touched(draw: object) -> None:
    rng = np.random.default_rng(0)
    reference, rows = (np.asarray(draw(rng), np.float64)[:, None] for _ in range(2))  # type: ignore[operator]
    fence = Fence.fit(reference)
    assert fence(reference) is reference
    assert fence(rows) is rows


@pytest.mark.parametrize("share", [0.0, 0.05, 0.24])
def test_sentinels_in_the_reference_do_not_move_the_fence_out(share: float) -> None:
    x = np.random.default_rng(1).normal(size=(1000, 1))
    x[: int(1000 * share)] = MAX
    fence = Fence.fit(x)
    assert 1000 < fence.limit[0] < 4 * SPREADS
    assert fence.beyond(x).sum() == int(1000 * share)


@given(st.floats(1e-6, 1e6), st.floats(min_value=1e12, max_value=MAX), st.booleans())
def test_the_value_that_was_drawn_in_can_be_told(scale: float, value: float, below: bool) -> None:
    fence = Fence.fit(scale * np.random.default_rng(2).normal(size=(100, 1)))
    rows = np.array([[-value if below else value]])
    assert fence.undrawn(fence(rows))[0, 0] == pytest.approx(rows[0, 0], rel=1e-6)


def test_a_restored_fence_is_the_same() -> None:
    fence = Fence.fit(np.array([[1.0, np.nan], [5.0, np.nan], [MAX, np.nan]]))
    copy = Fence.from_snapshot(fence.snapshot())
    rows = np.array([[-MAX, MAX], [3.0, np.nan]])
    assert np.array_equal(copy(rows), fence(rows), equal_nan=True)
    assert fence.limit[1] == FAR


def test_a_table_without_columns_or_rows_has_a_fence_too() -> None:
    assert Fence.fit(np.empty((5, 0)))(np.empty((3, 0))).shape == (3, 0)
    assert Fence.fit(np.empty((0, 2))).limit.tolist() == [FAR, FAR]
