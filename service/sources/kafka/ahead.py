"""The times that records count with: one that is dated ahead counts as those behind it.

A record that waits for others with its wrong time would hold everything behind it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from operator import gt

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

AHEAD = 64
"""Records behind one that tell whether its time is wrong: that finds up to 33 in a row."""

AHEAD_BYTES = 8 * 1024 * 1024
"""So many bytes with them at most: a partition that is not read on for want of room has as many."""


def n_told(ends: Sequence[int], ahead: int = AHEAD) -> int:
    """How many records have enough behind them to tell whether their times are wrong.

    Parameters
    ----------
    ends
        Bytes of the records up to each of them and behind the last one, shape (n + 1,).
    ahead
        So many records behind one are enough (at least 1), and so are `AHEAD_BYTES` from it on.
    """
    by_bytes = bisect_right(ends, ends[-1] - AHEAD_BYTES)
    return max(len(ends) - 1 - ahead, min(by_bytes, len(ends) - 1), 0)


def counted_time(times: Sequence[int], ends: Sequence[int], at: int, ahead: int = AHEAD) -> int:
    """The time that one record counts with.

    It is its own, or the lower median of those behind it if that is earlier. A record without a
    time says nothing of others.

    Parameters
    ----------
    times
        Unix milliseconds of the records, negative for none, shape (n,).
    ends
        As for `n_told`.
    at
        Its position.
    ahead
        How many records behind it are asked, at least 1; or, where they are fewer, those with which
        it has no `AHEAD_BYTES` yet.
    """
    last = min(at + ahead, len(times) - 1)
    if ends[last + 1] - ends[at] >= AHEAD_BYTES:
        last = bisect_left(ends, ends[at] + AHEAD_BYTES, at) - 2
    behind = sorted(time for time in times[at + 1 : last + 1] if time >= 0)
    return min(times[at], behind[(len(behind) - 1) // 2]) if behind else times[at]


def counted_times(
    times: Sequence[int], ends: Sequence[int], start: int, stop: int, ahead: int = AHEAD
) -> Sequence[int]:
    """The same of the records from one position up to another."""
    seen = times[start : stop + ahead]
    if start >= stop or not any(map(gt, seen, seen[1:])):
        return times[start:stop]
    sizes = np.array(ends[start : start + len(seen) + 1])
    is_whole = len(seen) == stop - start + ahead
    if (
        not is_whole
        or min(seen) < 0
        or (sizes[ahead + 1 :] - sizes[: stop - start]).max() >= AHEAD_BYTES
    ):
        return [counted_time(times, ends, n, ahead) for n in range(start, stop)]
    own = np.array(seen)
    behind = np.sort(sliding_window_view(own[1:], ahead), axis=1)[:, (ahead - 1) // 2]
    found: list[int] = np.minimum(own[: stop - start], behind).tolist()
    return found
