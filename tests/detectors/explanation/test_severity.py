from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from detectors.base import Kind, Problem
from detectors.explanation.severity import Severity, decompose_loss
from detectors.learners.nuisance import quadratic_logistic
from detectors.synthetic import Family, Stream


def _streamed(kind: Kind, seed: int, n: int = 500) -> Severity:
    """Errors of a model that was trained before, on reference and recent rows of a stream."""
    family: Family = "linear" if seed % 2 else "nonlinear"
    n_features = (2, 8, 32)[seed % 3]
    stream = Stream(
        Problem.X_TO_Y, kind, n_features=n_features, family=family, strength="strong", seed=seed
    )
    training = stream.draw(1000, shifted=False)
    windows = [stream.draw(n, shifted=shifted) for shifted in (False, True)]
    (x, loss), (x_new, loss_new) = (
        (rows, (quadratic_logistic(*training, rows, 2).argmax(axis=1) != labels).astype(float))
        for rows, labels in windows
    )
    return decompose_loss(x, loss, x_new, loss_new, seed=seed)


def _line(rng: np.random.Generator, n: int, shift: float, rise: float) -> tuple[np.ndarray, ...]:
    """One column, and a loss that depends on it: its mean at x is x^2 / 4 + rise."""
    x = rng.normal(shift, 1.0, size=(n, 1))
    return x, np.square(x[:, 0]) / 4 + rise + 0.3 * rng.normal(size=n)


def _truth(shift: float, rise: float) -> tuple[float, float, float]:
    """The three parts of `_line`'s change, by numerical integration."""
    x = np.linspace(-8.0, 9.0, 20_001)
    p, q = norm.pdf(x), norm.pdf(x - shift)
    shared = p * q / (p + q)
    before, after, between = (
        float(np.average(np.square(x) / 4, weights=w)) for w in (p, q, shared)
    )
    return between - before, rise, after - between


def test_the_parts_sum_to_the_change_of_the_mean_loss() -> None:
    rng = np.random.default_rng(0)
    (x, loss), (x_new, loss_new) = _line(rng, 120, 0.0, 0.0), _line(rng, 80, 1.0, 0.4)
    found = decompose_loss(x, loss, x_new, loss_new, seed=0)
    assert found.total == found.shared.value + found.concept.value + found.new.value
    assert found.total == pytest.approx(loss_new.mean() - loss.mean(), abs=1e-12)
    assert (found.n_reference, found.n_recent) == (120, 80)


@pytest.mark.statistical
def test_a_covariate_shift_is_not_charged_to_the_concept() -> None:
    covered = 0
    for seed in range(100, 140):
        term = _streamed(Kind.COVARIATE, seed).concept
        covered += term.low <= 0 <= term.high
    assert covered >= 36


@pytest.mark.statistical
def test_a_strong_concept_drift_is_charged_to_the_concept_alone() -> None:
    found, charged = 0, np.zeros(2)
    for seed in range(100, 140):
        severity = _streamed(Kind.CONCEPT, seed, n=1000)
        found += not severity.concept.low <= 0 <= severity.concept.high
        charged += [not t.low <= 0 <= t.high for t in (severity.shared, severity.new)]
    assert found >= 32
    # Nominal 2 of 40; these intervals are narrow, and their coverage is 0.85 rather than 0.95.
    assert (charged <= 9).all(), charged


def test_intervals_cover_the_parts_of_a_known_change() -> None:
    truth = _truth(0.7, 0.2)
    assert truth[2] > 0.1
    covered = np.zeros(3)
    for seed in range(100, 120):
        rng = np.random.default_rng(seed)
        (x, loss), (x_new, loss_new) = _line(rng, 300, 0.0, 0.0), _line(rng, 300, 0.7, 0.2)
        found = decompose_loss(x, loss, x_new, loss_new, seed=seed)
        parts = (found.shared, found.concept, found.new)
        covered += [t.low <= part <= t.high for t, part in zip(parts, truth, strict=True)]
    assert (covered >= 16).all(), covered  # nominal 19 of 20


def test_overlap_and_outside_tell_new_inputs_from_known_ones() -> None:
    rng = np.random.default_rng(0)
    reference = _line(rng, 300, 0.0, 0.0)
    known = decompose_loss(*reference, *_line(rng, 300, 0.0, 0.0), seed=0)
    new = decompose_loss(*reference, *_line(rng, 300, 6.0, 0.0), seed=0)
    assert known.overlap > 0.9
    assert known.outside < 0.06
    assert new.overlap < 0.2
    assert new.outside > 0.9


def test_windows_that_do_not_touch_leave_the_parts_finite() -> None:
    rng = np.random.default_rng(0)
    found = decompose_loss(*_line(rng, 60, 0.0, 0.0), *_line(rng, 60, 100.0, 0.0), seed=0)
    values = [v for t in (found.shared, found.concept, found.new) for v in (t.value, t.low, t.high)]
    assert np.isfinite(values).all()


def test_a_decomposition_repeats_under_its_seed_and_leaves_its_inputs() -> None:
    rng = np.random.default_rng(0)
    windows = (*_line(rng, 60, 0.0, 0.0), *_line(rng, 60, 0.5, 0.0))
    copies = [part.copy() for part in windows]
    assert decompose_loss(*windows, seed=4) == decompose_loss(*windows, seed=4)
    for part, copy in zip(windows, copies, strict=True):
        np.testing.assert_array_equal(part, copy)


def test_a_constant_loss_has_no_parts() -> None:
    rows = np.random.default_rng(0).normal(size=(2, 40, 2))
    found = decompose_loss(rows[0], np.ones(40), rows[1], np.ones(40), seed=0)
    assert found.total == pytest.approx(0.0, abs=1e-12)
    assert found.concept.high == pytest.approx(0.0, abs=1e-9)


def test_wrong_inputs_are_named() -> None:
    rows, loss = np.zeros((40, 2)), np.zeros(40)
    with pytest.raises(ValueError, match=r"windows must have shapes .* \(40, 2\), \(40, 1\)"):
        decompose_loss(rows, loss, rows[:, :1], loss, seed=0)
    with pytest.raises(ValueError, match=r"recent_loss must have shape \(40,\), .* got \(39,\)"):
        decompose_loss(rows, loss, rows, loss[:-1], seed=0)
    with pytest.raises(ValueError, match="each window needs 15 rows, got 14 and 40"):
        decompose_loss(rows[:14], loss[:14], rows, loss, seed=0)
    loss[3] = np.nan
    with pytest.raises(ValueError, match=r"reference_loss\[3\] must be finite, got nan"):
        decompose_loss(rows, loss, rows, np.zeros(40), seed=0)
