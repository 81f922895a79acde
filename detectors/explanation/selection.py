"""Whether labels come by chance or by choice: labelled rows against the others of their time."""

from __future__ import annotations

import itertools
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from detectors.attribution.contrast import Permuted, combine
from detectors.attribution.description import Description, Float32
from detectors.attribution.permutation import PermutationResult
from detectors.attribution.separation import separation
from detectors.base import Array, Problem
from detectors.rows import bounded

__all__ = ["selection_note", "selection_test"]

_Float = TypeVar("_Float", np.float32, np.float64)

BoolArray = npt.NDArray[np.bool_]

MAX_SLICES = 10
"""Slices of time: in a tenth of the rows a slow drift of the inputs, and of the share of labels
that have come by now, is next to nothing."""

MIN_SLICE_ROWS, MIN_SLICE_BLOCKS = 50, 6
"""Rows, and blocks of dependent rows, that a slice needs."""


def selection_test(
    rows: Array,
    labelled: BoolArray,
    *,
    seed: int,
    n_permutations: int = 999,
    block_length: int = 1,
) -> PermutationResult:
    """Test whether the labelled rows of a window are a random sample of its inputs.

    Labelled rows are compared with unlabelled ones of the same slice of time only, and the labels'
    places are drawn anew by turning each slice's round in a circle by a random number of rows. What
    is summed over the slices are the statistics of `two_sample`, of features that are centred in
    each slice. So neither a drift of the inputs, nor labels that grow rarer towards the end because
    they are late, nor the two together look like a choice.

    Exact if inside a slice either the rows or the labels are exchangeable: so for labels by chance
    whatever path the inputs take, and for inputs without order however the labels come. Approximate
    where both have runs, such as labels in bursts on autocorrelated rows.

    Parameters
    ----------
    rows
        All rows of the window in time order, shape (n, d): with gaps, a place in time is not what
        it seems.
    labelled
        Which of them have a label, shape (n,).
    seed
        Chooses the turns and the random features.
    n_permutations
        Draws; the smallest possible p-value is 1 / (n_permutations + 1).
    block_length
        Rows that depend on each other: slices are at least six times as long, so that a turn takes
        most labels out of reach of the rows that they belong to.

    Returns
    -------
    PermutationResult
        With the labelled rows as reference. The effect is 2 AUC - 1 of a discriminant between
        labelled and unlabelled rows of a slice; the shares say which columns the choice went by.

    Raises
    ------
    ValueError
        If shapes do not fit, there are not 2 rows with and without a label, or a number is not
        positive.

    Notes
    -----
    Labels that were chosen by the class alone show only as far as the classes differ in their
    inputs. Measured with 1,000 rows of 2 columns, of which about 250 have a label, at 1 %: chosen
    where a column is above a limit or near a boundary, found in 20 of 20 windows each.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> rows = rng.normal(size=(600, 3)) + np.linspace(0, 3, 600)[:, None]  # they drift
    >>> by_chance = rng.random(600) < np.linspace(0.6, 0.1, 600)  # the latest labels are late
    >>> by_choice = rows[:, 1] - np.linspace(0, 3, 600) > 0.8
    >>> selection_test(rows, by_chance, seed=1).p_value > 0.05
    True
    >>> found = selection_test(rows, by_choice, seed=1)
    >>> found.p_value, int(found.shares.argmax())
    (0.001, 1)
    """
    _check(rows, labelled, n_permutations, block_length)
    rows = bounded(rows)
    rng = np.random.default_rng(seed)
    slices = _slices(len(rows), block_length)
    turned = _turned(labelled, slices, n_permutations, rng)

    centred = _centred(rows, slices)
    with threadpool_limits(limits=1):
        description = Description.fit(centred, rng)
        found = description.statistics(turned @ _centred(description(centred), slices))
        statistic, p_value = combine(found.columns)
        excess = np.maximum(found.distances[0] - found.distances.mean(axis=0), 0.0)
        moments = description.moments_of(np.concatenate([centred[labelled], centred[~labelled]]))
        n = int(labelled.sum())
        apart, error = separation(moments, n, 1)
    return PermutationResult.of(
        Permuted(statistic, p_value, excess.astype(np.float64)), apart, error, n, len(rows) - n
    )


def _slices(n: int, block_length: int) -> list[slice]:
    """Slices of time of nearly equal length."""
    shortest = max(MIN_SLICE_ROWS, MIN_SLICE_BLOCKS * block_length)
    edges = np.linspace(0, n, int(np.clip(n // shortest, 1, MAX_SLICES)) + 1).astype(int).tolist()
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def _centred(features: npt.NDArray[_Float], slices: list[slice]) -> npt.NDArray[_Float]:
    centred = features.copy()
    for part in slices:
        centred[part] -= centred[part].mean(axis=0)
    return centred


def _turned(
    labelled: BoolArray, slices: list[slice], n_permutations: int, rng: np.random.Generator
) -> Float32:
    """1 for a labelled row: as it is first, then with every slice turned, shape (B + 1, n)."""
    tags = np.tile(labelled.astype(np.float32), (n_permutations + 1, 1))
    for part in slices:
        own = labelled[part].astype(np.float32)
        turns = rng.integers(0, len(own), size=(n_permutations, 1))
        tags[1:, part] = own[(np.arange(len(own)) + turns) % len(own)]
    return tags


def _check(rows: Array, labelled: BoolArray, draws: int, block: int) -> None:
    if draws < 1 or block < 1:
        raise ValueError(
            f"n_permutations and block_length must be at least 1, got {draws} and {block}"
        )
    if rows.ndim != 2 or not rows.shape[1] or labelled.shape != rows.shape[:1]:
        raise ValueError(
            f"rows and labelled must have shapes (n, d) and (n,), "
            f"got {rows.shape} and {labelled.shape}"
        )
    n = int(labelled.sum())
    if min(n, len(rows) - n) < 2:
        raise ValueError(f"needs 2 rows with and 2 without a label, got {n} and {len(rows) - n}")


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
