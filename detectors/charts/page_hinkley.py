"""Page-Hinkley: sums of deviations from the running mean, against their extremes."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numba import njit

from detectors.base import Array, Factor, IntArray, State
from detectors.charts.columnwise import Columnwise

Mode = Literal["up", "down", "both"]


class PageHinkley(Columnwise):
    r"""The Page-Hinkley test of each column [1]_, with the alarms of River's `PageHinkley` [2]_.

    With the mean :math:`\bar x_t` of all values since the start

    .. math:: U_t = \alpha U_{t-1} + x_t - \bar x_t - \delta, \qquad
              D_t = \alpha D_{t-1} + x_t - \bar x_t + \delta

    a column alarms when :math:`U_t - \min U > \lambda` (a rise) or :math:`\max D - D_t > \lambda`
    (a fall).

    Parameters
    ----------
    n_columns
        k, at least 1.
    min_instances
        No alarm before there are so many values.
    delta
        Half of the smallest change that counts, in the unit of the values.
    threshold
        :math:`\lambda`, in the unit of the values; positive.
    alpha
        What is left of the sums after a value, in (0, 1].
    mode
        `up` for rises only, `down` for falls only.
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
    Alarms are at the rows of River's: the same operations in the same order. A column starts afresh
    after its alarm. As there, the largest D is -1 at the start.

    The run length counts rows since the sum that alarmed was at its extreme, which is the test's
    own estimate of the change; River gives none.

    A value that is not finite means "nothing seen" and is skipped.

    References
    ----------
    .. [1] E. S. Page (1954). Continuous inspection schemes. Biometrika 41, 100-115.
    .. [2] J. Montiel et al. (2021). River: machine learning for streaming data in Python. JMLR 22,
       110 (version 0.26.1).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> rows = rng.normal(size=(1000, 3))
    >>> rows[500:, 1] += 2.0
    >>> bank = PageHinkley(3, delta=0.5, threshold=20.0, factor=Factor.COVARIATE)
    >>> alarm = bank.update(rows)[0]
    >>> alarm.row, alarm.run_length, alarm.columns
    (512, 13, (1,))
    """

    def __init__(
        self,
        n_columns: int,
        *,
        min_instances: int = 30,
        delta: float = 0.005,
        threshold: float = 50.0,
        alpha: float = 0.9999,
        mode: Mode = "both",
        factor: Factor,
        name: str = "page_hinkley",
    ) -> None:
        super().__init__(n_columns, shortest=max(min_instances, 1), factor=factor, name=name)
        if min_instances < 1:
            raise ValueError(f"min_instances must be at least 1, got {min_instances}")
        if not threshold > 0:
            raise ValueError(f"threshold must be positive, got {threshold}")
        if not 0 < alpha <= 1:
            raise ValueError(f"alpha must be in (0, 1], got {alpha}")
        if not np.isfinite(delta):
            raise ValueError(f"delta must be finite, got {delta}")
        if mode not in get_args(Mode):
            raise ValueError(f"mode must be one of {', '.join(get_args(Mode))}, got {mode!r}")
        self._min_instances = float(min_instances)
        self._delta = float(delta)
        self._alpha = float(alpha)
        self._threshold = float(threshold)
        # A sum that nobody asked about never crosses.
        self._limits = (
            np.inf if mode == "down" else self._threshold,
            np.inf if mode == "up" else self._threshold,
        )
        self._rows_seen = 0
        # Of each column, in rows: values, mean, U, its minimum, D, its maximum.
        self._sums = np.zeros((6, n_columns))
        self._sums[3:6:2] = [[np.inf], [-1.0]]
        self._at_rest = self._sums.copy()
        # The row after which U was at its minimum, and D at its maximum.
        self._extreme_at: IntArray = np.zeros((2, n_columns), dtype=np.int64)

    @property
    def statistic(self) -> float:
        """Largest distance of a sum from its extreme as a share of the threshold; 1 is an alarm."""
        _, _, up, low, down, high = self._sums[:, self._sums[0] > 0]
        rise, fall = (up - low) / self._limits[0], (high - down) / self._limits[1]
        return float(max(rise.max(initial=0.0), fall.max(initial=0.0)))

    def _take(self, rows: Array, where: IntArray, strengths: Array) -> int:
        n_found: int = _take(
            rows,
            self._rows_seen,
            self._min_instances,
            self._delta,
            self._alpha,
            *self._limits,
            self._sums,
            self._extreme_at,
            self._at_rest,
            where,
            strengths,
        )
        strengths[:n_found, 1] = self._threshold
        self._rows_seen += len(rows)
        return n_found

    def snapshot(self) -> State:
        """Everything needed to go on: sums, their extremes and where these were, the rows seen."""
        return {
            "sums": self._sums.copy(),
            "extreme_at": self._extreme_at.copy(),
            "rows_seen": self._rows_seen,
        }

    def restore(self, state: State, /) -> None:
        """Go on from a snapshot of an equally configured detector.

        Raises
        ------
        ValueError
            If the snapshot has another number of columns; names both shapes.
        """
        sums = np.array(state["sums"], dtype=np.float64)
        extreme_at = np.array(state["extreme_at"], dtype=np.int64)
        if sums.shape != self._sums.shape or extreme_at.shape != self._extreme_at.shape:
            raise ValueError(
                f"{self.name} keeps sums of shape {self._sums.shape}, "
                f"the snapshot has {sums.shape} and {extreme_at.shape}"
            )
        self._sums, self._extreme_at = sums, extreme_at
        self._rows_seen = int(state["rows_seen"])


@njit(cache=True, error_model="numpy")
def _take(
    rows: Array,
    seen: int,
    min_instances: float,
    delta: float,
    alpha: float,
    rise_limit: float,
    fall_limit: float,
    sums: Array,
    extreme_at: IntArray,
    at_rest: Array,
    where: IntArray,
    strengths: Array,
) -> int:
    """Take rows; note the alarms and return how many there are.

    Row by row, as the loop over columns has no branch and becomes vector code.
    """
    n, k = rows.shape
    count, mean, up, low, down, high = sums
    low_at, high_at = extreme_at
    n_found = 0
    for i in range(n):
        seen += 1
        crossed = 0
        for c in range(k):
            x = rows[i, c]
            known = np.isfinite(x)
            m = count[c] + 1.0
            centre = mean[c] + (1.0 / m) * (x - mean[c])
            gap = x - centre
            u = alpha * up[c] + gap - delta
            d = alpha * down[c] + gap + delta
            lowest = u if u < low[c] else low[c]
            highest = d if d > high[c] else high[c]
            over = (u - lowest > rise_limit) | (highest - d > fall_limit)
            crossed += known & over & (m >= min_instances)
            low_at[c] = seen if known & (u < low[c]) else low_at[c]
            high_at[c] = seen if known & (d > high[c]) else high_at[c]
            count[c] = m if known else count[c]
            mean[c] = centre if known else mean[c]
            up[c] = u if known else up[c]
            down[c] = d if known else down[c]
            low[c] = lowest if known else low[c]
            high[c] = highest if known else high[c]
        if not crossed:
            continue
        for c in range(k):
            rise, fall = up[c] - low[c], high[c] - down[c]
            rises = rise / rise_limit >= fall / fall_limit
            if (
                np.isfinite(rows[i, c])
                and count[c] >= min_instances
                and (rise > rise_limit or fall > fall_limit)
            ):
                where[n_found, 0], where[n_found, 1] = i, c
                where[n_found, 2] = max(seen - (low_at[c] if rises else high_at[c]), 1)
                strengths[n_found, 0] = rise if rises else fall
                n_found += 1
                sums[:, c] = at_rest[:, c]
                extreme_at[:, c] = seen
    return n_found
