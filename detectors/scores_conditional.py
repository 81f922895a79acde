"""Scores of labelled rows: what moves when P(Y), P(Y|X) or P(X|Y) does."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from detectors.base import Array, IntArray, State
from detectors.folds import N_FOLDS, fold_of
from detectors.rows import as_labels, as_rows
from detectors.scores_input import EVENT

MAX_BLOCKS = 10
"""Classes with columns of their own, the most frequent ones; more only raise the thresholds."""
N_COMPONENTS = 6
"""Leading principal components that residuals are weighted by."""
N_CLASS_COMPONENTS = 8
N_WAVES = 48
"""Random Fourier features of the class model, beside the rows and their squares."""
CLIP = 4.0
"""Standardised residuals are cut here: a rare class has residuals without a useful bound."""
SHRINKAGE = 10.0
"""Rows of all classes, around their own means, that each class's variance is mixed with."""
MIN_CLASS_ROWS = 50
"""Reference rows of a class without which its rows score NaN. Its mean is known to 1 / sqrt(rows)
standard deviations only, and that error becomes an alarm for P(X|Y) as soon as a pure prior shift
makes the class frequent."""


class LabelScores:
    """Indicator columns of the labels, for P(Y): 4 for the column's class, 0 for another.

    A class that the reference does not have is then four standard deviations an observation. A row
    without a label (negative code) scores NaN.

    Examples
    --------
    >>> scores = LabelScores()
    >>> scores.fit(np.array([0, 1, 1, 0]), n_classes=2).mean(axis=0)
    array([2., 2.])
    """

    def __init__(self) -> None:
        self._n_classes = 0
        self._classes: IntArray = np.empty(0, np.int64)

    def fit(self, labels: IntArray, *, n_classes: int) -> Array:
        """Choose the columns: a class each, the most frequent ones.

        Parameters
        ----------
        labels
            Codes of the reference, shape (n,).
        n_classes
            Codes that labels may have; one without reference rows has a column too if there is
            room, because a class that is new is a change of P(Y).

        Returns
        -------
        Array
            The reference's own scores, shape (n, k).
        """
        codes = _reference_labels(labels, len(labels), n_classes)
        counts = np.bincount(codes, minlength=n_classes)
        self._n_classes = n_classes
        self._classes = np.sort(np.argsort(-counts, kind="stable")[: MAX_BLOCKS + 2])
        return self.transform(codes)

    def transform(self, labels: IntArray) -> Array:
        """Scores of labels, shape (n,) to (n, k).

        Raises
        ------
        ValueError
            If a code is no class.
        """
        codes = as_labels(labels, len(labels), self._n_classes, "label scores")
        return _without_label(EVENT * (codes[:, None] == self._classes), codes)

    def snapshot(self) -> State:
        """The columns' classes."""
        return {"n_classes": self._n_classes, "classes": self._classes.copy()}

    def restore(self, state: State) -> None:
        """Take over the columns of a snapshot."""
        self._n_classes = int(state["n_classes"])
        self._classes = state["classes"].copy()


class ClassModel:
    """Class probabilities P(Y|X) as arrays: a softmax regression on rows, squares and waves.

    Parameters
    ----------
    n_classes
        Codes that labels may have.
    """

    def __init__(self, n_classes: int) -> None:
        self.n_classes = n_classes
        self._state: State = {}

    def fit(self, rows: Array, labels: IntArray, seed: int) -> ClassModel:
        """Learn from rows (n, d) and codes (n,)."""
        rng = np.random.default_rng(seed)
        mean, scale = rows.mean(axis=0), rows.std(axis=0)
        scale[scale < 1e-12] = 1.0
        z = np.clip((rows - mean) / scale, -CLIP, CLIP)
        near = z[rng.choice(len(z), min(300, len(z)), replace=False)]
        gaps = ((near[:, None] - near[None]) ** 2).sum(axis=2)
        width = np.sqrt(np.median(gaps[np.triu_indices(len(near), 1)])) if len(near) > 1 else 1.0
        width = max(float(width), 1e-6)
        self._state = {
            "mean": mean,
            "scale": scale,
            "frequencies": rng.normal(size=(z.shape[1], N_WAVES)) / width,
            "phases": rng.uniform(0, 2 * np.pi, N_WAVES),
        }
        known = np.unique(labels)
        if len(known) < 2:
            self._state |= {"known": known, "weights": np.empty((0, 0)), "bias": np.empty(0)}
            return self
        features = self._features(rows)
        with warnings.catch_warnings():
            # 300 steps are close enough: the penalty is a coarser choice than the last digit.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = LogisticRegression(C=0.1, max_iter=300).fit(features, labels)
        weights, bias = model.coef_, model.intercept_
        if len(known) == 2:  # scikit-learn keeps one row for two classes
            weights, bias = np.vstack([-weights, weights]) / 2, np.r_[-bias, bias] / 2
        self._state |= {"known": known, "weights": weights, "bias": bias}
        return self

    def predict(self, rows: Array) -> Array:
        """Probabilities, shape (n, n_classes); 0 for codes without reference rows."""
        out = np.zeros((len(rows), self.n_classes))
        known = self._state["known"]
        if len(known) < 2:
            out[:, known] = 1.0
            return out
        logits = self._features(rows) @ self._state["weights"].T + self._state["bias"]
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        out[:, known] = odds / odds.sum(axis=1, keepdims=True)
        return out

    def _features(self, rows: Array) -> Array:
        s = self._state
        z = np.clip((rows - s["mean"]) / s["scale"], -CLIP, CLIP)
        waves = np.sqrt(2.0) * np.cos(z @ s["frequencies"] + s["phases"])
        return np.hstack([z, z**2 - 1, waves])

    def snapshot(self) -> State:
        """The fitted parameters."""
        return {"n_classes": self.n_classes, **self._state}

    @classmethod
    def from_snapshot(cls, state: State) -> ClassModel:
        """The model that a snapshot was taken of."""
        model = cls(state["n_classes"])
        model._state = {k: v for k, v in state.items() if k != "n_classes"}
        return model


