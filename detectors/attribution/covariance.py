"""Conditional two-sample test: does P(Y|X) differ between two windows, whatever P(X) does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp, ndtr
from threadpoolctl import threadpool_limits

from detectors.attribution.weights import weight_groups
from detectors.base import Array, IntArray
from detectors.learners.features import standardise
from detectors.learners.mmd import FourierFeatures, median_bandwidth
from detectors.learners.nuisance import cross_fit, make_folds
from detectors.learners.opinions import MAX_COLUMNS, N_COMPONENTS, Opinions

__all__ = ["CovarianceResult", "covariance_test"]

MIN_OVERLAP = 0.1
"""Below it, nearly every row tells its window, and no x is left at which labels can be compared."""

MAX_PROJECTED_CLASSES = 3
"""Up to so many classes a weight is learned for each; it costs two fits a class."""

MIN_PROJECTED = 400
"""Rows of a window below which half of them teach no useful weight: with 200, a learned weight
found 10 % of moderate changes where the fixed ones found 57 %, and only took level from them."""

N_FOLDS = 3

N_FOURIER = 40


@dataclass(frozen=True, slots=True)
class CovarianceResult:
    """What the conditional test found.

    Attributes
    ----------
    statistic
        Largest standardised covariance, in standard deviations of its null distribution.
    p_value
        In (0, 1]; None where the windows overlap too little (`note` says so).
    effect
        Change of P(Y=k|x) at equal x for the class and the weight that moved most: a mean over
        rows, weighted by overlap and that weight; in [0, 1].
    shares
        Shape (d,): how much of the change goes along with each column; sums to 1 or is all 0.
    overlap
        In [0, 1]: 1 where P(X) is the same, 0 where every row tells its window.
    n_reference, n_recent
        Rows that the test used.
    note
        Why there is no p-value; empty otherwise.
    effect_low, effect_high
        95 % interval of the effect, asymptotic and for that class and weight alone: as they are
        the ones that moved most, small effects are more often too large than too small. From 0 to
        1 where nothing is known.
    """

    statistic: float
    p_value: float | None
    effect: float
    shares: Array
    overlap: float
    n_reference: int
    n_recent: int
    note: str = ""
    effect_low: float = 0.0
    effect_high: float = 1.0


def covariance_test(
    reference: Array,
    reference_labels: IntArray,
    recent: Array,
    recent_labels: IntArray,
    *,
    seed: int,
    n_bootstraps: int = 1999,
    block_length: int = 1,
    opinions: Opinions | None = None,
) -> CovarianceResult:
    """Test whether label and window are independent given the columns.

    With D the window and e(x) = P(D=recent|x), m(x) = P(Y=k|x) fitted on other rows, the residual
    products (D - e)(Y - m) have mean 0 at every x unless P(Y|X) moved. Two tests look for that and
    are combined by Cauchy's rule [3]_: the weighted generalised covariance measure [1]_, the
    soft maximum of many weighted sums, and, where each window has 400 rows, the projected
    covariance measure [2]_, one weight learned on one half of the rows and used on the other.

    The weighted sums are compared with those of windows that are drawn anew, row by row with
    probability e(x), as in the distilled conditional randomisation test [4]_: their variance is the
    sum of e (1 - e) (Y - m)^2 w^2. With the empirical variance of the products instead, a few
    labels that the old rule had ruled out raise their own yardstick: of moderate and strong changes
    seen in 200 labels against 2,000, it found 65 to 78 % at the level of 0.005, this one 90 to 93
    %, and 85 % on streams that it was not chosen on. The draws believe e; along weights that a
    handful of rows carry, such as a flag that one row in a hundred has, e can be surer than it
    should be, so each weight's sum is divided by how much more the windows vary around e there than
    e says. (Without that the level of 0.005 was 0.04 on such a flag.) Rows that depend on each
    other cannot be drawn one by one; there whole blocks get multipliers.

    An error in e is forgiven where m is right and the other way round [4]_. Rows where the windows
    do not overlap have e near 0 or 1 and weigh nothing. No test of this hypothesis can be exact
    [1]_: the size is asymptotic, and is measured in tests/detectors/attribution/test_covariance.py.

    Parameters
    ----------
    reference, recent
        Rows in time order, shapes (n, d) and (m, d).
    reference_labels, recent_labels
        Their classes, shapes (n,) and (m,), integers from 0.
    seed
        Chooses folds, features and multipliers.
    n_bootstraps
        Draws of the weighted measure.
    block_length
        Rows that share a fold and a multiplier; more than 1 for autocorrelated rows.
    opinions
        What the reference's rows teach of P(Y|X), if that is known; it chooses the weights.

    Returns
    -------
    CovarianceResult
        With the overlap of the windows.

    Raises
    ------
    ValueError
        If shapes do not fit or a window has fewer than 2 rows a fold.

    References
    ----------
    .. [1] R. Shah, J. Peters (2020). The hardness of conditional independence testing and the
       generalised covariance measure. Annals of Statistics 48, 1514-1538; the weights:
       C. Scheidegger, J. Hoerrmann, P. Buehlmann (2022). JMLR 23, 1-68.
    .. [2] A. Lundborg, I. Kim, R. Shah, R. Samworth (2024). The projected covariance measure for
       assumption-lean variable significance testing. Annals of Statistics 52, 2851-2878.
    .. [3] Y. Liu, J. Xie (2020). Cauchy combination test. JASA 115, 393-402.
    .. [4] M. Liu, E. Katsevich, L. Janson, A. Ramdas (2022). Fast and powerful conditional
       randomization testing via distillation. Biometrika 109, 277-293; double robustness:
       Z. Niu, A. Chakraborty, O. Dukes, E. Katsevich (2024). Reconciling model-X and doubly robust
       approaches to conditional independence testing. Annals of Statistics 52, 895-921.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> def labelled(shift, slope):
    ...     x = rng.normal(shift, 1.0, size=(500, 2))
    ...     return x, (rng.random(500) < 1 / (1 + np.exp(-slope * x[:, 0]))).astype(np.int64)
    >>> reference, moved, changed = labelled(0.0, 2.0), labelled(1.0, 2.0), labelled(1.0, -2.0)
    >>> covariance_test(*reference, *moved, seed=1).p_value > 0.05  # P(X) and P(Y) moved
    True
    >>> covariance_test(*reference, *changed, seed=1).p_value < 0.01  # P(Y|X) moved
    True
    """
    shapes = reference.shape, recent.shape
    if reference.ndim != 2 or recent.ndim != 2 or shapes[0][1] != shapes[1][1]:
        raise ValueError(
            f"windows must have shapes (n, d) and (m, d), got {shapes[0]}, {shapes[1]}"
        )
    if (len(reference_labels), len(recent_labels)) != (len(reference), len(recent)):
        raise ValueError(
            f"every row needs a label, got {len(reference_labels)} for {len(reference)} reference "
            f"rows and {len(recent_labels)} for {len(recent)} recent rows"
        )
    if min(len(reference), len(recent)) < 2 * N_FOLDS * block_length:
        raise ValueError(
            f"each window needs {2 * N_FOLDS * block_length} rows, "
            f"got {len(reference)} and {len(recent)}"
        )
    # One thread: on a busy machine the trees' threads wait for each other at many times the cost,
    # and sums over a varying number of threads would differ in their last digit.
    with threadpool_limits(limits=1):
        if opinions is None:
            n_classes = int(max(reference_labels.max(), recent_labels.max())) + 1
            opinions = Opinions.learn(
                reference,
                reference_labels,
                n_classes=n_classes,
                seed=seed,
                block_length=block_length,
            )
        return _test(
            np.concatenate([reference, recent]),
            opinions.codes.of[np.concatenate([reference_labels, recent_labels])],
            np.repeat(np.array([0, 1]), [len(reference), len(recent)]),
            np.concatenate([opinions.own, opinions.of(recent)]),
            np.random.default_rng(seed),
            n_bootstraps,
            block_length,
        )


def _test(
    rows: Array,
    labels: IntArray,
    window: IntArray,
    old: Array,
    rng: np.random.Generator,
    n_bootstraps: int,
    block_length: int,
) -> CovarianceResult:
    n_recent = int(window.sum())
    n_reference = len(window) - n_recent
    z, loadings = _reduced(rows, n_reference)
    n_classes = int(labels.max()) + 1
    folds = make_folds(window * n_classes + labels, N_FOLDS, rng, block_length)
    e = cross_fit(z, window, 2, folds)[:, 1]
    base_rate = n_recent / len(window)
    overlap = float(np.mean(e * (1.0 - e)) / (base_rate * (1.0 - base_rate)))
    overlap = min(1.0, overlap)

    def result(
        statistic: float, p_value: float | None, effect: float, shares: Array, note: str = ""
    ) -> CovarianceResult:
        return CovarianceResult(
            statistic, p_value, effect, shares, overlap, n_reference, n_recent, note
        )

    nothing = np.zeros(rows.shape[1])
    if overlap < MIN_OVERLAP:
        note = f"the windows overlap too little to compare labels at equal x ({overlap:.2f})"
        return result(0.0, None, 0.0, nothing, note)
    if n_classes == 1:
        return result(0.0, 1.0, 0.0, nothing)
    m = cross_fit(z, labels, n_classes, folds)
    block = np.arange(len(rows)) // block_length
    weighted = _weighted(z, labels, window, e, m, old, block, rng, n_bootstraps)
    p_value = weighted.p_value
    if n_classes <= MAX_PROJECTED_CLASSES and min(n_reference, n_recent) >= MIN_PROJECTED:
        halves = rng.permutation(block[-1] + 1)[block] % 2
        p_value = _cauchy([p_value, *_projected(z, labels, window, e, m, block, halves)])
    moved = np.square(loadings) @ weighted.excess
    shares = moved / moved.sum() if moved.sum() > 0 else nothing
    found = result(weighted.statistic, p_value, weighted.effect, shares)
    return replace(found, effect_low=weighted.low, effect_high=weighted.high)


@dataclass(frozen=True, slots=True)
class _Weighted:
    statistic: float
    p_value: float
    effect: float
    low: float
    high: float
    excess: Array  # (q,): each column's covariance above what chance gives


def _weighted(
    z: Array,
    labels: IntArray,
    window: IntArray,
    e: Array,
    m: Array,
    old: Array,
    block: IntArray,
    rng: np.random.Generator,
    n_bootstraps: int,
) -> _Weighted:
    """Weighted covariance measures of every class against windows drawn anew."""
    n_columns = z.shape[1]
    independent = int(block[-1]) + 1 == len(z)
    draws = (
        _windows_redrawn(e, n_bootstraps, rng)
        if independent
        else _multipliers(int(block[-1]) + 1, n_bootstraps, rng)
    )
    width = median_bandwidth(z, seed=int(rng.integers(2**63)))
    fourier = FourierFeatures.draw(
        n_columns, bandwidth=width, n_features=N_FOURIER, seed=int(rng.integers(2**63))
    )(z)
    fourier *= np.sqrt(N_FOURIER / 2.0)
    d = window - e
    maxima, excess = [], np.zeros(n_columns)
    largest, effect, error = -1.0, 0.0, 0.0
    for k in range(1, 2) if m.shape[1] == 2 else range(m.shape[1]):
        groups = weight_groups(z, old[:, k], fourier)
        weights = np.concatenate(groups, axis=1)
        residuals = ((labels == k) - m[:, k])[:, None] * weights
        products = d[:, None] * residuals
        if independent:
            spread = np.sqrt((e * (1.0 - e)) @ np.square(residuals))
            noise = residuals
            misfit = _misfit(d, e, weights)
        else:
            summed = np.zeros((int(block[-1]) + 1, weights.shape[1]))
            np.add.at(summed, block, products)
            spread = summed.std(axis=0) * np.sqrt(len(summed))
            noise = summed - summed.mean(axis=0)
            misfit = np.ones(weights.shape[1])
        scale = np.where(spread > 1e-12, spread, np.inf)
        observed = np.abs(products.sum(axis=0)) / (scale * misfit)
        drawn = np.abs(draws @ (noise / scale).astype(np.float32))
        values = np.concatenate([observed[None], drawn])
        edges = np.cumsum([0] + [g.shape[1] for g in groups])
        maxima += [values[:, a:b].max(axis=1) for a, b in pairwise(edges)]
        by_column = np.maximum(values[:, edges[2] : edges[3]], values[:, edges[3] : edges[4]])
        excess += np.maximum(by_column[0] - np.quantile(by_column[1:], 0.9, axis=0), 0.0)
        winner = int(observed.argmax())
        if observed[winner] > largest:
            largest = float(observed[winner])
            mass = (np.square(d) * np.abs(weights[:, winner])).sum()
            effect = float(abs(products[:, winner].sum()) / max(mass, 1e-12))
            by_block = np.bincount(block, weights=products[:, winner])
            error = float(np.sqrt(len(by_block)) * by_block.std() / max(mass, 1e-12))
    statistics = np.column_stack(maxima).astype(np.float64)
    spread = statistics[1:].std(axis=0)
    centred = statistics - statistics[1:].mean(axis=0)
    standardised = centred / np.where(spread > 1e-9, spread, 1.0)
    # Several groups of weights often agree, and then a plain maximum wastes what they say together.
    soft = logsumexp(standardised, axis=1)
    p_value = (1 + int((soft[1:] >= soft[0] - 1e-6).sum())) / len(soft)
    largest = float(standardised[0].max())
    low, high = np.clip([effect - 1.96 * error, effect + 1.96 * error], 0.0, 1.0)
    return _Weighted(largest, p_value, min(1.0, effect), float(low), float(high), excess)


def _windows_redrawn(e: Array, n_draws: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Windows drawn anew from what the columns tell of them, less their means, (draws, rows)."""
    share = e.astype(np.float32)
    return (rng.random((n_draws, len(e)), dtype=np.float32) < share) - share


