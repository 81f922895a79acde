"""Statistics that tell two windows apart, under many permutations of the window tags at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from detectors.base import Array
from detectors.learners.mmd import FourierFeatures, median_bandwidth

__all__ = [
    "Comparison",
    "compare",
    "dispersion",
    "permuted_tags",
    "principal",
    "quadratic_moments",
    "standardise",
    "whiten",
]

Float32 = npt.NDArray[np.float32]
Features = Array | Float32 | npt.NDArray[np.bool_]
Contrast = Callable[[Features], Float32]

BANDWIDTHS = (0.4, 1.0, 2.5)
"""Kernel widths in units of the median distance: a small new cluster, a shift, a slow tilt."""

N_FOURIER = 80
"""Random features per width; more did not find more on windows of 500 to 1000 rows."""

GRID = 31
"""Quantiles at which two distribution functions are compared; 31 lose at most 1/64 of distance."""

MAX_INDICATORS = 2048
"""Columns x quantiles that one test looks at: wide inputs get fewer quantiles, not more time."""

MAX_DENSE_COLUMNS = 64
"""Columns from which kernels and moments work on principal components of the pooled rows."""

RIDGE = 0.05
"""Share of a feature's variance added before whitening, so that noise directions stay small."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Statistics of two windows over the permutations; row 0 is the observed tags."""

    sums: Array  # (B + 1, 6): squared MMD at three widths, whitened moments, squares, dispersion;
    # these add over classes
    maxima: Array  # (B + 1, 2): largest KS distance, largest standardised moment
    excess: Array  # (d,): KS distance above its mean over the permutations
    separation: float  # 2 AUC - 1 between the windows; below 0 where that is chance alone
    separation_error: float  # its standard error; infinite where it cannot be judged
    n_reference: int
    n_recent: int

    @property
    def effect(self) -> float:
        """The separation, in [0, 1]."""
        return max(0.0, self.separation)


