"""Thresholds for a CUSUM bank from one number: rows between false alarms of the whole bank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from detectors.base import Array, IntArray
from detectors.charts.cusum import SLACKS
from detectors.learners.bootstrap import draw_blocks, whiten_lag_1
from detectors.learners.dependence import bootstrap_block_length
from detectors.learners.moments import CLIP, column_moments, standardised
from detectors.rows import bounded

MIN_ROWS = 50
"""Fewer rows say nothing about tails that are 5,000 rows away."""

SIMULATED_ROWS = 1_000_000
"""Rows simulated in all, within the limits below: a quarter of a second at 60 columns."""

STREAMS = (100, 200)
"""Fewest and most simulated streams. Of 100 streams 63 alarm within the promised run length, which
fixes the run length to 13 %; what the reference itself leaves open is more than that."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a `CusumBank` needs to keep a promised run length.

    Attributes
    ----------
    mean, scale
        Centre and standard deviation of each score column on the reference, shape (k,). A column
        that is constant there has scale 1.
    thresholds
        Limit for each slack, in standard deviations.
    block_length
        Rows per resampled block; 1 where lag 1 explains the reference's autocorrelation.
    """

    mean: Array
    scale: Array
    thresholds: tuple[float, ...]
    block_length: int


def calibrate_cusum(
    scores: npt.ArrayLike, *, arl0: float, slacks: Sequence[float] = SLACKS, seed: int
) -> Calibration:
    r"""Thresholds at which a whole `CusumBank` alarms once in `arl0` rows without a shift.

    Streams are simulated from the reference's own score rows, and the thresholds are those at which
    a share :math:`1 - e^{-1}` of the streams alarms within `arl0` rows, over all columns, both
    sides and all slacks, with an equal part for each slack.

    Parameters
    ----------
    scores
        Score rows of the reference in time order, shape (n, k), n at least 50. Values that are not
        finite mean "nothing seen". Scores of a learned map must be out of fold.
    arl0
        Promised mean number of rows between false alarms of the whole bank.
    slacks
        As for the bank.
    seed
        Of the simulation.

    Returns
    -------
    Calibration
        For `CusumBank(c.mean, c.scale, c.thresholds, slacks=slacks, ...)`.

    Raises
    ------
    ValueError
        If `scores` is not a matrix with at least 50 rows, or `arl0` is below 10.

    Notes
    -----
    *Simulation.* Rows are drawn jointly, so dependence between columns is kept, by a pre-whitened
    circular block bootstrap: each column's lag-1 autoregression is taken out (coefficient corrected
    for its small-sample bias [1]_, 0 where it is not significant), blocks of the residual rows are
    drawn from the reference closed to a circle [2]_, and the autoregression is put back [3]_.
    Without the first step a reference of 2,000 rows with autocorrelation 0.9 gave 0.2 to 0.6 of the
    promised run length, because it holds some ten independent blocks only; with it, 0.7 to 1.0.

    *Block length.* Four times the smallest lag after which the autocorrelations of the residuals
    and of their squares, which show calm and wild times, stay inside
    :math:`\pm 2 \sqrt{\log_{10}(n) / n}` for five lags (the rule of [4]_ for the lag; a longer
    block because excursions of a CUSUM matter and not a variance), from the column where that is
    largest, at most n / 10. Independent rows give 1.

    *Limits.* Where the spread of the rows itself wanders slowly (log standard deviation with
    autocorrelation 0.97), 2,000 rows hold too few calm and wild times: 0.3 to 0.4 of the promise.
    Periodic columns get far more than was promised, at the price of later alarms.

    *Estimated moments.* The bank's own mean and scale come from the n rows of the reference and
    are wrong by chance, which shortens run lengths. So every simulated stream is standardised with
    the moments of another n simulated rows.

    A column that is constant in the reference never alarms in the simulation, and in the bank not
    before it moves; its scale of 1 makes the score's own unit its standard deviation then. Where no
    column varies, the thresholds are those of one standard normal column.

    The cost grows with `arl0` above 20,000 rows.

    References
    ----------
    .. [1] F. H. C. Marriott, J. A. Pope (1954). Bias in the estimation of autocorrelations.
       Biometrika 41, 390-402.
    .. [2] D. N. Politis, J. P. Romano (1992). A circular block-resampling procedure for stationary
       data. In: Exploring the Limits of Bootstrap, 263-270. Wiley.
    .. [3] A. C. Davison, D. V. Hinkley (1997). Bootstrap Methods and their Application, section
       8.2 (post-blackening). Cambridge University Press.
    .. [4] D. N. Politis, H. White (2004). Automatic block-length selection for the dependent
       bootstrap. Econometric Reviews 23, 53-70.

    Examples
    --------
    >>> from detectors.base import Factor
    >>> from detectors.charts.cusum import CusumBank
    >>> rng = np.random.default_rng(2)
    >>> c = calibrate_cusum(rng.normal(size=(2000, 4)), arl0=5000, seed=0)
    >>> bank = CusumBank(c.mean, c.scale, c.thresholds, factor=Factor.COVARIATE)
    >>> len(bank.update(rng.normal(size=(50_000, 4))))  # ten are promised
    9
    """
    x = bounded(np.array(scores, dtype=np.float64))
    if x.ndim != 2 or len(x) < MIN_ROWS:
        raise ValueError(f"scores must be (n, k) with n at least {MIN_ROWS}, got shape {x.shape}")
    if not 10 <= arl0 < math.inf:
        raise ValueError(f"arl0 must be finite and at least 10 rows, got {arl0}")
    rng = np.random.default_rng(seed)
    mean, scale, varies = column_moments(x)
    z = standardised(np.where(np.isfinite(x), x, np.nan))[:, varies]
    if not varies.any():
        z = rng.normal(size=(len(x), 1))
    coefficient, residuals = whiten_lag_1(z)
    states = np.nan_to_num(z)  # what a simulated stream starts after; a NaN would never leave it
    length = bootstrap_block_length(residuals)

    n, horizon = len(x), math.ceil(arl0)
    n_streams = int(np.clip(SIMULATED_ROWS // horizon, *STREAMS))
    peaks = np.empty((n_streams, len(slacks)))
    for i in range(n_streams):
        training = draw_blocks(rng, n, n, length)
        moments = _simulated_moments(training, states[training[0] - 1], residuals, coefficient)
        stream = draw_blocks(rng, n, horizon, length)
        peaks[i] = _simulated_peaks(
            stream, states[stream[0] - 1], residuals, coefficient, *moments, np.array(slacks)
        )
    share = -math.expm1(-horizon / arl0)
    return Calibration(mean, scale, _thresholds(peaks, share), length)


def _thresholds(peaks: Array, share: float) -> tuple[float, ...]:
    """Lowest limits that at most `share` of the streams cross, each slack's as often as another's.

    `peaks` holds each stream's largest sums, shape (streams, slacks).
    """
    ranked = np.sort(peaks, axis=0)
    crossing = [(peaks > limits).any(axis=1).mean() for limits in ranked]
    first = int(np.argmax(np.array(crossing) <= share))
    return tuple(float(limit) for limit in ranked[first])


@njit(cache=True)
def _simulated_moments(
    order: IntArray, state: Array, residuals: Array, coefficient: Array
) -> tuple[Array, Array]:
    """Mean and standard deviation of a simulated training set."""
    k = residuals.shape[1]
    y = state.copy()
    count, total, squares = np.zeros(k), np.zeros(k), np.zeros(k)
    for row in order:
        for c in range(k):
            seen = np.isfinite(residuals[row, c])
            y[c] = coefficient[c] * y[c] + (residuals[row, c] if seen else 0.0)
            value = y[c] if seen else 0.0
            count[c] += 1.0 if seen else 0.0
            total[c] += value
            squares[c] += value * value
    for c in range(k):
        total[c] /= max(count[c], 1.0)
        variance = squares[c] / max(count[c], 1.0) - total[c] * total[c]
        squares[c] = math.sqrt(variance) if variance > 1e-12 else 1.0
    return total, squares


@njit(cache=True)
def _simulated_peaks(
    order: IntArray,
    state: Array,
    residuals: Array,
    coefficient: Array,
    mean: Array,
    scale: Array,
    slacks: Array,
) -> Array:
    """Largest sum that a bank without thresholds reaches in a simulated stream, per slack."""
    k = residuals.shape[1]
    y = state.copy()
    z, weight = np.empty(k), np.empty(k)
    sums = np.zeros((2, slacks.size, k))
    peaks = np.zeros((2, slacks.size, k))
    for row in order:
        for c in range(k):
            seen = np.isfinite(residuals[row, c])
            y[c] = coefficient[c] * y[c] + (residuals[row, c] if seen else 0.0)
            z[c] = min(max((y[c] - mean[c]) / scale[c], -CLIP), CLIP)
            weight[c] = 1.0 if seen else 0.0
        for side in range(2):
            sign = 1.0 - 2.0 * side
            for j in range(slacks.size):
                slack, sums_j, peaks_j = slacks[j], sums[side, j], peaks[side, j]
                for c in range(k):
                    s = max(sums_j[c] + weight[c] * (sign * z[c] - slack), 0.0)
                    sums_j[c] = s
                    peaks_j[c] = max(peaks_j[c], s)
    highest = np.empty(slacks.size)
    for j in range(slacks.size):
        highest[j] = peaks[:, j].max()
    return highest
