"""Scores of labels: what moves when P(Y) does."""

from __future__ import annotations

import numpy as np

from detectors.base import Array, IntArray, State
from detectors.rows import as_labels
from detectors.scores.inputs import EVENT
from detectors.scores.labelled import MAX_BLOCKS, reference_labels, without_label


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
        codes = reference_labels(labels, len(labels), n_classes)
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
        return without_label(EVENT * (codes[:, None] == self._classes), codes)

    def snapshot(self) -> State:
        """The columns' classes."""
        return {"n_classes": self._n_classes, "classes": self._classes.copy()}

    def restore(self, state: State) -> None:
        """Take over the columns of a snapshot."""
        self._n_classes = int(state["n_classes"])
        self._classes = state["classes"].copy()
