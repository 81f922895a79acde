"""A test in two grades: a quick comparison where that is enough, and in full where it is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from detectors.base import Array, Evidence

__all__ = ["NO_SHARES", "Tested", "TwoGrades", "goes_on", "in_one", "in_two"]

QUICK_P, QUICK_LEVELS = 0.02, 4.0
"""A quick comparison has the last word if its p-value is above the first, and above so many times
the level: then hardly anything that the full test would have rejected is lost. Of 426 changes of
P(Y|X) on tuning streams that it rejected at the shipped looks, 2 were (0.05 instead: 1)."""

NO_SHARES = np.empty(0)

Tested = tuple[Evidence, Array]
"""Evidence, and each column's share of the change; empty or all 0 where nothing was found."""


@dataclass(frozen=True, slots=True)
class TwoGrades:
    """A test of one factor.

    Attributes
    ----------
    quick
        Gives evidence at a fraction of the cost; None where it cannot say. Evidence without a
        p-value means that the factor cannot be tested.
    full
        The test whose level and power are stated.
    """

    quick: Callable[[], Evidence | None]
    full: Callable[[], Tested]


def in_one(test: TwoGrades, level: float) -> Tested:
    r"""A test, quick if that has the last word.

    The result is a valid p-value if both grades give one, whatever the quick comparison looks at.
    With q the quick p-value, f the full one and c the limit, p is q where q > c, and f elsewhere.
    So p <= t implies f <= t for t <= c, and q <= t for t > c. The quick comparison costs power and
    never level; and little power, as c is several times the level. Early stopping of permutations
    [1]_ is the same thought.

    References
    ----------
    .. [1] J. Besag, P. Clifford (1991). Sequential Monte Carlo p-values. Biometrika 78, 301-304.

    Examples
    --------
    >>> from detectors.base import Factor
    >>> def evidence(p_value):
    ...     return Evidence("a test", Factor.PRIOR, 1.0, p_value, 0.0, 9, 9)
    >>> full = lambda: (evidence(0.001), NO_SHARES)
    >>> [in_one(TwoGrades(lambda: evidence(p), full), 0.005)[0].p_value for p in (0.3, 0.02)]
    [0.3, 0.001]
    """
    found = test.quick()
    return test.full() if found is None or goes_on(found.p_value, level) else (found, NO_SHARES)


def in_two(first: TwoGrades, second: TwoGrades, level: float) -> tuple[Tested, Tested]:
    """Tests of both factors, each as in `in_one`; both in full if one of them rejects.

    What moved may have moved the quick comparison of the other factor with it, either way; and what
    is confirmed should say how large the change of the other factor can be.
    """
    tests = first, second
    found = [in_one(test, level) for test in tests]
    if any(e.p_value is not None and e.p_value <= level for e, _ in found):
        found = [
            own if own[1] is not NO_SHARES or own[0].p_value is None else test.full()
            for own, test in zip(found, tests, strict=True)
        ]
    return found[0], found[1]


def goes_on(p_value: float | None, level: float) -> bool:
    """Whether a quick p-value leaves the question open; None is that it cannot be asked."""
    return p_value is not None and p_value <= max(QUICK_P, QUICK_LEVELS * level)
