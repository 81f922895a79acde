"""Multivariate shift-detection EWMA: a MEWMA chart over columns or components."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from numba import njit

from detectors.base import Alarm, Array, Factor, State
from detectors.charts.mewma_limit import mewma_limit
from detectors.rows import as_rows, bounded

COLUMN_WIDTH = 3.0
"""An alarm names the columns whose own average is this many standard deviations off."""


class MsdEwma:
    r"""A MEWMA chart over all columns, or over their leading principal components [1]_, [2]_.

    .. math:: z_i = \lambda (x_i - \mu) + (1 - \lambda) z_{i-1}, \qquad
              T^2_i = z_i' S^{-1} z_i / c_i, \qquad
              c_i = \frac{\lambda}{2 - \lambda} (1 - (1 - \lambda)^{2i}),
              \qquad \text{alarm if } T^2_i > H

    Parameters
    ----------
    mean, covariance
        Moments without a shift, shapes (d,) and (d, d).
    weight
        Lambda, in (0, 1].
    limit
        H, positive; see `mewma_limit`. 22.67 was published for 10 columns, 10.58 for 2 components.
    n_components
        Leading principal components to watch; all by default. Directions without variance are
        never watched.
    factor
        The factor that the columns watch.
    name
        The detector's name in its alarms.

    Raises
    ------
    ValueError
        If shapes differ or a value is out of range; names the parameter and the value.

    Notes
    -----
    The limit is that of a chart that knows its moments. Estimated ones shorten run lengths: of the
    200 rows promised for 10 columns by H = 22.67 there were 41, 82, 133, 155 and 177 with moments
    of 100, 200, 500, 1,000 and 5,000 normal rows (50 seeds). A chart that is judged on the rows
    that its moments came from hides this: its false alarms are far too few.

    As published the chart runs on after an alarm, and alarms at every row that it is outside. The
    run length counts the rows since the statistic was last at or below its mean without a shift. A
    row with a value that is not finite means "nothing seen" and is skipped.

    References
    ----------
    .. [1] C. A. Lowry, W. H. Woodall, C. W. Champ, S. E. Rigdon (1992). A multivariate
       exponentially weighted moving average control chart. Technometrics 34, 46-53.
    .. [2] H. Raza, G. Prasad, Y. Li (2015). EWMA model based shift-detection methods for detecting
       covariate shifts in non-stationary environments. Pattern Recognition 48, 659-669.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> chart = MsdEwma.fit(rng.normal(size=(2000, 5)), arl0=5000, factor=Factor.COVARIATE)
    >>> rows = rng.normal(size=(200, 5))
    >>> rows[100:, 2] += 1.5
    >>> alarm = chart.update(rows)[0]
    >>> alarm.row, alarm.columns
    (112, (2,))
    """

    def __init__(
        self,
        mean: npt.ArrayLike,
        covariance: npt.ArrayLike,
        *,
        weight: float = 0.1,
        limit: float,
        n_components: int | None = None,
        factor: Factor,
        name: str = "msd_ewma",
    ) -> None:
        self._mean = np.array(mean, dtype=np.float64)
        covariance = np.array(covariance, dtype=np.float64)
        d = self._mean.size
        if self._mean.ndim != 1 or covariance.shape != (d, d):
            raise ValueError(
                "mean and covariance must have shapes (d,) and (d, d), "
                f"got {self._mean.shape} and {covariance.shape}"
            )
        if not (np.isfinite(self._mean).all() and np.isfinite(covariance).all()):
            raise ValueError("mean and covariance must be finite, got values that are not")
        if not 0 < weight <= 1:
            raise ValueError(f"weight must be in (0, 1], got {weight}")
        if not limit > 0:
            raise ValueError(f"limit must be positive, got {limit}")
        self.factor = factor
        self.name = name
        self.limit = float(limit)
        self._weight = float(weight)
        # (d, q): what makes uncorrelated components of variance 1 of the columns
        self._whitening = _whitening(covariance, n_components)
        self._scale = np.sqrt(np.maximum(np.diag(covariance), 0.0))
        self._average = np.zeros(d)
        self._n_averaged = 0
        self._rows_seen = 0
        self._calm_at = 0

    @classmethod
    def fit(
        cls,
        sample: npt.ArrayLike,
        *,
        weight: float = 0.1,
        limit: float | None = None,
        arl0: float = 200.0,
        n_components: int | None = None,
        factor: Factor,
        name: str = "msd_ewma",
    ) -> MsdEwma:
        """A chart with the moments of a sample.

        Parameters
        ----------
        sample
            Rows without a shift, shape (n, d); those with a value that is not finite are left out.
        limit
            As of the class; by default that of `mewma_limit` for `arl0`.
        arl0
            Mean number of rows between false alarms if the sample's moments were exact.
        weight, n_components, factor, name
            As of the class.

        Raises
        ------
        ValueError
            If the sample has fewer than 2 usable rows.
        """
        x = bounded(np.array(sample, dtype=np.float64))
        if x.ndim != 2 or np.isfinite(x).all(axis=1).sum() < 2:
            raise ValueError(f"sample must be (n, d) with 2 usable rows, got shape {x.shape}")
        x = x[np.isfinite(x).all(axis=1)]
        covariance = np.cov(x, rowvar=False).reshape(x.shape[1], x.shape[1])
        if limit is None:
            rank = _whitening(covariance, n_components).shape[1]
            limit = mewma_limit(rank, weight=weight, arl0=arl0)
        return cls(
            x.mean(axis=0),
            covariance,
            weight=weight,
            limit=limit,
            n_components=n_components,
            factor=factor,
            name=name,
        )

    @property
    def n_columns(self) -> int:
        """Columns that the chart takes."""
        return self._mean.size

    @property
    def n_watched(self) -> int:
        """Components that the chart watches."""
        return self._whitening.shape[1]

    def components(self, rows: Array) -> Array:
        """Rows (n, d) as the components that the chart watches, (n, q): mean 0, covariance 1."""
        out = np.empty((len(rows), self.n_watched))
        _project(rows, self._mean, self._whitening, out)
        return out

    def advance(self, rows: Array, start: int) -> int:
        """Take rows from `start` up to the first outside the limit; return it, or their number."""
        row, self._n_averaged, self._rows_seen, self._calm_at = _advance(
            rows,
            start,
            self._mean,
            self._whitening,
            self._weight,
            self.limit,
            self._average,
            self._n_averaged,
            self._rows_seen,
            self._calm_at,
        )
        return row

    @property
    def rows_since_calm(self) -> int:
        """Rows since the statistic was last at or below its mean without a shift; at least 1."""
        return max(self._rows_seen - self._calm_at, 1)

    @property
    def statistic(self) -> float:
        """T2 after the last row; 0 before the first."""
        if not self._n_averaged:
            return 0.0
        return float(((self._average @ self._whitening) ** 2).sum()) / self._spread()

    @property
    def moved(self) -> tuple[int, ...]:
        """Columns whose own average is far off, strongest first; may be empty."""
        scale = np.where(self._scale > 0, self._scale, np.inf)
        ratios = np.abs(self._average) / (scale * math.sqrt(self._spread()))
        return tuple(int(c) for c in np.argsort(-ratios, kind="stable") if ratios[c] > COLUMN_WIDTH)

    def _spread(self) -> float:
        weight = self._weight
        return weight / (2 - weight) * (1 - (1 - weight) ** (2 * max(self._n_averaged, 1)))

    def update(self, batch: Array, /) -> Sequence[Alarm]:
        """Take rows, shape (n, d); return the alarms they raised, in row order.

        Raises
        ------
        ValueError
            If the batch does not have d columns; names both shapes.
        """
        rows = as_rows(batch, self.n_columns, self.name)
        alarms = []
        row = self.advance(rows, 0)
        while row < len(rows):
            alarms.append(
                Alarm(
                    detector=self.name,
                    factor=self.factor,
                    row=row,
                    statistic=max(self.statistic, self.limit),
                    threshold=self.limit,
                    run_length=self.rows_since_calm,
                    columns=self.moved,
                )
            )
            row = self.advance(rows, row + 1)
        return alarms

    def snapshot(self) -> State:
        """Everything needed to go on: the average and the counts of rows."""
        return {
            "average": self._average.copy(),
            "n_averaged": self._n_averaged,
            "rows_seen": self._rows_seen,
            "calm_at": self._calm_at,
        }

    def restore(self, state: State, /) -> None:
        """Go on from a snapshot of an equally configured chart.

        Raises
        ------
        ValueError
            If the snapshot has another number of columns; names both shapes.
        """
        average = np.array(state["average"], dtype=np.float64)
        if average.shape != self._average.shape:
            raise ValueError(
                f"{self.name} keeps an average of shape {self._average.shape}, "
                f"the snapshot has {average.shape}"
            )
        self._average = average
        self._n_averaged = int(state["n_averaged"])
        self._rows_seen = int(state["rows_seen"])
        self._calm_at = int(state["calm_at"])


def _whitening(covariance: Array, n_components: int | None) -> Array:
    """Leading eigenvectors over the root of their variances, shape (d, q)."""
    variances, axes = np.linalg.eigh(covariance)
    order = np.argsort(-variances, kind="stable")
    rank = int((variances > 1e-10 * max(float(variances.max(initial=0.0)), 1e-300)).sum())
    if n_components is not None and not 1 <= n_components <= len(covariance):
        raise ValueError(
            f"n_components must be from 1 to {len(covariance)} columns, got {n_components}"
        )
    if rank == 0:
        raise ValueError("covariance must have a direction with variance, got none")
    keep = order[: min(rank, n_components or rank)]
    return np.ascontiguousarray(axes[:, keep] / np.sqrt(variances[keep]))


@njit(cache=True)
def _project(rows: Array, mean: Array, whitening: Array, out: Array) -> None:
    """Whitened rows, summed in one order: a matrix product's last digits depend on the batch."""
    n, d = rows.shape
    out[:] = 0.0
    for i in range(n):
        for c in range(d):
            x = rows[i, c] - mean[c]
            for j in range(out.shape[1]):
                out[i, j] += x * whitening[c, j]


@njit(cache=True)
def _advance(
    rows: Array,
    start: int,
    mean: Array,
    whitening: Array,
    weight: float,
    limit: float,
    average: Array,
    n_averaged: int,
    seen: int,
    calm_at: int,
) -> tuple[int, int, int, int]:
    """Take rows up to the first outside: (it or their number, rows averaged, seen, last calm)."""
    n, d = rows.shape
    q = whitening.shape[1]
    component = np.empty(q)
    for i in range(start, n):
        seen += 1
        usable = True
        for c in range(d):
            usable &= np.isfinite(rows[i, c])
        if not usable:
            continue
        n_averaged += 1
        component[:] = 0.0
        for c in range(d):
            average[c] = weight * (rows[i, c] - mean[c]) + (1.0 - weight) * average[c]
            for j in range(q):
                component[j] += average[c] * whitening[c, j]
        t2 = 0.0
        for j in range(q):
            t2 += component[j] * component[j]
        t2 /= weight / (2.0 - weight) * (1.0 - (1.0 - weight) ** (2 * n_averaged))
        if t2 <= q:
            calm_at = seen
        if t2 > limit:
            return i, n_averaged, seen, calm_at
    return n, n_averaged, seen, calm_at
