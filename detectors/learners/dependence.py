"""How far rows depend on their neighbours."""

from __future__ import annotations

import math

import numpy as np

from detectors.base import Array
from detectors.learners.moments import standardised
from detectors.rows import bounded

INFLATED = 1.2
"""Variance of a block's mean, in units of that of independent rows, from which a test that permutes
single rows would reject too often."""


def significance(n: int) -> float:
    """Autocorrelations of n rows inside +- this are taken for zero (Politis & White 2004)."""
    return 2 * math.sqrt(math.log10(n) / n)


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
    z = np.nan_to_num(standardised(seen))
    longest = max(len(rows) // 16, 1)
    lengths = [1]
    for column in z.T:
        length = int(np.clip(3 * quiet_lag(column[:, None]), 1, longest))
        means = column[: len(column) // length * length].reshape(-1, length).mean(axis=1)
        if length * means.var() > INFLATED:
            lengths.append(length)
    return max(lengths)


def bootstrap_block_length(residuals: Array) -> int:
    """Rows per block for residuals of shape (n, k): see `calibrate_cusum`."""
    both = np.hstack([residuals, standardised(residuals**2)])
    return int(np.clip(4 * quiet_lag(np.where(np.isfinite(both), both, 0.0)), 1, len(both) // 10))


def quiet_lag(columns: Array) -> int:
    """Smallest lag after which five autocorrelations are near 0, in the worst column; n / 10."""
    n, quiet_lags = len(columns), 5
    longest = n // 10
    spectrum = np.abs(np.fft.rfft(columns, 2 * n, axis=0)) ** 2
    covariance = np.fft.irfft(spectrum, 2 * n, axis=0)[: longest + quiet_lags + 1]
    quiet = np.abs(covariance[1:]) <= significance(n) * covariance[0]
    ends_here = np.lib.stride_tricks.sliding_window_view(quiet, quiet_lags, axis=0).all(axis=-1)
    return int(np.where(ends_here.any(axis=0), ends_here.argmax(axis=0), longest).max(initial=0))
