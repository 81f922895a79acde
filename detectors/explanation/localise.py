"""Which segments of a stream moved: "only camera 7"."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detectors.attribution.attribution import conclude, examine
from detectors.attribution.separation import auc, discriminant
from detectors.attribution.windows import UNLABELLED, Reference, Sample, Windows
from detectors.base import Array, Factor, IntArray, Kind, Verdict
from detectors.learners.features import principal, quadratic_moments, standardise

__all__ = ["Localisation", "localise"]

MIN_ROWS = 25
"""Rows of a segment that each window needs before it is tested by itself."""

MIN_BLOCKS = 6
"""Blocks of dependent rows that take the place of `MIN_ROWS` where they are more."""

HALF = 0.5
"""Part of the shift of a moved value that the rest must have stayed below."""

MAX_CLASSES, MAX_TIED = 10, 8
"""Classes, and leading columns by class, that a discriminant knows."""

QUANTILE = 1.96
"""Normal quantile of a 95 % interval."""

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
        Whether the rest of the stream has shown that it did not move like them: it agrees with the
        reference, and what tells the windows of each moved value apart tells those of the rest less
        than half as well, beyond chance at 2.5 %. False where too little is left to show that, and
        where no value is unmoved.
    """

    moved: dict[str, Kind]
    unmoved: tuple[str, ...]
    untested: tuple[str, ...]
    only: bool


def localise(
    windows: Windows,
    reference_values: Sequence[str],
    recent_values: Sequence[str],
    *,
    alpha: float,
    seed: int,
) -> Localisation:
    """Test the factors inside each value of a segment, and in what is left.

    Parameters
    ----------
    windows
        Of the whole stream, in which something moved; values with fewer than its labels are tested
        for what needs none.
    reference_values, recent_values
        The segment's value of each row.
    alpha
        Probability of naming any value in which nothing moved; split over the values.
    seed
        Of the tests.

    Returns
    -------
    Localisation
        A value whose rows are few may have moved and be among `unmoved`; and as `only` is about the
        rest as a whole, the shift of a small part of it can drown there.

    Raises
    ------
    ValueError
        If a window and its values differ in length.

    Examples
    --------
    >>> from detectors.base import Problem
    >>> rng = np.random.default_rng(0)
    >>> def window(shift):
    ...     camera = rng.choice(["3", "5", "7"], 1200)
    ...     x = rng.normal(size=(1200, 2)) + np.where(camera == "7", shift, 0.0)[:, None]
    ...     return Sample(x, (rng.random(1200) < 0.5).astype(np.int64)), camera.tolist()
    >>> (before, old), (after, new) = window(0.0), window(1.0)
    >>> reference = Reference(before, n_classes=2, columns=["a", "b"])
    >>> windows = Windows(reference, after, Problem.X_TO_Y)
    >>> found = localise(windows, old, new, alpha=0.01, seed=1)
    >>> found.moved, sorted(found.unmoved), found.only
    ({'7': <Kind.COVARIATE: 'covariate'>}, ['3', '5'], True)
    """
    for n, values in zip(windows.sizes, (reference_values, recent_values), strict=True):
        if n != len(values):
            raise ValueError(f"{n} rows have {len(values)} segment values")
    old, new = np.array(reference_values, object), np.array(recent_values, object)
    counts = Counter(new.tolist())
    known = Counter(old.tolist())
    least = max(MIN_ROWS, MIN_BLOCKS * windows.block_length)
    testable = [v for v, n in counts.most_common() if min(n, known[v]) >= least][:MAX_VALUES]

    def verdict(part: Windows, level: float) -> Verdict:
        found = examine(part, seed=seed, level=level)
        return conclude(found.evidence, windows.problem, level)

    moved: dict[str, Kind] = {}
    needs_labels: dict[str, bool] = {}
    unmoved: list[str] = []
    for value in testable:
        found = verdict(_part(windows, old == value, new == value), alpha / len(testable))
        if all(e.p_value is None for e in found.evidence):
            continue
        if found.kind is Kind.NONE:
            unmoved.append(value)
        else:
            moved[value] = found.kind
            needs_labels[value] = any(
                e.factor is not Factor.COVARIATE
                and e.p_value is not None
                and e.factor in found.factors
                for e in found.evidence
            )
    untested = (counts.keys() | known.keys()) - moved.keys() - set(unmoved)
    kept = [~np.isin(values, list(moved)) for values in (old, new)]
    only = False
    if moved and unmoved and min(int(rows.sum()) for rows in kept) >= least:
        rest = _part(windows, *kept)
        only = verdict(rest, alpha).kind is Kind.NONE and all(
            _stayed_behind(
                _part(windows, old == value, new == value), rest, by_label=needs_labels[value]
            )
            for value in moved
        )
    return Localisation(moved, tuple(unmoved), tuple(sorted(untested)), only)


