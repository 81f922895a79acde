"""Raza's shift-detection EWMA charts, for comparison with work that uses them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from numba import njit

from detectors.base import Alarm, Array, Factor, State
from detectors.rows import as_rows, bounded

WEIGHTS = np.arange(0.01, 1.001, 0.01)
"""The smoothing weights that `SdEwma.fit` chooses from, as in the published code."""

FLOOR = 1e-9
"""A chart's variance never falls below this share of its first one: after a sensor that repeated
one value for hours the limits would have no width at all."""


class SdEwma:
    r"""Shift detection by one-step prediction errors of an EWMA, one chart a column [1]_, [2]_.

    .. math:: e_t = x_t - z_{t-1}, \qquad \text{alarm if } |e_t| > L s_{t-1}, \qquad
              z_t = \lambda x_t + (1 - \lambda) z_{t-1}, \qquad
              s^2_t = \theta e_t^2 + (1 - \theta) s^2_{t-1}

    A compatibility detector: it does what was published, and is not a good default. It sees points
    far from their prediction, and its limits follow a shift, so it alarms at the jump or hardly.
    Measured on normal rows of one column, charts fitted to 500 rows, 1,000 seeds:

    ====  ====================  ===========================  =========================
    L     rows between alarms   median delay, shift 0.5 sd   median delay, shift 1 sd
    ====  ====================  ===========================  =========================
    1.96  19                    9                            4
    3     333                   202                          128
    ====  ====================  ===========================  =========================

    With L = 3 only 10 and 28 % alarm within 20 rows of the shift; the others wait for what is
    nothing but the next false alarm. `detectors.charts.ewma.EwmaBank`
    keeps about 500 rows between false alarms and needs 24 and 8 rows for the same shifts.

    Parameters
    ----------
    centre
        What each chart predicts for the first row, shape (k,).
    variance
        First variance of each column's prediction errors, shape (k,); positive.
    weight
        Lambda of each column, shape (k,), in (0, 1].
    smoothing
        Theta, the weight of the newest error in the variance; in (0, 1].
    width
        L; positive. 1.96 and 3 were published.
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
    The chart runs on after an alarm, as published. Each row counts for itself, so the run length of
    an alarm is 1. A value that is not finite means "nothing seen" in that column.

    References
    ----------
    .. [1] H. Raza, G. Prasad, Y. Li (2013). EWMA based two-stage dataset shift-detection in
       non-stationary environments. AIAI 2013, IFIP AICT 412, 625-635.
    .. [2] H. Raza, G. Prasad, Y. Li (2015). EWMA model based shift-detection methods for detecting
       covariate shifts in non-stationary environments. Pattern Recognition 48, 659-669.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> chart = SdEwma.fit(rng.normal(size=(500, 2)), factor=Factor.COVARIATE)
    >>> rows = rng.normal(size=(100, 2))
    >>> rows[60:, 1] += 4.0
    >>> alarm = max(chart.update(rows), key=lambda alarm: alarm.statistic)
    >>> alarm.row, alarm.columns
    (60, (1,))
    """

    def __init__(
        self,
        centre: npt.ArrayLike,
        variance: npt.ArrayLike,
        weight: npt.ArrayLike,
        *,
        smoothing: float = 0.01,
        width: float = 3.0,
        factor: Factor,
        name: str = "sd_ewma",
    ) -> None:
        self._centre = np.array(centre, dtype=np.float64)
        self._variance = np.array(variance, dtype=np.float64)
        self._weight = np.array(weight, dtype=np.float64)
        shapes = {self._centre.shape, self._variance.shape, self._weight.shape}
        if self._centre.ndim != 1 or len(shapes) != 1:
            raise ValueError(
                "centre, variance and weight must be vectors of one length, "
                f"got shapes {self._centre.shape}, {self._variance.shape}, {self._weight.shape}"
            )
        if not np.isfinite(self._centre).all():
            raise ValueError(f"centre must be finite, got {self._centre.tolist()}")
        if not (np.isfinite(self._variance).all() and (self._variance > 0).all()):
            raise ValueError(f"variance must be finite and positive, got {self._variance.tolist()}")
        if not ((self._weight > 0) & (self._weight <= 1)).all():
            raise ValueError(f"weight must be in (0, 1], got {self._weight.tolist()}")
        if not 0 < smoothing <= 1:
            raise ValueError(f"smoothing must be in (0, 1], got {smoothing}")
        if not width > 0:
            raise ValueError(f"width must be positive, got {width}")
        self._smoothing = float(smoothing)
        self.width = float(width)
        self.factor = factor
        self.name = name
        self._floor = FLOOR * self._variance

    @classmethod
    def fit(
        cls,
        sample: npt.ArrayLike,
        *,
        smoothing: float = 0.01,
        width: float = 3.0,
        factor: Factor,
        name: str = "sd_ewma",
    ) -> SdEwma:
        """Charts that go on from a training sample.

        Parameters
        ----------
        sample
            Rows without a shift in time order, shape (n, k), n at least 2. Of each column the
            weight is that of 0.01, 0.02, ..., 1 with the smallest sum of squared one-step errors,
            the first centre is the sample's mean, and the variance is that of the errors. NaN
            means "nothing seen".
        smoothing, width, factor, name
            As of the class.

        Raises
        ------
        ValueError
            If the sample is not a matrix of at least 2 rows.
        """
        x = bounded(np.array(sample, dtype=np.float64))
        if x.ndim != 2 or len(x) < 2:
            raise ValueError(f"sample must be (n, k) with n at least 2, got shape {x.shape}")
        k = x.shape[1]
        centre, variance, weight = np.empty(k), np.empty(k), np.empty(k)
        for c in range(k):
            column = x[np.isfinite(x[:, c]), c]
            squares, last = _one_step_squares(column, WEIGHTS)
            best = int(np.argmin(squares))
            weight[c], centre[c] = WEIGHTS[best], last[best]
            mean_square = squares[best] / max(len(column), 1)
            # A constant column has no error to learn a scale from: its own unit is one then.
            variance[c] = mean_square if mean_square > 1e-24 * max(centre[c] ** 2, 1.0) else 1.0
        return cls(
            centre, variance, weight, smoothing=smoothing, width=width, factor=factor, name=name
        )

    @property
    def n_columns(self) -> int:
        """Columns that the charts take."""
        return self._centre.size

    @property
    def weights(self) -> Array:
        """Lambda of each column, shape (k,)."""
        return self._weight.copy()

    def errors(self, batch: Array) -> Array:
        """Take rows; return their errors in standard deviations of the chart, shape (n, k).

        Never negative; 0 where nothing was seen.

        Raises
        ------
        ValueError
            If the batch does not have k columns; names both shapes.
        """
        rows = as_rows(batch, self.n_columns, self.name)
        ratios = np.zeros(rows.shape)
        _advance(
            rows,
            self._weight,
            self._smoothing,
            self._floor,
            self._centre,
            self._variance,
            ratios,
        )
        return ratios

    def update(self, batch: Array, /) -> Sequence[Alarm]:
        """Take rows, shape (n, k); return the alarms they raised, in row order.

        Raises
        ------
        ValueError
            If the batch does not have k columns; names both shapes.
        """
        ratios = self.errors(batch)
        alarms = []
        for row in np.flatnonzero((ratios > self.width).any(axis=1)).tolist():
            order = np.argsort(-ratios[row], kind="stable")
            alarms.append(
                Alarm(
                    detector=self.name,
                    factor=self.factor,
                    row=row,
                    statistic=float(ratios[row, order[0]]),
                    threshold=self.width,
                    run_length=1,
                    columns=tuple(int(c) for c in order if ratios[row, c] > self.width),
                )
            )
        return alarms

    def snapshot(self) -> State:
        """Everything needed to go on: each column's prediction and variance."""
        return {"centre": self._centre.copy(), "variance": self._variance.copy()}

    def restore(self, state: State, /) -> None:
        """Go on from a snapshot of an equally configured detector.

        Raises
        ------
        ValueError
            If the snapshot has another number of columns; names both shapes.
        """
        centre = np.array(state["centre"], dtype=np.float64)
        variance = np.array(state["variance"], dtype=np.float64)
        if centre.shape != self._centre.shape or variance.shape != self._centre.shape:
            raise ValueError(
                f"{self.name} keeps charts of shape {self._centre.shape}, "
                f"the snapshot has {centre.shape} and {variance.shape}"
            )
        self._centre, self._variance = centre, variance


def _one_step_squares(column: Array, weights: Array) -> tuple[Array, Array]:
    """Sum of squared one-step errors, and the last average, for each weight; starts at the mean."""
    z = np.full(weights.size, column.mean() if column.size else 0.0)
    squares = np.zeros(weights.size)
    for x in column:
        error = x - z
        squares += error * error
        z += weights * error
    return squares, z


@njit(cache=True)
def _advance(
    rows: Array,
    weight: Array,
    smoothing: float,
    floor: Array,
    centre: Array,
    variance: Array,
    ratios: Array,
) -> None:
    """Take rows and write their errors over the chart's standard deviation."""
    n, k = rows.shape
    for i in range(n):
        for c in range(k):
            x = rows[i, c]
            if np.isfinite(x):
                error = x - centre[c]
                ratios[i, c] = abs(error) / math.sqrt(variance[c])
                centre[c] += weight[c] * error
                variance[c] = max(
                    smoothing * error * error + (1.0 - smoothing) * variance[c], floor[c]
                )
