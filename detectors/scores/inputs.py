"""Scores of feature rows: what moves when P(X) does."""

from __future__ import annotations

import numpy as np
from numba import njit

from detectors.base import Array, IntArray, State
from detectors.learners.embedding import Embedding, Places
from detectors.learners.folds import N_FOLDS, fold_of
from detectors.learners.moments import CLIP
from detectors.rows import as_rows

MAX_SQUARED = 64
"""Up to here each feature has a column for its scale; the joint columns stand in beyond."""

MAX_LOCATED = 128
"""Up to here each feature has columns for its location and for its missing values."""

N_COMPONENTS = (8, 32)
"""Leading components up to `MAX_SQUARED` features, and beyond, where they replace columns."""

N_WAVES = 16
"""Random waves: enough for the joint, few enough not to raise everybody's threshold."""

EVENT = CLIP
"""Score of a thing that happened, such as a missing value; 0 where it did not. A thing that never
happened in the reference has no spread to be measured in; this makes it the largest score that a
bank takes from one row, so that one is evidence and some twenty in a short while are an alarm."""


class InputScores:
    """Score columns of feature rows that a bank can watch for a change of P(X).

    Fitted on a reference window. With d features the columns are: each feature's normal score
    (location), that squared minus 1 (scale; not for features with two values), its missing
    indicator; the leading principal components of the normal scores and their squares minus 1; and
    16 random Fourier features at the median distance, for what only the joint shows. More than 64
    features have the rows' norm instead of the squares, and more components; more than 128 have no
    columns of their own, and one for the share of missing values.

    Attributes
    ----------
    names
        Of the columns.

    Notes
    -----
    A missing value scores NaN in its feature's own columns, and as its median in the joint ones.

    Examples
    --------
    >>> from detectors.base import Factor
    >>> from detectors.charts.calibration import calibrate_cusum
    >>> from detectors.charts.cusum import CusumBank
    >>> rng = np.random.default_rng(0)
    >>> scores = InputScores()
    >>> c = calibrate_cusum(scores.fit(rng.normal(size=(1000, 2)), seed=0), arl0=5000, seed=0)
    >>> bank = CusumBank(c.mean, c.scale, c.thresholds, factor=Factor.COVARIATE)
    >>> together = rng.normal(size=(500, 1)) + rng.normal(size=(500, 2)) / 4  # margins stay alike
    >>> alarm = bank.update(scores.transform(together))[0]
    >>> alarm.row, scores.names[alarm.columns[0]], sorted(scores.source(alarm.columns[0]))
    (33, 'component 2 scale', [0, 1])
    """

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self._embedding: Embedding | None = None

    def fit(self, reference: Array, *, seed: int) -> Array:
        """Learn the columns from a reference; return the reference's own scores.

        Parameters
        ----------
        reference
            Feature rows in time order, shape (n, d), n at least 10; NaN means missing.
        seed
            Of the random features and the folds.

        Returns
        -------
        Array
            Shape (n, k), for `calibrate_cusum`. Each row is scored by the map that other rows
            taught: a component's variance is larger on the rows that it was chosen by, and a
            threshold from those would alarm on fresh rows.

        Raises
        ------
        ValueError
            If the reference is not a matrix with at least 10 rows and 1 column.
        """
        x = np.array(reference, dtype=np.float64)
        if x.ndim != 2 or len(x) < 2 * N_FOLDS or x.shape[1] == 0:
            raise ValueError(
                f"a reference needs at least {2 * N_FOLDS} rows and 1 column, got shape {x.shape}"
            )
        n_components = N_COMPONENTS[x.shape[1] > MAX_SQUARED] if x.shape[1] > 1 else 0
        embedding = Embedding.fit(x, n_components=n_components, n_waves=N_WAVES, seed=seed)
        folds = fold_of(len(x), seed)
        held_out = [folds == fold for fold in range(N_FOLDS)]
        others = [embedding.refit(x[~rows]) for rows in held_out]
        # A direction in which the rows of a single fold vary, such as that of a flag which is set
        # once, cannot be scored out of fold.
        p = min(len(other.loadings) for other in others)
        embedding = embedding.leading(p)
        self._set(embedding)
        scores = np.empty((len(x), len(self.names)))
        for rows, other in zip(held_out, others, strict=True):
            scores[rows] = self._columns(other.leading(p), x[rows])
        # Means along five directions say less about the mean along the one that will be watched.
        scores[:, self._locations] = self._columns(embedding, x)[:, self._locations]
        return scores

    def transform(self, batch: Array) -> Array:
        """Scores of feature rows, shape (n, d) to (n, k).

        Raises
        ------
        RuntimeError
            If neither `fit` nor `restore` came before.
        ValueError
            If the rows do not have d columns.
        """
        return self._columns(self._fitted(), batch)

    def source(self, column: int) -> tuple[int, ...]:
        """The features that a score column is made of, strongest first.

        For a component those that make up four fifths of it; for the random features and the norm,
        all.
        """
        return self._sources[column]

    def snapshot(self) -> State:
        """The learned map as arrays."""
        return {"embedding": self._fitted().snapshot()}

    def restore(self, state: State) -> None:
        """Take over the map of a snapshot."""
        self._set(Embedding.from_snapshot(state["embedding"]))

    def _fitted(self) -> Embedding:
        if self._embedding is None:
            raise RuntimeError("input scores need fit or restore first")
        return self._embedding

    def _set(self, embedding: Embedding) -> None:
        """Lay out the columns; `_columns` fills them in the same order."""
        d, p = embedding.frequencies.shape[1], len(embedding.loadings)
        located: list[int] = list(range(d)) if d <= MAX_LOCATED else []
        many_valued = [j for j in located if embedding.scores.lengths[j] > 2]
        squared = many_valued if d <= MAX_SQUARED else []
        everything = tuple(range(d))
        mixed = embedding.sources

        columns: list[tuple[str, tuple[int, ...]]] = [(f"{j} location", (j,)) for j in located]
        columns += [(f"{j} scale", (j,)) for j in squared]
        columns += [(f"{j} missing", (j,)) for j in located] or [("missing", everything)]
        components = len(columns)
        columns += [(f"component {i + 1} location", mixed[i]) for i in range(p)]
        if d <= MAX_SQUARED:
            columns += [(f"component {i + 1} scale", mixed[i]) for i in range(p)]
        norm = len(columns) if d > MAX_SQUARED else None
        columns += [("norm", everything)] if d > MAX_SQUARED else []
        waves = len(columns)
        columns += [(f"joint {i + 1}", everything) for i in range(N_WAVES)]

        self._embedding = embedding
        self._places = Places(components, waves, 0 if located else None, norm).as_array()
        self._locations = slice(components, components + p)
        squares = [(j, len(located) + i) for i, j in enumerate(squared)]
        if d <= MAX_SQUARED:
            squares += [(i, i + p) for i in range(components, components + p)]
        self._squares: IntArray = np.array(squares, dtype=np.int64).reshape(-1, 2)
        self._missing = len(located) + len(squared)
        self.names = tuple(name for name, _ in columns)
        self._sources = tuple(source for _, source in columns)

    def _columns(self, embedding: Embedding, batch: Array) -> Array:
        d = embedding.frequencies.shape[1]
        rows = as_rows(batch, d, "input scores")
        scores = np.empty((len(rows), len(self.names)))
        embedding.fill(scores, rows, self._places)
        _derive(rows, self._squares, self._missing, d <= MAX_LOCATED, scores)
        return scores


@njit(cache=True, error_model="numpy")
def _derive(rows: Array, squares: IntArray, missing: int, by_feature: bool, scores: Array) -> None:
    """Fill in squares minus 1, and what is missing: an event for each feature, or the share.

    `squares` holds pairs of a column and that for its square, `missing` is the first of the others.
    """
    n, d = rows.shape
    for i in range(n):
        for j in range(len(squares)):
            z = scores[i, squares[j, 0]]
            scores[i, squares[j, 1]] = z * z - 1.0
        if by_feature:
            for c in range(d):
                scores[i, missing + c] = EVENT if np.isnan(rows[i, c]) else 0.0
        else:
            count = 0
            for c in range(d):
                count += np.isnan(rows[i, c])
            scores[i, missing] = count / d
