"""Two windows that are compared, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from detectors.base import Array, Evidence, Factor, IntArray

UNLABELLED = -1


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
