"""Scores of labelled rows: what moves when P(Y|X) does."""

from __future__ import annotations

import numpy as np

from detectors.base import Array, IntArray, State
from detectors.learners.class_model import ClassModel
from detectors.learners.folds import N_FOLDS, fold_of
from detectors.rows import as_labels, as_rows
from detectors.scores.labelled import (
    CLIP,
    MAX_BLOCKS,
    leading_axes,
    reference_labels,
    without_label,
)

N_COMPONENTS = 6
"""Leading principal components that residuals are weighted by."""


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
        return without_label(self._columns(self._model, x, codes), codes)

    def _columns(self, model: ClassModel, rows: Array, labels: IntArray) -> Array:
        m = model.predict(rows)[:, self._classes]
        spread = np.sqrt(np.maximum(m * (1 - m), 0.02))
        residual = np.clip(((labels[:, None] == self._classes) - m) / spread, -CLIP, CLIP)
        weights = np.clip((rows - self._mean) @ self._axes, -3, 3)
        blocks = [residual, residual * (2 * m - 1)] + [residual * w[:, None] for w in weights.T]
        return np.hstack(blocks)

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
