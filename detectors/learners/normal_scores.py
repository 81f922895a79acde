"""Features as normal scores: one unit for all of them, whatever their tails and ties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from scipy.special import ndtri

from detectors.base import Array, IntArray, State
from detectors.learners.kernels import embed
from detectors.rows import as_rows, bounded

LIMIT = 3.0
"""Normal scores are cut to +-LIMIT: outside the reference's range it does not matter how far."""

MAX_KNOTS = 512
"""Values that a feature's map keeps, about; between them it interpolates. A feature with fewer
distinct values is mapped exactly. Half of them are evenly spaced in mass; a value that many rows
share is always one, with its neighbours: between knots its score would depend on which those are,
and would not be that of the maps that scored the reference."""


@dataclass(frozen=True, slots=True)
class NormalScores:
    r"""Each feature through its reference distribution function to a standard normal.

    A value x becomes :math:`\Phi^{-1}(F(x))`, where F is the mid-distribution function of the
    reference, P(X < x) + P(X = x) / 2, so that ties and discrete features are treated alike [1]_.
    Missing values stay NaN; a feature without any value in the reference maps to NaN.

    Attributes
    ----------
    knots, at_knots
        Reference values of all features, one feature after the other, each ascending; and their
        normal scores. A feature without any has one NaN.
    lengths
        How many knots are whose, shape (d,); 0 for a feature without any.
    first, halves
        For the bisection in `detectors.learners.kernels`: where each feature begins, and behind the
        last one ends, shape (d + 1,); how far each step may lead, shape (steps, d).

    References
    ----------
    .. [1] E. Parzen (2004). Quantile probability and statistical data modeling. Statistical Science
       19, 652-662 (the mid-distribution transform).

    Examples
    --------
    >>> skewed = np.random.default_rng(0).lognormal(sigma=2.0, size=(1000, 1))
    >>> scores = NormalScores.fit(skewed)
    >>> scores.transform(np.array([[1.0], [1e9], [np.nan]])).round(1).ravel().tolist()
    [0.1, 3.0, nan]
    """

    knots: Array
    at_knots: Array
    lengths: IntArray
    first: IntArray
    halves: IntArray

    @classmethod
    def fit(cls, reference: Array) -> NormalScores:
        """The map of a reference, shape (n, d); NaN means missing."""
        knots, at_knots = [], []
        for column in bounded(np.asarray(reference, dtype=np.float64)).T:
            values, counts = np.unique(column[~np.isnan(column)], return_counts=True)
            middle = (np.cumsum(counts) - counts / 2) / max(counts.sum(), 1)
            rows = _knots(counts)
            knots.append(values[rows])
            at_knots.append(np.clip(ndtri(middle[rows]), -LIMIT, LIMIT))
        return cls.from_knots(knots, at_knots)

    @classmethod
    def from_knots(cls, knots: Sequence[Array], at_knots: Sequence[Array]) -> NormalScores:
        """The map with these knots of each feature."""
        none = [np.full(int(len(each) == 0), np.nan) for each in knots]
        left = np.array([len(each) + len(filler) for each, filler in zip(knots, none, strict=True)])
        first = np.concatenate([[0], np.cumsum(left)]).astype(np.int64)
        halves = []
        while (left > 1).any():
            halves.append(left // 2)
            left = left - left // 2
        return cls(
            knots=np.concatenate([np.empty(0), *chain(*zip(knots, none, strict=True))]),
            at_knots=np.concatenate([np.empty(0), *chain(*zip(at_knots, none, strict=True))]),
            lengths=np.array([len(each) for each in knots], dtype=np.int64),
            first=first,
            halves=np.array(halves, dtype=np.int64).reshape(len(halves), len(knots)),
        )

    def transform(self, rows: Array) -> Array:
        """Normal scores of rows, shape (n, d) in and out; NaN where the value is missing.

        Raises
        ------
        ValueError
            If the rows do not have d columns.
        """
        x = as_rows(rows, len(self.lengths), "normal scores")
        scores = np.empty(x.shape)
        embed(
            x,
            self.first,
            self.halves,
            self.knots,
            self.at_knots,
            LIMIT,
            np.empty((x.shape[1], 0)),
            np.empty(0),
            0,
            np.array([0, 0, 0, -1]),
            scores,
        )
        return scores

    def snapshot(self) -> State:
        """The map as arrays."""
        known = ~np.isnan(self.knots)
        return {
            "knots": self.knots[known],
            "at_knots": self.at_knots[known],
            "lengths": self.lengths.copy(),
        }

    @classmethod
    def from_snapshot(cls, state: State) -> NormalScores:
        """The map that `snapshot` was taken of."""
        ends = np.cumsum(np.asarray(state["lengths"], dtype=np.int64))
        knots, at_knots = (np.array(state[key], dtype=np.float64) for key in ("knots", "at_knots"))
        return cls.from_knots(np.split(knots, ends)[:-1], np.split(at_knots, ends)[:-1])


def _knots(counts: IntArray) -> IntArray:
    """Which of the distinct values, that occur so often, a map keeps."""
    last = len(counts) - 1
    if last < MAX_KNOTS:
        return np.arange(last + 1)
    upto = np.cumsum(counts)
    even = np.searchsorted(upto, np.linspace(0, upto[-1], MAX_KNOTS // 2))
    often = np.flatnonzero(counts > 2 * upto[-1] / MAX_KNOTS)
    rows = np.concatenate([[0], even, often - 1, often, often + 1, [last]])
    return np.unique(np.clip(rows, 0, last)).astype(np.int64)
