"""ADWIN: a window that drops its older part when the means of the two parts differ."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from detectors.base import Array, Factor, IntArray, State
from detectors.charts.columnwise import Columnwise

N_LEVELS = 40
"""Sizes of buckets, 2^0 to 2^39: room for more values than a stream will have."""
CHUNK = 64
"""Values that are taken before they are put into buckets, at most."""


class Adwin(Columnwise):
    r"""Adaptive windowing of each column [1]_, with the cuts of River's `ADWIN` [2]_.

    A window of W values is cut in two where, for any cut into :math:`n_0` older and :math:`n_1`
    newer values, the means differ by more than

    .. math:: \epsilon = \sqrt{\frac{2}{m} \sigma^2 \ln \frac{2 \ln W}{\delta}}
              + \frac{2}{3 m} \ln \frac{2 \ln W}{\delta}, \qquad
              \frac{1}{m} = \frac{1}{n_0 - l + 1} + \frac{1}{n_1 - l + 1}

    with the window's variance :math:`\sigma^2` and the smallest part l. The window is kept as sums
    of 1, 2, 4, ... values, so its memory grows with the logarithm of W.

    Parameters
    ----------
    n_columns
        k, at least 1.
    delta
        Probability of a false cut, per test; in (0, 1).
    clock
        Values from one test to the next.
    max_buckets
        Sums of each size that are kept, at least 2.
    min_window_length
        l, at least 1.
    grace_period
        No test before there are more values than this.
    factor
        The factor that the columns watch.
    name
        The detector's name in its alarms.

    Raises
    ------
    ValueError
        If a parameter is out of range; names it and its value.

    Notes
    -----
    *The same alarms as River's.* The sums are added up in the same order and a cut is decided with
    the same operations, so alarms are at the same rows: checked on generated streams with ties,
    jumps and walks (tests/detectors/charts/test_columnwise.py). As there, a column starts with an
    empty window after an alarm. Values beyond 2^120 count as that.

    *Faster* because only cuts are computed that can be an alarm: as
    :math:`1 / m \ge W / (n_0 n_1)`, a cut with
    :math:`(n_1 u_0 - n_0 u_1)^2 \le 2 n_0 n_1 W \sigma^2 \ln(2 \ln W / \delta)`, where u are the
    sums of the parts, is none. That takes no division, no root and no logarithm.

    *The run length* is the length of the newer part at the most likely cut, where
    :math:`n_0 n_1 (\bar x_0 - \bar x_1)^2` is largest. After a shift by 0.5, 1 and 2 standard
    deviations of 2,000 normal values it was off by 8, 3 and 1 in the median of 100 seeds; what is
    left of River's window, whose oldest sums are dropped until there is no cut, by 475, 95 and 30.

    A value that is not finite means "nothing seen" and is skipped: the run length does not count
    it.

    References
    ----------
    .. [1] A. Bifet, R. Gavaldà (2007). Learning from time-changing data with adaptive windowing.
       SIAM International Conference on Data Mining, 443-448.
    .. [2] J. Montiel et al. (2021). River: machine learning for streaming data in Python. JMLR 22,
       110 (version 0.26.1).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> rows = rng.normal(size=(1000, 3))
    >>> rows[500:, 1] += 2.0
    >>> alarm = Adwin(3, factor=Factor.COVARIATE).update(rows)[0]
    >>> alarm.row, alarm.run_length, alarm.columns
    (511, 12, (1,))
    """

    def __init__(
        self,
        n_columns: int,
        *,
        delta: float = 0.002,
        clock: int = 32,
        max_buckets: int = 5,
        min_window_length: int = 5,
        grace_period: int = 10,
        factor: Factor,
        name: str = "adwin",
    ) -> None:
        super().__init__(n_columns, shortest=clock, factor=factor, name=name)
        if not 0 < delta < 1:
            raise ValueError(f"delta must be in (0, 1), got {delta}")
        for what, value, least in (
            ("clock", clock, 1),
            ("max_buckets", max_buckets, 2),
            ("min_window_length", min_window_length, 1),
            ("grace_period", grace_period, 1),
        ):
            if value < least:
                raise ValueError(f"{what} must be at least {least}, got {value}")
        self._delta = float(delta)
        self._clock = clock
        self._shortest_part = float(min_window_length)
        self._grace = float(grace_period)
        # Per column: values, their sum and sum of squared deviations; values until the next test.
        self._moments = np.zeros((n_columns, 3))
        self._wait: IntArray = np.full(n_columns, clock, dtype=np.int64)
        # Per column and level: how many sums of 2^level values there are, and these, oldest first.
        self._counts: IntArray = np.zeros((n_columns, N_LEVELS), dtype=np.int64)
        self._sums = np.zeros((n_columns, N_LEVELS, max_buckets))

    @property
    def width(self) -> IntArray:
        """Values in each column's window, shape (k,)."""
        return self._moments[:, 0].astype(np.int64)

    @property
    def statistic(self) -> float:
        """Largest difference of means as a share of its epsilon, over cuts and columns."""
        if not (self._moments[:, 0] > 1).any():
            return 0.0
        return _largest_share(
            self._counts, self._sums, self._moments, self._delta, self._shortest_part
        )

    def _take(self, rows: Array, where: IntArray, strengths: Array) -> int:
        return _take(
            rows,
            self._delta,
            self._clock,
            self._shortest_part,
            self._grace,
            self._moments,
            self._wait,
            self._counts,
            self._sums,
            where,
            strengths,
        )

    def snapshot(self) -> State:
        """Everything needed to go on: moments, the next tests, the sums of the levels in use."""
        n_levels = int(np.flatnonzero(self._counts.any(axis=0)).max(initial=-1)) + 1
        counts = self._counts[:, :n_levels].copy()
        known = np.arange(self._sums.shape[2]) < counts[:, :, None]
        return {
            "moments": self._moments.copy(),
            "wait": self._wait.copy(),
            "counts": counts,
            "sums": np.where(known, self._sums[:, :n_levels], 0.0),
        }

    def restore(self, state: State, /) -> None:
        """Go on from a snapshot of an equally configured detector.

        Raises
        ------
        ValueError
            If the snapshot has another number of columns or of sums of a size; names both shapes.
        """
        moments = np.array(state["moments"], dtype=np.float64)
        sums = np.array(state["sums"], dtype=np.float64)
        k, _, most = self._sums.shape
        if moments.shape != (k, 3) or (sums.shape[0], sums.shape[2]) != (k, most):
            raise ValueError(
                f"{self.name} keeps {most} sums of a size for {k} columns, "
                f"the snapshot has shapes {sums.shape} and {moments.shape}"
            )
        n_levels = sums.shape[1]
        self._moments = moments
        self._wait = np.array(state["wait"], dtype=np.int64)
        self._counts = np.zeros((k, N_LEVELS), dtype=np.int64)
        self._counts[:, :n_levels] = state["counts"]
        self._sums = np.zeros((k, N_LEVELS, most))
        self._sums[:, :n_levels] = sums


