"""A small classifier of numeric features; trained by scikit-learn, served with numpy alone."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

FILE = "tabular.npz"
_HIDDEN = 32
_ALPHA = 0.1  # weight decay: keeps 32 units from memorising the few hundred rows of a repair


@dataclass(frozen=True, slots=True)
class TabularClassifier:
    """Standardisation and one hidden layer of 32 rectified units, with softmax outputs.

    The fitted parameters are plain arrays, so loading one runs no code and needs no scikit-learn.

    Attributes
    ----------
    classes
        Names in the order of the scores' columns.
    median, mean, scale
        Of each feature, shape (d,): the median fills missing values (NaN), then the mean is
        subtracted and the result divided by the scale.
    hidden_weights, hidden_bias
        Shapes (d, 32) and (32,).
    output_weights, output_bias
        Shapes (32, K) and (K,); a class that was not in the training rows has bias ``-inf``, thus
        score 0.
    """

    classes: tuple[str, ...]
    median: Array
    mean: Array
    scale: Array
    hidden_weights: Array
    hidden_bias: Array
    output_weights: Array
    output_bias: Array

    @classmethod
    def fit(
        cls, X: Array, y: npt.ArrayLike, classes: Sequence[str], seed: int
    ) -> TabularClassifier:
        """Train on labelled rows.

        Parameters
        ----------
        X
            Features, shape (n, d); NaN is a missing value.
        y
            Indices into `classes`, shape (n,).
        classes
            All classes, also those without rows.
        seed
            Of the initial weights.

        Raises
        ------
        ValueError
            If the shapes differ, a value is infinite, an index has no class, or fewer than two
            classes have rows.
        """
        X, codes = np.asarray(X, dtype=np.float64), np.asarray(y, dtype=np.int64)
        if X.ndim != 2 or codes.shape != X.shape[:1]:
            raise ValueError(f"X and y: expected (n, d) and (n,), got {X.shape} and {codes.shape}")
        if np.isinf(X).any():
            raise ValueError(f"X[{int(np.argwhere(np.isinf(X))[0][0])}]: holds an infinite value")
        seen = np.unique(codes)
        if len(seen) < 2 or seen[0] < 0 or seen[-1] >= len(classes):
            raise ValueError(
                f"y: expected indices of at least two of {len(classes)} classes, got {list(seen)}"
            )
        with warnings.catch_warnings():
            # A column without any value has no median; it becomes constant.
            warnings.simplefilter("ignore", RuntimeWarning)
            median = np.nan_to_num(np.nanmedian(X, axis=0))
        filled = np.where(np.isnan(X), median, X)
        scaler, network = _fitted(filled, codes, seed)
        hidden, output = network.coefs_
        output_bias = network.intercepts_[1]
        if len(seen) == 2:
            # scikit-learn keeps one logit for two classes: softmax over (0, z) is its sigmoid.
            output = np.hstack([np.zeros_like(output), output])
            output_bias = np.r_[0.0, output_bias]
        weights = np.zeros((_HIDDEN, len(classes)))
        bias = np.full(len(classes), -np.inf)
        weights[:, seen], bias[seen] = output, output_bias
        return cls(
            tuple(classes),
            median,
            scaler.mean_,
            scaler.scale_,
            hidden,
            network.intercepts_[0],
            weights,
            bias,
        )

    def predict_proba(self, X: Array) -> Array:
        """Scores of the classes.

        Parameters
        ----------
        X
            Features, shape (n, d); NaN is a missing value.

        Returns
        -------
        ndarray, shape (n, K)
            Rows sum to 1.

        Raises
        ------
        ValueError
            If the number of features is not that of the training rows.
        """
        X = np.asarray(X, dtype=np.float64)
        if X.ndim != 2 or X.shape[1] != len(self.mean):
            raise ValueError(f"X: expected shape (n, {len(self.mean)}), got {X.shape}")
        z = (np.where(np.isnan(X), self.median, X) - self.mean) / self.scale
        hidden = np.maximum(z @ self.hidden_weights + self.hidden_bias, 0)
        logits = hidden @ self.output_weights + self.output_bias
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)

    def save(self, folder: Path) -> None:
        """Write ``tabular.npz`` into an existing folder."""
        arrays: dict[str, Any] = {n: getattr(self, n) for n in self.__slots__ if n != "classes"}
        np.savez(Path(folder) / FILE, classes=np.array(self.classes), **arrays)

    @classmethod
    def load(cls, folder: Path) -> TabularClassifier:
        """Read what `save` wrote."""
        with np.load(Path(folder) / FILE, allow_pickle=False) as data:
            arrays = {n: data[n] for n in cls.__slots__ if n != "classes"}
            return cls(classes=tuple(map(str, data["classes"])), **arrays)


def _fitted(X: Array, codes: npt.NDArray[np.int64], seed: int) -> tuple[Any, Any]:
    """The scikit-learn scaler and network, fitted."""
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415  only training needs sklearn
    from sklearn.neural_network import MLPClassifier  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415
    from threadpoolctl import threadpool_limits  # noqa: PLC0415

    scaler = StandardScaler().fit(X)
    network = MLPClassifier(
        (_HIDDEN,), solver="lbfgs", alpha=_ALPHA, max_iter=200, random_state=seed
    )
    # Matrices this small are slower on several threads (five times on busy processors).
    with threadpool_limits(1), warnings.catch_warnings():
        # 200 iterations are a budget; stopping there regularises.
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(scaler.transform(X), codes)
    return scaler, network


def tabular_row(features: Mapping[str, float | str | bool | None]) -> npt.NDArray[np.float64]:
    """What a tabular model reads of an observation: its features in the order of their names.

    Raises
    ------
    ValueError
        If a feature is text; tabular models take numbers and booleans.
    """
    text = [name for name, value in features.items() if isinstance(value, str)]
    if text:
        raise ValueError(f"features.{text[0]}: a tabular model takes numbers, got text")
    values = (features[name] for name in sorted(features))
    return np.array([np.nan if v is None else float(v) for v in values])
