"""Conformal test martingales inside each class: for P(X|Y), whatever P(Y) does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from detectors.base import Alarm, Array, Factor
from detectors.martingales.bins import as_bins, as_calibration, bins_of
from detectors.martingales.jumpers import Jumpers
from detectors.rows import as_labels, as_rows, label_column


class MondrianShiryaevRoberts(Jumpers):
    r"""The same inside the class of each row's label: for P(X|Y), whatever P(Y) does [1]_.

    A score's p-value is its rank among the scores of its own class. A column has one sum; each
    class has jumpers of its own, because classes may move in different directions.

    **The promise.** *If, given all labels, the calibration and stream scores of a class can be
    swapped among themselves without changing the joint distribution, the mean number of rows to the
    first alarm is at least `arl0`*: for any sequence of labels, so under any prior shift. It needs
    that whether a label comes does not depend on the scores given the class.

    Parameters
    ----------
    edges
        Inner edges of each class's and column's bins, shape (n_classes, k, b - 1).
    counts
        Calibration scores in each bin, shape (n_classes, k, b).
    arl0, factor, seed, name
        As of `ConformalShiryaevRoberts`, with its notes on bags, bets and several columns.

    Raises
    ------
    ValueError
        If shapes differ or `arl0` is out of range.

    Notes
    -----
    The promise holds for classes with few or no calibration scores too: their p-values are hardly
    more than the random numbers that break ties, until their bag has grown.

    References
    ----------
    .. [1] V. Vovk (2020). Testing for concept shift online. arXiv:2012.14246.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> def draw(n, share, shift):
    ...     labels = (rng.random(n) < share).astype(float)
    ...     return np.c_[rng.normal(size=n) + labels * (2.0 + shift), labels]
    >>> reference = draw(2000, 0.5, 0.0)
    >>> detector = MondrianShiryaevRoberts.learn(
    ...     reference[:, :1], reference[:, 1].astype(int), n_classes=2, arl0=1e4, seed=0
    ... )
    >>> len(detector.update(draw(1000, 0.9, 0.0)))  # only P(Y) moved
    0
    >>> len(detector.update(draw(300, 0.9, 1.0)))  # P(X|Y=1) moved
    8
    """

    def __init__(
        self,
        edges: npt.ArrayLike,
        counts: npt.ArrayLike,
        *,
        arl0: float,
        factor: Factor = Factor.CONCEPT,
        seed: int,
        name: str = "mondrian",
    ) -> None:
        inner, bag = as_bins(edges, counts, ndim=3)
        super().__init__(inner, bag, arl0=arl0, factor=factor, name=name, seed=seed)

    @classmethod
    def learn(
        cls,
        scores: npt.ArrayLike,
        labels: npt.ArrayLike,
        *,
        n_classes: int,
        arl0: float,
        factor: Factor = Factor.CONCEPT,
        seed: int,
        name: str = "mondrian",
    ) -> MondrianShiryaevRoberts:
        """A detector whose bags are a reference's, class by class.

        Parameters
        ----------
        scores
            Scores of the reference, shape (n, k), n at least 8, on rows that did not teach them.
        labels
            Their class codes, shape (n,); a negative code means "no label".
        n_classes
            Codes that labels may have.
        arl0, factor, seed, name
            As of the class.

        Raises
        ------
        ValueError
            If `scores` is not a matrix of at least 8 rows, or a code is no class.
        """
        x = as_calibration(scores)
        if n_classes < 2:
            raise ValueError(f"n_classes must be at least 2, got {n_classes}")
        codes = as_labels(labels, len(x), n_classes, name)
        edges, counts = bins_of([x[codes == c] for c in range(n_classes)])
        return cls(edges, counts, arl0=arl0, factor=factor, seed=seed, name=name)

    def update(self, batch: Array, /) -> Sequence[Alarm]:
        """Take rows of k scores and, in the last column, the class code: shape (n, k + 1).

        A code that is negative or not finite means "no label": the row is skipped.

        Raises
        ------
        ValueError
            If the batch does not have k + 1 columns, or a code is no class.
        """
        rows = as_rows(batch, self._counts.shape[1] + 1, self.name)
        codes = label_column(rows, self._counts.shape[0], self.name)
        return self._take(np.ascontiguousarray(rows[:, :-1]), codes)
