from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.table import Outcome, Trial
from benchmarks.tables.raza import METHODS, TABLE, _d2, _monitored, _scored, _student


@pytest.fixture(scope="module")
def results() -> list[tuple[Trial, Outcome]]:
    trials = [t for t in TABLE.trials(quick=True) if t["seed"] < 102]
    return [(trial, TABLE.run(trial)) for trial in trials]


def test_every_method_runs_on_the_same_seeds() -> None:
    trials = TABLE.trials(quick=False)
    assert len(trials) == 100 * sum(len(methods) for methods in METHODS.values())
    assert {t["seed"] for t in trials} == set(range(100, 200))


def test_a_trial_repeats_and_is_json(results: list[tuple[Trial, Outcome]]) -> None:
    for trial, outcome in results[::4]:
        assert json.loads(json.dumps(outcome)) == outcome
        assert TABLE.run(json.loads(json.dumps(trial))) == outcome


def test_the_summary_has_a_row_a_method_and_a_target_a_data_set(
    results: list[tuple[Trial, Outcome]],
) -> None:
    summary = TABLE.summarise(results)
    assert len(summary.figures) == sum(len(methods) for methods in METHODS.values())
    json.dumps(summary.figures, allow_nan=False)
    assert [target.met for target in summary.targets] == [None, None]
    assert not any(target.far_off for target in summary.targets)
    assert "published" in summary.markdown


def test_shiftwatchs_rule_finds_the_shifts_of_d3_and_d4(
    results: list[tuple[Trial, Outcome]],
) -> None:
    own = [o for t, o in results if t["method"] == "shiftwatch"]
    assert len(own) == 4
    assert all(len(o["delays"]) == o["changes"] == 1 for o in own)


def test_the_data_sets_have_the_published_moments() -> None:
    rng = np.random.default_rng(0)
    wanted = np.full((10, 10), 0.30) + 0.15 * np.eye(10)
    np.testing.assert_allclose(np.cov(_student(rng, 60_000), rowvar=False), wanted, atol=0.02)
    rows = np.mean([_monitored("D3", np.random.default_rng(s)) for s in range(200)], axis=0)
    np.testing.assert_allclose(rows.mean(axis=1).reshape(3, 100).mean(axis=1), [0, 1, 0], atol=0.02)


def test_the_noise_of_d2_jumps_by_a_sixteenth_of_the_segments_number() -> None:
    jumps = np.mean(
        [
            _d2(np.random.default_rng(s), 500, jumping=True) - _d2(np.random.default_rng(s), 500)
            for s in range(3)
        ],
        axis=0,
    )
    levels = jumps[:, 0].reshape(5, 100)[:, -1] * 0.9  # the autoregression's gain is 1 / 0.9
    np.testing.assert_allclose(np.diff(levels), np.arange(2, 6) / 16, rtol=0.01)


def test_delays_and_false_alarms_are_counted_from_the_change() -> None:
    assert _scored("D3", np.array([20, 103, 104, 250]), 300) == {
        "changes": 1,
        "delays": [3],
        "false": 1,
        "quiet_rows": 100,
    }
    assert _scored("D2", np.array([120, 160, 310]), 400) == {
        "changes": 3,
        "delays": [20, 10],
        "false": 1,
        "quiet_rows": 200,
    }
