"""Frozen class probabilities by two learners that judge each other."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from numba import njit

from detectors.base import Array, IntArray
from detectors.learners.folds import out_of_fold
from detectors.learners.nuisance import N_INTERACTIONS, make_folds

N_FOLDS = 3
TREE_RATE = 0.1


@dataclass(frozen=True, slots=True)
class FrozenModel:
    """P(Y=c|x) of one class by two learners, as arrays.

    A ridge logistic regression on columns, squares and products, and boosted trees, each
    recalibrated on rows that did not teach it. They are judges of each other: where they disagree
    neither is to be trusted.

    Attributes
    ----------
    centre, scale
        Of the columns, shape (d,).
    term_centre, term_scale, weights
        Of the regression's terms, shape (p,).
    bias
        Of the regression.
    feature, threshold, left, right, value
        Nodes of the trees, shape (trees, nodes); `feature` is -1 at a leaf.
    tree_bias
        What the trees begin with.
    slopes, intercepts
        The recalibration of both learners' log-odds, shape (2,).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> rows = rng.normal(size=(600, 2))
    >>> labels = (rng.random(600) < 1 / (1 + np.exp(-2 * rows[:, 0]))).astype(np.int64)
    >>> model = FrozenModel.fit(rows, labels, n_trees=20, seed=0)
    >>> (model.log_odds(np.array([[1.5, 0.0], [-1.5, 0.0]])) > 0).tolist()  # both learners know
    [[True, False], [True, False]]
    """

    centre: Array
    scale: Array
    term_centre: Array
    term_scale: Array
    weights: Array
    bias: float
    feature: IntArray
    threshold: Array
    left: IntArray
    right: IntArray
    value: Array
    tree_bias: float
    slopes: Array
    intercepts: Array

    @classmethod
    def fit(cls, rows: Array, labels: IntArray, *, n_trees: int, seed: int) -> FrozenModel:
        """Learn from rows (n, d) and labels (n,) that are 0 or 1."""
        folds = make_folds(labels, N_FOLDS, np.random.default_rng(seed))

        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - only learning needs scikit-learn

        def judge(taught: npt.NDArray[np.bool_], judged: npt.NDArray[np.bool_]) -> Array:
            other = cls._learn(rows[taught], labels[taught], n_trees, seed)
            return other.log_odds(rows[judged]).T

        held_out = out_of_fold(folds, judge)
        slopes, intercepts = np.empty(2), np.empty(2)
        for learner in range(2):
            model = LogisticRegression(C=100.0).fit(held_out[:, [learner]], labels)
            slopes[learner], intercepts[learner] = model.coef_[0, 0], model.intercept_[0]
        raw = cls._learn(rows, labels, n_trees, seed)
        return replace(raw, slopes=slopes, intercepts=intercepts)

    @classmethod
    def _learn(cls, rows: Array, labels: IntArray, n_trees: int, seed: int) -> FrozenModel:
        from sklearn.ensemble import GradientBoostingClassifier  # noqa: PLC0415 - only learning needs scikit-learn
        from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415 - only learning needs scikit-learn
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - only learning needs scikit-learn

        centre, scale = rows.mean(axis=0), spread(rows)
        terms = np.empty((len(rows), _n_terms(rows.shape[1])))
        _all_terms(rows, centre, scale, terms)
        term_centre, term_scale = terms.mean(axis=0), spread(terms)
        z = np.clip((terms - term_centre) / term_scale, -6.0, 6.0)
        with warnings.catch_warnings():
            # 300 steps are close enough: the penalty is a coarser choice than the last digit.
            warnings.simplefilter("ignore", ConvergenceWarning)
            regression = LogisticRegression(C=0.3, max_iter=300).fit(z, labels)
        boosted = GradientBoostingClassifier(
            n_estimators=n_trees,
            learning_rate=TREE_RATE,
            max_leaf_nodes=8,
            max_depth=None,
            min_samples_leaf=20,
            subsample=0.7,
            max_features=min(1.0, 8.0 / rows.shape[1]),
            random_state=seed,
        ).fit(rows, labels)
        trees = [estimator.tree_ for estimator in boosted.estimators_[:, 0]]
        shape = (n_trees, max(t.node_count for t in trees))
        feature, left, right = (np.full(shape, -1, np.int64) for _ in range(3))
        threshold, value = np.zeros(shape), np.zeros(shape)
        for i, t in enumerate(trees):
            nodes = t.node_count
            feature[i, :nodes] = np.where(t.children_left < 0, -1, t.feature)
            left[i, :nodes], right[i, :nodes] = t.children_left, t.children_right
            threshold[i, :nodes] = t.threshold
            value[i, :nodes] = TREE_RATE * t.value[:, 0, 0]
        grown = sum(
            _leaf(rows[0], feature[i], threshold[i], left[i], right[i], value[i])
            for i in range(n_trees)
        )
        return cls(
            centre,
            scale,
            term_centre,
            term_scale,
            regression.coef_[0].copy(),
            float(regression.intercept_[0]),
            feature,
            threshold,
            left,
            right,
            value,
            float(boosted.decision_function(rows[:1])[0]) - grown,
            np.ones(2),
            np.zeros(2),
        )

    def log_odds(self, rows: Array) -> Array:
        """Log-odds by both learners, rows (n, d) to (2, n)."""
        out = np.empty((2, len(rows)))
        _judge_all(np.ascontiguousarray(rows), out, *self.arrays)
        return out

    @property
    def arrays(self) -> tuple[Array | IntArray | float, ...]:
        """The attributes in order, for compiled code."""
        return tuple(getattr(self, name) for name in self.__slots__)


def spread(rows: Array) -> Array:
    """Standard deviations of columns, 1 where they are constant."""
    deviations = rows.std(axis=0)
    varies = deviations > 1e-12 * np.maximum(np.abs(rows).max(axis=0), 1.0)
    return np.where(varies, deviations, 1.0)


def _n_terms(d: int) -> int:
    few = min(d, N_INTERACTIONS)
    return 2 * d + few * (few - 1) // 2


@njit(cache=True)
def _terms(row: Array, centre: Array, scale: Array, out: Array) -> None:
    """Columns, squares and products of the first columns."""
    d = row.size
    for c in range(d):
        z = min(max((row[c] - centre[c]) / scale[c], -5.0), 5.0)
        out[c], out[d + c] = z, z * z
    j = 2 * d
    few = min(d, N_INTERACTIONS)
    for a in range(few):
        for b in range(a + 1, few):
            out[j] = out[a] * out[b]
            j += 1


@njit(cache=True)
def _all_terms(rows: Array, centre: Array, scale: Array, out: Array) -> None:
    for i in range(rows.shape[0]):
        _terms(rows[i], centre, scale, out[i])


@njit(cache=True)
def _leaf(
    row: Array, feature: IntArray, threshold: Array, left: IntArray, right: IntArray, value: Array
) -> float:
    """A tree's value of a row; scikit-learn compares columns in single precision."""
    node = 0
    while feature[node] >= 0:
        small = np.float32(row[feature[node]]) <= threshold[node]
        node = left[node] if small else right[node]
    return float(value[node])


@njit(cache=True)
def _judge_all(
    rows: Array,
    out: Array,
    centre: Array,
    scale: Array,
    term_centre: Array,
    term_scale: Array,
    weights: Array,
    bias: float,
    feature: IntArray,
    threshold: Array,
    left: IntArray,
    right: IntArray,
    value: Array,
    tree_bias: float,
    slopes: Array,
    intercepts: Array,
) -> None:
    """Log-odds of rows by both learners, recalibrated, in one order of summing for any batch."""
    terms = np.empty(weights.size)
    for i in range(rows.shape[0]):
        _terms(rows[i], centre, scale, terms)
        linear = bias
        for j in range(terms.size):
            z = (terms[j] - term_centre[j]) / term_scale[j]
            linear += weights[j] * min(max(z, -6.0), 6.0)
        grown = tree_bias
        for t in range(feature.shape[0]):
            grown += _leaf(rows[i], feature[t], threshold[t], left[t], right[t], value[t])
        out[0, i] = slopes[0] * linear + intercepts[0]
        out[1, i] = slopes[1] * grown + intercepts[1]
