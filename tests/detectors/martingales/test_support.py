from __future__ import annotations

import numpy as np

from detectors.martingales.support import Support


def test_the_support_holds_about_98_of_100_rows() -> None:
    rng = np.random.default_rng(3)
    support = Support.fit(rng.normal(size=(2000, 5)), seed=0)
    assert 0.95 < support.holds(rng.normal(size=(4000, 5))).mean() < 0.995
