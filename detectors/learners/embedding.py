"""What several features do together: principal components and random waves of normal scores."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from detectors.base import Array, IntArray, State
from detectors.learners.kernels import embed
from detectors.learners.normal_scores import LIMIT, NormalScores

BANDWIDTH_ROWS = 500
"""Rows whose distances give the median bandwidth: 125,000 pairs."""


@dataclass(frozen=True, slots=True)
class Places:
    """The first columns of a matrix of scores that each form of the rows is written to.

    Attributes
    ----------
    components
        Leading principal components in their reference standard deviations, p columns, cut to +-3.
    waves
        Random Fourier features, m columns, in [-1, 1].
    features
        Normal scores, d columns, NaN where missing; None to leave them out.
    norm
        Root mean square of the normal scores, a column; None to leave it out.
    """

    components: int
    waves: int
    features: int | None = None
    norm: int | None = None

    def as_array(self) -> IntArray:
        """As `embed` reads them."""
        places = (self.features, self.components, self.waves, self.norm)
        return np.array([-1 if place is None else place for place in places], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Embedding:
    r"""A fixed map of feature rows, learned from a reference window.

    The waves are :math:`\cos(\omega_i \cdot z + b_i)` with :math:`\omega_i` normal at the inverse
    of the reference's median distance [1]_: their mean moves if and only if the maximum mean
    discrepancy of the joint distribution does, up to the choice of m. A missing value counts as its
    feature's median in components and waves, so that both always exist.

    Attributes
    ----------
    scores
        The features' own maps.
    loadings, spread
        Directions of the components in the normal scores, shape (p, d), and the reference's
        standard deviations along them, shape (p,).
    frequencies, phases
        Of the waves, shapes (m, d) and (m,).
    matrix, offsets
        Components and waves as one product, shapes (d, p + m) and (p + m,).

    References
    ----------
    .. [1] A. Rahimi, B. Recht (2007). Random features for large-scale kernel machines. NIPS 20.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(500, 1)) * [1.0, 1.0, 0.0] + rng.normal(size=(500, 3)) / 10
    >>> embedding = Embedding.fit(x, n_components=1, n_waves=4, seed=0)
    >>> embedding.loadings.round(1).tolist()
    [[0.7, 0.7, 0.0]]
    """

    scores: NormalScores
    loadings: Array
    spread: Array
    frequencies: Array
    phases: Array
    matrix: Array = field(init=False, repr=False)
    offsets: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        both = np.vstack([self.loadings / self.spread[:, None], self.frequencies])
        offsets = np.concatenate([np.zeros(len(self.loadings)), self.phases])
        object.__setattr__(self, "matrix", np.ascontiguousarray(both.T))
        object.__setattr__(self, "offsets", offsets)

    @classmethod
    def fit(cls, reference: Array, *, n_components: int, n_waves: int, seed: int) -> Embedding:
        """The map of a reference, shape (n, d); NaN means missing.

        `n_components` is the most that are kept: directions that do not vary are left out. The
        seed is that of the waves.
        """
        scores = NormalScores.fit(reference)
        z = np.nan_to_num(scores.transform(reference))
        loadings, spread = _principal(z, n_components)
        rng = np.random.default_rng(seed)
        frequencies = rng.normal(size=(n_waves, z.shape[1])) / _median_distance(z, rng)
        phases = rng.uniform(0.0, 2.0 * np.pi, size=n_waves)
        return cls(scores, loadings, spread, frequencies, phases)

    @property
    def sources(self) -> tuple[tuple[int, ...], ...]:
        """For each component the features that make up four fifths of it, largest first."""
        found = []
        for loading in self.loadings:
            order = np.argsort(-np.abs(loading), kind="stable")
            share = np.cumsum(loading[order] ** 2) / np.sum(loading**2)
            found.append(tuple(int(j) for j in order[: np.searchsorted(share, 0.8) + 1]))
        return tuple(found)

    def fill(self, out: Array, rows: Array, places: IntArray) -> None:
        """Write rows, shape (n, d), in their forms to a matrix of scores, shape (n, k).

        `places` is `Places.as_array`. A row's scores do not depend on the other rows.
        """
        scores = self.scores
        embed(
            rows,
            scores.first,
            scores.halves,
            scores.knots,
            scores.at_knots,
            LIMIT,
            self.matrix,
            self.offsets,
            len(self.loadings),
            places,
            out,
        )

    def refit(self, reference: Array) -> Embedding:
        """The map that other rows would have given, its columns comparable to this one's.

        Used to score rows out of fold: components vary more on the rows that chose them than on
        fresh ones, by a tenth and more with 30 features and 1,000 rows. The waves stay. Components
        keep their rank, because it is the rank that tells how far the variance is off; only their
        signs, which are arbitrary, are matched. The map has fewer components where these rows vary
        in fewer directions, as when a flag that is set once is set in none of them.
        """
        scores = NormalScores.fit(reference)
        z = np.nan_to_num(scores.transform(reference))
        loadings, _ = _principal(z, len(self.loadings))
        p = len(loadings)
        signs = np.where((self.loadings[:p] * loadings).sum(axis=1) < 0, -1.0, 1.0)
        return replace(
            self, scores=scores, loadings=signs[:, None] * loadings, spread=self.spread[:p]
        )

    def leading(self, n_components: int) -> Embedding:
        """The map with so many of its components, the first ones, at most."""
        if n_components >= len(self.loadings):
            return self
        return replace(
            self, loadings=self.loadings[:n_components], spread=self.spread[:n_components]
        )

    def snapshot(self) -> State:
        """The map as arrays."""
        return {
            "scores": self.scores.snapshot(),
            "loadings": self.loadings.copy(),
            "spread": self.spread.copy(),
            "frequencies": self.frequencies.copy(),
            "phases": self.phases.copy(),
        }

    @classmethod
    def from_snapshot(cls, state: State) -> Embedding:
        """The map that `snapshot` was taken of."""
        names = ("loadings", "spread", "frequencies", "phases")
        arrays = (np.array(state[name], dtype=np.float64) for name in names)
        return cls(NormalScores.from_snapshot(state["scores"]), *arrays)


def _principal(z: Array, n: int) -> tuple[Array, Array]:
    """Leading principal directions (p, d) of rows with mean near 0, and the spread along them."""
    values, vectors = np.linalg.eigh(z.T @ z / len(z))
    kept = [i for i in np.argsort(-values)[:n] if values[i] > 1e-9 * max(values.max(), 1e-300)]
    loadings = vectors[:, kept].T
    # The sign of an eigenvector is arbitrary and differs between libraries.
    largest = np.take_along_axis(loadings, np.abs(loadings).argmax(axis=1)[:, None], axis=1)
    return loadings * np.sign(largest), np.sqrt(values[kept])


def _median_distance(z: Array, rng: np.random.Generator) -> float:
    """Median distance between rows, from a sample of them; 1 where most rows are equal."""
    rows = z[rng.permutation(len(z))[:BANDWIDTH_ROWS]]
    squares = (rows**2).sum(axis=1)
    distances = squares[:, None] + squares - 2 * rows @ rows.T
    median = float(np.median(distances[np.triu_indices(len(rows), 1)]))
    return float(np.sqrt(median)) if median > 1e-12 else 1.0
