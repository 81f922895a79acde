from __future__ import annotations

import numpy as np
import pytest

from detectors.rows import label_column


def test_label_columns_are_checked() -> None:
    rows = np.array([[0.0, 1.0], [0.0, -1.0], [0.0, np.inf], [0.0, 0.0]])
    assert label_column(rows, 2, "x").tolist() == [1, -1, -1, 0]
    with pytest.raises(ValueError, match=r"class codes below 2, got 0\.5 at row 0"):
        label_column(np.array([[0.5]]), 2, "x")
    with pytest.raises(ValueError, match=r"class codes below 2, got 2\.0 at row 1"):
        label_column(np.array([[0.0], [2.0]]), 2, "x")
