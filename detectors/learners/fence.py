"""Values far beyond all that a reference holds: drawn in, so that no sum of them overflows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detectors.base import Array, State

__all__ = ["FAR", "Fence"]

SPREADS = 1000.0
"""Spreads from the median at which the fence stands. Log-normal rows whose logarithm has a standard
deviation of 2 go beyond in one of 50,000, and what is beyond keeps its order; a placeholder such as
the largest number that a float can be stands behind any fence."""

FAR = 2.0**100
"""Where the fence stands at the latest, 1e30: the squares of what is drawn in are finite, and
single precision can hold it. A 64-bit integer is far inside."""


@dataclass(frozen=True, slots=True)
class Fence:
    r"""Limits of each column, learned from a reference; what is beyond them is drawn in.

    A value x of a column with the median m and the limit L becomes

    .. math:: m \pm \left(L + \frac{L}{1000} \ln \frac{|x - m|}{L}\right)
              \quad \text{where } |x - m| > L

    so that its order stays and no other value changes. L is 1,000 spreads, and 2**100 at most. The
    spread is the larger one of the interquartile range and the median distance from m of the values
    that differ from it: the first is not moved by a quarter of wild values, the second is there
    where most values are equal. Where no value differs L is 2**100, as there is nothing to compare
    with.

    Attributes
    ----------
    centre, limit
        m and L of each column, shape (d,).

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(500, 1))
    >>> fence = Fence.fit(x)
    >>> bool((fence(x) == x).all())
    True
    >>> wild = np.array([[1.7976931348623157e308], [np.nan]])
    >>> fence(wild).round(-1).ravel().tolist(), fence.beyond(wild).ravel().tolist()
    ([2360.0, nan], [True, False])
    >>> f"{fence.undrawn(fence(wild))[0, 0]:.6g}"
    '1.79769e+308'
    """

    centre: Array
    limit: Array

    @classmethod
    def fit(cls, reference: Array) -> Fence:
        """The limits of a reference's columns, shape (n, d); what is not finite is not there."""
        columns = np.asarray(reference, dtype=np.float64).T
        found = [_limits(column[np.isfinite(column)]) for column in columns]
        centre, limit = np.array(found, dtype=np.float64).reshape(-1, 2).T
        return cls(centre.copy(), limit.copy())

    def __call__(self, rows: Array) -> Array:
        """Rows of shape (n, d) with what is beyond drawn in; the input where nothing is.

        What is not a number stays so.
        """
        far = self.beyond(rows)
        if not far.any():
            return rows
        row, column = np.nonzero(far)
        x, m, limit = rows[row, column], self.centre[column], self.limit[column]
        drawn = limit + limit / SPREADS * (np.log(np.abs(x - m)) - np.log(limit))
        out = rows.copy()
        out[row, column] = m + np.where(x < m, -drawn, drawn)
        return out

    def beyond(self, rows: Array) -> npt.NDArray[np.bool_]:
        """Which values of rows (n, d) are outside, drawn in or not, shape (n, d)."""
        # Neither difference overflows: the centre is at most `FAR`.
        return np.asarray(np.abs(rows - self.centre) > self.limit)

    def undrawn(self, rows: Array) -> Array:
        """Rows (n, d) as they were before they were drawn in, but for rounding."""
        far = self.beyond(rows)
        row, column = np.nonzero(far)
        x, m, limit = rows[row, column], self.centre[column], self.limit[column]
        logs = np.log(limit) + (np.abs(x - m) - limit) / (limit / SPREADS)
        size = np.exp(np.minimum(logs, np.log(np.finfo(np.float64).max)))
        out = rows.copy()
        out[row, column] = m + np.where(x < m, -size, size)
        return out

    def snapshot(self) -> State:
        """The limits as arrays."""
        return {"centre": self.centre.copy(), "limit": self.limit.copy()}

    @classmethod
    def from_snapshot(cls, state: State) -> Fence:
        """The fence that `snapshot` was taken of."""
        return cls(*(np.array(state[name], dtype=np.float64) for name in ("centre", "limit")))


def _limits(values: Array) -> tuple[float, float]:
    """Centre and limit of a column's values."""
    if not values.size:
        return 0.0, FAR
    # Actual values, cut far beyond `FAR`: the mean of two, and their difference, might overflow.
    values = np.clip(values, -1e300, 1e300)
    low, centre, high = np.quantile(values, [0.25, 0.5, 0.75], method="lower")
    if abs(centre) > FAR:
        return 0.0, FAR
    distances = np.abs(values - centre)
    others = distances[distances > 0]
    if not others.size:
        return float(centre), FAR
    spread = max(high - low, np.quantile(others, 0.5, method="lower"))
    return float(centre), float(SPREADS * min(spread, FAR / SPREADS))
