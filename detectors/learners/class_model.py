"""Class probabilities P(Y|X) that fit into a checkpoint."""

from __future__ import annotations

import warnings

import numpy as np

from detectors.base import Array, IntArray, State
from detectors.learners.kernels import softmax_regression
from detectors.rows import as_rows, bounded

N_WAVES = 48
"""Random Fourier features, beside the rows and their squares."""
CLIP = 4.0
"""Standardised columns are cut here: one wild value must not decide about a row."""
_PARAMETERS = ("mean", "scale", "frequencies", "phases", "weights", "bias")


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
        rows = bounded(rows)
        rng = np.random.default_rng(seed)
        mean, scale = rows.mean(axis=0), rows.std(axis=0)
        scale[scale < 1e-12] = 1.0
        z = np.clip((rows - mean) / scale, -CLIP, CLIP)
        near = z[rng.choice(len(z), min(300, len(z)), replace=False)]
        gaps = ((near[:, None] - near[None]) ** 2).sum(axis=2)
        width = np.sqrt(np.median(gaps[np.triu_indices(len(near), 1)])) if len(near) > 1 else 1.0
        width = max(float(width), 1e-6)
        state: State = {
            "mean": mean,
            "scale": scale,
            "frequencies": rng.normal(size=(z.shape[1], N_WAVES)) / width,
            "phases": rng.uniform(0, 2 * np.pi, N_WAVES),
        }
        known = np.unique(labels)
        if len(known) < 2:
            self._take(state | {"known": known, "weights": np.empty((0, 0)), "bias": np.empty(0)})
            return self
        from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415 - only learning needs scikit-learn
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - only learning needs scikit-learn

        waves = np.sqrt(2.0) * np.cos(z @ state["frequencies"] + state["phases"])
        with warnings.catch_warnings():
            # 300 steps are close enough: the penalty is a coarser choice than the last digit.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = LogisticRegression(C=0.1, max_iter=300)
            model.fit(np.hstack([z, z**2 - 1, waves]), labels)
        weights, bias = model.coef_, model.intercept_
        if len(known) == 2:  # scikit-learn keeps one row for two classes
            weights, bias = np.vstack([-weights, weights]) / 2, np.r_[-bias, bias] / 2
        self._take(state | {"known": known, "weights": weights, "bias": bias})
        return self

    def _take(self, state: State) -> None:
        """Keep what was learned, and have it ready as the compiled loop reads it."""
        # Copies: numba compiles a second loop for arrays that must not be written to.
        mean, scale, *others = (
            np.array(state[key], dtype=np.float64, order="C") for key in _PARAMETERS
        )
        self._width = len(mean)
        self._state = dict(zip(_PARAMETERS, (mean, scale, *others), strict=True))
        self._state["known"] = known = np.array(state["known"], dtype=np.int64)
        self._all_known = np.array_equal(known, np.arange(self.n_classes))
        self._loop = (mean, 1.0 / scale, CLIP, *others)

    def predict(self, rows: Array) -> Array:
        """Probabilities, shape (n, n_classes); 0 for codes without reference rows.

        A row's probabilities do not depend on the other rows. Those of a row with a NaN are NaN.
        """
        known = self._state["known"]
        if len(known) < 2:
            out = np.zeros((len(rows), self.n_classes))
            out[:, known] = 1.0
            return out
        found = np.empty((len(rows), len(known)))
        softmax_regression(as_rows(rows, self._width, "a class model"), *self._loop, found)
        if self._all_known:
            return found
        out = np.zeros((len(rows), self.n_classes))
        out[:, known] = found
        return out

    def snapshot(self) -> State:
        """The fitted parameters."""
        return {"n_classes": self.n_classes, **self._state}

    @classmethod
    def from_snapshot(cls, state: State) -> ClassModel:
        """The model that a snapshot was taken of."""
        model = cls(state["n_classes"])
        model._take(state)
        return model
