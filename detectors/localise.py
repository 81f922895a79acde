"""Which segments of a stream moved: "only camera 7"."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detectors.attribution import Sample, conclude, examine
from detectors.base import Kind, Problem

__all__ = ["Localisation", "localise"]

MIN_ROWS = 25
"""Rows of a segment that each window needs before it is tested by itself."""

MAX_VALUES = 20
"""Most frequent values that are tested by themselves; each one costs as much as a look."""


@dataclass(frozen=True, slots=True)
class Localisation:
    """The values of one segment by what became of them.

    Attributes
    ----------
    moved
        Values in which a factor moved, with what it was, most frequent value first.
    unmoved
        Values in which none was found to have moved.
    untested
        Values with too few rows in a window to say.
    only
        Whether the stream without the moved values agrees with the reference.
    """

    moved: dict[str, Kind]
    unmoved: tuple[str, ...]
    untested: tuple[str, ...]
    only: bool


def localise(
    reference: Sample,
    recent: Sample,
    reference_values: Sequence[str],
    recent_values: Sequence[str],
    problem: Problem,
    *,
    n_classes: int,
    alpha: float,
    seed: int,
    min_labels: int = 100,
    block_length: int = 1,
) -> Localisation:
    """Test the factors inside each value of a segment, and in what is left.

    Parameters
    ----------
    reference, recent
        The windows of the whole stream, in which something moved.
    reference_values, recent_values
        The segment's value of each row.
    problem, n_classes, seed, min_labels, block_length
        As in `detectors.attribution.examine`; values with fewer labels are tested for what needs
        none.
    alpha
        Probability of naming any value in which nothing moved; split over the values.

    Returns
    -------
    Localisation
        A value whose rows are few may have moved and be among `unmoved`; `only` says whether the
        whole change is accounted for all the same.

    Raises
    ------
    ValueError
        If a window and its values differ in length.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> def window(shift):
    ...     camera = rng.choice(["3", "5", "7"], 1200)
    ...     x = rng.normal(size=(1200, 2)) + np.where(camera == "7", shift, 0.0)[:, None]
    ...     return Sample(x, (rng.random(1200) < 0.5).astype(np.int64)), camera.tolist()
    >>> (before, old), (after, new) = window(0.0), window(1.0)
    >>> found = localise(before, after, old, new, Problem.X_TO_Y, n_classes=2, alpha=0.01, seed=1)
    >>> found.moved, sorted(found.unmoved), found.only
    ({'7': <Kind.COVARIATE: 'covariate'>}, ['3', '5'], True)
    """
    for sample, values in ((reference, reference_values), (recent, recent_values)):
        if len(sample.features) != len(values):
            raise ValueError(f"{len(sample.features)} rows have {len(values)} segment values")
    old, new = np.array(reference_values, object), np.array(recent_values, object)
    counts = Counter(new.tolist())
    known = Counter(old.tolist())
    testable = [
        value
        for value, n in counts.most_common()
        if min(n, known[value]) >= max(MIN_ROWS, 6 * block_length)
    ][:MAX_VALUES]

    def verdict(a: Sample, b: Sample, level: float) -> Kind | None:
        found = examine(
            a,
            b,
            problem,
            n_classes=n_classes,
            columns=[str(j) for j in range(a.features.shape[1])],
            seed=seed,
            min_labels=min_labels,
            block_length=block_length,
        )
        if all(e.p_value is None for e in found.evidence):
            return None
        return conclude(found.evidence, problem, level).kind

    moved: dict[str, Kind] = {}
    unmoved: list[str] = []
    for value in testable:
        inside = _of(reference, old == value), _of(recent, new == value)
        kind = verdict(*inside, alpha / len(testable))
        if kind is Kind.NONE:
            unmoved.append(value)
        elif kind is not None:
            moved[value] = kind
    untested = (counts.keys() | known.keys()) - moved.keys() - set(unmoved)
    rest = [~np.isin(values, list(moved)) for values in (old, new)]
    only = bool(moved) and (
        min(keep.sum() for keep in rest) < MIN_ROWS
        or verdict(_of(reference, rest[0]), _of(recent, rest[1]), alpha) is Kind.NONE
    )
    return Localisation(moved, tuple(unmoved), tuple(sorted(untested)), only)


def _of(sample: Sample, rows: npt.NDArray[np.bool_]) -> Sample:
    return Sample(sample.features[rows], sample.labels[rows])
