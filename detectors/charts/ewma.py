"""Two-sided EWMA charts over many columns at once."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

from detectors.base import Alarm, Array, Factor, IntArray, State
from detectors.charts.bank import Bank


class EwmaBank(Bank):
    r"""A two-sided EWMA chart per column, with one alarm for the whole bank [1]_, [2]_.

    .. math:: w_t = \lambda z_t + (1 - \lambda) w_{t-1}, \qquad
              \text{alarm if } |w_t| > L \sqrt{\lambda / (2 - \lambda)}

    where z is the column's standardised score. At most one alarm a row: the largest absolute
    average names it, and every average starts again at zero.

    Parameters
    ----------
    mean, scale
        Centre and standard deviation of each column without a shift, shape (k,); `scale` positive.
    weight
        Lambda, the weight of the newest row, in (0, 1].
    width
        L, the limit in standard deviations of the average; positive.
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
    The defaults are those of [2]_, table 3, for a shift of one standard deviation: about 500 rows
    between false alarms of ONE column of normal scores. The limit is the steady-state one. A value
    whose score is not finite means "nothing seen" in that column: its average stays as it is. The
    run length of an alarm counts the rows since the winning average was last on the other side of
    zero, rows where nothing was seen included.

    References
    ----------
    .. [1] S. W. Roberts (1959). Control chart tests based on geometric moving averages.
       Technometrics 1, 239-250.
    .. [2] J. M. Lucas, M. S. Saccucci (1990). Exponentially weighted moving average control
       schemes: properties and enhancements. Technometrics 32, 1-12.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> rows = rng.normal(size=(150, 2))
    >>> rows[100:, 1] -= 1.5
    >>> bank = EwmaBank(np.zeros(2), np.ones(2), factor=Factor.COVARIATE)
    >>> alarm = bank.update(rows)[0]
    >>> alarm.row, alarm.run_length, alarm.columns
    (106, 10, (1,))
    """

    def __init__(
        self,
        mean: npt.ArrayLike,
        scale: npt.ArrayLike,
        *,
        weight: float = 0.1,
        width: float = 2.814,
        factor: Factor,
        name: str = "ewma",
    ) -> None:
        super().__init__(mean, scale, factor=factor, name=name)
        if not 0 < weight <= 1:
            raise ValueError(f"weight must be in (0, 1], got {weight}")
        if not width > 0:
            raise ValueError(f"width must be positive, got {width}")
        self._weight = float(weight)
        self._limit = width * math.sqrt(weight / (2 - weight))
        # Per column: the average, and the row after which it was last zero or changed its sign.
        self._average = np.zeros(self._mean.size)
        self._crossed_at: IntArray = np.zeros(self._mean.size, dtype=np.int64)

    @property
    def statistics(self) -> Array:
        """How near each column is to an alarm, shape (k,): absolute average / limit, from 0."""
        return np.abs(self._average) / self._limit

    def _advance(self, rows: Array, start: int) -> int:
        return _advance(
            rows,
            start,
            self._rows_seen,
            self._mean,
            self._scale,
            self._weight,
            self._limit,
            self._average,
            self._crossed_at,
        )

    def _begin(self) -> None:
        self._average[:] = 0.0
        self._crossed_at[:] = self._rows_seen

    def _alarm(self, row: int) -> Alarm:
        strengths = np.abs(self._average)
        strongest_first = np.argsort(-strengths, kind="stable")
        winner = strongest_first[0]
        return Alarm(
            detector=self.name,
            factor=self.factor,
            row=row,
            statistic=float(strengths[winner]),
            threshold=self._limit,
            run_length=int(self._rows_seen - self._crossed_at[winner]),
            columns=tuple(int(c) for c in strongest_first if strengths[c] > self._limit),
        )

    def snapshot(self) -> State:
        """Everything needed to go on: the averages, when each last crossed zero, the rows seen."""
        return {
            "average": self._average.copy(),
            "crossed_at": self._crossed_at.copy(),
            "rows_seen": self._rows_seen,
        }

    def restore(self, state: State, /) -> None:
        """Go on from a snapshot of an equally configured bank.

        Raises
        ------
        ValueError
            If the snapshot has another number of columns; names both shapes.
        """
        average = np.array(state["average"], dtype=np.float64)
        crossed_at = np.array(state["crossed_at"], dtype=np.int64)
        if average.shape != self._average.shape or crossed_at.shape != self._average.shape:
            raise ValueError(
                f"{self.name} keeps averages of shape {self._average.shape}, "
                f"the snapshot has {average.shape} and {crossed_at.shape}"
            )
        self._average, self._crossed_at = average, crossed_at
        self._rows_seen = int(state["rows_seen"])


@njit(cache=True)
def _advance(
    rows: Array,
    start: int,
    seen: int,
    mean: Array,
    scale: Array,
    weight: float,
    limit: float,
    average: Array,
    crossed_at: IntArray,
) -> int:
    """Take rows from `start` up to the first that alarms; return it, or the number of rows."""
    n, k = rows.shape
    for i in range(start, n):
        seen += 1
        crossed_limit = 0
        for c in range(k):
            z = (rows[i, c] - mean[c]) / scale[c]
            if np.isfinite(z):
                before = average[c]
                now = weight * z + (1.0 - weight) * before
                if now * before < 0.0:
                    crossed_at[c] = seen - 1
                elif now == 0.0:
                    crossed_at[c] = seen
                crossed_limit += abs(now) > limit
                average[c] = now
        if crossed_limit:
            return i
    return n
