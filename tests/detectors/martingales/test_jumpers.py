from __future__ import annotations

import numpy as np
from scipy.stats import kstest

from detectors.martingales.jumpers import _uniform


def test_tie_breaks_are_uniform_and_repeatable() -> None:
    draws = np.array([_uniform(np.uint64(7), i) for i in range(20_000)])
    assert kstest(draws, "uniform").pvalue > 0.01
    assert abs(np.corrcoef(draws[1:], draws[:-1])[0, 1]) < 0.03
    assert _uniform(np.uint64(7), 5) == draws[5]
    assert _uniform(np.uint64(8), 5) != draws[5]
