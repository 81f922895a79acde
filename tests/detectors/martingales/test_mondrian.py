from __future__ import annotations

import numpy as np

from detectors.martingales.mondrian import MondrianShiryaevRoberts

ARL0 = 300
HORIZON = 30 * ARL0
SEEDS = range(100, 300)


def at_least_promised(first: list[int]) -> bool:
    """Within two standard errors; runs are cut at the horizon, which makes them shorter."""
    return bool(np.mean(first) + 2 * np.std(first) / np.sqrt(len(first)) >= ARL0)


def test_the_mondrian_promise_holds_while_the_prior_moves() -> None:
    first = []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        n = 200 + HORIZON
        prior = np.where((np.arange(n) // 400) % 2, 0.95, 0.5)
        labels = (rng.random(n) < prior).astype(np.int64)
        rows = np.c_[rng.normal(size=n) + 3.0 * labels, labels]
        detector = MondrianShiryaevRoberts.learn(
            rows[:200, :1], labels[:200], n_classes=2, arl0=ARL0, seed=seed
        )
        alarms = detector.update(rows[200:])
        first.append(alarms[0].row + 1 if alarms else HORIZON)
    assert at_least_promised(first)
    assert np.mean(first) < 2 * ARL0


def test_classes_that_move_in_opposite_directions_are_seen() -> None:
    rng = np.random.default_rng(100)
    labels = np.arange(2000) % 2
    scores = rng.normal(size=(2000, 1))
    detector = MondrianShiryaevRoberts.learn(
        scores[:1000], labels[:1000], n_classes=2, arl0=1e4, seed=0
    )
    moved = scores[1000:] + np.where(labels[1000:] == 1, 0.8, -0.8)[:, None]
    alarm = detector.update(np.c_[moved, labels[1000:]])[0]
    assert alarm.row < 150
    assert alarm.columns == (0,)
