"""Whether labels come by chance or by choice: labelled rows against the others."""

from __future__ import annotations

from threadpoolctl import threadpool_limits

from detectors.base import Array, Problem
from detectors.permutation import PermutationResult, two_sample

__all__ = ["selection_note", "selection_test"]


def selection_test(
    labelled: Array, unlabelled: Array, *, seed: int, n_permutations: int = 999
) -> PermutationResult:
    """Test whether the labelled rows of a window are a random sample of its inputs.

    Exact, as `two_sample` is, if each row had the same chance of a label. Labels that were chosen
    by the class alone show only as far as the classes differ in their inputs; and labels that are
    late rather than chosen show as a difference too while the inputs move.

    Parameters
    ----------
    labelled, unlabelled
        Rows of one window with and without a label, shapes (n, d) and (m, d); at least 2 each.
    seed
        Chooses the permutations and the random features.
    n_permutations
        Draws; the smallest possible p-value is 1 / (n_permutations + 1).

    Returns
    -------
    PermutationResult
        With the labelled rows as reference. The effect is 2 AUC - 1 of a discriminant between
        labelled and unlabelled rows; the shares say which columns the choice went by.

    Raises
    ------
    ValueError
        If shapes do not fit, a part has fewer than 2 rows, or `n_permutations` is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> rows = rng.normal(size=(600, 3))
    >>> by_chance, by_choice = rng.random(600) < 0.3, rows[:, 1] > 0.8
    >>> selection_test(rows[by_chance], rows[~by_chance], seed=1).p_value > 0.05
    True
    >>> found = selection_test(rows[by_choice], rows[~by_choice], seed=1)
    >>> found.p_value, int(found.shares.argmax())
    (0.001, 1)
    """
    with threadpool_limits(limits=1):
        return two_sample(labelled, unlabelled, seed=seed, n_permutations=n_permutations)


def selection_note(problem: Problem, p_value: float, alpha: float, effect: float) -> str:
    """What labels by choice mean for the verdict, in a sentence; empty if nothing is to be said.

    Parameters
    ----------
    problem
        The causal direction, which decides what a choice by input can spoil.
    p_value, effect
        Of `selection_test`.
    alpha
        Largest p-value that counts as a choice; in (0, 1).

    Raises
    ------
    ValueError
        If alpha or the p-value is out of range.

    Examples
    --------
    >>> selection_note(Problem.X_TO_Y, 0.3, 0.01, 0.0)
    ''
    >>> print(selection_note(Problem.Y_TO_X, 0.001, 0.01, 0.4))
    labels come by choice, not by chance (p = 0.001, 2 AUC - 1 = 0.40): the tests of P(Y) and \
P(X|Y) may have found the choice; label a random share of the rows
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1), got {alpha}")
    if not 0 <= p_value <= 1:
        raise ValueError(f"p_value must be in [0, 1], got {p_value}")
    if p_value > alpha:
        return ""
    found = f"labels come by choice, not by chance (p = {p_value:.2g}, 2 AUC - 1 = {effect:.2f})"
    if problem is Problem.Y_TO_X:
        return (
            f"{found}: the tests of P(Y) and P(X|Y) may have found the choice; "
            f"label a random share of the rows"
        )
    return (
        f"{found}: the test of P(Y|X) compares at equal X and stays valid, "
        f"but sees nothing where no label came, and class frequencies are those of the choice"
    )
