"""Thresholds for a CUSUM bank from one number: rows between false alarms of the whole bank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from detectors.base import Array, IntArray
from detectors.cusum import CLIP, SLACKS
from detectors.rows import bounded

MIN_ROWS = 50
"""Fewer rows say nothing about tails that are 5,000 rows away."""

SIMULATED_ROWS = 1_000_000
"""Rows simulated in all, within the limits below: a quarter of a second at 60 columns."""

INFLATED = 1.2
"""Variance of a block's mean, in units of that of independent rows, from which a test that permutes
single rows would reject too often."""

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
    >>> from detectors.cusum import CusumBank
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
    mean, scale, varies = _moments(x)
    z = _standardised(np.where(np.isfinite(x), x, np.nan))[:, varies]
    if not varies.any():
        z = rng.normal(size=(len(x), 1))
    coefficient, residuals = _whiten(z)
    states = np.nan_to_num(z)  # what a simulated stream starts after; a NaN would never leave it
    length = _block_length(residuals)

    n, horizon = len(x), math.ceil(arl0)
    n_streams = int(np.clip(SIMULATED_ROWS // horizon, *STREAMS))
    peaks = np.empty((n_streams, len(slacks)))
    for i in range(n_streams):
        training = _draw(rng, n, n, length)
        moments = _simulated_moments(training, states[training[0] - 1], residuals, coefficient)
        stream = _draw(rng, n, horizon, length)
        peaks[i] = _simulated_peaks(
            stream, states[stream[0] - 1], residuals, coefficient, *moments, np.array(slacks)
        )
    share = -math.expm1(-horizon / arl0)
    return Calibration(mean, scale, _thresholds(peaks, share), length)


def _moments(x: Array) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """Mean, standard deviation (1 if constant) and whether it varies, of each column's values."""
    seen = np.isfinite(x)
    count = np.maximum(seen.sum(axis=0), 1)
    mean = np.where(seen, x, 0.0).sum(axis=0) / count
    deviation = np.sqrt((np.where(seen, x - mean, 0.0) ** 2).sum(axis=0) / count)
    # A constant's deviations are rounding errors, not zeros.
    varies = deviation > 1e-12 * np.maximum(np.abs(mean), 1.0)
    return mean, np.where(varies, deviation, 1.0), varies


def _standardised(x: Array) -> Array:
    """Columns with mean 0 and standard deviation 1; 0 where they are constant."""
    mean, scale, _ = _moments(x)
    return (x - mean) / scale


def _significance(n: int) -> float:
    """Autocorrelations of n rows inside +- this are taken for zero (Politis & White 2004)."""
    return 2 * math.sqrt(math.log10(n) / n)


def _whiten(z: Array) -> tuple[Array, Array]:
    """Coefficients (k,) of each column's lag-1 autoregression, and its residuals (n, k)."""
    n = len(z)
    filled = np.where(np.isfinite(z), z, 0.0)
    before = np.roll(filled, 1, axis=0)
    lag_1 = (filled * before).mean(axis=0)
    unbiased = np.clip(lag_1 + (1 + 3 * lag_1) / n, -0.97, 0.97)
    coefficient = np.where(np.abs(lag_1) > _significance(n), unbiased, 0.0)
    return coefficient, np.where(np.isfinite(z), filled - coefficient * before, np.nan)


def dependence_length(rows: Array) -> int:
    r"""Rows that must be permuted together because they depend on each other; 1 if none do.

    Three times the smallest lag after which the autocorrelations stay inside
    :math:`\pm 2 \sqrt{\log_{10}(n) / n}` for five lags [1]_, from the column where that is largest,
    at most n / 16. Blocks of three such lags keep nine tenths of the variance of the mean of an
    autoregression with coefficient 0.5 to 0.9. A column whose blocks' means vary no more than those
    of independent rows, as where rows alternate, asks for none.

    Parameters
    ----------
    rows
        Reference rows in time order, shape (n, d); NaN means missing.

    References
    ----------
    .. [1] D. N. Politis, H. White (2004). Automatic block-length selection for the dependent
       bootstrap. Econometric Reviews 23, 53-70.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(size=(2000, 3))
    >>> wave = np.sin(np.arange(2000) / 20)[:, None]
    >>> dependence_length(noise), dependence_length(noise + wave)
    (1, 84)
    """
    seen = np.where(np.isfinite(rows), bounded(rows), np.nan)
    z = np.nan_to_num(_standardised(seen))
    longest = max(len(rows) // 16, 1)
    lengths = [1]
    for column in z.T:
        length = int(np.clip(3 * _quiet_lag(column[:, None]), 1, longest))
        means = column[: len(column) // length * length].reshape(-1, length).mean(axis=1)
        if length * means.var() > INFLATED:
            lengths.append(length)
    return max(lengths)


def _block_length(residuals: Array) -> int:
    """Rows per block for residuals of shape (n, k): see `calibrate_cusum`."""
    both = np.hstack([residuals, _standardised(residuals**2)])
    return int(np.clip(4 * _quiet_lag(np.where(np.isfinite(both), both, 0.0)), 1, len(both) // 10))


def _quiet_lag(columns: Array) -> int:
    """Smallest lag after which five autocorrelations are near 0, in the worst column; n / 10."""
    n, quiet_lags = len(columns), 5
    longest = n // 10
    spectrum = np.abs(np.fft.rfft(columns, 2 * n, axis=0)) ** 2
    covariance = np.fft.irfft(spectrum, 2 * n, axis=0)[: longest + quiet_lags + 1]
    quiet = np.abs(covariance[1:]) <= _significance(n) * covariance[0]
    ends_here = np.lib.stride_tricks.sliding_window_view(quiet, quiet_lags, axis=0).all(axis=-1)
    return int(np.where(ends_here.any(axis=0), ends_here.argmax(axis=0), longest).max(initial=0))


def _draw(rng: np.random.Generator, n: int, size: int, length: int) -> IntArray:
    """Rows of a reference of n rows, closed to a circle, in blocks: `size` indices."""
    starts = rng.integers(0, n, -(-size // length))
    order: IntArray = ((starts[:, None] + np.arange(length)) % n).ravel()[:size]
    return order


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
