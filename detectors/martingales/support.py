"""Where a reference is: the rows about which it can say something."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from detectors.base import Array
from detectors.martingales.frozen_model import spread

N_NEAR, N_ANCHORS = 5, 400
"""A row is supported if the 5th nearest of 400 reference rows is as near as for 98 % of them."""

SUPPORTED = 0.98


@dataclass(frozen=True, slots=True)
class Support:
    """Where the reference is: near enough to some of its rows.

    Attributes
    ----------
    centre, scale
        Of the columns, shape (d,).
    anchors
        Standardised reference rows, shape (d, n).
    radius2
        Largest squared distance to the 5th nearest anchor inside the support.

    Examples
    --------
    >>> support = Support.fit(np.random.default_rng(0).normal(size=(500, 2)), seed=0)
    >>> support.holds(np.array([[0.5, -0.5], [6.0, 0.0]])).tolist()
    [True, False]
    """

    centre: Array
    scale: Array
    anchors: Array
    radius2: float

    @classmethod
    def fit(cls, rows: Array, *, seed: int) -> Support:
        """The support of rows (n, d)."""
        centre, scale = rows.mean(axis=0), spread(rows)
        z = np.clip((rows - centre) / scale, -5.0, 5.0)
        chosen = np.random.default_rng([seed, 2]).permutation(len(rows))[:N_ANCHORS]
        anchors = np.ascontiguousarray(z[chosen].T)
        distances = np.empty(len(rows))
        _distances(rows, centre, scale, anchors, distances)
        # The anchors are their own nearest rows, which no new row is.
        others = np.delete(distances, chosen) if len(rows) >= 2 * N_ANCHORS else distances
        return cls(centre, scale, anchors, float(np.quantile(others, SUPPORTED)))

    def holds(self, rows: Array) -> npt.NDArray[np.bool_]:
        """Which of rows (n, d) without missing values are inside, shape (n,)."""
        distances = np.empty(len(rows))
        _distances(np.ascontiguousarray(rows), self.centre, self.scale, self.anchors, distances)
        return np.asarray(distances <= self.radius2)


@njit(cache=True)
def _distances(rows: Array, centre: Array, scale: Array, anchors: Array, out: Array) -> None:
    """Squared distance of each row to its 5th nearest anchor, or the furthest of fewer."""
    d, n = anchors.shape
    distances = np.empty(n)
    nearest = np.empty(min(N_NEAR, n))
    for i in range(rows.shape[0]):
        distances[:] = 0.0
        for c in range(d):
            z = min(max((rows[i, c] - centre[c]) / scale[c], -5.0), 5.0)
            for j in range(n):
                gap = z - anchors[c, j]
                distances[j] += gap * gap
        nearest[:] = np.inf
        for j in range(n):
            if distances[j] < nearest[-1]:
                k = nearest.size - 1
                while k > 0 and nearest[k - 1] > distances[j]:
                    nearest[k] = nearest[k - 1]
                    k -= 1
                nearest[k] = distances[j]
        out[i] = nearest[-1]
