"""Two windows that are compared, what the reference teaches, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from detectors.attribution.permutation import class_block_lengths
from detectors.attribution.quick import CLASS_GROUPS, KeptRows, KeptRule, kept_length
from detectors.base import Array, Evidence, Factor, IntArray, Problem
from detectors.learners.opinions import Opinions

UNLABELLED = -1

LEAST = 1e-3
"""Probabilities are cut here before their logarithm."""

SEED = 0
"""Of what a reference teaches: folds, waves and directions."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A window of observations in time order.

    Attributes
    ----------
    features
        Shape (n, d), finite.
    labels
        Shape (n,): class codes from 0, -1 where the label is not known.

    Raises
    ------
    ValueError
        If shapes do not fit, a feature is not finite, or a label is below -1; names the place.

    Examples
    --------
    >>> Sample(np.zeros((3, 2)), np.array([0, -1, 1])).n_labelled
    2
    """

    features: Array
    labels: IntArray

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or self.labels.shape != self.features.shape[:1]:
            raise ValueError(
                f"features and labels must have shapes (n, d) and (n,), "
                f"got {self.features.shape} and {self.labels.shape}"
            )
        wrong = np.argwhere(~np.isfinite(self.features))
        if len(wrong):
            row, column = wrong[0]
            raise ValueError(
                f"features[{row}, {column}] must be finite, got {self.features[row, column]}"
            )
        if self.labels.min(initial=UNLABELLED) < UNLABELLED:
            row = int(self.labels.argmin())
            raise ValueError(f"labels[{row}] must be at least -1, got {self.labels[row]}")

    @property
    def n_labelled(self) -> int:
        """Rows whose label is known."""
        return int((self.labels != UNLABELLED).sum())

    def labelled(self) -> Sample:
        """The rows whose label is known."""
        known = self.labels != UNLABELLED
        return Sample(self.features[known], self.labels[known])


class Reference:
    """A reference window, and what it alone teaches: learned when first asked for, then kept.

    All of it is a function of the window, so that the same window learns it again.

    Parameters
    ----------
    sample
        The rows.
    n_classes
        Number of class codes.
    columns
        A name for each column; derived columns may share one, and then their shares add up.
    block_length
        Rows that depend on each other; 1 if none do.

    Raises
    ------
    ValueError
        If the names or the labels do not fit.

    Examples
    --------
    >>> rows = np.random.default_rng(0).normal(size=(500, 2))
    >>> reference = Reference(Sample(rows, (rows[:, 0] > 0) * 1), n_classes=2, columns=["a", "b"])
    >>> reference.opinions is reference.opinions
    True
    """

    def __init__(
        self, sample: Sample, *, n_classes: int, columns: Sequence[str], block_length: int = 1
    ) -> None:
        if len(columns) != sample.features.shape[1]:
            raise ValueError(
                f"every column needs a name, got {len(columns)} for {sample.features.shape[1]}"
            )
        check_labels(sample, n_classes)
        self.sample = sample
        self.n_classes = n_classes
        self.columns = tuple(columns)
        self.block_length = block_length

    @cached_property
    def labelled(self) -> Sample:
        """The rows whose label is known."""
        return self.sample.labelled()

    @cached_property
    def rows(self) -> KeptRows:
        """All rows, for quick comparisons of P(X)."""
        rows = self.sample.features
        length = kept_length(len(rows), self.block_length)
        return KeptRows.of(rows, np.random.default_rng(SEED), length)

    @cached_property
    def classes(self) -> dict[int, KeptRows]:
        """The labelled rows of each class that has more than one, for those of P(X|Y)."""
        known = self.labelled
        counts = np.bincount(known.labels, minlength=self.n_classes)
        blocks = class_block_lengths(known.labels, self.block_length)
        rng = np.random.default_rng(SEED)
        return {
            c: KeptRows.of(
                known.features[known.labels == c],
                rng,
                kept_length(int(counts[c]), int(blocks[c]), CLASS_GROUPS),
            )
            for c in np.flatnonzero(counts > 1).tolist()
        }

    @cached_property
    def opinions(self) -> Opinions:
        """What the labels say of P(Y|X)."""
        return Opinions.learn(
            self.labelled.features,
            self.labelled.labels,
            n_classes=self.n_classes,
            seed=SEED,
            block_length=self.block_length,
        )

    @cached_property
    def told(self) -> KeptRows:
        """The labelled rows beside what they say of their class, for those of a mixture."""
        known = self.labelled.features
        rows = np.hstack([known, _log_odds(self.opinions.own)])
        return KeptRows.of(rows, np.random.default_rng(SEED), kept_length(len(rows)))

    def tell(self, rows: Array) -> Array:
        """Other rows, shape (m, d), as those of `told`."""
        return np.hstack([rows, _log_odds(self.opinions.of(rows))])

    @cached_property
    def rule(self) -> KeptRule:
        """The residuals under `opinions`, for quick comparisons of P(Y|X)."""
        known = self.labelled
        length = kept_length(len(known.features), self.block_length)
        rng = np.random.default_rng(SEED)
        return KeptRule.of(known.features, known.labels, self.opinions, rng, length)


@dataclass(frozen=True, slots=True)
class Windows:
    """Two windows that are compared.

    Attributes
    ----------
    reference
        What is compared with.
    recent
        The other one; it must not have been chosen for looking different.
    problem
        The causal direction; it picks the two hypotheses.
    min_labels
        Labels that each window needs for the tests that need any.

    Raises
    ------
    ValueError
        If the windows' columns or labels do not fit.

    Examples
    --------
    >>> rows = np.random.default_rng(0).normal(size=(200, 2))
    >>> reference = Reference(Sample(rows, (rows[:, 0] > 0) * 1), n_classes=2, columns=["a", "b"])
    >>> recent = Sample(rows[:90], np.full(90, -1))
    >>> Windows(reference, recent, Problem.X_TO_Y).missing_labels
    'needs 100 labels in each window: 100 more in the recent window'
    """

    reference: Reference
    recent: Sample
    problem: Problem
    min_labels: int = 100

    def __post_init__(self) -> None:
        d, own = (v.features.shape[1] for v in (self.reference.sample, self.recent))
        if own != d:
            raise ValueError(f"both windows need the same columns, got {d} and {own}")
        check_labels(self.recent, self.reference.n_classes)

    @property
    def block_length(self) -> int:
        """Rows that depend on each other."""
        return self.reference.block_length

    @property
    def sizes(self) -> tuple[int, int]:
        """Rows of the reference and of the recent window."""
        return len(self.reference.sample.features), len(self.recent.features)

    @property
    def labels(self) -> tuple[int, int]:
        """Labels of the reference and of the recent window."""
        return self.reference.labelled.n_labelled, self.recent.n_labelled

    @property
    def missing_labels(self) -> str:
        """How many labels the windows lack, in words; empty if none."""
        lacking = [
            f"{self.min_labels - n} more in the {name} window"
            for name, n in zip(("reference", "recent"), self.labels, strict=True)
            if n < self.min_labels
        ]
        wanted = f"needs {self.min_labels} labels in each window: "
        return wanted + " and ".join(lacking) if lacking else ""


def _log_odds(probabilities: Array) -> Array:
    """Log-odds of each class but the first against all together, shape (n, K - 1)."""
    logs = np.log(np.maximum(probabilities, LEAST))
    return np.asarray((logs - logs.mean(axis=1, keepdims=True))[:, 1:])


def check_labels(sample: Sample, n_classes: int) -> None:
    """Raise a ValueError if a label is no class."""
    highest = sample.labels.max(initial=UNLABELLED)
    if highest >= n_classes:
        raise ValueError(f"labels must be below n_classes {n_classes}, got {highest}")


@dataclass(frozen=True, slots=True)
class Examination:
    """The tests of both factors.

    Attributes
    ----------
    evidence
        The marginal factor's test, then the conditional factor's.
    contributions
        For each factor that could be localised, shares by column name; each sums to 1.
    """

    evidence: tuple[Evidence, Evidence]
    contributions: Mapping[Factor, Mapping[str, float]] = field(default_factory=dict)
