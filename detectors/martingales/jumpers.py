"""Jumpers: gamblers on conformal p-values, which need not know where a shift will be."""

from __future__ import annotations

import numpy as np
from numba import njit

from detectors.base import Alarm, Array, Factor, IntArray, State
from detectors.martingales.shiryaev_roberts import ShiryaevRoberts, as_arl0, pay
from detectors.restarting import Restarting

JUMPS = np.array([1e-3, 1e-2, 1e-1, 1.0])
"""Shares of the capital that change their bet at each row: from a lasting shift to one that is
somewhere else at every row. The jumpers are averaged, so none needs to be chosen."""

N_BETS = 5
"""No bet, two on the level of the p-values and two on their spread."""


class Jumpers(Restarting):
    """Shiryaev-Roberts sums of jumpers that bet on conformal p-values, group by group.

    Subclasses say what the groups are: `detectors.martingales.conformal`,
    `detectors.martingales.mondrian`.

    Parameters
    ----------
    edges
        Inner edges of the bins of each group's scores, shape (groups, k, b - 1).
    counts
        The calibration bag of each group, shape (groups, k, b).
    arl0
        The promise; above 1.
    factor, name
        As of `Restarting`.
    seed
        Breaks ties.

    Raises
    ------
    ValueError
        If `arl0` is out of range.
    """

    def __init__(
        self, edges: Array, counts: IntArray, *, arl0: float, factor: Factor, name: str, seed: int
    ) -> None:
        super().__init__(factor=factor, name=name)
        n_columns = counts.shape[1]
        # Several columns: the union bound of `ConformalShiryaevRoberts`.
        self.threshold = as_arl0(arl0) * (1.0 if n_columns == 1 else 2.0 * n_columns)
        self._edges = np.ascontiguousarray(edges)
        self._bag = np.ascontiguousarray(counts)
        self._seed = np.uint64(seed)
        self._counts = self._bag.copy()
        # [group, column, jumper, bet]: shares of the capital
        self._capital = np.empty((*counts.shape[:2], len(JUMPS), N_BETS))
        self._bets = ShiryaevRoberts((n_columns, len(JUMPS)))
        self._drawn = 0
        self._begin()

    def _begin(self) -> None:
        """As before the first row, but for the random numbers and the rows that were seen."""
        self._counts[:] = self._bag
        self._capital[:] = 1.0 / N_BETS
        self._bets.begin(self._rows_seen)

    @property
    def statistics(self) -> Array:
        """How near each column is to an alarm, shape (k,): its sum / threshold, from 0."""
        return self._bets.sums.mean(axis=1) / self.threshold

    def _take(self, scores: Array, groups: IntArray) -> list[Alarm]:
        return self._follow(len(scores), lambda start: self._advance(scores, groups, start))

    def _advance(self, scores: Array, groups: IntArray, start: int) -> int:
        row, self._drawn = _advance(
            scores,
            groups,
            start,
            self._rows_seen,
            self._edges,
            self._counts,
            self._capital,
            self._bets.sums,
            self._bets.logs,
            self._bets.zero_at,
            self.threshold,
            self._seed,
            self._drawn,
        )
        return row

    def _alarm(self, row: int) -> Alarm:
        strengths = self._bets.sums.mean(axis=1)
        order = np.argsort(-strengths, kind="stable")
        winner = int(order[0])
        return Alarm(
            detector=self.name,
            factor=self.factor,
            row=row,
            statistic=float(strengths[winner]),
            threshold=self.threshold,
            run_length=self._bets.run_length(self._rows_seen, winner),
            columns=tuple(int(c) for c in order if strengths[c] >= self.threshold),
        )

    def snapshot(self) -> State:
        """Everything needed to go on: the bags, the capital, the sums and the random state."""
        return {
            "counts": self._counts.copy(),
            "capital": self._capital.copy(),
            **self._bets.snapshot(),
            "drawn": self._drawn,
            "rows_seen": self._rows_seen,
        }

    def restore(self, state: State, /) -> None:
        """Go on from a snapshot of an equally configured detector.

        Raises
        ------
        ValueError
            If the snapshot's bags have another shape; names both.
        """
        counts = np.array(state["counts"], dtype=np.int64)
        if counts.shape != self._counts.shape:
            raise ValueError(
                f"{self.name} keeps bags of shape {self._counts.shape}, "
                f"the snapshot has {counts.shape}"
            )
        self._counts = counts
        self._capital = np.array(state["capital"], dtype=np.float64)
        self._bets.restore(state)
        self._drawn, self._rows_seen = int(state["drawn"]), int(state["rows_seen"])


@njit(cache=True)
def _uniform(seed: np.uint64, number: int) -> float:
    """The `number`-th of a stream of random numbers in [0, 1): SplitMix64, which has no state."""
    x = seed * np.uint64(0xD1342543DE82EF95) + np.uint64(number) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    return float(x >> np.uint64(11)) / 9007199254740992.0


@njit(cache=True)
def _advance(
    scores: Array,
    groups: IntArray,
    start: int,
    seen: int,
    edges: Array,
    counts: IntArray,
    capital: Array,
    sums: Array,
    logs: Array,
    zero_at: IntArray,
    threshold: float,
    seed: np.uint64,
    drawn: int,
) -> tuple[int, int]:
    """Take rows up to the first that alarms: (it or their number, random numbers drawn)."""
    n, k = scores.shape
    factors = np.empty(N_BETS)
    for i in range(start, n):
        seen += 1
        g = groups[i]
        if g < 0:
            continue
        crossed = False
        for c in range(k):
            x = scores[i, c]
            if not np.isfinite(x):
                continue
            b = np.searchsorted(edges[g, c], x)
            bag = counts[g, c]
            above = total = 0
            for j in range(bag.size):
                total += bag[j]
                above += bag[j] if j > b else 0
            drawn += 1
            p = (above + _uniform(seed, drawn) * (bag[b] + 1)) / (total + 1)
            bag[b] += 1
            level, spread = 2.0 * p - 1.0, 6.0 * (p - 0.5) * (p - 0.5) - 0.5
            factors[0] = 1.0
            factors[1], factors[2] = 1.0 + level, 1.0 - level
            factors[3], factors[4] = 1.0 + spread, 1.0 - spread
            mean = 0.0
            for j in range(sums.shape[1]):
                shares = capital[g, c, j]
                e = 0.0
                for bet in range(N_BETS):
                    # Jump first, so that the bets are made before the p-value is known.
                    shares[bet] += JUMPS[j] * (1.0 / N_BETS - shares[bet])
                    shares[bet] *= factors[bet]
                    e += shares[bet]
                for bet in range(N_BETS):
                    shares[bet] /= e
                pay(sums[c], logs[c], zero_at[c], j, e, seen)
                mean += sums[c, j]
            crossed |= mean / sums.shape[1] >= threshold
        if crossed:
            return i, drawn
    return n, drawn