def _misfit(d: Array, e: Array, weights: Array) -> Array:
    """How much more the windows vary around e than e says, along each weight; at least 1."""
    squares = np.square(weights)
    said = np.maximum((e * (1.0 - e)) @ squares, 1e-12)
    return np.sqrt(np.maximum(np.square(d) @ squares / said, 1.0))


def _multipliers(n_blocks: int, n_draws: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Standard normal multipliers of whole blocks, shape (draws, blocks)."""
    return rng.standard_normal((n_draws, n_blocks), dtype=np.float32)


def _projected(
    z: Array,
    labels: IntArray,
    window: IntArray,
    e: Array,
    m: Array,
    block: IntArray,
    halves: IntArray,
) -> list[float]:
    """One-sided p-values of the learned weight on each half, learned on the other."""
    from sklearn.ensemble import HistGradientBoostingRegressor  # noqa: PLC0415 - only learning needs scikit-learn

    p_values = []
    n_classes = m.shape[1]
    for half in (0, 1):
        used, taught = halves == half, halves != half
        weighted = np.zeros(int(used.sum()))
        for k in range(1, 2) if n_classes == 2 else range(n_classes):
            products = (window - e) * ((labels == k) - m[:, k])
            # Their mean at x is e (1 - e) times the change: the best weight, up to a variance.
            # Many weak, slow trees: with 6 leaves and a rate of 0.1 the power was lower by 0.1.
            trees = HistGradientBoostingRegressor(
                max_iter=40,
                learning_rate=0.05,
                max_leaf_nodes=4,
                min_samples_leaf=25,
                early_stopping=False,
                random_state=0,
            )
            trees.fit(z[taught], products[taught])
            weighted += products[used] * trees.predict(z[used])
        sums = np.bincount(block[used], weights=weighted)[np.unique(block[used])]
        scale = float(sums.std())
        score = np.sqrt(len(sums)) * sums.mean() / scale if scale > 1e-12 else 0.0
        p_values.append(float(ndtr(-score)))
    return p_values


def _cauchy(p_values: list[float]) -> float:
    """Cauchy combination of the weighted measure and the halves of the projected one."""
    # A p-value near 1 would cancel one near 0; cutting at 0.9 costs less than a percent of level.
    cut = np.clip(p_values, 1e-15, 0.9)
    weights = np.array([0.7, 0.15, 0.15])
    mean = float(weights @ np.tan((0.5 - cut) * np.pi))
    return float(np.clip(0.5 - np.arctan(mean) / np.pi, 1e-15, 1.0))


def _reduced(rows: Array, n_reference: int) -> tuple[Array, Array]:
    """Standardised columns, or principal components, and their loadings on the columns (d, q)."""
    z = np.clip(standardise(rows), -6.0, 6.0)
    if z.shape[1] <= MAX_COLUMNS:
        return z, np.eye(z.shape[1])
    reference = z[:n_reference] - z[:n_reference].mean(axis=0)
    _, directions = np.linalg.eigh(reference.T @ reference)
    loadings = directions[:, -N_COMPONENTS:]
    return standardise(z @ loadings), loadings
