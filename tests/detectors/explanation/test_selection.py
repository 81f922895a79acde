from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.signal import lfilter

from detectors.base import Problem
from detectors.explanation.selection import selection_note, selection_test


def _rows(seed: int, n: int = 300) -> tuple[np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 3)), rng


def test_labels_by_chance_are_not_called_chosen() -> None:
    rejected = 0
    for seed in range(100, 300):
        rows, rng = _rows(seed)
        labelled = rng.random(len(rows)) < 0.3
        found = selection_test(rows, labelled, seed=seed, n_permutations=99)
        rejected += found.p_value <= 0.05
    # 200 tests at 5 %: 10 expected, more than 19 in one of 300 runs.
    assert rejected <= 19


def test_a_choice_by_uncertainty_is_found_though_no_mean_moves() -> None:
    found = 0
    for seed in range(100, 120):
        rows, rng = _rows(seed)
        chance = np.exp(-np.square(rows[:, 0]))  # rows near a decision boundary
        labelled = rng.random(len(rows)) < chance
        found += selection_test(rows, labelled, seed=seed, n_permutations=99).p_value <= 0.05
    assert found >= 18


def test_it_names_the_column_the_choice_went_by_and_counts_the_rows() -> None:
    rows, _ = _rows(0)
    chosen = rows[:, 2] > 1.0
    found = selection_test(rows, chosen, seed=0)
    assert int(found.shares.argmax()) == 2
    assert (found.n_reference, found.n_recent) == (int(chosen.sum()), int((~chosen).sum()))
    assert found.effect_low > 0.5


def _autoregression(rng: np.random.Generator, n: int, coefficient: float) -> np.ndarray:
    noise = rng.normal(size=(n, 2)) * np.sqrt(1 - coefficient**2)
    return np.asarray(lfilter([1.0], [1.0, -coefficient], noise, axis=0))


def _in_bursts(rng: np.random.Generator, n: int) -> np.ndarray:
    """About two rows in five, in runs of about 40."""
    ends = np.cumsum(
        np.where(np.arange(60) % 2, rng.geometric(1 / 40, 60), rng.geometric(1 / 60, 60))
    )
    return np.asarray(np.searchsorted(ends, np.arange(n), side="right") % 2 == 1)


def _rejections(
    make: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]], block_length: int
) -> int:
    """Of 100 windows of 600 rows, tested at 5 %."""
    return sum(
        selection_test(
            *make(np.random.default_rng(seed)),
            seed=seed,
            n_permutations=99,
            block_length=block_length,
        ).p_value
        <= 0.05
        for seed in range(100, 200)
    )


def test_late_labels_of_drifting_inputs_are_not_called_chosen() -> None:
    def late(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        rows = rng.normal(size=(600, 2)) + np.linspace(0, 2, 600)[:, None]
        return rows, rng.random(600) < np.linspace(0.9, 0.1, 600)

    assert _rejections(late, 1) <= 11  # 5 expected; more in one of 240 runs


@pytest.mark.parametrize("block_length", [1, 90])
def test_labels_by_chance_are_not_called_chosen_whatever_path_the_inputs_take(
    block_length: int,
) -> None:
    def wandering(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return _autoregression(rng, 600, 0.98), rng.random(600) < 0.2

    assert _rejections(wandering, block_length) <= 11


def test_labels_in_bursts_are_not_called_chosen_where_rows_depend_on_each_other() -> None:
    def bursts(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return _autoregression(rng, 600, 0.9), _in_bursts(rng, 600)

    assert _rejections(bursts, 40) <= 11


def test_a_choice_is_found_though_rows_depend_on_each_other() -> None:
    def chosen(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        rows = _autoregression(rng, 600, 0.9)
        return rows, rows[:, 0] > 0.7

    assert _rejections(chosen, 40) >= 98


def test_a_window_without_unlabelled_rows_is_refused() -> None:
    rows, _ = _rows(0)
    with pytest.raises(ValueError, match="needs 2 rows with and 2 without a label, got 300 and 0"):
        selection_test(rows, np.ones(300, bool), seed=0)


def test_a_mask_of_another_length_is_refused() -> None:
    rows, _ = _rows(0)
    with pytest.raises(ValueError, match=r"got \(300, 3\) and \(299,\)"):
        selection_test(rows, np.ones(299, bool), seed=0)


@pytest.mark.parametrize("problem", list(Problem))
def test_nothing_is_said_of_labels_that_may_come_by_chance(problem: Problem) -> None:
    assert selection_note(problem, 0.011, 0.01, 0.9) == ""


@pytest.mark.parametrize(
    ("problem", "consequence"),
    [
        (Problem.Y_TO_X, "the tests of P(Y) and P(X|Y) may have found the choice"),
        (Problem.X_TO_Y, "the test of P(Y|X) compares at equal X and stays valid"),
    ],
)
def test_the_note_says_what_the_choice_spoils(problem: Problem, consequence: str) -> None:
    note = selection_note(problem, 0.01, 0.01, 0.4)
    assert note.startswith("labels come by choice, not by chance (p = 0.01, 2 AUC - 1 = 0.40)")
    assert consequence in note


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_level_out_of_range_is_named(alpha: float) -> None:
    with pytest.raises(ValueError, match=r"alpha must be in \(0, 1\)"):
        selection_note(Problem.X_TO_Y, 0.5, alpha, 0.0)


def test_a_p_value_out_of_range_is_named() -> None:
    with pytest.raises(ValueError, match=r"p_value must be in \[0, 1\], got 1.5"):
        selection_note(Problem.X_TO_Y, 1.5, 0.05, 0.0)
