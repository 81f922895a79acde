from __future__ import annotations

import json

import numpy as np
import pytest

from detectors.learners.prior import (
    PriorCorrection,
    estimate_prior_bbse,
    estimate_prior_mlls,
    fit_calibration,
    reweight,
)

OLD, NEW = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.3, 0.6])
CENTRES = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])


def _scored(
    seed: int, n: int, prior: np.ndarray, temperature: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Three normal classes and the posterior for the OLD prior, sharpened by 1 / temperature."""
    rng = np.random.default_rng(seed)
    y = rng.choice(3, size=n, p=prior)
    x = CENTRES[y] + rng.normal(size=(n, 2))
    logits = np.log(OLD) - 0.5 * ((x[:, None] - CENTRES[None]) ** 2).sum(-1)
    odds = np.exp(temperature * (logits - logits.max(axis=1, keepdims=True)))
    return odds / odds.sum(axis=1, keepdims=True), y


def test_the_new_prior_is_found_without_labels() -> None:
    errors = [
        np.abs(estimate_prior_mlls(_scored(seed, 1000, NEW)[0], OLD) - NEW).max()
        for seed in range(20)
    ]
    assert np.mean(errors) < 0.03
    assert max(errors) < 0.08


def test_an_unmoved_prior_stays() -> None:
    errors = [
        np.abs(estimate_prior_mlls(_scored(seed, 1000, OLD)[0], OLD) - OLD).max()
        for seed in range(20)
    ]
    assert np.mean(errors) < 0.03


def test_em_climbs_to_the_maximum_of_the_likelihood() -> None:
    scores, _ = _scored(0, 500, NEW)
    found = estimate_prior_mlls(scores, OLD, tolerance=1e-10)

    def likelihood(prior: np.ndarray) -> float:
        return float(np.log(scores @ (prior / OLD)).mean())

    rng = np.random.default_rng(0)
    nearby = np.abs(found + 0.01 * rng.normal(size=(200, 3)))
    assert likelihood(found) >= max(likelihood(p / p.sum()) for p in nearby) - 1e-12


def test_calibration_undoes_a_temperature_and_a_bias() -> None:
    scores, labels = _scored(0, 4000, OLD, temperature=3.0)
    temperature, bias = fit_calibration(scores, labels)
    assert temperature == pytest.approx(3.0, rel=0.1)
    np.testing.assert_allclose(bias, 0.0, atol=0.15)
    tilted = reweight(_scored(1, 4000, OLD)[0], np.ones(3), np.array([4.0, 1.0, 1.0]))
    temperature, bias = fit_calibration(tilted, _scored(1, 4000, OLD)[1])
    assert temperature == pytest.approx(1.0, rel=0.1)
    assert bias[0] - bias[1] == pytest.approx(-np.log(4.0), abs=0.2)


def test_an_over_confident_classifier_is_calibrated_before_the_prior_is_read_off() -> None:
    raw, calibrated = [], []
    for seed in range(10):
        (reference, labels), (recent, _) = (
            _scored(seed, 1000, OLD, 4.0),
            _scored(100 + seed, 1000, NEW, 4.0),
        )
        raw.append(np.abs(estimate_prior_mlls(recent, OLD) - NEW).max())
        found = PriorCorrection.estimate(reference, labels, recent)
        calibrated.append(np.abs(found.target_prior - NEW).max())
    assert np.mean(calibrated) < 0.06
    assert np.mean(calibrated) < 0.7 * np.mean(raw)


def test_correction_gains_accuracy_after_a_prior_shift_and_costs_none_without() -> None:
    for prior, least in ((NEW, 0.03), (OLD, -0.02)):
        gains = []
        for seed in range(5):
            reference, labels = _scored(seed, 1500, OLD, 2.0)
            recent, truth = _scored(100 + seed, 1500, prior, 2.0)
            corrected = PriorCorrection.estimate(reference, labels, recent).apply(recent)
            gains.append(
                np.mean(corrected.argmax(axis=1) == truth) - np.mean(recent.argmax(axis=1) == truth)
            )
        assert np.mean(gains) > least


def test_bbse_finds_the_new_prior_from_predicted_classes() -> None:
    reference, labels = _scored(0, 4000, OLD)
    confusion = np.zeros((3, 3))
    np.add.at(confusion, (reference.argmax(axis=1), labels), 1.0)
    recent, _ = _scored(1, 4000, NEW)
    predicted = np.bincount(recent.argmax(axis=1), minlength=3) / len(recent)
    np.testing.assert_allclose(estimate_prior_bbse(confusion, predicted), NEW, atol=0.05)


def test_bbse_stays_a_distribution_where_the_matrix_cannot_be_inverted() -> None:
    useless = np.full((3, 3), 1.0 / 9.0)
    found = estimate_prior_bbse(useless, np.array([0.8, 0.1, 0.1]))
    np.testing.assert_allclose(found, 1 / 3)
    extreme = estimate_prior_bbse(np.diag([0.9, 0.1]) + 0.02, np.array([0.0, 1.0]))
    assert extreme.sum() == pytest.approx(1.0)
    assert (extreme >= 0).all()


def test_reweight_follows_bayes_and_keeps_rows_summing_to_one() -> None:
    scores, _ = _scored(0, 50, OLD)
    moved = reweight(scores, OLD, NEW)
    np.testing.assert_allclose(moved.sum(axis=1), 1.0)
    np.testing.assert_allclose(reweight(moved, NEW, OLD), scores)
    np.testing.assert_allclose(reweight(scores, OLD, OLD), scores)
    gone = reweight(np.array([[1.0, 0.0]]), np.array([0.5, 0.5]), np.array([0.0, 1.0]))
    np.testing.assert_array_equal(gone, [[0.0, 1.0]])


def test_a_class_that_the_reference_lacks_does_not_break_the_estimate() -> None:
    reference, labels = _scored(0, 300, np.array([0.6, 0.4, 0.0]))
    found = PriorCorrection.estimate(reference, labels, _scored(1, 300, NEW)[0])
    assert np.isfinite(found.apply(reference)).all()
    assert found.target_prior.sum() == pytest.approx(1.0)


def test_certain_scores_stay_finite() -> None:
    certain = np.eye(3)[np.array([0, 1, 2, 2])]
    found = PriorCorrection.estimate(certain, np.array([0, 1, 2, 1]), certain)
    assert np.isfinite(found.apply(certain)).all()


def test_a_restored_correction_is_the_same() -> None:
    reference, labels = _scored(0, 300, OLD)
    correction = PriorCorrection.estimate(reference, labels, _scored(1, 300, NEW)[0])
    state = correction.snapshot()
    plain = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in state.items()}
    for stored in (state, json.loads(json.dumps(plain))):
        restored = PriorCorrection.from_snapshot(stored)
        np.testing.assert_array_equal(restored.apply(reference), correction.apply(reference))
    state["bias"][:] = 9.0
    assert not (correction.bias == 9.0).any()


def test_errors_name_the_value() -> None:
    scores = np.full((4, 2), 0.5)
    with pytest.raises(ValueError, match=r"scores must have shape \(n, K\).*got \(4,\)"):
        fit_calibration(scores[:, 0], np.zeros(4, int))
    with pytest.raises(ValueError, match=r"labels must be 4 integers in \[0, 2\)"):
        fit_calibration(scores, np.array([0, 1, 2, 0]))
    with pytest.raises(ValueError, match="must be finite and not negative"):
        fit_calibration(-scores, np.zeros(4, int))
    with pytest.raises(ValueError, match=r"shape \(n, 3\).*got \(4, 2\)"):
        estimate_prior_mlls(scores, OLD)
    with pytest.raises(ValueError, match="source_prior must be frequencies"):
        estimate_prior_mlls(scores, np.zeros(2))
    with pytest.raises(ValueError, match=r"shape \(2, 2\), got \(3, 3\)"):
        estimate_prior_bbse(np.eye(3), np.array([0.5, 0.5]))


def test_an_estimate_says_that_it_is_by_maximum_likelihood() -> None:
    reference, labels = _scored(100, 1000, OLD)
    found = PriorCorrection.estimate(reference, labels, _scored(101, 1000, NEW)[0])
    assert found.method == "mlls"
    np.testing.assert_allclose(found.weights, found.target_prior / found.source_prior)


def test_where_the_likelihood_does_not_settle_the_predicted_classes_decide() -> None:
    errors = []
    for seed in range(100, 120):
        reference, labels = _scored(seed, 2000, OLD)
        recent, _ = _scored(1000 + seed, 1000, NEW)
        found = PriorCorrection.estimate(reference, labels, recent, max_iterations=3)
        assert found.method == "bbse"
        assert found.target_prior.sum() == pytest.approx(1.0)
        errors.append(np.abs(found.target_prior - NEW).max())
    # Three steps of the maximisation alone are 0.085 off here.
    assert np.mean(errors) < 0.05


def test_where_the_likelihood_gives_all_to_one_class_the_predicted_classes_decide() -> None:
    # Certain of class 2 in every row, whatever the calibration on rows that were no such thing.
    reference, labels = _scored(100, 1000, OLD)
    recent = np.tile([0.15, 0.15, 0.7], (300, 1))
    found = PriorCorrection.estimate(reference, labels, recent)
    assert found.method == "bbse"
    assert np.isfinite(found.target_prior).all()
    assert (found.target_prior >= 0).all()
    assert found.target_prior.argmax() == 2


def test_the_fallback_keeps_a_class_that_the_reference_lacks_possible() -> None:
    reference, labels = _scored(100, 300, np.array([0.6, 0.4, 0.0]))
    recent = _scored(101, 300, NEW)[0]
    found = PriorCorrection.estimate(reference, labels, recent, max_iterations=1)
    assert found.method == "bbse"
    assert np.isfinite(found.apply(recent)).all()
    assert (found.target_prior > 0).all()


def test_a_restored_correction_keeps_its_method_and_beginning() -> None:
    reference, labels = _scored(100, 300, OLD)
    recent = _scored(101, 300, NEW)[0]
    found = PriorCorrection.estimate(reference, labels, recent, max_iterations=1, since_index=41)
    restored = PriorCorrection.from_snapshot(found.snapshot())
    assert (restored.method, restored.since_index) == ("bbse", 41)


def test_recent_scores_of_other_classes_are_refused() -> None:
    reference, labels = _scored(100, 300, OLD)
    with pytest.raises(ValueError, match=r"recent_scores must have shape \(m, 3\).*got \(4, 2\)"):
        PriorCorrection.estimate(reference, labels, np.full((4, 2), 0.5))
