"""The limit of a MEWMA chart that keeps a promised run length."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import ncx2

N_CELLS = 120
"""Cells of the Markov chain behind `mewma_limit`: limits are within 0.1 of the tables."""


def mewma_limit(n_columns: int, *, weight: float = 0.1, arl0: float = 200.0) -> float:
    r"""The limit H at which a MEWMA chart with known moments alarms once in `arl0` normal rows.

    The length of the average is a Markov chain [1]_: from length r the next one squared is
    :math:`\lambda^2` times a noncentral chi-square. Its cells give the mean run length, and
    bisection gives the limit.

    Parameters
    ----------
    n_columns
        Columns, or components, of the chart.
    weight
        Lambda, in (0, 1].
    arl0
        Mean number of rows between false alarms, from the average 0; above 1.

    Raises
    ------
    ValueError
        If a value is out of range; names it.

    References
    ----------
    .. [1] G. C. Runger, S. S. Prabhu (1996). A Markov chain model for the multivariate
       exponentially weighted moving averages control chart. JASA 91, 1701-1706.

    Examples
    --------
    >>> round(mewma_limit(10, weight=0.1, arl0=200), 1)  # published: 22.67
    22.7
    """
    if n_columns < 1:
        raise ValueError(f"n_columns must be at least 1, got {n_columns}")
    if not 0 < weight <= 1:
        raise ValueError(f"weight must be in (0, 1], got {weight}")
    if not 1 < arl0 < math.inf:
        raise ValueError(f"arl0 must be finite and above 1, got {arl0}")
    # From below: far above the limit the chain hardly ever leaves, and its equations are singular.
    low, high = 0.0, float(n_columns)
    while _run_length(n_columns, weight, high) < arl0:
        low, high = high, 1.3 * high
    while high - low > 1e-3:
        middle = (low + high) / 2
        shorter = _run_length(n_columns, weight, middle) < arl0
        low, high = (middle, high) if shorter else (low, middle)
    return (low + high) / 2


def _run_length(n_columns: int, weight: float, limit: float) -> float:
    """Mean rows until the average is longer than the limit, for rows with unit covariance."""
    longest = math.sqrt(limit * weight / (2 - weight))
    cell = 2 * longest / (2 * N_CELLS - 1)
    radius = np.arange(N_CELLS) * cell
    edges = ((np.arange(N_CELLS) + 0.5) * cell / weight) ** 2
    noncentrality = ((1 - weight) * radius / weight) ** 2
    below = ncx2.cdf(edges[None, :], n_columns, noncentrality[:, None])
    moves = np.diff(below, axis=1, prepend=0.0)
    return float(np.linalg.solve(np.eye(N_CELLS) - moves, np.ones(N_CELLS))[0])
