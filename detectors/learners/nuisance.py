"""Cross-fitted class probabilities: what a row's window or label should be, given its columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from detectors.base import Array, IntArray
from detectors.learners.features import Scale
from detectors.learners.folds import out_of_fold
from detectors.rows import bounded

__all__ = [
    "Learner",
    "QuadraticLogistic",
    "boosted_trees",
    "cross_fit",
    "make_folds",
    "quadratic_logistic",
]

Learner = Callable[[Array, IntArray, Array, int], Array]
"""(training rows, their classes, rows to judge, number of classes) -> probabilities (n, K)."""

N_INTERACTIONS = 6
"""Columns whose products the quadratic model knows; all products of 64 columns would overfit."""

STACK = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the trees that the stack chooses from; a finer grid fits the noise of the folds."""


@dataclass(frozen=True, slots=True)
class QuadraticLogistic:
    """Ridge logistic regression on columns, squares and some products, as arrays.

    Attributes
    ----------
    n_classes
        Classes that a row can have.
    known
        Those that the rows had, ascending, shape (k,); none where there were no rows.
    columns, terms
        Scales of the columns, and of what is made of them.
    weights, bias
        By known class, shapes (t, k) and (k,).

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(500, 2))
    >>> inside = (np.square(x).sum(axis=1) < 1.0).astype(np.int64)
    >>> model = QuadraticLogistic.fit(x, inside, 2)
    >>> model.predict(np.array([[0.0, 0.0], [2.0, 2.0]])).argmax(axis=1)
    array([1, 0])
    """

    n_classes: int
    known: IntArray
    columns: Scale
    terms: Scale
    weights: Array
    bias: Array

    @classmethod
    def fit(cls, rows: Array, classes: IntArray, n_classes: int) -> QuadraticLogistic:
        """Learn from rows (n, d) and their classes (n,), from 0 to `n_classes` - 1."""
        known = np.unique(classes)
        if len(known) < 2:
            nothing = Scale(np.zeros(rows.shape[1]), np.zeros(rows.shape[1]))
            return cls(n_classes, known, nothing, nothing, np.empty((0, 0)), np.empty(0))
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - only learning needs scikit-learn

        columns = Scale.fit(rows)
        raw = _quadratic(np.clip(columns(rows), -5.0, 5.0))
        terms = Scale.fit(raw)
        # The squares of a far-off row must not decide alone; 6 standard deviations are far enough.
        model = LogisticRegression(C=0.3, max_iter=1000).fit(np.clip(terms(raw), -6, 6), classes)
        weights, bias = model.coef_.T, model.intercept_
        if len(known) == 2:  # scikit-learn keeps one column for two classes
            weights, bias = np.hstack([-weights, weights]) / 2, np.r_[-bias, bias] / 2
        return cls(n_classes, known, columns, terms, np.ascontiguousarray(weights), bias)

    def predict(self, rows: Array) -> Array:
        """Probabilities, shape (n, n_classes); 0 for classes that the rows lacked."""
        if not len(self.known):
            return np.full((len(rows), self.n_classes), 1.0 / self.n_classes)
        found = np.zeros((len(rows), self.n_classes))
        if len(self.known) == 1:
            found[:, self.known] = 1.0
            return found
        terms = np.clip(self.terms(_quadratic(np.clip(self.columns(rows), -5.0, 5.0))), -6.0, 6.0)
        found[:, self.known] = softmax(terms @ self.weights + self.bias, axis=1)
        return found


def quadratic_logistic(rows: Array, classes: IntArray, judged: Array, n_classes: int) -> Array:
    """`QuadraticLogistic` as a learner.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(500, 2))
    >>> inside = (np.square(x).sum(axis=1) < 1.0).astype(np.int64)
    >>> quadratic_logistic(x, inside, np.array([[0.0, 0.0], [2.0, 2.0]]), 2).argmax(axis=1)
    array([1, 0])
    """
    return QuadraticLogistic.fit(rows, classes, n_classes).predict(judged)


