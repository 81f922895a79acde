"""Scales and features of rows stay finite, and constants stay constants."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.learners.features import (
    Dispersion,
    QuadraticMoments,
    Scale,
    principal_axes,
    standardise,
    whitening,
)


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 1e-300, 1e30, 1e300])
@pytest.mark.parametrize("n", [1, 2, 7, 1000])
def test_a_constant_becomes_zero_whatever_its_rounding(value: float, n: int) -> None:
    scale = Scale.fit(np.full((n, 1), value))
    assert scale.factor.tolist() == [0.0]
    assert not scale(np.array([[0.0], [1.0], [value]])).any()


def test_a_scale_fits_into_single_precision() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(100, 4)) * [1.0, 1e-20, 1e-35, 1e-46]
    single = rows.astype(np.float32)
    with np.errstate(over="raise", invalid="raise"):
        found = Scale.fit(rows)(single)
    assert np.isfinite(found).all()
    assert found.std(axis=0).round(3).tolist() == [1.0, 1.0, 0.0, 0.0]


def test_moments_and_dispersion_of_collinear_and_constant_columns_are_finite() -> None:
    """The components of such rows have variances of a rounding."""
    x = np.random.default_rng(0).normal(size=(200, 1))
    rows = standardise(np.hstack([x, 2 * x, -x, np.ones((200, 2)), x + 1e-9]))
    for kind in (np.float32, np.float64):
        with np.errstate(over="raise", invalid="raise"):
            moments = QuadraticMoments.fit(rows)(rows.astype(kind))
            spread = Dispersion.fit(rows)(rows.astype(kind))
        assert np.isfinite(moments).all()
        assert np.isfinite(spread).all()
    assert np.isfinite(whitening(rows)).all()


def test_a_scale_is_of_single_rows() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 3))
    scale = Scale.fit(rows)
    whole = scale(rows)
    np.testing.assert_array_equal(whole, np.vstack([scale(row[None]) for row in rows]))


def test_wide_rows_have_axes_and_narrow_ones_none() -> None:
    rows = standardise(np.random.default_rng(0).normal(size=(90, 80)))
    axes = principal_axes(rows)
    assert axes is not None
    assert axes.shape == (80, 64)
    assert principal_axes(rows[:, :64]) is None
