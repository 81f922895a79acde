"""Two-sided CUSUM charts over many columns at once: the cheap first stage."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from numba import njit

from detectors.base import Alarm, Array, Factor, IntArray, State
from detectors.charts.bank import Bank
from detectors.learners.moments import CLIP

SLACKS = (0.1, 0.35)
"""Half the shifts, in standard deviations, that a column's two charts are best at: 0.2 for slow
drifts and 0.7 for jumps."""


class CusumBank(Bank):
    r"""A two-sided CUSUM per column and slack, with one alarm for the whole bank [1]_.

    For a column's standardised score :math:`z_t` and a slack :math:`\kappa`

    .. math:: S^+_t = \max(0, S^+_{t-1} + z_t - \kappa), \quad
              S^-_t = \max(0, S^-_{t-1} - z_t - \kappa)

    and the bank alarms when any sum exceeds its slack's threshold. At most one alarm a row: the
    largest ratio of sum to threshold names it, and every sum starts again at zero.

    Parameters
    ----------
    mean, scale
        Centre and standard deviation of each column without a shift, shape (k,); `scale` positive.
    thresholds
        Limit of the sums, in standard deviations; one for each slack, positive.
    slacks
        Non-negative; half the shift each chart is tuned for, in standard deviations.
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
    A value that is not finite means "nothing seen" in that column: its sums stay as they are. The
    run length of an alarm counts the rows of the stream since the winning sum was last zero, which
    is the chart's own estimate of the change point, and includes rows where nothing was seen.

    References
    ----------
    .. [1] E. S. Page (1954). Continuous inspection schemes. Biometrika 41, 100-115.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> rows = rng.normal(size=(1000, 3))
    >>> rows[600:, 1] += 1.0
    >>> bank = CusumBank(np.zeros(3), np.ones(3), (60.0, 20.0), factor=Factor.COVARIATE)
    >>> alarm = bank.update(rows)[0]
    >>> alarm.row, alarm.run_length, alarm.columns
    (622, 24, (1,))
    """

    def __init__(
        self,
        mean: npt.ArrayLike,
        scale: npt.ArrayLike,
        thresholds: npt.ArrayLike,
        *,
        slacks: Sequence[float] = SLACKS,
        factor: Factor,
        name: str = "cusum",
    ) -> None:
        super().__init__(mean, scale, factor=factor, name=name)
        self._thresholds = np.array(thresholds, dtype=np.float64)
        self._slacks = np.array(slacks, dtype=np.float64)
        if self._slacks.ndim != 1 or self._thresholds.shape != self._slacks.shape:
            raise ValueError(
                "every slack needs one threshold, "
                f"got shapes {self._slacks.shape} and {self._thresholds.shape}"
            )
        if not (self._slacks >= 0).all():
            raise ValueError(f"slacks must not be negative, got {self._slacks.tolist()}")
        if not (self._thresholds > 0).all():
            raise ValueError(f"thresholds must be positive, got {self._thresholds.tolist()}")
        # [side, slack, column]: the sums, and the row after which each was last zero
        self._sums = np.zeros((2, self._slacks.size, self._mean.size))
        self._zero_at: IntArray = np.zeros(self._sums.shape, dtype=np.int64)

    @property
    def statistics(self) -> Array:
        """How near each column is to an alarm, shape (k,): its largest sum / threshold, from 0."""
        ratios: Array = (self._sums / self._thresholds[:, None]).max(axis=(0, 1))
        return ratios

    def _advance(self, rows: Array, start: int) -> int:
        return _advance(
            rows,
            start,
            self._rows_seen,
            self._mean,
            self._scale,
            self._slacks,
            self._thresholds,
            self._sums,
            self._zero_at,
        )

    def _begin(self) -> None:
        self._sums[:] = 0.0
        self._zero_at[:] = self._rows_seen

    def _alarm(self, row: int) -> Alarm:
        ratios = self._sums / self._thresholds[:, None]
        winner = np.unravel_index(np.argmax(ratios), ratios.shape)
        nearest = ratios.max(axis=(0, 1))
        strongest_first = np.argsort(-nearest, kind="stable")
        return Alarm(
            detector=self.name,
            factor=self.factor,
            row=row,
            statistic=float(self._sums[winner]),
            threshold=float(self._thresholds[winner[1]]),
            run_length=int(self._rows_seen - self._zero_at[winner]),
            columns=tuple(int(c) for c in strongest_first if nearest[c] > 1.0),
        )

    def snapshot(self) -> State:
        """Everything needed to go on: the sums, when each was last zero, and the rows seen."""
        return {
            "sums": self._sums.copy(),
            "zero_at": self._zero_at.copy(),
            "rows_seen": self._rows_seen,
        }

    def restore(self, state: State, /) -> None:
        """Go on from a snapshot of an equally configured bank.

        Raises
        ------
        ValueError
            If the snapshot has another number of slacks or columns; names both shapes.
        """
        sums = np.array(state["sums"], dtype=np.float64)
        zero_at = np.array(state["zero_at"], dtype=np.int64)
        if sums.shape != self._sums.shape or zero_at.shape != self._sums.shape:
            raise ValueError(
                f"{self.name} keeps sums of shape {self._sums.shape}, "
                f"the snapshot has {sums.shape} and {zero_at.shape}"
            )
        self._sums, self._zero_at, self._rows_seen = sums, zero_at, int(state["rows_seen"])


@njit(cache=True)
def _advance(
    rows: Array,
    start: int,
    seen: int,
    mean: Array,
    scale: Array,
    slacks: Array,
    thresholds: Array,
    sums: Array,
    zero_at: IntArray,
) -> int:
    """Take rows from `start` up to the first that alarms; return it, or the number of rows.

    The innermost loops run over columns without a branch, so that they compile to vector code: five
    times faster at 100 columns than a loop over columns outside.
    """
    n, k = rows.shape
    z = np.empty(k)
    for i in range(start, n):
        seen += 1
        for c in range(k):
            z[c] = min(max((rows[i, c] - mean[c]) / scale[c], -CLIP), CLIP)
        crossed = 0
        for side in range(2):
            sign = 1.0 - 2.0 * side
            for j in range(slacks.size):
                slack, threshold = slacks[j], thresholds[j]
                sums_j, zero_at_j = sums[side, j], zero_at[side, j]
                for c in range(k):
                    s = sums_j[c] + (sign * z[c] - slack if np.isfinite(rows[i, c]) else 0.0)
                    s = s if s > 0.0 else 0.0
                    zero_at_j[c] = zero_at_j[c] if s > 0.0 else seen
                    crossed += s > threshold
                    sums_j[c] = s
        if crossed:
            return i
    return n