def boosted_trees(rows: Array, classes: IntArray, judged: Array, n_classes: int) -> Array:
    """Small gradient-boosted trees; fewer rounds where each round grows a tree a class.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(500, 2))
    >>> xor = ((x[:, 0] > 0) ^ (x[:, 1] > 0)).astype(np.int64)
    >>> boosted_trees(x, xor, np.array([[1.0, 1.0], [1.0, -1.0]]), 2).argmax(axis=1)
    array([0, 1])
    """
    if len(np.unique(classes)) < 2:
        return _constant(classes, len(judged), n_classes)
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415 - only learning needs scikit-learn

    model = HistGradientBoostingClassifier(
        max_iter=60 if n_classes <= 3 else 20,
        learning_rate=0.1 if n_classes <= 3 else 0.2,
        max_leaf_nodes=8,
        min_samples_leaf=20,
        l2_regularization=1.0,
        early_stopping=False,
        random_state=0,
    )
    return _probabilities(model, bounded(rows), classes, bounded(judged), n_classes)


def cross_fit(
    rows: Array,
    classes: IntArray,
    n_classes: int,
    folds: IntArray,
    learners: tuple[Learner, ...] = (quadratic_logistic, boosted_trees),
    train_on: npt.NDArray[np.bool_] | None = None,
) -> Array:
    """Probabilities for each row from models that never saw its fold, shape (n, K).

    Parameters
    ----------
    rows
        Shape (n, d).
    classes
        Shape (n,), from 0 to `n_classes` - 1.
    n_classes
        Number of classes.
    folds
        Fold of each row, shape (n,).
    learners
        One, or two that are mixed in the proportion with the least out-of-fold log-loss.
    train_on
        Shape (n,): rows that models may learn from; all by default.

    Returns
    -------
    Array
        Rows sum to 1.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(400, 2))
    >>> y = (rng.random(400) < 1 / (1 + np.exp(-3 * x[:, 0]))).astype(np.int64)
    >>> p = cross_fit(x, y, 2, make_folds(y, 3, rng))
    >>> bool(p[x[:, 0] > 1, 1].mean() > 0.9)
    True
    """
    usable = np.ones(len(rows), bool) if train_on is None else train_on

    def fit(learner: Learner) -> Array:
        return out_of_fold(
            folds,
            lambda taught, judged: learner(
                rows[taught & usable], classes[taught & usable], rows[judged], n_classes
            ),
        )

    fitted = [fit(learner) for learner in learners]
    if len(learners) == 1:
        return fitted[0]
    mixtures = [(1.0 - share) * fitted[0] + share * fitted[1] for share in STACK]
    index = np.arange(len(rows))
    losses = [-np.log(np.maximum(p[index, classes], 1e-4)).mean() for p in mixtures]
    return np.asarray(mixtures[int(np.argmin(losses))])


def make_folds(
    groups: IntArray, n_folds: int, rng: np.random.Generator, block_length: int = 1
) -> IntArray:
    """Folds of equal size within every group, or random folds of whole blocks, shape (n,).

    Examples
    --------
    >>> make_folds(np.array([0, 0, 1, 1]), 2, np.random.default_rng(0))
    array([0, 1, 0, 1])
    """
    if block_length > 1:
        block = np.arange(len(groups)) // block_length
        return np.asarray(rng.permutation(block[-1] + 1)[block] % n_folds, np.int64)
    folds = np.empty(len(groups), np.int64)
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        folds[members] = rng.permutation(len(members)) % n_folds
    return folds


def _quadratic(rows: Array) -> Array:
    few = rows[:, :N_INTERACTIONS]
    i, j = np.triu_indices(few.shape[1], 1)
    return np.column_stack([rows, np.square(rows), few[:, i] * few[:, j]])


def _constant(classes: IntArray, n_judged: int, n_classes: int) -> Array:
    """What one class, or no row at all, teaches."""
    if not len(classes):
        return np.full((n_judged, n_classes), 1.0 / n_classes)
    return np.tile(np.eye(n_classes)[classes[0]], (n_judged, 1))


def _probabilities(
    model: Any, rows: Array, classes: IntArray, judged: Array, n_classes: int
) -> Array:
    """Fit and judge; classes that the training rows lack have probability 0."""
    found = np.zeros((len(judged), n_classes))
    found[:, np.unique(classes)] = model.fit(rows, classes).predict_proba(judged)
    return found
