"""Scores of rows inside their class: what moves when P(X|Y) does."""

from __future__ import annotations

import numpy as np
from numba import njit

from detectors.base import Array, IntArray, State
from detectors.learners.folds import N_FOLDS, fold_of
from detectors.rows import as_labels, as_rows, bounded
from detectors.scores.labelled import CLIP, leading_axes, reference_labels

N_COMPONENTS = 8
"""Leading principal components that are scored."""
SHRINKAGE = 10.0
"""Rows of all classes, around their own means, that each class's variance is mixed with."""
MIN_CLASS_ROWS = 50
"""Reference rows of a class without which its rows score NaN. Its mean is known to 1 / sqrt(rows)
standard deviations only, and that error becomes an alarm for P(X|Y) as soon as a pure prior shift
makes the class frequent."""


class ClassConditionalScores:
    """Components of the rows, standardised inside their class, and their squares, for P(X|Y).

    Under a prior shift each class keeps its mean and variance here, so the columns stay where they
    are. Rows of a class with fewer than 50 reference rows, and rows without a label, score NaN.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> labels = np.arange(4000) % 2
    >>> rows = rng.normal(size=(4000, 2)) + 5.0 * labels[:, None]
    >>> scores = ClassConditionalScores()
    >>> _ = scores.fit(rows, labels, n_classes=2, seed=0)
    >>> only_ones = scores.transform(rng.normal(size=(2000, 2)) + 5.0, np.ones(2000, np.int64))
    >>> bool(np.abs(only_ones.mean(axis=0)).max() < 0.2)
    True
    """

    def __init__(self) -> None:
        self._mean: Array = np.empty(0)
        self._axes: Array = np.empty((0, 0))
        self._class_mean: Array = np.empty((0, 0))
        self._class_scale: Array = np.empty((0, 0))

    def fit(self, rows: Array, labels: IntArray, *, n_classes: int, seed: int) -> Array:
        """Learn each class's means and scales; return the reference's own scores.

        Parameters
        ----------
        rows, labels
            The labelled reference in time order, shapes (n, d) and (n,); no missing values.
        n_classes
            Codes that labels may have.
        seed
            Of the folds.

        Returns
        -------
        Array
            Shape (n, k), each row scored by the map that other rows taught.
        """
        rows = bounded(rows)
        labels = reference_labels(labels, len(rows), n_classes)
        self._mean, self._axes = leading_axes(rows, N_COMPONENTS)
        components = (rows - self._mean) @ self._axes
        counts = np.bincount(labels, minlength=n_classes)
        self._class_mean, self._class_scale = _moments(components, labels, counts)
        folds = fold_of(len(rows), seed)
        own = np.empty((len(rows), 2 * components.shape[1]))
        for fold in range(N_FOLDS):
            inside = folds == fold
            moments = _moments(components[~inside], labels[~inside], counts)
            held_out = np.empty((int(inside.sum()), own.shape[1]))
            _score(rows[inside], labels[inside], self._mean, self._axes, *moments, held_out)
            own[inside] = held_out
        return own

    def transform(self, rows: Array, labels: IntArray) -> Array:
        """Scores of labelled rows, shapes (n, d) and (n,) to (n, k); NaN without a label.

        Raises
        ------
        ValueError
            If shapes do not fit or a code is no class.
        """
        x = as_rows(rows, len(self._mean), "class-conditional scores")
        codes = as_labels(labels, len(x), len(self._class_mean), "class-conditional scores")
        scores = np.empty((len(x), 2 * self._axes.shape[1]))
        _score(x, codes, self._mean, self._axes, self._class_mean, self._class_scale, scores)
        return scores

    def snapshot(self) -> State:
        """The learned map as arrays."""
        return {
            "mean": self._mean.copy(),
            "axes": self._axes.copy(),
            "class_mean": self._class_mean.copy(),
            "class_scale": self._class_scale.copy(),
        }

    def restore(self, state: State) -> None:
        """Take over the map of a snapshot."""
        self._mean, self._axes = state["mean"].copy(), state["axes"].copy()
        self._class_mean = state["class_mean"].copy()
        self._class_scale = state["class_scale"].copy()


def _moments(components: Array, labels: IntArray, counts: IntArray) -> tuple[Array, Array]:
    """Means and scales of each class; NaN for classes that `counts` says are too rare.

    Means are not drawn to the others': that would look like a change of P(X|Y) when the class
    becomes frequent.
    """
    means = np.full((len(counts), components.shape[1]), np.nan)
    variances = np.full_like(means, np.nan)
    frequent = [int(c) for c in np.flatnonzero(counts >= MIN_CLASS_ROWS) if (labels == c).any()]
    for c in frequent:
        means[c] = components[labels == c].mean(axis=0)
        variances[c] = components[labels == c].var(axis=0)
    sizes = np.bincount(labels, minlength=len(counts))[:, None].astype(np.float64)
    pooled = np.nansum(sizes * variances, axis=0) / max(float(sizes[frequent].sum()), 1.0)
    mixed = (sizes * variances + SHRINKAGE * pooled) / (sizes + SHRINKAGE)
    return means, np.maximum(np.sqrt(mixed), 1e-9)


@njit(cache=True, error_model="numpy")
def _score(
    rows: Array,
    labels: IntArray,
    mean: Array,
    axes: Array,
    class_mean: Array,
    class_scale: Array,
    scores: Array,
) -> None:
    """Standardised components of rows inside their class, and the squares minus 1.

    Shapes (n, d), (n,), (d,), (d, p), twice (n_classes, p) and, to be filled, (n, 2 p).
    """
    n, d = rows.shape
    p = axes.shape[1]
    components = np.empty(p)
    for i in range(n):
        label = labels[i]
        if label < 0:
            scores[i] = np.nan
            continue
        for j in range(p):
            components[j] = 0.0
        for c in range(d):
            x = rows[i, c] - mean[c]
            for j in range(p):
                components[j] += x * axes[c, j]
        for j in range(p):  # selects, not min and max: NaN has to stay
            z = (components[j] - class_mean[label, j]) / class_scale[label, j]
            z = CLIP if z > CLIP else z
            z = -CLIP if z < -CLIP else z
            scores[i, j] = z
            scores[i, p + j] = z * z - 1.0
