"""When an accuracy counts as worse than it was."""

from __future__ import annotations

WORSE_BY = 0.02
"""Accuracy that may be lost without counting as worse."""


def worse(before: tuple[int, int] | None, now: tuple[int, int] | None) -> bool:
    """Whether an accuracy has fallen by more than `WORSE_BY`, with 95 % confidence.

    Parameters
    ----------
    before, now
        Right predictions and all predictions; None or none of them shows nothing.

    Examples
    --------
    >>> worse((950, 1000), (900, 1000)), worse((95, 100), (90, 100)), worse(None, (1, 2))
    (True, False, False)
    """
    if before is None or now is None or not before[1] or not now[1]:
        return False
    p, q = before[0] / before[1], now[0] / now[1]
    variance = p * (1 - p) / before[1] + q * (1 - q) / now[1]
    return bool(p - q - 1.645 * variance**0.5 > WORSE_BY)
