from __future__ import annotations

import numpy as np
import pytest

from detectors.martingales.bins import as_bins, bins_of


def test_the_rows_that_set_the_bins_are_not_in_the_bag() -> None:
    scores = np.arange(400.0)[:, None]
    edges, counts = bins_of([scores])
    assert counts.sum() == 300
    assert set(edges[0, 0]) <= set(scores[::4, 0])


def test_bins_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="edges need one value less than counts"):
        as_bins(np.zeros((1, 3)), np.zeros((1, 3)), 2)
    with pytest.raises(ValueError, match="counts must not be negative, got -1"):
        as_bins(np.zeros((1, 1)), np.array([[2, -1]]), 2)
    with pytest.raises(ValueError, match="do not decrease along a row"):
        as_bins(np.array([[1.0, 0.0]]), np.zeros((1, 3)), 2)