@njit(cache=True, error_model="numpy")
def _take(
    rows: Array,
    delta: float,
    clock: int,
    shortest: float,
    grace: float,
    moments: Array,
    wait: IntArray,
    counts: IntArray,
    sums: Array,
    where: IntArray,
    strengths: Array,
) -> int:
    """Take rows, column by column; note the alarms and return how many there are."""
    n, k = rows.shape
    values, queue = np.empty(CHUNK), np.empty(CHUNK + sums.shape[2])
    n_found = 0
    for c in range(k):
        width, total, deviation = moments[c, 0], moments[c, 1], moments[c, 2]
        i = 0
        while i < n:
            room = min(wait[c], CHUNK)
            m = 0
            while i < n and m < room:
                x = rows[i, c]
                i += 1
                if not np.isfinite(x):
                    continue
                values[m] = x
                m += 1
                if width > 0.0:
                    gap = x - total / width
                    deviation += width * gap * gap / (width + 1.0)
                width += 1.0
                total += x
            _put(values, m, counts[c], sums[c], queue)
            wait[c] -= m
            if wait[c] == 0:
                wait[c] = clock
                if width > grace:
                    moments[c, 0], moments[c, 1], moments[c, 2] = width, total, deviation
                    gap, limit = _cut(counts[c], sums[c], moments[c], delta, shortest, True)
                    if gap > limit:
                        where[n_found, 0], where[n_found, 1] = i - 1, c
                        where[n_found, 2] = _newer_part(counts[c], sums[c], moments[c], shortest)
                        strengths[n_found, 0], strengths[n_found, 1] = gap, limit
                        n_found += 1
                        width = total = deviation = 0.0
                        counts[c] = 0
        moments[c, 0], moments[c, 1], moments[c, 2] = width, total, deviation
    return n_found