def compare(
    reference: Array,
    recent: Array,
    n_permutations: int,
    block_length: int,
    rng: np.random.Generator,
) -> Comparison:
    """Compute all statistics of two windows, shapes (n, d) and (m, d), under every permutation.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(size=(2, 200, 3))
    >>> found = compare(x, y + [0.0, 0.0, 0.8], 99, 1, rng)
    >>> found.sums.shape, found.maxima.shape, int(found.excess.argmax())
    ((100, 6), (100, 2), 2)
    >>> (found.sums[0] > found.sums[1:].max(axis=0))[:4]
    array([ True,  True,  True,  True])
    """
    n, m = (len(v) // block_length for v in (reference, recent))
    rows = np.concatenate([reference[: n * block_length], recent[: m * block_length]])
    tags = permuted_tags(n, m, n_permutations, rng)

    ones = np.ones(n + m, np.float32)

    def contrast(features: Features) -> Float32:
        """Scaled differences of the windows' means under every permutation, shape (B + 1, q)."""
        blocks: Float32 = features.astype(np.float32, copy=False)
        if block_length > 1:
            blocks = blocks.reshape(n + m, block_length, -1).mean(axis=1)
        # Less what m of all rows would add up to; features are of order 1, so this loses nothing.
        moved = tags @ blocks - np.float32(m / (n + m)) * (ones @ blocks)
        return np.asarray(moved * np.float32(np.sqrt((n + m) / (n * m))))

    ks = _ks_distances(rows, contrast)
    dense = principal(standardise(rows))
    seeds = rng.integers(2**63, size=len(BANDWIDTHS) + 1)
    width = median_bandwidth(dense, seed=int(seeds[0]))
    single = dense.astype(np.float32)
    sums = []
    for factor, seed in zip(BANDWIDTHS, seeds[1:], strict=True):
        fourier = FourierFeatures.draw(
            dense.shape[1], bandwidth=factor * width, n_features=N_FOURIER, seed=int(seed)
        )
        sums.append(np.square(contrast(fourier(single))).sum(axis=1))
    moments = quadratic_moments(dense)
    q = dense.shape[1]
    sums.append(np.square(contrast(whiten(moments))).sum(axis=1))
    moved = contrast(moments)
    sums.append(np.square(moved[:, q : 2 * q]).sum(axis=1))
    sums.append(np.square(contrast(dispersion(dense))[:, 0]))
    largest = np.abs(moved).max(axis=1)
    separation, error = _separation(moments, n * block_length, block_length)
    return Comparison(
        sums=np.column_stack(sums).astype(np.float64),
        maxima=np.column_stack([ks.max(axis=1), largest]).astype(np.float64),
        excess=np.maximum(ks[0] - ks.mean(axis=0), 0.0).astype(np.float64),
        separation=separation,
        separation_error=error,
        n_reference=n * block_length,
        n_recent=m * block_length,
    )


def quadratic_moments(standardised: Array) -> Array:
    """Columns, their squares and the squares of their principal components, shape (n, 3 d).

    Gaussian kernels hardly see a changed spread of few among many columns: squares do. Those of
    the components see a changed dependence between columns.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(size=(2, 300, 2))
    >>> y[:, 1] = 0.9 * y[:, 0] + 0.4 * y[:, 1]  # same spread of each column, but dependent
    >>> features = quadratic_moments(standardise(np.concatenate([x, y])))
    >>> moved = np.abs(features[:300].mean(axis=0) - features[300:].mean(axis=0))
    >>> moved.round(1)
    array([0. , 0.1, 0.1, 0.1, 0.8, 0.3])
    """
    clipped = np.clip(standardised, -4.0, 4.0)
    _, directions = np.linalg.eigh(clipped.T @ clipped)
    components = np.clip(standardise(clipped @ directions), -4.0, 4.0)
    return standardise(np.column_stack([clipped, np.square(clipped), np.square(components)]))


def dispersion(standardised: Array) -> Array:
    """Logarithm of each row's whitened squared norm, standardised, shape (n, 1).

    One number for "everything spreads more" and for "a share of the rows comes from elsewhere",
    which among 2 d moments drown where a class has only a hundred rows.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(size=(2, 100, 10))
    >>> far = dispersion(standardise(np.concatenate([x, 1.3 * y])))[:, 0]
    >>> bool(far[100:].mean() - far[:100].mean() > 0.5)
    True
    """
    norm = np.square(np.clip(whiten(standardised), -4.0, 4.0)).sum(axis=1, keepdims=True)
    return standardise(np.log(norm + 0.5 * norm.mean() + 1e-12))


def _ks_distances(rows: Array, contrast: Contrast) -> Float32:
    """Kolmogorov-Smirnov distances of the columns under every permutation, shape (B + 1, d).

    They are read at values of the data with "at most this value", so never inside a tie group:
    there, the order of equal values would pass for a difference.
    """
    n_columns = rows.shape[1]
    grid = int(np.clip(MAX_INDICATORS // n_columns, 3, GRID))
    at_once = max(1, 512 // grid)  # 512 indicators by 2000 rows: a few MB, whatever the width
    distances = []
    for start in range(0, n_columns, at_once):
        # How many of its column's marks lie below a value.
        below = [np.searchsorted(_grid(c, grid), c) for c in rows[:, start : start + at_once].T]
        places = np.column_stack(below).astype(np.int8)
        indicators = places[:, None, :] <= np.arange(grid, dtype=np.int8)[:, None]
        moved = contrast(indicators.reshape(len(rows), -1))
        distances.append(np.abs(moved).reshape(-1, grid, len(below)).max(axis=1))
    return np.concatenate(distances, axis=1)


def _grid(column: Array, size: int) -> Array:
    """Values that split a column: all but the largest where they are few, else its quantiles."""
    ordered = np.sort(column)
    last = np.flatnonzero(ordered[1:] > ordered[:-1])  # the last row of each tie group but one
    if len(last) > size:
        steps = np.arange(1, size + 1) / (size + 1)
        return np.asarray(ordered[(steps * len(ordered)).astype(np.int64)])
    # A mark above all values splits nothing, and so adds nothing.
    return np.append(ordered[last], np.full(size - len(last), np.inf))


def permuted_tags(n: int, m: int, n_permutations: int, rng: np.random.Generator) -> Float32:
    """1 for a recent row: the observed tags first, then permutations, shape (B + 1, n + m).

    Examples
    --------
    >>> permuted_tags(2, 3, 1, np.random.default_rng(0))
    array([[0., 0., 1., 1., 1.],
           [1., 1., 1., 0., 0.]], dtype=float32)
    """
    tags = np.zeros((n_permutations + 1, n + m), np.int8)
    tags[:, n:] = 1
    rng.permuted(tags[1:], axis=1, out=tags[1:])
    return tags.astype(np.float32)


def standardise(rows: Array) -> Array:
    """Columns with mean 0 and variance 1; a constant column becomes 0.

    Examples
    --------
    >>> standardise(np.array([[1.0, 0.1], [3.0, 0.1]]))
    array([[-1.,  0.],
           [ 1.,  0.]])
    """
    centred = rows - rows.mean(axis=0)
    scale = np.sqrt(np.einsum("ij,ij->j", centred, centred) / len(rows))
    # The mean of equal values is off by a rounding; that must not be blown up to variance 1.
    varies = scale > 1e-9 * np.abs(rows).max(axis=0, initial=0.0)
    centred *= np.divide(1.0, scale, out=np.zeros_like(scale), where=varies)
    return np.asarray(centred)


def principal(standardised: Array, n_columns: int = MAX_DENSE_COLUMNS) -> Array:
    """The rows, or their leading principal components where there are more than `n_columns`.

    Examples
    --------
    >>> rows = standardise(np.random.default_rng(0).normal(size=(50, 70)))
    >>> principal(rows).shape, principal(rows[:, :3]).shape
    ((50, 64), (50, 3))
    """
    if standardised.shape[1] <= n_columns:
        return standardised
    _, directions = np.linalg.eigh(standardised.T @ standardised)
    return np.asarray(standardised @ directions[:, -n_columns:])


def whiten(standardised: Array) -> Array:
    """Uncorrelated features of nearly equal variance, shape (n, q).

    Examples
    --------
    >>> x, noise = np.random.default_rng(0).normal(size=(2, 500))
    >>> white = whiten(standardise(np.column_stack([x, x + 0.1 * noise, noise])))
    >>> np.cov(white.T).round(1) + 0.0  # two directions; nothing is left to be the third
    array([[0., 0., 0.],
           [0., 1., 0.],
           [0., 0., 1.]])
    """
    values, directions = np.linalg.eigh(standardised.T @ standardised / len(standardised))
    return np.asarray(standardised @ directions / np.sqrt(np.maximum(values, 0.0) + RIDGE))


def _separation(features: Array, n_reference: int, block_length: int) -> tuple[float, float]:
    """2 AUC - 1 of a ridge discriminant, each half of the blocks judged by the other half's.

    With its standard error for the discriminants as they are.
    """
    recent = np.arange(len(features)) >= n_reference
    block = np.arange(len(features)) // block_length
    half = block % 2 == 1
    values, variances = [], []
    for judged in (half, ~half):
        fitted = ~judged
        a, b = features[fitted & ~recent], features[fitted & recent]
        if min(len(a), len(b), (judged & recent).sum(), (judged & ~recent).sum()) == 0:
            continue
        centred = np.concatenate([a - a.mean(axis=0), b - b.mean(axis=0)])
        spread = centred.T @ centred / len(centred)
        # As many directions as rows need as much damping as there is variance.
        damping = RIDGE + features.shape[1] / len(centred)
        spread[np.diag_indices_from(spread)] += damping
        scores = features[judged] @ np.linalg.solve(spread, b.mean(axis=0) - a.mean(axis=0))
        value, variance = _auc(scores, recent[judged], block[judged])
        values.append(value)
        variances.append(variance)
    if not values:
        return 0.0, np.inf
    error = 2.0 * float(np.sqrt(np.sum(variances))) / len(values)
    return 2.0 * float(np.mean(values)) - 1.0, error


def _auc(
    scores: Array, positive: npt.NDArray[np.bool_], block: npt.NDArray[np.int64]
) -> tuple[float, float]:
    """Area under the ROC curve and its variance [1]_ for blocks of rows that resemble each other.

    References
    ----------
    .. [1] E. DeLong, D. DeLong, D. Clarke-Pearson (1988). Comparing the areas under two or more
       correlated receiver operating characteristic curves. Biometrics 44, 837-845.
    """
    n_positive = int(positive.sum())
    n_negative = len(scores) - n_positive
    ranks = rankdata(scores)
    above = ranks[positive].sum() - n_positive * (n_positive + 1) / 2
    variance = 0.0
    for part, n_others in ((positive, n_negative), (~positive, n_positive)):
        placements = (ranks[part] - rankdata(scores[part])) / n_others
        _, position = np.unique(block[part], return_inverse=True)
        means = np.bincount(position, weights=placements) / np.bincount(position)
        if len(means) < 2:
            return float(above / (n_positive * n_negative)), np.inf
        # Without the floor, windows that do not touch would have an error of 0.
        variance += max(float(means.var(ddof=1)) / len(means), 1.0 / len(means) ** 2)
    return float(above / (n_positive * n_negative)), variance
