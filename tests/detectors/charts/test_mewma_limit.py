from __future__ import annotations

import pytest

from detectors.charts.mewma_limit import mewma_limit


@pytest.mark.parametrize(
    ("n_columns", "weight", "arl0", "published"),
    # Prabhu and Runger (1997), table 1; 22.67 is also Raza's
    [(2, 0.1, 200, 8.64), (4, 0.1, 200, 12.73), (10, 0.1, 200, 22.67)],
)
def test_the_limits_are_those_of_the_tables(
    n_columns: int, weight: float, arl0: float, published: float
) -> None:
    assert mewma_limit(n_columns, weight=weight, arl0=arl0) == pytest.approx(published, abs=0.15)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="arl0 must be finite and above 1, got 1"):
        mewma_limit(3, arl0=1)
