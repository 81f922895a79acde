"""Class probabilities P(Y|X) that fit into a checkpoint."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from detectors.base import Array, IntArray, State

N_WAVES = 48
"""Random Fourier features, beside the rows and their squares."""
CLIP = 4.0
"""Standardised columns are cut here: one wild value must not decide about a row."""


class ClassModel:
    """Class probabilities P(Y|X) as arrays: a softmax regression on rows, squares and waves.

    Parameters
    ----------
    n_classes
        Codes that labels may have.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> rows = rng.normal(size=(500, 2))
    >>> model = ClassModel(2).fit(rows, (rows[:, 0] > 0).astype(np.int64), seed=0)
    >>> model.predict(np.array([[1.0, 0.0], [-1.0, 0.0]])).round(1).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
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
