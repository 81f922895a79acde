"""Exact permutation tests: two samples, two samples inside classes, two label distributions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detectors.attribution.contrast import Contrast, Permuted, group_length, permute, permuted_tags
from detectors.attribution.separation import separation
from detectors.base import Array, IntArray

__all__ = [
    "PermutationResult",
    "class_block_lengths",
    "comparable_classes",
    "label_test",
    "stratified_two_sample",
    "two_sample",
]

N_RESAMPLES = 1000
"""Resamples behind an interval of the labels' distance."""


@dataclass(frozen=True, slots=True)
class PermutationResult:
    """What a permutation test found.

    Attributes
    ----------
    statistic
        The largest standardised statistic, in standard deviations of its permutation
        distribution; the G statistic for labels.
    p_value
        In [1 / (n_permutations + 1), 1]; exact for exchangeable rows (or blocks).
    effect
        In [0, 1] and free of the sample's size; each test says which scale.
    shares
        Shape (d,): each column's part of the change; sums to 1, or all 0 where no column moved
        more than chance does. Empty for labels.
    n_reference, n_recent
        Rows that the test used.
    skipped
        Classes with too few rows to compare.
    effect_low, effect_high
        95 % interval of the effect; asymptotic, and from 0 to 1 where nothing is known.
    """

    statistic: float
    p_value: float
    effect: float
    shares: Array
    n_reference: int
    n_recent: int
    skipped: tuple[int, ...] = ()
    effect_low: float = 0.0
    effect_high: float = 1.0

    @classmethod
    def of(
        cls,
        permuted: Permuted,
        separation: float,
        error: float,
        n_reference: int,
        n_recent: int,
        skipped: tuple[int, ...] = (),
    ) -> PermutationResult:
        """The result of permutations, with a separation in [-1, 1] and its standard error."""
        total = permuted.excess.sum()
        effect = max(0.0, separation)
        half = 1.96 * error
        return cls(
            permuted.statistic,
            permuted.p_value,
            effect,
            permuted.excess / total if total > 0 else np.zeros_like(permuted.excess),
            n_reference,
            n_recent,
            skipped,
            max(0.0, separation - half),
            min(1.0, effect + half),
        )


