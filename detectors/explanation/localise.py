"""Which segments of a stream moved: "only camera 7"."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detectors.attribution.attribution import conclude, examine
from detectors.attribution.contrast import RIDGE, _auc, principal, quadratic_moments, standardise
from detectors.attribution.windows import UNLABELLED, Sample
from detectors.base import Array, Factor, IntArray, Kind, Problem, Verdict

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
        As in `detectors.attribution.attribution.examine`; values with fewer labels are tested for
        what needs none.
    alpha
        Probability of naming any value in which nothing moved; split over the values.

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
    least = max(MIN_ROWS, MIN_BLOCKS * block_length)
    testable = [v for v, n in counts.most_common() if min(n, known[v]) >= least][:MAX_VALUES]

    def verdict(a: Sample, b: Sample, level: float) -> Verdict:
        found = examine(
            a,
            b,
            problem,
            n_classes=n_classes,
            columns=[str(j) for j in range(a.features.shape[1])],
            seed=seed,
            min_labels=min_labels,
            block_length=block_length,
            level=level,
        )
        return conclude(found.evidence, problem, level)

    moved: dict[str, Kind] = {}
    needs_labels: dict[str, bool] = {}
    unmoved: list[str] = []
    for value in testable:
        inside = _of(reference, old == value), _of(recent, new == value)
        found = verdict(*inside, alpha / len(testable))
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
        rest = _of(reference, kept[0]), _of(recent, kept[1])
        only = verdict(*rest, alpha).kind is Kind.NONE and all(
            _stayed_behind(
                (_of(reference, old == value), _of(recent, new == value)),
                rest,
                by_label=needs_labels[value],
                block_length=block_length,
            )
            for value in moved
        )
    return Localisation(moved, tuple(unmoved), tuple(sorted(untested)), only)


def _stayed_behind(
    moved: tuple[Sample, Sample], rest: tuple[Sample, Sample], *, by_label: bool, block_length: int
) -> bool:
    """Whether the rest moved less than `HALF` as far as a value, in the value's own direction.

    A discriminant of the value's windows, fitted on one half of its rows, judges the other half and
    the rest. The two areas under the curve are comparable, unlike those of discriminants that were
    fitted on more and on fewer rows: where all moved alike they are equal but for chance.
    """
    samples = [s.labelled() if by_label else s for s in (*moved, *rest)]
    sizes = [len(s.features) for s in samples]
    features = _describe(
        np.concatenate([s.features for s in samples]),
        np.concatenate([s.labels for s in samples]) if by_label else None,
    )
    part = np.repeat(np.arange(4), sizes)
    block = np.concatenate([np.arange(n) // block_length for n in sizes])
    inside, new = part < 2, part % 2 == 1
    own, own_variance, others, others_variance = np.zeros((4, 2))
    for half in (0, 1):
        fitted = inside & (block % 2 != half)
        judged = inside & ~fitted
        groups = [group & side for group in (fitted, judged, ~inside) for side in (new, ~new)]
        if min(int(rows.sum()) for rows in groups) < 2:
            return False
        scores = features @ _direction(features[fitted & ~new], features[fitted & new])
        own[half], own_variance[half] = _auc(scores[judged], new[judged], block[judged])
        others[half], others_variance[half] = _auc(scores[~inside], new[~inside], block[~inside])
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


def _direction(old: Array, new: Array) -> Array:
    """Ridge discriminant of two groups of rows."""
    centred = np.concatenate([old - old.mean(axis=0), new - new.mean(axis=0)])
    spread = centred.T @ centred / len(centred)
    spread[np.diag_indices_from(spread)] += RIDGE + spread.shape[0] / len(centred)
    return np.asarray(np.linalg.solve(spread, new.mean(axis=0) - old.mean(axis=0)))


def _of(sample: Sample, rows: npt.NDArray[np.bool_]) -> Sample:
    return Sample(sample.features[rows], sample.labels[rows])
