"""Compiled loops over rows for the maps that a reference teaches.

Every sum has an order that its row alone decides. That of a matrix product depends on how many rows
it is given, and results would depend on how a stream is cut into batches.

All are in one file, because numba's cache sees that the file of a function changed, and not those
of the functions that it calls. They divide as numpy does: a check for zero before each division
keeps a loop from becoming vector code.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from detectors.base import Array, IntArray

PI_HIGH, PI_LOW = 3.1415926218032837, 3.178650954705639e-08
"""Pi in two parts, the first of 27 bits: its multiples up to 2^26 are exact."""


@njit(inline="always")
def _cosine(angle: float) -> float:
    """Cosine to 3e-16 up to a thousand radians, without a branch, so that loops become vector code.

    The angle is brought into +-pi/2 in two steps (Cody & Waite); there Taylor's polynomial of
    degree 20 is exact up to rounding.
    """
    turns = math.floor(angle * (1.0 / math.pi) + 0.5)
    rest = (angle - turns * PI_HIGH) - turns * PI_LOW
    square = rest * rest
    value = 4.1103176233121648e-19
    value = value * square - 1.5619206968586226e-16
    value = value * square + 4.7794773323873853e-14
    value = value * square - 1.1470745597729725e-11
    value = value * square + 2.0876756987868099e-09
    value = value * square - 2.7557319223985893e-07
    value = value * square + 2.4801587301587302e-05
    value = value * square - 1.3888888888888889e-03
    value = value * square + 4.1666666666666664e-02
    value = value * square - 0.5
    value = value * square + 1.0
    odd = turns - 2.0 * math.floor(0.5 * turns)
    return value * (1.0 - 2.0 * odd)


@njit(inline="always")
def _clipped(value: float, limit: float) -> float:
    """The value cut to +-limit; NaN stays."""
    value = limit if value > limit else value
    return -limit if value < -limit else value


@njit(error_model="numpy")
def _add_product(row: Array, matrix: Array, total: Array) -> None:
    """Add the product of a row (d,) and a matrix (d, m) to `total` (m,).

    Four rows of the matrix a pass, so that the sums are loaded and stored a quarter as often; each
    still grows in the order of the row.
    """
    d, m = matrix.shape
    whole = d // 4 * 4
    for c in range(0, whole, 4):
        x0, x1, x2, x3 = row[c], row[c + 1], row[c + 2], row[c + 3]
        for j in range(m):
            t = total[j] + x0 * matrix[c, j]
            t = t + x1 * matrix[c + 1, j]
            t = t + x2 * matrix[c + 2, j]
            total[j] = t + x3 * matrix[c + 3, j]
    for c in range(whole, d):
        for j in range(m):
            total[j] += row[c] * matrix[c, j]


@njit(error_model="numpy")
def _dot(a: Array, b: Array) -> float:
    """Inner product of two vectors of one length, in four sums side by side."""
    s0 = s1 = s2 = s3 = 0.0
    whole = a.size // 4 * 4
    for c in range(0, whole, 4):
        s0 += a[c] * b[c]
        s1 += a[c + 1] * b[c + 1]
        s2 += a[c + 2] * b[c + 2]
        s3 += a[c + 3] * b[c + 3]
    total = (s0 + s1) + (s2 + s3)
    for c in range(whole, a.size):
        total += a[c] * b[c]
    return total


@njit(cache=True, error_model="numpy")
def embed(
    rows: Array,
    first: IntArray,
    halves: IntArray,
    knots: Array,
    at_knots: Array,
    limit: float,
    matrix: Array,
    phases: Array,
    n_components: int,
    places: IntArray,
    out: Array,
) -> None:
    """Normal scores, components, waves and norms of rows (n, d).

    Parameters
    ----------
    rows
        Shape (n, d); NaN means missing.
    first, halves, knots, at_knots, limit
        Of `NormalScores`.
    matrix, phases
        Directions of the components, then frequencies of the waves, shape (d, p + m); 0 and the
        phases of the waves, shape (p + m,).
    n_components
        p.
    places
        First column in `out` of scores, components, waves and norms; -1 leaves the scores or the
        norms out.
    out
        Shape (n, k).
    """
    n, d = rows.shape
    m = phases.size
    at = np.empty(d, np.int64)
    z, total = np.empty(d), np.empty(m)
    for i in range(n):
        # The bisections of all columns advance together and by arithmetic: alone each step waits
        # for the one before, and half of the branches would be guessed wrong (24 ns against 8).
        for c in range(d):
            at[c] = first[c]
        for step in range(halves.shape[0]):
            for c in range(d):
                half, k = halves[step, c], at[c]
                at[c] = k + (half & -np.int64(knots[k + half] <= rows[i, c]))
        for c in range(d):
            x, k = rows[i, c], at[c]
            if x < knots[k]:
                score = -limit
            elif k + 1 < first[c + 1]:
                rise, width = at_knots[k + 1] - at_knots[k], knots[k + 1] - knots[k]
                score = at_knots[k] + (x - knots[k]) * (rise / width)
                if not abs(score) <= limit:
                    # The slope between neighbours among all floats is infinite.
                    score = at_knots[k] + (x - knots[k]) / width * rise
            elif x > knots[k]:
                score = limit
            else:
                score = at_knots[k] if x == knots[k] else np.nan
            z[c] = score
        if places[0] >= 0:
            for c in range(d):
                out[i, places[0] + c] = z[c]
        for c in range(d):
            z[c] = 0.0 if np.isnan(z[c]) else z[c]
        for j in range(m):
            total[j] = phases[j]
        _add_product(z, matrix, total)
        for j in range(n_components):
            out[i, places[1] + j] = _clipped(total[j], limit)
        for j in range(n_components, m):
            out[i, places[2] + j - n_components] = _cosine(total[j])
        if places[3] >= 0:
            out[i, places[3]] = math.sqrt(_dot(z, z) / d)


@njit(cache=True, error_model="numpy")
def softmax_regression(
    rows: Array,
    mean: Array,
    inverse_scale: Array,
    clip: float,
    frequencies: Array,
    phases: Array,
    weights: Array,
    bias: Array,
    out: Array,
) -> None:
    """Probabilities (n, k) of rows (n, d), by a softmax regression on columns, squares and waves.

    Parameters
    ----------
    rows
        Shape (n, d); a row with a NaN gets NaN.
    mean, inverse_scale, clip
        How columns are standardised and cut, shapes (d,) and a number.
    frequencies, phases
        Of the waves, shapes (d, m) and (m,).
    weights, bias
        Shapes (k, 2 d + m) and (k,).
    out
        Shape (n, k).
    """
    n, d = rows.shape
    m, k = phases.size, bias.size
    features, odds = np.empty(2 * d + m), np.empty(k)
    columns, waves = features[:d], features[2 * d :]
    for i in range(n):
        for c in range(d):
            columns[c] = _clipped((rows[i, c] - mean[c]) * inverse_scale[c], clip)
        for c in range(d):
            features[d + c] = columns[c] * columns[c] - 1.0
        for j in range(m):
            waves[j] = phases[j]
        _add_product(columns, frequencies, waves)
        for j in range(m):
            waves[j] = math.sqrt(2.0) * _cosine(waves[j])
        highest = -np.inf
        for j in range(k):
            odds[j] = bias[j] + _dot(features, weights[j])
            highest = max(highest, odds[j])
        total = 0.0
        for j in range(k):
            odds[j] = math.exp(odds[j] - highest)
            total += odds[j]
        for j in range(k):
            out[i, j] = odds[j] / total
