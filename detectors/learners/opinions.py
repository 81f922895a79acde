"""P(Y|X) as a reference has it: what its labels say of its own rows, and of others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detectors.base import Array, IntArray
from detectors.learners.features import Scale, principal_axes
from detectors.learners.folds import out_of_fold
from detectors.learners.nuisance import QuadraticLogistic, make_folds

__all__ = ["MAX_COLUMNS", "N_COMPONENTS", "Codes", "Opinions"]

MAX_CLASSES = 10
"""Most frequent classes with a code of their own; the others count as one."""

MAX_COLUMNS, N_COMPONENTS = 64, 32
"""More columns than the first are replaced by so many principal components of the reference."""

N_FOLDS = 3


@dataclass(frozen=True, slots=True)
class Codes:
    """Classes by their frequency in a reference; rare and unknown ones share the last code.

    Attributes
    ----------
    of
        Code of each class, shape (K,).
    n
        Codes.

    Examples
    --------
    >>> codes = Codes.of_labels(np.array([2, 2, 0]), n_classes=3)
    >>> codes.of.tolist(), codes.n  # nobody knows class 1
    ([1, 2, 0], 3)
    """

    of: IntArray
    n: int

    @classmethod
    def of_labels(cls, labels: IntArray, n_classes: int) -> Codes:
        """From a reference's labels, shape (n,), from 0 to `n_classes` - 1."""
        counts = np.bincount(labels, minlength=n_classes)
        rank = np.empty(n_classes, np.int64)
        rank[np.argsort(-counts, kind="stable")] = np.arange(n_classes)
        n_own = min(int((counts > 0).sum()), MAX_CLASSES)
        of = np.minimum(rank, n_own)
        return cls(of, int(of.max(initial=0)) + 1)


@dataclass(frozen=True, slots=True)
class Opinions:
    """A model of P(Y|X) for each fold of a reference, and what it says of the other folds.

    Attributes
    ----------
    codes
        Of the classes.
    own
        Probabilities of the reference's rows by models that did not learn from them, shape (n, K).
    scale, axes
        Of the columns, and of what replaces them; axes are None where there are few enough.
    models
        One a fold.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(600, 2))
    >>> y = (rng.random(600) < 1 / (1 + np.exp(-3 * x[:, 0]))).astype(np.int64)
    >>> opinions = Opinions.learn(x, y, n_classes=2, seed=0)
    >>> right = opinions.of(np.array([[1.0, 0.0], [-1.0, 0.0]])).argmax(axis=1)
    >>> opinions.codes.of[[1, 0]].tolist() == right.tolist()
    True
    """

    codes: Codes
    own: Array
    scale: Scale
    axes: Array | None
    models: tuple[QuadraticLogistic, ...]

    @classmethod
    def learn(
        cls, rows: Array, labels: IntArray, *, n_classes: int, seed: int, block_length: int = 1
    ) -> Opinions:
        """From labelled rows in time order, shapes (n, d) and (n,).

        `block_length` is the number of neighbours that share a fold.
        """
        codes = Codes.of_labels(labels, n_classes)
        coded = codes.of[labels]
        scale = Scale.fit(rows)
        axes = _axes(scale(rows)) if rows.shape[1] > MAX_COLUMNS else None
        reduced = _reduce(rows, scale, axes)
        folds = make_folds(coded, N_FOLDS, np.random.default_rng(seed), block_length)
        models: list[QuadraticLogistic] = []

        def judge(taught: npt.NDArray[np.bool_], judged: npt.NDArray[np.bool_]) -> Array:
            models.append(QuadraticLogistic.fit(reduced[taught], coded[taught], codes.n))
            return models[-1].predict(reduced[judged])

        own = out_of_fold(folds, judge)
        return cls(codes, own, scale, axes, tuple(models))

    def reduced(self, rows: Array) -> Array:
        """Standardised columns or components of rows, shape (m, q)."""
        return _reduce(rows, self.scale, self.axes)

    def of(self, rows: Array) -> Array:
        """Probabilities of other rows, shape (m, K), each by one of the models in turn.

        As of the reference's own rows: a mean over the models would differ less from row to row,
        and that would look like a change.
        """
        reduced = self.reduced(rows)
        turn = np.arange(len(rows)) % len(self.models)
        found = np.empty((len(rows), self.codes.n))
        for number, model in enumerate(self.models):
            found[turn == number] = model.predict(reduced[turn == number])
        return found


def _axes(standardised: Array) -> Array:
    """Leading components, scaled to unit variance, shape (d, q)."""
    axes = principal_axes(standardised, N_COMPONENTS)
    assert axes is not None
    spread = (standardised @ axes).std(axis=0)
    return np.asarray(axes / np.where(spread > 1e-9, spread, np.inf))


def _reduce(rows: Array, scale: Scale, axes: Array | None) -> Array:
    z = np.clip(scale(rows), -6.0, 6.0)
    return z if axes is None else z @ axes
