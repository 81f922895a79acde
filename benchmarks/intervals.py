"""Intervals for counts: of trials, and of events in time."""

from __future__ import annotations

from scipy import stats

LEVEL = 0.95


def share_interval(count: int, of: int) -> tuple[float, float]:
    """Clopper and Pearson's 95 % interval of a share [1]_.

    References
    ----------
    .. [1] C. J. Clopper, E. S. Pearson (1934). The use of confidence or fiducial limits illustrated
       in the case of the binomial. Biometrika 26, 404-413.
    """
    tail = (1 - LEVEL) / 2
    low = stats.beta.ppf(tail, count, of - count + 1) if count else 0.0
    high = stats.beta.isf(tail, count + 1, of - count) if count < of else 1.0
    return float(low), float(high)


def count_interval(count: int) -> tuple[float, float]:
    """Garwood's exact 95 % interval of a Poisson count's mean [1]_.

    References
    ----------
    .. [1] F. Garwood (1936). Fiducial limits for the Poisson distribution. Biometrika 28, 437-442.
    """
    tail = (1 - LEVEL) / 2
    low = stats.chi2.ppf(tail, 2 * count) / 2 if count else 0.0
    return float(low), float(stats.chi2.isf(tail, 2 * (count + 1)) / 2)


def share_text(count: int, of: int) -> str:
    """A share in per cent with its counts and its interval; a dash where nothing was counted."""
    if not of:
        return "–"
    low, high = share_interval(count, of)
    return f"{100 * count / of:.1f} % ({count} of {of:,}; {100 * low:.1f} to {100 * high:.1f})"