@njit(cache=True, error_model="numpy")
def _put(values: Array, m: int, counts: IntArray, sums: Array, queue: Array) -> None:
    """Put m values into buckets: where there are more than `most`, the two oldest become one.

    One by one gives the same sums; at once there is one loop a level and no branch a value.
    """
    most = sums.shape[1]
    level = 0
    while m > 0:
        had = counts[level]
        n = had + m
        if n <= most:
            for t in range(m):
                sums[level, had + t] = values[t]
            counts[level] = n
            return
        for t in range(had):
            queue[t] = sums[level, t]
        for t in range(m):
            queue[had + t] = values[t]
        m = (n - most + 1) // 2
        for t in range(m):
            values[t] = queue[2 * t] + queue[2 * t + 1]
        counts[level] = n - 2 * m
        for t in range(n - 2 * m):
            sums[level, t] = queue[2 * m + t]
        level += 1


@njit(cache=True, error_model="numpy")
def _cut(
    counts: IntArray, sums: Array, moments: Array, delta: float, shortest: float, screened: bool
) -> tuple[float, float]:
    """Difference of the means and its limit, at the cut where their ratio is largest.

    (0, 1) where there is no cut or, if screened, none that is an alarm.
    """
    width, total, deviation = moments[0], moments[1], moments[2]
    doubt = math.log(2.0 * math.log(width) / delta)
    # What follows rounds within 1e-13. Where products could leave the range of floats nothing is
    # screened by them.
    low_1 = 2.0 / 3.0 * doubt * width * (1.0 - 1e-13) if screened else -1.0
    low_2 = 2.0 * deviation * doubt * (1.0 - 1e-13)
    if not (screened and 1e-280 < low_2 < 1e280):
        low_2 = -1.0
    n_levels = counts.size
    while n_levels > 0 and counts[n_levels - 1] == 0:
        n_levels -= 1
    best = (0.0, 1.0)
    n0, n1, u0, u1 = 0.0, width, 0.0, total
    for level in range(n_levels - 1, -1, -1):
        size = float(1 << level)
        for t in range(counts[level]):
            n0 += size
            n1 -= size
            u0 += sums[level, t]
            u1 -= sums[level, t]
            if n0 < shortest or n1 < shortest:
                continue
            a, b = u0 * n1, u1 * n0
            far = abs(a - b) + 1e-14 * (abs(a) + abs(b))
            if far < low_1 or far * far < n0 * n1 * low_2:
                continue
            gap = abs(u0 / n0 - u1 / n1)
            inverse_m = 1.0 / (n0 - shortest + 1.0) + 1.0 / (n1 - shortest + 1.0)
            limit = math.sqrt(2.0 * inverse_m * (deviation / width) * doubt)
            limit += 2.0 / 3.0 * doubt * inverse_m
            if (gap > limit or not screened) and gap / limit > best[0] / best[1]:
                best = (gap, limit)
    return best


@njit(cache=True, error_model="numpy")
def _newer_part(counts: IntArray, sums: Array, moments: Array, shortest: float) -> int:
    """Values behind the cut where a change of the mean is most likely; at least 1."""
    n0, n1, u0, u1 = 0.0, moments[0], 0.0, moments[1]
    largest, newer = 0.0, 1
    for level in range(counts.size - 1, -1, -1):
        for t in range(counts[level]):
            n0 += float(1 << level)
            n1 -= float(1 << level)
            u0 += sums[level, t]
            u1 -= sums[level, t]
            if n0 >= shortest and n1 >= shortest:
                gap = u0 / n0 - u1 / n1
                if n0 * n1 * gap * gap > largest:
                    largest, newer = n0 * n1 * gap * gap, int(n1)
    return newer


@njit(cache=True, error_model="numpy")
def _largest_share(
    counts: IntArray, sums: Array, moments: Array, delta: float, shortest: float
) -> float:
    """The largest ratio of difference and limit over all columns."""
    largest = 0.0
    for c in range(len(moments)):
        if moments[c, 0] > 1.0:
            gap, limit = _cut(counts[c], sums[c], moments[c], delta, shortest, False)
            largest = max(largest, gap / limit)
    return largest
