"""Multivariate shift-detection EWMA in two stages: a Hotelling test decides on each alarm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy.stats import f as f_distribution

from detectors.base import Alarm, Array, State
from detectors.charts.msd_ewma import MsdEwma
from detectors.rows import as_rows


class TsmsdEwma:
    """MSD-EWMA in two stages: an alarm counts if a Hotelling test on other rows agrees [1]_.

    When the chart alarms at row t, the next m rows are gathered and compared, by a two-sample
    Hotelling T2 in the chart's components, with one of

    - ``"reference"``: the sample that the chart's moments came from. Rows that raised the alarm are
      in neither sample, so the test keeps its level on false alarms, and no late alarm can have
      spoilt the other side;
    - ``"before"``: the m rows up to t, as published. They were picked for looking different, and
      hold rows from after the change.

    Measured on Raza's data sets D3 and D4 (10 columns, all means up by 1; moments of 200
    independent rows; 100 seeds, `benchmarks/tables/raza.py`): "reference" with m = 15 and
    `alpha` = 0.04 missed no shift, confirmed 3.7 and 4.3 % of false stage-1 alarms, and took 19
    rows; "before" with m = 25 and 0.05 missed 27 and 25 %, confirmed 8.3 and 7.8 % of the false
    ones, and took 28 rows.

    Parameters
    ----------
    chart
        Stage 1; taken over.
    n_reference
        Usable rows of the sample that the chart's moments came from.
    rows
        m. For q components m + `n_reference` - q - 1 must be positive, 2 m - q - 1 with "before".
    alpha
        Level of the test, in (0, 1).
    compare
        With what the fresh rows are compared.
    name
        The detector's name in its alarms.

    Raises
    ------
    ValueError
        If there are too few rows for the components, or `alpha` is out of range.

    Notes
    -----
    Alarms come at the last gathered row and carry the test's F statistic. Their run length is the
    chart's at its alarm and the rows since. While rows are gathered further alarms of the chart are
    the same suspicion. The level is exact for normal rows.

    References
    ----------
    .. [1] H. Raza, G. Prasad, Y. Li (2015). EWMA model based shift-detection methods for detecting
       covariate shifts in non-stationary environments. Pattern Recognition 48, 659-669.

    Examples
    --------
    >>> from detectors.base import Factor
    >>> rng = np.random.default_rng(0)
    >>> chart = MsdEwma.fit(rng.normal(size=(500, 5)), factor=Factor.COVARIATE)
    >>> detector = TsmsdEwma(chart, n_reference=500)
    >>> rows = rng.normal(size=(300, 5))
    >>> rows[150:, 2] += 1.5
    >>> alarm = detector.update(rows)[0]
    >>> alarm.row, alarm.run_length, alarm.columns
    (166, 17, (2,))
    """

    def __init__(
        self,
        chart: MsdEwma,
        *,
        n_reference: int,
        rows: int = 15,
        alpha: float = 0.05,
        compare: Literal["reference", "before"] = "reference",
        name: str = "tsmsd_ewma",
    ) -> None:
        if compare not in ("reference", "before"):
            raise ValueError(f"compare must be 'reference' or 'before', got {compare!r}")
        if not 0 < alpha < 1:
            raise ValueError(f"alpha must be in (0, 1), got {alpha}")
        q = chart.n_watched
        other = n_reference if compare == "reference" else rows
        freedom = other + rows - q - 1
        if other < 2 or rows < 2 or freedom < 1:
            raise ValueError(
                f"{other} and {rows} rows are too few to compare {q} components: "
                f"their sum must be at least {q + 2}"
            )
        self.chart = chart
        self.factor = chart.factor
        self.name = name
        self._m = rows
        self._n_other = other
        self._before = compare == "before"
        self._needed = float(f_distribution.isf(alpha, q, freedom))
        # A ring of the last m rows and how many there ever were; the rows before a suspicion, those
        # after it and how many (-1: no suspicion); its row, and the chart's run length there.
        self._last = np.zeros((rows if self._before else 0, q))
        self._n_last = 0
        self._held = np.zeros(self._last.shape)
        self._after = np.zeros((rows, q))
        self._n_after = -1
        self._rows_seen = 0
        self._since = 0
        self._length = 0
        self._columns: list[int] = []
        self._n_tested = 0

    @property
    def n_tested(self) -> int:
        """Suspicions that stage 2 has decided on, confirmed or not."""
        return self._n_tested

    def update(self, batch: Array, /) -> Sequence[Alarm]:
        """Take rows, shape (n, d); return the confirmed alarms, in row order.

        Raises
        ------
        ValueError
            If the batch does not have d columns; names both shapes.
        """
        rows = as_rows(batch, self.chart.n_columns, self.name)
        components = self.chart.components(rows)
        usable = np.asarray(np.isfinite(rows).all(axis=1))
        alarms = []
        start = 0
        while start < len(rows):
            outside = self.chart.advance(rows, start)
            for row in range(start, min(outside + 1, len(rows))):
                if usable[row]:
                    confirmed = self._take(components[row], self._rows_seen)
                    if confirmed is not None:
                        alarms.append(self._alarm(row, confirmed))
                self._rows_seen += 1
            if outside < len(rows) and self._n_after < 0:
                self._suspect()
            start = outside + 1
        return alarms

    def _suspect(self) -> None:
        if self._before and self._n_last < self._m:
            return
        self._held[:] = self._last
        self._n_after = 0
        self._since = self._rows_seen - 1
        self._length = self.chart.rows_since_calm
        self._columns = list(self.chart.moved)

    def _take(self, component: Array, row: int) -> float | None:
        """Take a row; return the test's statistic if it was the last one needed and it rejects."""
        if self._before:
            self._last[self._n_last % self._m] = component
            self._n_last += 1
        if self._n_after < 0:
            return None
        self._after[self._n_after] = component
        self._n_after += 1
        if self._n_after < self._m:
            return None
        self._n_after = -1
        self._n_tested += 1
        self._length += row - self._since
        statistic = self._hotelling()
        return statistic if statistic > self._needed else None

    def _hotelling(self) -> float:
        """F statistic of the gathered rows against the other sample."""
        n, m = self._n_other, self._m
        q = self._after.shape[1]
        if self._before:
            mean, covariance = self._held.mean(axis=0), _covariance(self._held)
        else:  # the components are those in which the reference has these moments
            mean, covariance = np.zeros(q), np.eye(q)
        pooled = ((n - 1) * covariance + (m - 1) * _covariance(self._after)) / (n + m - 2)
        gap = self._after.mean(axis=0) - mean
        # Repeated rows make a singular matrix; least squares leaves their directions out.
        t2 = n * m / (n + m) * float(gap @ np.linalg.lstsq(pooled, gap, rcond=None)[0])
        return t2 * (n + m - q - 1) / (q * (n + m - 2))

    def _alarm(self, row: int, statistic: float) -> Alarm:
        return Alarm(
            detector=self.name,
            factor=self.factor,
            row=row,
            statistic=statistic,
            threshold=self._needed,
            run_length=self._length,
            columns=tuple(self._columns),
        )

    def snapshot(self) -> State:
        """Everything needed to go on: the chart, the last rows and the suspicion."""
        return {
            "chart": self.chart.snapshot(),
            "last": self._last.copy(),
            "n_last": self._n_last,
            "held": self._held.copy(),
            "after": self._after.copy(),
            "n_after": self._n_after,
            "rows_seen": self._rows_seen,
            "since": self._since,
            "length": self._length,
            "columns": list(self._columns),
            "n_tested": self._n_tested,
        }

    def restore(self, state: State, /) -> None:
        """Go on from a snapshot of an equally configured detector.

        Raises
        ------
        ValueError
            If the snapshot is of another shape; names both.
        """
        after = np.array(state["after"], dtype=np.float64)
        if after.shape != self._after.shape:
            raise ValueError(
                f"{self.name} gathers rows of shape {self._after.shape}, "
                f"the snapshot has {after.shape}"
            )
        self.chart.restore(state["chart"])
        self._after = after
        self._last = np.array(state["last"], dtype=np.float64)
        self._held = np.array(state["held"], dtype=np.float64)
        self._n_last = int(state["n_last"])
        self._n_after = int(state["n_after"])
        self._rows_seen = int(state["rows_seen"])
        self._since = int(state["since"])
        self._length = int(state["length"])
        self._columns = [int(c) for c in state["columns"]]
        self._n_tested = int(state["n_tested"])


def _covariance(rows: Array) -> Array:
    centred = rows - rows.mean(axis=0)
    return np.asarray(centred.T @ centred / (len(rows) - 1))
