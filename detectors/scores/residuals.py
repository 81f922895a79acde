"""Scores of labelled rows: what moves when P(Y|X) does."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from detectors.base import Array, IntArray, State
from detectors.learners.class_model import ClassModel
from detectors.learners.folds import N_FOLDS, fold_of
from detectors.rows import as_labels, as_rows, bounded
from detectors.scores.labelled import CLIP, MAX_BLOCKS, leading_axes, reference_labels

N_COMPONENTS = 6
"""Leading principal components that residuals are weighted by."""
LEVERAGE = 3.0
"""Standard deviations along a component beyond which a residual weighs no more."""


class ResidualScores:
    """Residuals of a frozen model of P(Y|X), for concept drift of X->Y problems.

    A residual 1[y=c] - m_c(x) has mean 0 wherever x comes from as long as P(Y|X) stays. Weighted by
    the model's opinion 2 m_c(x) - 1 it shows that the model has become right less often, and by the
    leading components of x changes that cancel in the mean.

    Examples
    --------
    >>> from detectors.base import Factor
    >>> from detectors.charts.calibration import calibrate_cusum
    >>> from detectors.charts.cusum import CusumBank
    >>> rng = np.random.default_rng(0)
    >>> def draw(n, slope, centre):
    ...     x = rng.normal(centre, 1, size=(n, 2))
    ...     return x, (rng.random(n) < 1 / (1 + np.exp(-slope * x[:, 0]))).astype(np.int64)
    >>> scores = ResidualScores()
    >>> own = scores.fit(*draw(2000, 2.0, 0.0), n_classes=2, seed=0)
    >>> c = calibrate_cusum(own, arl0=5000, seed=0)
    >>> bank = CusumBank(c.mean, c.scale, c.thresholds, factor=Factor.CONCEPT)
    >>> len(bank.update(scores.transform(*draw(500, 2.0, 0.8))))  # only the inputs moved
    0
    >>> len(bank.update(scores.transform(*draw(500, -2.0, 0.0)))) > 0  # the rule turned round
    True
    """

    def __init__(self) -> None:
        self._model = ClassModel(0)
        self._classes: IntArray = np.empty(0, np.int64)
        self._mean: Array = np.empty(0)
        self._axes: Array = np.empty((0, 0))

    def fit(self, rows: Array, labels: IntArray, *, n_classes: int, seed: int) -> Array:
        """Learn the model from a reference; return the reference's own scores.

        Parameters
        ----------
        rows, labels
            The labelled reference in time order, shapes (n, d) and (n,); no missing values.
        n_classes
            Codes that labels may have.
        seed
            Of the folds and the waves.

        Returns
        -------
        Array
            Shape (n, k); each row is scored by a model that other rows taught, because residuals
            on rows that a model was fitted to are too small.
        """
        rows = bounded(rows)
        labels = reference_labels(labels, len(rows), n_classes)
        counts = np.bincount(labels, minlength=n_classes)
        # Residuals of two classes mirror each other, so one block says it all.
        n_blocks = 1 if (counts > 0).sum() <= 2 else MAX_BLOCKS
        self._classes = np.sort(np.argsort(-counts, kind="stable")[:n_blocks])
        self._mean, self._axes = leading_axes(rows, N_COMPONENTS)
        self._model = ClassModel(n_classes).fit(rows, labels, seed)
        folds = fold_of(len(rows), seed)
        own = np.empty((len(rows), len(self._classes) * (2 + self._axes.shape[1])))
        for fold in range(N_FOLDS):
            inside = folds == fold
            other = ClassModel(n_classes).fit(rows[~inside], labels[~inside], seed)
            own[inside] = self._columns(other, rows[inside], labels[inside])
        return own

    def transform(self, rows: Array, labels: IntArray) -> Array:
        """Scores of labelled rows, shapes (n, d) and (n,) to (n, k); NaN without a label.

        Raises
        ------
        ValueError
            If shapes do not fit or a code is no class.
        """
        x = as_rows(rows, len(self._mean), "residual scores")
        codes = as_labels(labels, len(x), self._model.n_classes, "residual scores")
        return self._columns(self._model, x, codes)

    def _columns(self, model: ClassModel, rows: Array, labels: IntArray) -> Array:
        n_blocks = 2 + self._axes.shape[1]
        scores = np.empty((len(rows), len(self._classes) * n_blocks))
        _weigh(rows, labels, model.predict(rows), self._classes, self._mean, self._axes, scores)
        return scores

    def snapshot(self) -> State:
        """The learned map as arrays."""
        return {
            "model": self._model.snapshot(),
            "classes": self._classes.copy(),
            "mean": self._mean.copy(),
            "axes": self._axes.copy(),
        }

    def restore(self, state: State) -> None:
        """Take over the map of a snapshot."""
        self._model = ClassModel.from_snapshot(state["model"])
        self._classes = state["classes"].copy()
        self._mean, self._axes = state["mean"].copy(), state["axes"].copy()


@njit(cache=True, error_model="numpy")
def _weigh(
    rows: Array,
    labels: IntArray,
    probabilities: Array,
    classes: IntArray,
    mean: Array,
    axes: Array,
    scores: Array,
) -> None:
    """Residuals of some classes: as they are, by the model's opinion, by each component.

    Shapes (n, d), (n,), (n, n_classes), (c,), (d,), (d, p) and, to be filled, (n, (2 + p) c).
    """
    n, d = rows.shape
    n_blocks, n_components = classes.size, axes.shape[1]
    components = np.empty(n_components)
    for i in range(n):
        if labels[i] < 0:
            scores[i] = np.nan
            continue
        for j in range(n_components):
            components[j] = 0.0
        for c in range(d):
            x = rows[i, c] - mean[c]
            for j in range(n_components):
                components[j] += x * axes[c, j]
        for j in range(n_components):  # selects, not min and max: NaN has to stay
            w = components[j]
            w = LEVERAGE if w > LEVERAGE else w
            components[j] = -LEVERAGE if w < -LEVERAGE else w
        for b in range(n_blocks):
            m = probabilities[i, classes[b]]
            spread = math.sqrt(max(m * (1.0 - m), 0.02))
            residual = ((1.0 if labels[i] == classes[b] else 0.0) - m) / spread
            residual = CLIP if residual > CLIP else residual
            residual = -CLIP if residual < -CLIP else residual
            scores[i, b] = residual
            scores[i, n_blocks + b] = residual * (2.0 * m - 1.0)
            for j in range(n_components):
                scores[i, (2 + j) * n_blocks + b] = residual * components[j]
