"""Quick comparisons with a reference that is kept, so that only the recent rows cost anything.

A look begins with one. Where nothing moved it has the last word nearly always, and what is worth
the full test goes on to it: `detectors.attribution.attribution.examine`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from detectors.attribution.contrast import (
    GROUP,
    Contrast,
    combine,
    differences,
    permute,
    permuted_tags,
)
from detectors.attribution.description import Description, Float32
from detectors.attribution.weights import weight_groups
from detectors.base import Array, IntArray
from detectors.learners.mmd import FourierFeatures, median_bandwidth
from detectors.learners.opinions import Opinions

__all__ = ["KeptRows", "KeptRule", "Quick", "quick_by_class", "quick_rows", "quick_rule"]

N_PERMUTATIONS = 199
"""Draws of a quick comparison."""

SCREENS = ((49, 0.3),)
"""It ends after so few where they give a larger p-value."""

MIN_GROUPS = 16
"""Groups that each window needs; with fewer only the full test is precise enough."""

MIN_CLASS_GROUPS = 4
"""The same of a class, where the classes are looked at together."""

CLASS_GROUPS = 80
"""Groups of a class in the reference from which on they have more than one row each."""

N_WAVES = 40
"""Random features that residuals are weighted by."""


@dataclass(frozen=True, slots=True)
class Quick:
    """What a quick comparison found.

    Attributes
    ----------
    statistic
        Largest standardised statistic, in standard deviations of its permutation distribution.
    p_value
        In [1 / 200, 1].
    """

    statistic: float
    p_value: float


@dataclass(frozen=True, slots=True)
class KeptRows:
    """A reference's rows, described on their own scale.

    Attributes
    ----------
    description
        Of the rows.
    groups
        Mean features of each `length` neighbours, shape (g, q).
    length
        Rows of a group.
    """

    description: Description
    groups: Float32
    length: int

    @classmethod
    def of(cls, rows: Array, rng: np.random.Generator, length: int) -> KeptRows:
        """Of rows in time order, shape (n, d)."""
        description = Description.of_reference(rows, rng)
        return cls(description, description.means(rows, length), length)

    def against(self, recent: Array) -> Contrast:
        """With recent rows, shape (m, d)."""
        groups = np.concatenate([self.groups, self.description.means(recent, self.length)])
        return Contrast(self.description, groups, len(self.groups))


def quick_rows(kept: KeptRows, recent: Array, seed: int) -> Quick | None:
    """Whether recent rows, shape (m, d), come from where a reference's came; None if too few.

    The statistics are those of `two_sample`, on the scale of the reference instead of both
    windows', which flatters the reference's rows. So small p-values come up to three times as often
    as they should (tests/detectors/attribution/test_quick.py), which costs full tests and no level.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> reference, recent = rng.normal(size=(2, 500, 3))
    >>> kept = KeptRows.of(reference, rng, 5)
    >>> quick_rows(kept, recent, seed=1).p_value > 0.05
    True
    >>> quick_rows(kept, recent + [0.0, 0.5, 0.0], seed=1).p_value
    0.005
    """
    if min(len(kept.groups), len(recent) // kept.length) < MIN_GROUPS:
        return None
    found = permute([kept.against(recent)], N_PERMUTATIONS, np.random.default_rng(seed), SCREENS)
    return Quick(found.statistic, found.p_value)


def quick_by_class(
    kept: Mapping[int, KeptRows], recent: Array, labels: IntArray, seed: int
) -> Quick | None:
    """Whether recent rows agree with a reference's inside every class; None if one has too few.

    Parameters
    ----------
    kept
        The reference's rows of each class that is compared.
    recent, labels
        Rows and their classes, shapes (m, d) and (m,).
    seed
        Of the permutations.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> reference, recent = rng.normal(size=(2, 500, 3))
    >>> labels = np.arange(500) % 2
    >>> kept = {c: KeptRows.of(reference[labels == c], rng, 3) for c in (0, 1)}
    >>> quick_by_class(kept, recent, labels, seed=1).p_value > 0.05
    True
    >>> recent[labels == 1] *= 1.5
    >>> quick_by_class(kept, recent, labels, seed=1).p_value
    0.005
    """
    rows = {c: recent[labels == c] for c in kept}
    groups = [min(len(k.groups), len(rows[c]) // k.length) for c, k in kept.items()]
    if min(groups, default=0) < MIN_CLASS_GROUPS or sum(groups) < MIN_GROUPS:
        return None
    contrasts = [k.against(rows[c]) for c, k in kept.items()]
    found = permute(contrasts, N_PERMUTATIONS, np.random.default_rng(seed), SCREENS)
    return Quick(found.statistic, found.p_value)


@dataclass(frozen=True, slots=True)
class KeptRule:
    """A reference's residuals under its own model of P(Y|X), weighted in many ways.

    Attributes
    ----------
    opinions
        The model.
    waves
        Random features of the columns.
    factor
        Brings each weighted residual to variance 1, shape (q,).
    groups
        Means over each `length` neighbours, shape (g, q).
    length
        Rows of a group.
    """

    opinions: Opinions
    waves: FourierFeatures
    factor: Float32
    groups: Float32
    length: int

    @classmethod
    def of(
        cls,
        rows: Array,
        labels: IntArray,
        opinions: Opinions,
        rng: np.random.Generator,
        length: int,
    ) -> KeptRule:
        """Of labelled rows, shapes (n, d) and (n,), and the opinions that they taught."""
        z = opinions.reduced(rows)
        width = median_bandwidth(z, seed=int(rng.integers(2**63)))
        waves = FourierFeatures.draw(
            z.shape[1], bandwidth=width, n_features=N_WAVES, seed=int(rng.integers(2**63))
        )
        residuals = _residuals(opinions, waves, rows, labels, opinions.own)
        spread = residuals.std(axis=0)
        factor = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-6)
        return cls(opinions, waves, factor, _means(residuals * factor, length), length)


def quick_rule(kept: KeptRule, recent: Array, labels: IntArray, seed: int) -> Quick | None:
    """Whether a reference's model of P(Y|X) is as right about recent rows; None if too few.

    Residuals y - m(x) have mean 0 along every weight while P(Y|X) stays and m is right. Where m is
    not, residuals of other inputs have another mean: so this comparison says that nothing moved,
    and never alone that something did.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> def labelled(slope):
    ...     x = rng.normal(size=(600, 2))
    ...     return x, (rng.random(600) < 1 / (1 + np.exp(-slope * x[:, 0]))).astype(np.int64)
    >>> x, y = labelled(2.0)
    >>> kept = KeptRule.of(x, y, Opinions.learn(x, y, n_classes=2, seed=0), rng, 5)
    >>> quick_rule(kept, *labelled(2.0), seed=1).p_value > 0.05
    True
    >>> quick_rule(kept, *labelled(-2.0), seed=1).p_value
    0.005
    """
    if min(len(kept.groups), len(recent) // kept.length) < MIN_GROUPS:
        return None
    opinions = kept.opinions
    residuals = _residuals(opinions, kept.waves, recent, labels, opinions.of(recent))
    own = _means(residuals * kept.factor, kept.length)
    groups = np.concatenate([kept.groups, own])
    rng = np.random.default_rng(seed)
    tags = permuted_tags(len(groups), len(kept.groups), N_PERMUTATIONS, rng)
    observed = np.arange(len(groups)) >= len(kept.groups)
    moved = np.abs(differences(groups, np.vstack([observed.astype(np.float32), tags])))
    q = len(kept.waves.frequencies)
    edges = np.cumsum([0, *([1, 1, q, q, N_WAVES] * (moved.shape[1] // (2 + 2 * q + N_WAVES)))])
    maxima = np.maximum.reduceat(moved, edges[:-1], axis=1)
    return Quick(*combine(maxima, sharpness=1.0))


def _residuals(
    opinions: Opinions, waves: FourierFeatures, rows: Array, labels: IntArray, old: Array
) -> Float32:
    """Residuals of each class times each weight, class by class, shape (n, q)."""
    z = opinions.reduced(rows).astype(np.float32)
    turning: Float32 = waves(z) * np.float32(np.sqrt(N_WAVES / 2.0))
    coded = opinions.codes.of[labels]
    n = opinions.codes.n
    parts: list[Float32] = []
    for k in range(1, 2) if n == 2 else range(n):
        residual = ((coded == k) - old[:, k])[:, None].astype(np.float32)
        parts += [residual * group for group in weight_groups(z, old[:, k], turning)]
    return np.hstack(parts)


def _means(rows: Float32, length: int) -> Float32:
    n = len(rows) // length
    means: Float32 = rows[: n * length].reshape(n, length, -1).mean(axis=1)
    return means


def kept_length(n: int, block_length: int = 1, groups: int = 4 * MIN_GROUPS) -> int:
    """Rows of a group of a reference of n rows that is to have some number of groups.

    Examples
    --------
    >>> kept_length(2000), kept_length(200), kept_length(2000, block_length=84)
    (5, 3, 84)
    """
    if block_length > 1:
        return block_length
    return int(np.clip(n // groups, 1, GROUP))
