from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest

from detectors.base import Array, IntArray, Kind, Problem
from detectors.martingales.conditional_e_detector import ConditionalEDetector
from detectors.synthetic import Stream

ARL0 = 300
HORIZON = 30 * ARL0


def at_least_promised(first: list[int]) -> bool:
    """Within two standard errors; runs are cut at the horizon, which makes them shorter."""
    return bool(np.mean(first) + 2 * np.std(first) / np.sqrt(len(first)) >= ARL0)


def labelled(rows: Array, labels: IntArray) -> Array:
    return np.column_stack([rows, labels])


def stream(kind: Kind, seed: int) -> Stream:
    family = ("linear", "nonlinear")[seed % 2]
    return Stream(
        Problem.X_TO_Y,
        kind,
        n_features=8,
        family=family,  # type: ignore[arg-type]
        strength="strong",
        seed=seed,
    )


def alarms_after_the_shift(kind: Kind, seed: int, n: int) -> int:
    source = stream(kind, seed)
    detector = ConditionalEDetector.learn(
        *source.draw(2000, shifted=False), n_classes=2, arl0=1e5, seed=seed
    )
    return len(detector.update(labelled(*source.draw(n, shifted=True))))


@pytest.mark.statistical
def test_covariate_shifts_raise_no_alarm() -> None:
    quiet = [not alarms_after_the_shift(Kind.COVARIATE, seed, 3000) for seed in range(100, 120)]
    assert sum(quiet) >= 18


@pytest.mark.statistical
def test_strong_concept_drifts_are_found() -> None:
    found = [alarms_after_the_shift(Kind.CONCEPT, seed, 4000) > 0 for seed in range(100, 120)]
    assert sum(found) >= 16


@pytest.mark.statistical
def test_learned_bands_keep_the_promise_over_many_worlds() -> None:
    n_alarms = 0
    for seed in range(100, 112):
        source = Stream(
            Problem.X_TO_Y,
            Kind.COVARIATE,
            n_features=(2, 8, 16)[seed % 3],
            family="nonlinear" if seed % 2 else "linear",
            strength="strong",
            seed=seed,
        )
        detector = ConditionalEDetector.learn(
            *source.draw(2000, shifted=False), n_classes=2, arl0=1e4, seed=seed
        )
        n_alarms += len(detector.update(labelled(*source.draw(50_000, shifted=True))))
    assert n_alarms <= 60


def test_a_covariate_shift_is_quiet_and_a_concept_drift_is_not() -> None:
    assert not alarms_after_the_shift(Kind.COVARIATE, 120, 3000)
    assert alarms_after_the_shift(Kind.CONCEPT, 121, 2000)


@pytest.fixture(scope="module")
def rule() -> ConditionalEDetector:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(600, 2))
    labels = (rng.random(600) < 1 / (1 + np.exp(-2 * rows[:, 0]))).astype(np.int64)
    return ConditionalEDetector.learn(rows, labels, n_classes=2, arl0=ARL0, seed=0)


@pytest.mark.parametrize("error", ["high", "low", "turning"])
def test_the_conditional_promise_holds_for_any_path_of_the_rows_inside_the_band(
    rule: ConditionalEDetector, error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The band is given: probabilities are as far from the model as it allows, rows wander.
    first = []
    for seed in range(100, 200):
        rng = np.random.default_rng(seed)
        centre = np.cumsum(rng.normal(0, 0.02, size=HORIZON))
        rows = rng.normal(size=(HORIZON, 2)) + centre[:, None]
        m = np.clip(1 / (1 + np.exp(-2 * rows[:, 0])), 0.01, 0.99)
        off = {"high": 0.05, "low": -0.05}.get(error, np.where(rows[:, 1] > centre, 0.05, -0.05))
        labels = (rng.random(HORIZON) < np.clip(m + off, 0.0, 1.0)).astype(np.int64)
        band = np.full((HORIZON, 1), 0.05)
        detector = deepcopy(rule)
        monkeypatch.setattr(
            detector, "_judge", lambda x, usable, m=m, band=band: (m[:, None].copy(), band)
        )
        alarms = detector.update(labelled(rows, labels))
        first.append(alarms[0].row + 1 if alarms else HORIZON)
    assert at_least_promised(first)


def test_without_the_band_the_error_would_be_an_alarm(rule: ConditionalEDetector) -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(4000, 2))
    m = np.clip(1 / (1 + np.exp(-2 * rows[:, 0])), 0.01, 0.99)
    labels = (rng.random(4000) < np.clip(m + 0.1, 0.0, 1.0)).astype(np.int64)
    detector = deepcopy(rule)
    detector._judge = lambda x, usable: (m[:, None].copy(), np.full((4000, 1), 0.01))  # type: ignore[method-assign]
    assert detector.update(labelled(rows, labels))


def test_rows_outside_the_support_are_never_bet_on(rule: ConditionalEDetector) -> None:
    detector = deepcopy(rule)
    rng = np.random.default_rng(2)
    far = rng.normal(6.0, 0.1, size=(3000, 2))
    wrong = np.zeros(3000, np.int64)  # the rule says 1 there
    assert not detector.update(labelled(far, wrong))
    assert not detector._weights.any()


def test_more_than_two_classes_are_watched_one_against_the_rest() -> None:
    rng = np.random.default_rng(5)

    def draw(n: int, turn: int) -> tuple[Array, IntArray]:
        rows = rng.normal(size=(n, 2))
        sector = np.floor((np.arctan2(rows[:, 1], rows[:, 0]) / np.pi + 1) * 1.5).clip(0, 2)
        return rows, (sector.astype(np.int64) + turn) % 3

    detector = ConditionalEDetector.learn(*draw(600, 0), n_classes=3, arl0=1e4, seed=0)
    assert not detector.update(labelled(*draw(600, 0)))
    assert detector.update(labelled(*draw(400, 1)))


def test_this_stream_alarms_here(rule: ConditionalEDetector) -> None:
    rng = np.random.default_rng(6)
    rows = rng.normal(size=(900, 2))
    slope = np.where(np.arange(900) < 300, 2.0, -2.0)
    labels = (rng.random(900) < 1 / (1 + np.exp(-slope * rows[:, 0]))).astype(np.int64)
    alarm = deepcopy(rule).update(labelled(rows, labels))[0]
    assert (alarm.row, alarm.run_length) == (433, 132)


def test_a_reference_without_two_classes_to_learn_is_refused() -> None:
    with pytest.raises(ValueError, match=r"30 rows of two classes, got \[50, 10\]"):
        ConditionalEDetector.learn(
            np.zeros((60, 1)), np.arange(60) >= 50, n_classes=2, arl0=10, seed=0
        )
