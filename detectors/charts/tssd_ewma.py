"""Raza's two-stage EWMA charts: a Kolmogorov-Smirnov test decides on each alarm."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from numba import njit

from detectors.base import Alarm, Array, IntArray, State
from detectors.charts.sd_ewma import SdEwma
from detectors.rows import as_rows


class TssdEwma:
    """SD-EWMA in two stages: an alarm counts if the rows after it differ from those before it [1]_.

    Stage 1 is `SdEwma`. When a column's chart alarms at row t, stage 2 waits for m more values of
    the column and compares them with the m values up to t by a two-sided Kolmogorov-Smirnov test;
    the detector alarms at the last of them if the test rejects. While a column is under test its
    further stage-1 alarms are the same suspicion.

    A compatibility detector, weak by construction: a stage 1 that is late has already put rows
    from after the change into the "before" window. Measured on normal rows of one column, charts of
    L = 1.96 fitted to 500 rows, 100 seeds, share of stage-1 alarms that stage 2 confirms:

    ====  =============  =====================  ===================
    m     false alarms   first after 0.5 sd     first after 1 sd
    ====  =============  =====================  ===================
    5     0.7 %          0 %                    0 %
    10    1.3 %          0 %                    6 %
    30    3.5 %          16 %                   71 %
    60    4.6 %          44 %                   97 %
    ====  =============  =====================  ===================

    `detectors.confirm` compares fresh rows with a frozen reference instead.

    Parameters
    ----------
    chart
        Stage 1; taken over.
    rows
        m, on each side. With fewer than 4 no two samples differ at 0.05.
    alpha
        Level of the test, in (0, 1).
    name
        The detector's name in its alarms.

    Raises
    ------
    ValueError
        If no outcome of the test could reach `alpha`; names both.

    Notes
    -----
    The limit is exact for columns without ties and conservative with them. Alarms carry the
    Kolmogorov-Smirnov distance; their run length counts the rows since stage 1 alarmed.

    References
    ----------
    .. [1] H. Raza, G. Prasad, Y. Li (2013). EWMA based two-stage dataset shift-detection in
       non-stationary environments. AIAI 2013, IFIP AICT 412, 625-635.

    Examples
    --------
    >>> from detectors.base import Factor
    >>> rng = np.random.default_rng(1)
    >>> chart = SdEwma.fit(rng.normal(size=(500, 1)), factor=Factor.COVARIATE)
    >>> detector = TssdEwma(chart, rows=10)
    >>> rows = rng.normal(size=(200, 1))
    >>> rows[100:] += 4.0
    >>> [(alarm.row, alarm.run_length) for alarm in detector.update(rows)]
    [(111, 11)]
    """

    def __init__(
        self, chart: SdEwma, *, rows: int = 30, alpha: float = 0.05, name: str = "tssd_ewma"
    ) -> None:
        if not 0 < alpha < 1:
            raise ValueError(f"alpha must be in (0, 1), got {alpha}")
        if rows < 1 or _ks_tail(rows, rows) > alpha:
            raise ValueError(f"rows={rows} on each side cannot differ at alpha={alpha}")
        self.chart = chart
        self.factor = chart.factor
        self.name = name
        self._m = rows
        self._needed = next(h for h in range(1, rows + 1) if _ks_tail(rows, h) <= alpha)
        k = chart.n_columns
        # Per column: a ring of its last m values and how many it ever saw, the m values before a
        # suspicion, those after it, how many of these there are (-1: no suspicion), and its row.
        self._last = np.zeros((k, rows))
        self._n_last: IntArray = np.zeros(k, dtype=np.int64)
        self._before = np.zeros((k, rows))
        self._after = np.zeros((k, rows))
        self._n_after: IntArray = np.full(k, -1, dtype=np.int64)
        self._since: IntArray = np.zeros(k, dtype=np.int64)
        self._rows_seen = 0
        self._n_tested = 0

    @property
    def n_tested(self) -> int:
        """Suspicions of all columns that stage 2 has decided on, confirmed or not."""
        return self._n_tested

    def update(self, batch: Array, /) -> Sequence[Alarm]:
        """Take rows, shape (n, k); return the confirmed alarms, in row order.

        Raises
        ------
        ValueError
            If the batch does not have k columns; names both shapes.
        """
        rows = as_rows(batch, self.chart.n_columns, self.name)
        suspected = self.chart.errors(rows) > self.chart.width
        gaps: IntArray = np.zeros(rows.shape, dtype=np.int64)
        lengths: IntArray = np.zeros(rows.shape, dtype=np.int64)
        _verify(
            rows,
            suspected,
            self._rows_seen,
            self._last,
            self._n_last,
            self._before,
            self._after,
            self._n_after,
            self._since,
            gaps,
            lengths,
        )
        self._rows_seen += len(rows)
        self._n_tested += int(np.count_nonzero(lengths))
        alarms = []
        for row in np.flatnonzero((gaps >= self._needed).any(axis=1)).tolist():
            order = np.argsort(-gaps[row], kind="stable")
            alarms.append(
                Alarm(
                    detector=self.name,
                    factor=self.factor,
                    row=row,
                    statistic=float(gaps[row, order[0]] / self._m),
                    threshold=self._needed / self._m,
                    run_length=int(lengths[row, order[0]]),
                    columns=tuple(int(c) for c in order if gaps[row, c] >= self._needed),
                )
            )
        return alarms

    def snapshot(self) -> State:
        """Everything needed to go on: the charts, the last rows and the suspicions."""
        return {
            "chart": self.chart.snapshot(),
            "last": self._last.copy(),
            "n_last": self._n_last.copy(),
            "before": self._before.copy(),
            "after": self._after.copy(),
            "n_after": self._n_after.copy(),
            "since": self._since.copy(),
            "rows_seen": self._rows_seen,
            "n_tested": self._n_tested,
        }

    def restore(self, state: State, /) -> None:
        """Go on from a snapshot of an equally configured detector.

        Raises
        ------
        ValueError
            If the snapshot is of another shape; names both.
        """
        last = np.array(state["last"], dtype=np.float64)
        if last.shape != self._last.shape:
            raise ValueError(
                f"{self.name} keeps rows of shape {self._last.shape}, the snapshot has {last.shape}"
            )
        self.chart.restore(state["chart"])
        self._last = last
        self._n_last = np.array(state["n_last"], dtype=np.int64)
        self._before = np.array(state["before"], dtype=np.float64)
        self._after = np.array(state["after"], dtype=np.float64)
        self._n_after = np.array(state["n_after"], dtype=np.int64)
        self._since = np.array(state["since"], dtype=np.int64)
        self._rows_seen = int(state["rows_seen"])
        self._n_tested = int(state["n_tested"])


def _ks_tail(m: int, height: int) -> float:
    """Chance that two samples of m without ties differ by `height` / m or more (Gnedenko)."""
    total = math.comb(2 * m, m)
    terms = [math.comb(2 * m, m - k * height) for k in range(1, m // height + 1)]
    return 2 * sum(t if i % 2 == 0 else -t for i, t in enumerate(terms)) / total


@njit(cache=True)
def _verify(
    rows: Array,
    suspected: npt.NDArray[np.bool_],
    seen: int,
    last: Array,
    n_last: IntArray,
    before: Array,
    after: Array,
    n_after: IntArray,
    since: IntArray,
    gaps: IntArray,
    lengths: IntArray,
) -> None:
    """Take rows, and write the test's gap (times m) and rows since the suspicion where one ends."""
    n, k = rows.shape
    m = last.shape[1]
    for i in range(n):
        for c in range(k):
            x = rows[i, c]
            if not np.isfinite(x):
                continue
            last[c, n_last[c] % m] = x
            n_last[c] += 1
            if n_after[c] >= 0:
                after[c, n_after[c]] = x
                n_after[c] += 1
                if n_after[c] == m:
                    gaps[i, c] = _gap(before[c], after[c])
                    lengths[i, c] = seen + i + 1 - since[c]
                    n_after[c] = -1
            elif suspected[i, c] and n_last[c] >= m:
                before[c] = last[c]
                n_after[c] = 0
                since[c] = seen + i


@njit(cache=True)
def _gap(before: Array, after: Array) -> int:
    """Kolmogorov-Smirnov distance times m, read where a group of equal values ends."""
    m = before.size
    a, b = np.sort(before), np.sort(after)
    i = j = gap = 0
    while i < m and j < m:
        x = min(a[i], b[j])
        while i < m and a[i] <= x:
            i += 1
        while j < m and b[j] <= x:
            j += 1
        gap = max(gap, abs(i - j))
    return gap
