from __future__ import annotations

import numpy as np
import pytest

from detectors.martingales.label_e_detector import LabelEDetector, _project_on_band

ARL0 = 300


def at_least_promised(first: list[int]) -> bool:
    """Within two standard errors; runs are cut at the horizon, which makes them shorter."""
    return bool(np.mean(first) + 2 * np.std(first) / np.sqrt(len(first)) >= ARL0)


def test_the_label_promise_holds_for_frequencies_anywhere_in_the_band() -> None:
    # the worst of the band all the time, wandering from edge to edge, and the middle
    for path in ("edge", "wandering", "middle"):
        first = []
        for seed in range(100, 200):
            rng = np.random.default_rng(seed)
            rows = np.arange(10 * ARL0)
            share = {
                "edge": np.full(len(rows), 0.35),
                "wandering": np.where(rows // 150 % 2, 0.35, 0.25),
                "middle": np.full(len(rows), 0.3),
            }[path]
            labels = (rng.random(len(rows)) < share).astype(np.float64)
            detector = LabelEDetector([0.65, 0.25], [0.75, 0.35], [0.7, 0.3], arl0=ARL0)
            alarms = detector.update(labels[:, None])
            first.append(alarms[0].row + 1 if alarms else len(rows))
        assert at_least_promised(first), path


def test_no_frequencies_of_the_band_make_a_bet_pay_in_the_mean() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        centre, q, pi = rng.dirichlet(np.ones(5), size=3)
        low, high = np.maximum(centre - 0.08, 0.0), np.minimum(centre + 0.08, 1.0)
        nearest = np.empty(5)
        _project_on_band(q, low, high, nearest)
        assert nearest.sum() == pytest.approx(1.0)
        # the worst of the band: all that is free goes where the bet pays most
        worst = low.copy()
        for k in np.argsort(-q / nearest):
            worst[k] += min(high[k] - low[k], 1.0 - worst.sum())
        assert worst @ (q / nearest) <= 1.0 + 1e-6
        inside = np.clip(pi, low, high)
        if abs(inside.sum() - 1.0) < 1e-9:
            assert inside @ (q / nearest) <= 1.0 + 1e-6


def test_with_two_classes_the_bet_is_against_the_nearest_edge() -> None:
    nearest = np.empty(2)
    low, high = np.array([0.65, 0.25]), np.array([0.75, 0.35])
    for q, edge in ((0.6, 0.35), (0.1, 0.25), (0.31, 0.31)):
        _project_on_band(np.array([1 - q, q]), low, high, nearest)
        assert nearest[1] == pytest.approx(edge, abs=1e-9)


def test_the_learned_band_holds_the_truth_for_99_of_100_references() -> None:
    truth = np.array([0.7, 0.25, 0.05])
    missed = 0
    for seed in range(100, 600):
        labels = np.random.default_rng(seed).choice(3, size=300, p=truth)
        d = LabelEDetector.learn(labels, n_classes=3, arl0=100, tolerance=0.0)
        missed += not ((d._low <= truth) & (truth <= d._high)).all()
    assert missed <= 10


def test_a_prior_shift_is_found_and_one_inside_the_tolerance_is_not() -> None:
    delays = []
    for seed in range(100, 130):
        rng = np.random.default_rng(seed)
        detector = LabelEDetector.learn(
            (rng.random(2000) < 0.3).astype(np.int64), n_classes=2, arl0=1e5
        )
        inside = (rng.random(3000) < 0.31).astype(np.float64)
        assert not detector.update(inside[:, None])
        alarms = detector.update((rng.random(1500) < 0.45).astype(np.float64)[:, None])
        delays.append(alarms[0].row + 1 if alarms else 1500)
    assert np.median(delays) < 420


def test_a_class_that_the_reference_lacks_is_a_shift() -> None:
    detector = LabelEDetector.learn(np.arange(2000) % 2, n_classes=3, arl0=1e5)
    labels = np.where(np.arange(400) % 5 == 0, 2, np.arange(400) % 2).astype(np.float64)
    assert detector.update(labels[:, None])


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="no probabilities fit between low"):
        LabelEDetector([0.6, 0.6], [0.7, 0.7], [0.5, 0.5], arl0=10)
    with pytest.raises(ValueError, match="arl0 must be finite and above 1, got inf"):
        LabelEDetector([0.0, 0.0], [1.0, 1.0], [0.5, 0.5], arl0=float("inf"))
    with pytest.raises(ValueError, match="needs labels, got none"):
        LabelEDetector.learn([-1, -1], n_classes=2, arl0=10)