def two_sample(
    reference: Array,
    recent: Array,
    *,
    seed: int,
    n_permutations: int = 999,
    block_length: int = 1,
    screens: Sequence[tuple[int, float]] = (),
) -> PermutationResult:
    """Test whether two windows come from one distribution.

    Eight statistics are computed on every permutation of the window tags: the squared MMD [1]_ at
    three kernel widths (random Fourier features), the largest Kolmogorov-Smirnov distance of a
    column, the sum and the maximum over whitened means and squares, the sum over the columns'
    squares, and the rows' dispersion. Each is standardised over the permutations, and their soft
    maximum counts (`detectors.attribution.contrast.combine`). Rows change places in small groups of
    neighbours, which is as exact as one by one.

    Parameters
    ----------
    reference, recent
        Rows in time order, shapes (n, d) and (m, d); at least 2 blocks each. Ties are harmless.
    seed
        Chooses the permutations and the random features.
    n_permutations
        Draws; the smallest possible p-value is 1 / (n_permutations + 1).
    block_length
        Rows that depend on each other. 1 is exact for independent rows; a length beyond the
        autocorrelation is approximate. Rows beyond a whole number of blocks are left out.
    screens
        When fewer permutations do: see `detectors.attribution.contrast.permute`.

    Returns
    -------
    PermutationResult
        The effect is 2 AUC - 1 of a discriminant on means and squares, fitted on one half of the
        blocks and judged on the other: 0 if it cannot tell the windows apart, 1 if always.

    Raises
    ------
    ValueError
        If shapes do not fit, a window has fewer than 2 blocks, or a number is not positive.

    References
    ----------
    .. [1] A. Gretton et al. (2012). A kernel two-sample test. JMLR 13, 723-773.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> reference, recent = rng.normal(size=(2, 300, 3))
    >>> two_sample(reference, recent, seed=1).p_value > 0.05
    True
    >>> recent[:, 1] += 0.5
    >>> found = two_sample(reference, recent, seed=1)
    >>> found.p_value, int(found.shares.argmax())
    (0.001, 1)
    """
    _check(reference, recent, n_permutations, block_length)
    rng = np.random.default_rng(seed)
    length = group_length(len(reference), len(recent), block_length)
    contrast = Contrast.between(reference, recent, length, rng)
    permuted = permute([contrast], n_permutations, rng, screens)
    n, m = (len(rows) // length * length for rows in (reference, recent))
    apart, error = _separation(contrast, reference[:n], recent[:m], block_length)
    return PermutationResult.of(permuted, apart, error, n, m)


def stratified_two_sample(
    reference: Array,
    recent: Array,
    strata_reference: IntArray,
    strata_recent: IntArray,
    *,
    seed: int,
    n_permutations: int = 999,
    min_per_class: int = 5,
    block_length: int = 1,
    screens: Sequence[tuple[int, float]] = (),
) -> PermutationResult:
    """Test whether two windows agree inside every class: P(X|Y), whatever P(Y) does.

    Window tags are permuted inside the classes, so the test is exact under any change of the
    class frequencies. Statistics are those of `two_sample` for each class, and their sums over
    the classes; all are standardised and their soft maximum counts.

    Parameters
    ----------
    reference, recent
        Rows in time order, shapes (n, d) and (m, d).
    strata_reference, strata_recent
        Class of each row, shapes (n,) and (m,).
    seed, n_permutations
        As for `two_sample`.
    block_length
        Rows of the stream that depend on each other. Blocks are of consecutive rows of one class,
        and shorter by the class's share of the rows.
    min_per_class
        Blocks a class needs in both windows to be compared; at least 2.
    screens
        As for `two_sample`.

    Returns
    -------
    PermutationResult
        The effect is that of `two_sample`, averaged over the classes by their rows; `skipped`
        names the classes that were left out.

    Raises
    ------
    ValueError
        If shapes do not fit or no class has enough rows in both windows.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y, y_new = rng.random(400) < 0.3, rng.random(400) < 0.7
    >>> x, x_new = rng.normal(size=(2, 400, 2))
    >>> x[:, 0] += y; x_new[:, 0] += y_new
    >>> two_sample(x, x_new, seed=1).p_value  # the classes' frequencies moved P(X)
    0.001
    >>> labels = y.astype(int), y_new.astype(int)
    >>> stratified_two_sample(x, x_new, *labels, seed=1).p_value > 0.05  # and nothing else
    True
    """
    _check(reference, recent, n_permutations, block_length)
    if len(strata_reference) != len(reference) or len(strata_recent) != len(recent):
        raise ValueError(
            f"every row needs a class, got {len(strata_reference)} for {len(reference)} reference "
            f"rows and {len(strata_recent)} for {len(recent)} recent rows"
        )
    lengths = class_block_lengths(np.concatenate([strata_reference, strata_recent]), block_length)
    least = max(min_per_class, 2) * lengths
    classes, skipped = comparable_classes(strata_reference, strata_recent, least)
    if not classes:
        raise ValueError(f"no class has {least.min()} rows in both windows")
    rng = np.random.default_rng(seed)
    contrasts, sizes, apart = [], [], []
    for c in classes:
        old, new = reference[strata_reference == c], recent[strata_recent == c]
        length = group_length(len(old), len(new), int(lengths[c]))
        contrasts.append(Contrast.between(old, new, length, rng))
        old, new = (rows[: len(rows) // length * length] for rows in (old, new))
        sizes.append((len(old), len(new)))
        apart.append(_separation(contrasts[-1], old, new, int(lengths[c])))
    permuted = permute(contrasts, n_permutations, rng, screens)
    n_reference, n_recent = np.sum(sizes, axis=0).tolist()
    weights = np.sum(sizes, axis=1) / (n_reference + n_recent)
    separations, errors = np.array(apart).T
    return PermutationResult.of(
        permuted,
        float(weights @ separations),
        float(np.linalg.norm(weights * errors)),
        n_reference,
        n_recent,
        skipped,
    )


def _separation(
    contrast: Contrast, reference: Array, recent: Array, block_length: int
) -> tuple[float, float]:
    moments = contrast.description.moments_of(np.concatenate([reference, recent]))
    return separation(moments, len(reference), block_length)


def label_test(
    reference: IntArray,
    recent: IntArray,
    n_classes: int,
    *,
    seed: int,
    n_permutations: int = 9999,
    block_length: int = 1,
) -> PermutationResult:
    """Test whether two windows have the same class frequencies, by the G statistic.

    Parameters
    ----------
    reference, recent
        Labels in time order, from 0 to `n_classes` - 1, shapes (n,) and (m,).
    n_classes
        Number of classes.
    seed, n_permutations, block_length
        As for `two_sample`.

    Returns
    -------
    PermutationResult
        The effect is the total variation distance of the two frequency vectors, in [0, 1]; chance
        alone makes it about sqrt(n_classes / n) / 2. Its interval, of the basic bootstrap, is
        shifted down by that bias, and up to the effect where it would lie below.

    Raises
    ------
    ValueError
        If a label is out of range, a window has fewer than 2 blocks, or a number is not positive.

    Examples
    --------
    >>> reference, recent = np.repeat([0, 1], [50, 50]), np.repeat([0, 1], [20, 80])
    >>> found = label_test(reference, recent, 2, seed=0)
    >>> found.p_value, round(found.effect, 2)
    (0.0001, 0.3)
    """
    _check(reference[:, None], recent[:, None], n_permutations, block_length)
    for name, labels in (("reference", reference), ("recent", recent)):
        wrong = labels[(labels < 0) | (labels >= n_classes)]
        if wrong.size:
            raise ValueError(f"{name} labels must be in [0, {n_classes}), got {wrong[0]}")
    rng = np.random.default_rng(seed)
    reference, recent = (v[: len(v) - len(v) % block_length] for v in (reference, recent))
    table = np.stack([np.bincount(v, minlength=n_classes) for v in (reference, recent)])
    total = table.sum(axis=0)
    if block_length == 1:
        # The permuted table has fixed margins, so its recent row is multivariate hypergeometric.
        drawn = rng.multivariate_hypergeometric(total, len(recent), n_permutations)
        counts = np.vstack([table[1], drawn]).astype(np.float64)
    else:
        one_hot = np.eye(n_classes)[np.concatenate([reference, recent])]
        per_block = one_hot.reshape(-1, block_length, n_classes).sum(axis=1)
        tags = permuted_tags(len(per_block), len(reference) // block_length, n_permutations, rng)
        counts = np.vstack([table[1], tags @ per_block])
    g = _g_statistic(counts, total)
    frequency = table / table.sum(axis=1, keepdims=True)
    effect = float(0.5 * np.abs(frequency[0] - frequency[1]).sum())
    resampled = [_resampled(v, n_classes, block_length, rng) for v in (reference, recent)]
    distances = 0.5 * np.abs(resampled[0] - resampled[1]).sum(axis=1)
    low, high = 2.0 * effect - np.quantile(distances, [0.975, 0.025])
    return PermutationResult(
        statistic=float(g[0]),
        # The slack forgives rounding: tables as extreme as the observed one count as such.
        p_value=float(np.mean(g >= g[0] - 1e-9 * max(1.0, g[0]))),
        effect=effect,
        shares=np.empty(0),
        n_reference=len(reference),
        n_recent=len(recent),
        effect_low=float(np.clip(low, 0.0, effect)),
        effect_high=float(np.clip(high, effect, 1.0)),
    )


def comparable_classes(
    reference: IntArray, recent: IntArray, least: int | IntArray
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Classes with at least `least` rows in both windows, and the other classes that occur.

    `least` may differ by class, shape (K,).

    Examples
    --------
    >>> comparable_classes(np.array([0, 0, 1, 1, 1, 2]), np.array([0, 1, 1, 3]), 2)
    ((1,), (0, 2, 3))
    """
    n_classes = int(max(reference.max(initial=0), recent.max(initial=0))) + 1
    a, b = (np.bincount(v, minlength=n_classes) for v in (reference, recent))
    enough = (a >= least) & (b >= least)
    skipped = ~enough & (a + b > 0)
    return tuple(np.flatnonzero(enough).tolist()), tuple(np.flatnonzero(skipped).tolist())


def class_block_lengths(classes: IntArray, block_length: int) -> IntArray:
    """Rows of each class, shape (K,), among `block_length` rows of the stream; at least 1.

    Examples
    --------
    >>> class_block_lengths(np.array([0, 0, 0, 1]), 20)
    array([15,  5])
    """
    share = np.bincount(classes) / len(classes)
    return np.maximum(np.ceil(block_length * share).astype(np.int64), 1)


def _resampled(
    labels: IntArray, n_classes: int, block_length: int, rng: np.random.Generator
) -> Array:
    """Class frequencies of windows whose blocks are drawn from this one, shape (B, K)."""
    n_blocks = len(labels) // block_length
    if block_length == 1:
        counts = np.bincount(labels, minlength=n_classes)
        drawn = rng.multinomial(n_blocks, counts / n_blocks, N_RESAMPLES).astype(np.float64)
    else:
        per_block = np.eye(n_classes)[labels].reshape(n_blocks, block_length, n_classes).sum(axis=1)
        times = rng.multinomial(n_blocks, np.full(n_blocks, 1.0 / n_blocks), N_RESAMPLES)
        drawn = times @ per_block
    return np.asarray(drawn / len(labels))


def _g_statistic(recent: Array, total: IntArray) -> Array:
    """G of 2 x K tables with column sums `total` and second rows `recent`, shape (B + 1,)."""
    reference = total - recent
    n, m = reference[0].sum(), recent[0].sum()

    def part(counts: Array, expected: Array) -> Array:
        ratio = np.divide(counts, expected, out=np.ones_like(counts), where=counts > 0)
        return np.asarray((counts * np.log(ratio)).sum(axis=1))

    expected = total / total.sum()
    shape = np.ones_like(recent)
    return 2.0 * (part(recent, shape * expected * m) + part(reference, shape * expected * n))


def _check(reference: Array | IntArray, recent: Array | IntArray, draws: int, block: int) -> None:
    if draws < 1 or block < 1:
        raise ValueError(
            f"n_permutations and block_length must be at least 1, got {draws} and {block}"
        )
    shapes = reference.shape, recent.shape
    if reference.ndim != 2 or recent.ndim != 2 or shapes[0][1] != shapes[1][1] or not shapes[0][1]:
        raise ValueError(
            f"windows must have shapes (n, d) and (m, d), got {shapes[0]}, {shapes[1]}"
        )
    if min(len(reference), len(recent)) < 2 * block:
        raise ValueError(
            f"each window needs 2 blocks of {block} rows, got {len(reference)} and {len(recent)}"
        )