class ResidualScores:
    """Residuals of a frozen model of P(Y|X), for concept drift of X->Y problems.

    A residual 1[y=c] - m_c(x) has mean 0 wherever x comes from as long as P(Y|X) stays; weighted
    by the leading components of x it also shows changes that cancel in the mean.

    Examples
    --------
    >>> from detectors.base import Factor
    >>> from detectors.calibration import calibrate_cusum
    >>> from detectors.cusum import CusumBank
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
        labels = _reference_labels(labels, len(rows), n_classes)
        counts = np.bincount(labels, minlength=n_classes)
        # Residuals of two classes mirror each other, so one block says it all.
        n_blocks = 1 if (counts > 0).sum() <= 2 else MAX_BLOCKS
        self._classes = np.sort(np.argsort(-counts, kind="stable")[:n_blocks])
        self._mean, self._axes = _principal(rows, N_COMPONENTS)
        self._model = ClassModel(n_classes).fit(rows, labels, seed)
        folds = fold_of(len(rows), seed)
        own = np.empty((len(rows), len(self._classes) * (1 + self._axes.shape[1])))
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
        return _without_label(self._columns(self._model, x, codes), codes)

    def _columns(self, model: ClassModel, rows: Array, labels: IntArray) -> Array:
        m = model.predict(rows)[:, self._classes]
        spread = np.sqrt(np.maximum(m * (1 - m), 0.02))
        residual = np.clip(((labels[:, None] == self._classes) - m) / spread, -CLIP, CLIP)
        weights = np.clip((rows - self._mean) @ self._axes, -3, 3)
        blocks = [residual] + [residual * w[:, None] for w in weights.T]
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
        labels = _reference_labels(labels, len(rows), n_classes)
        self._mean, self._axes = _principal(rows, N_CLASS_COMPONENTS)
        components = (rows - self._mean) @ self._axes
        counts = np.bincount(labels, minlength=n_classes)
        self._class_mean, self._class_scale = _moments(components, labels, counts)
        folds = fold_of(len(rows), seed)
        own = np.empty((len(rows), 2 * components.shape[1]))
        for fold in range(N_FOLDS):
            inside = folds == fold
            mean, scale = _moments(components[~inside], labels[~inside], counts)
            own[inside] = _scored(components[inside], labels[inside], mean, scale)
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
        scores = _scored((x - self._mean) @ self._axes, codes, self._class_mean, self._class_scale)
        return _without_label(scores, codes)

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


def _reference_labels(labels: IntArray, n_rows: int, n_classes: int) -> IntArray:
    codes = as_labels(labels, n_rows, n_classes, "a reference")
    if (codes < 0).any():
        row = int(np.flatnonzero(codes < 0)[0])
        raise ValueError(f"every row of a reference needs a label, got {codes[row]} at row {row}")
    return codes


def _without_label(scores: Array, codes: IntArray) -> Array:
    """The scores, NaN where the label is missing."""
    return np.where(codes[:, None] < 0, np.nan, scores)


def _principal(rows: Array, n: int) -> tuple[Array, Array]:
    """Mean, and leading axes scaled to unit variance; shapes (d,) and (d, at most n)."""
    mean = rows.mean(axis=0)
    scale = rows.std(axis=0)
    scale[scale < 1e-12] = np.inf
    _, singular, axes = np.linalg.svd((rows - mean) / scale, full_matrices=False)
    spread = singular / np.sqrt(len(rows))
    keep = min(n, int((spread > 1e-6 * max(spread[0], 1e-30)).sum()))
    return mean, (axes[:keep] / scale).T / spread[:keep]


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


def _scored(components: Array, labels: IntArray, mean: Array, scale: Array) -> Array:
    z = np.clip((components - mean[labels]) / scale[labels], -CLIP, CLIP)
    return np.hstack([z, z**2 - 1])