def _stayed_behind(moved: Windows, rest: Windows, *, by_label: bool) -> bool:
    """Whether the rest moved less than `HALF` as far as a value, in the value's own direction.

    A discriminant of the value's windows, fitted on one half of its rows, judges the other half and
    the rest. The two areas under the curve are comparable, unlike those of discriminants that were
    fitted on more and on fewer rows: where all moved alike they are equal but for chance.
    """
    samples = [part for w in (moved, rest) for part in (w.reference.sample, w.recent)]
    if by_label:
        samples = [sample.labelled() for sample in samples]
    sizes = [len(s.features) for s in samples]
    features = _describe(
        np.concatenate([s.features for s in samples]),
        np.concatenate([s.labels for s in samples]) if by_label else None,
    )
    part = np.repeat(np.arange(4), sizes)
    block = np.concatenate([np.arange(n) // moved.block_length for n in sizes])
    inside, new = part < 2, part % 2 == 1
    own, own_variance, others, others_variance = np.zeros((4, 2))
    for half in (0, 1):
        fitted = inside & (block % 2 != half)
        judged = inside & ~fitted
        groups = [group & side for group in (fitted, judged, ~inside) for side in (new, ~new)]
        if min(int(rows.sum()) for rows in groups) < 2:
            return False
        scores = features @ discriminant(features[fitted & ~new], features[fitted & new])
        own[half], own_variance[half] = auc(scores[judged], new[judged], block[judged])
        others[half], others_variance[half] = auc(scores[~inside], new[~inside], block[~inside])
    gap = HALF * (own.mean() - 0.5) - (others.mean() - 0.5)
    # The halves judge different rows of the value, but the same ones of the rest.
    error = np.sqrt(HALF**2 * own_variance.sum() / 4 + others_variance.mean())
    return bool(gap > QUANTILE * error)


def _describe(rows: Array, labels: IntArray | None) -> Array:
    """What a discriminant reads: moments of the columns; the classes, and the columns by class."""
    dense = principal(standardise(rows))
    moments = quadratic_moments(dense)
    if labels is None:
        return moments
    counts = np.bincount(labels[labels != UNLABELLED], minlength=1)
    classes = np.argsort(-counts, kind="stable")[:MAX_CLASSES]
    hot = (labels[:, None] == classes).astype(np.float64)
    tied = hot[:, :, None] * standardise(principal(dense, MAX_TIED))[:, None, :]
    return np.column_stack([moments, standardise(hot), standardise(tied.reshape(len(rows), -1))])


def _part(windows: Windows, old: npt.NDArray[np.bool_], new: npt.NDArray[np.bool_]) -> Windows:
    """Some rows of both windows."""
    whole = windows.reference
    reference = Reference(
        _of(whole.sample, old),
        n_classes=whole.n_classes,
        columns=whole.columns,
        block_length=whole.block_length,
    )
    return Windows(reference, _of(windows.recent, new), windows.problem, windows.min_labels)


def _of(sample: Sample, rows: npt.NDArray[np.bool_]) -> Sample:
    return Sample(sample.features[rows], sample.labels[rows])
