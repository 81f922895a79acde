"""Shiryaev-Roberts sums: what turns bets into alarms with a promised run length."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from detectors.base import Array, IntArray, State


class ShiryaevRoberts:
    r"""Sums of what bets pay, and since when each has something to show [1]_.

    .. math:: R_t = e_t (R_{t-1} + 1)

    If no e pays more than 1 in the mean given the rows before, :math:`R_t - t` is a
    supermartingale, and so is the mean of several of them: stopping when it reaches A takes at
    least A rows in the mean.

    Parameters
    ----------
    shape
        Of the bets.

    Attributes
    ----------
    sums
        R of each bet.
    logs
        Each bet's log-CUSUM: the log of what it paid since that was last at most 1.
    zero_at
        The row after which that log was last zero.

    References
    ----------
    .. [1] J. Shin, A. Ramdas, A. Rinaldo (2024). E-detectors: a nonparametric framework for
       sequential change detection. New England Journal of Statistics in Data Science 2, 229-260.

    Examples
    --------
    >>> bets = ShiryaevRoberts((1,))
    >>> for row, e in enumerate([0.5, 0.5, 2.0, 2.0, 2.0]):
    ...     pay(bets.sums, bets.logs, bets.zero_at, 0, e, row + 1)
    >>> bets.sums.tolist(), bets.run_length(5)  # three of five rows paid
    ([20.0], 3)
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.sums: Array = np.zeros(shape)
        self.logs: Array = np.zeros(shape)
        self.zero_at: IntArray = np.zeros(shape, dtype=np.int64)

    def begin(self, seen: int) -> None:
        """Bet anew from the row after the `seen` ones."""
        self.sums[:] = 0.0
        self.logs[:] = 0.0
        self.zero_at[:] = seen

    def run_length(self, seen: int, group: int | None = None) -> int:
        """Rows, at least 1, since the largest sum's bet last had nothing to show.

        `group` looks only at the bets of one index of the first axis.
        """
        part = ... if group is None else group
        winner = int(np.argmax(self.sums[part]))
        return max(int(seen - self.zero_at[part].ravel()[winner]), 1)

    def snapshot(self) -> State:
        """The sums, and since when."""
        return {
            "sums": self.sums.copy(),
            "logs": self.logs.copy(),
            "zero_at": self.zero_at.copy(),
        }

    def restore(self, state: State, /) -> None:
        """Take over a snapshot's sums; it may hold more than them."""
        self.sums = np.array(state["sums"], dtype=np.float64)
        self.logs = np.array(state["logs"], dtype=np.float64)
        self.zero_at = np.array(state["zero_at"], dtype=np.int64)


def as_arl0(arl0: float) -> float:
    """A run length that can be promised.

    Raises
    ------
    ValueError
        If it is not finite and above 1; names it.

    Examples
    --------
    >>> as_arl0(1)
    Traceback (most recent call last):
    ...
    ValueError: arl0 must be finite and above 1, got 1
    """
    if not 1 < arl0 < math.inf:
        raise ValueError(f"arl0 must be finite and above 1, got {arl0}")
    return float(arl0)


# numba's cache looks at the calling file only: after a change here remove detectors/__pycache__.
@njit(cache=True)
def pay(sums: Array, logs: Array, zero_at: IntArray, bet: int, e: float, seen: int) -> None:
    """Bet number `bet` pays e at the row `seen`.

    Called for rows with a bet only: a sum that grows by 1 at every row reaches any threshold by the
    mere passing of rows. Whether there is a bet is known before the row's outcome, so the promise
    holds.
    """
    sums[bet] = min(e * (sums[bet] + 1.0), 1e300)
    logs[bet] += math.log(max(e, 1e-300))
    if logs[bet] <= 0.0:
        logs[bet] = 0.0
        zero_at[bet] = seen
