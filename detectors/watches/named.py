"""Detectors that a stream may ask for by name, beside or instead of the CUSUM banks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from threadpoolctl import threadpool_limits

from detectors.adapters.alibi import AlibiDetector, Name
from detectors.base import Alarm, Array, Detector, Factor, IntArray, Problem, State
from detectors.charts.adwin import Adwin
from detectors.charts.kswin import Kswin
from detectors.charts.newma import Newma
from detectors.charts.page_hinkley import PageHinkley
from detectors.charts.sd_ewma import SdEwma
from detectors.charts.tssd_ewma import TssdEwma
from detectors.learners.class_model import ClassModel
from detectors.learners.folds import N_FOLDS, fold_of
from detectors.martingales.conditional_e_detector import ConditionalEDetector
from detectors.martingales.conformal import ConformalShiryaevRoberts
from detectors.martingales.label_e_detector import LabelEDetector
from detectors.martingales.mondrian import MondrianShiryaevRoberts
from detectors.names import DetectorName
from detectors.rows import bounded
from detectors.watches.contract import Feed

__all__ = ["NamedWatch", "feed_of", "wanted"]


ALIBI_ARL0 = 500.0
"""The longest run that alibi-detect's thresholds are simulated for: it costs by the row."""
_ALIBI_ROWS: Mapping[Name, int] = {"mmd": 500, "lsdd": 500, "cvm": 200}
"""Reference rows that it compares with at most: a row costs up to 9 ms with 500 of them, and the
simulation of `cvm` grows with their square."""
_ALIBI_WINDOW: Mapping[Name, int] = {"mmd": 20, "lsdd": 20, "cvm": 20, "fet": 30}


@dataclass(frozen=True, slots=True)
class _Lesson:
    """What a detector is made from: the reference and the promise."""

    rows: Array
    labels: IntArray
    n_classes: int
    arl0: float
    seed: int
    configured: State | None
    """What a simulation found at an earlier start."""


_Make = Callable[[_Lesson, Factor], Detector]
_Read = Callable[[Array, IntArray], Array]


def _rows_only(rows: Array, labels: IntArray) -> Array:  # noqa: ARG001 - labels are not read
    return rows


def _with_label(rows: Array, labels: IntArray) -> Array:
    return np.column_stack([rows, labels.astype(np.float64)])


def _label_only(rows: Array, labels: IntArray) -> Array:  # noqa: ARG001 - rows are not read
    return labels.astype(np.float64)[:, None]


@dataclass(frozen=True, slots=True)
class _Plan:
    feed: Feed
    make: _Make
    read: _Read | None
    """None: the errors of a classifier learned on the reference."""
    fills: bool = False
    """Whether missing values are filled before it learns and reads: for a detector that skips
    incomplete rows, and would see nothing of a stream with a nearly empty column."""


def _river(name: str) -> _Plan:
    def make(lesson: _Lesson, factor: Factor) -> Detector:  # noqa: ARG001 - nothing is learned
        # River takes more than a second to import, and most streams never ask for it.
        from detectors.adapters.river import RiverDetector  # noqa: PLC0415

        return RiverDetector(name, factor=factor)  # type: ignore[arg-type]

    return _Plan(Feed.LABELLED, make, None)


def _alibi(name: Name) -> _Plan:
    def make(lesson: _Lesson, factor: Factor) -> Detector:
        return AlibiDetector(
            name,
            _errors(lesson) if name == "fet" else _thinned(lesson.rows, _ALIBI_ROWS[name]),
            arl0=min(lesson.arl0, ALIBI_ARL0),
            window=_ALIBI_WINDOW[name],
            seed=lesson.seed,
            factor=factor,
            configured=lesson.configured,
        )

    if name == "fet":
        return _Plan(Feed.LABELLED, make, None)
    return _Plan(Feed.SEEN, make, _rows_only)


def _thinned(rows: Array, most: int) -> Array:
    """Complete rows, spread evenly over time."""
    rows = rows[np.isfinite(rows).all(axis=1)]
    return rows[np.arange(min(len(rows), most)) * len(rows) // max(min(len(rows), most), 1)]


def _errors(lesson: _Lesson) -> Array:
    """Errors on reference rows that the classifier did not learn, shape (n, 1)."""
    wrong = np.zeros((len(lesson.rows), 1))
    folds = fold_of(len(wrong), lesson.seed)
    for fold in range(N_FOLDS):
        out = folds == fold
        if out.any():
            model = ClassModel(lesson.n_classes)
            model.fit(lesson.rows[~out], lesson.labels[~out], lesson.seed)
            wrong[out, 0] = model.predict(lesson.rows[out]).argmax(axis=1) != lesson.labels[out]
    if wrong.all() or not wrong.any():  # a rate of exactly 0 or 1 is not one that can be tested
        wrong[-1] = 1.0 - wrong[-1]
    return wrong


_PLANS: Mapping[str, _Plan] = {
    "newma on inputs": _Plan(
        Feed.SEEN,
        lambda a, factor: Newma.learn(a.rows, arl0=a.arl0, factor=factor, seed=a.seed),
        _rows_only,
        fills=True,
    ),
    "conformal on inputs": _Plan(
        Feed.SEEN,
        lambda a, factor: ConformalShiryaevRoberts.learn(
            a.rows, arl0=a.arl0, factor=factor, seed=a.seed
        ),
        _rows_only,
    ),
    "conformal by class": _Plan(
        Feed.LABELLED,
        lambda a, factor: MondrianShiryaevRoberts.learn(
            a.rows, a.labels, n_classes=a.n_classes, arl0=a.arl0, factor=factor, seed=a.seed
        ),
        _with_label,
    ),
    "e-detector of labels": _Plan(
        Feed.LABELLED,
        lambda a, factor: LabelEDetector.learn(
            a.labels, n_classes=a.n_classes, arl0=a.arl0, factor=factor
        ),
        _label_only,
    ),
    "e-detector of the rule": _Plan(
        Feed.LABELLED,
        lambda a, factor: ConditionalEDetector.learn(
            a.rows, a.labels, n_classes=a.n_classes, arl0=a.arl0, factor=factor, seed=a.seed
        ),
        _with_label,
    ),
    "sd_ewma on inputs": _Plan(
        Feed.SEEN, lambda a, factor: SdEwma.fit(a.rows, factor=factor), _rows_only
    ),
    "tssd_ewma on inputs": _Plan(
        Feed.SEEN, lambda a, factor: TssdEwma(SdEwma.fit(a.rows, factor=factor)), _rows_only
    ),
    "adwin on errors": _Plan(Feed.LABELLED, lambda _, factor: Adwin(1, factor=factor), None),
    "page_hinkley on errors": _Plan(
        Feed.LABELLED, lambda _, factor: PageHinkley(1, factor=factor), None
    ),
    "kswin on errors": _Plan(Feed.LABELLED, lambda _, factor: Kswin(1, factor=factor), None),
    **{f"{name} on errors": _river(name) for name in ("ddm", "eddm", "hddm_a", "hddm_w")},
    "alibi_mmd on inputs": _alibi("mmd"),
    "alibi_lsdd on inputs": _alibi("lsdd"),
    "alibi_cvm on inputs": _alibi("cvm"),
    "alibi_fet on errors": _alibi("fet"),
}


def wanted(names: Sequence[DetectorName], problem: Problem) -> dict[str, Factor]:
    """The named watches of a problem, and the factor that each one hints at.

    Examples
    --------
    >>> found = wanted([DetectorName.E_DETECTOR, DetectorName.ADWIN], Problem.Y_TO_X)
    >>> [(name, str(factor)) for name, factor in found.items()]
    [('e-detector of labels', 'prior'), ('adwin on errors', 'concept')]
    """
    found: dict[str, Factor] = {}
    for name in names:
        if name is DetectorName.CUSUM:
            continue
        if name is DetectorName.CONFORMAL:
            found["conformal on inputs"] = problem.marginal
            if problem is Problem.Y_TO_X:
                found["conformal by class"] = Factor.CONCEPT
        elif name is DetectorName.E_DETECTOR:
            if problem is Problem.Y_TO_X:
                found["e-detector of labels"] = Factor.PRIOR
            else:
                found["e-detector of the rule"] = Factor.CONCEPT
        elif f"{name} on inputs" in _PLANS:
            found[f"{name} on inputs"] = problem.marginal
        else:
            found[f"{name} on errors"] = Factor.CONCEPT
    return found


class _Filled:
    """Rows without gaps, as the tests of stage 2 read them; fitted on a reference of shape (n, d).

    A missing value becomes the reference's median (0 if it has none). Behind the d columns comes an
    indicator for each one with gaps in the reference, and the number of all other missing values.
    """

    def __init__(self, reference: Array) -> None:
        reference = bounded(reference)
        known = np.isfinite(reference)
        self._gaps = np.flatnonzero(~known.all(axis=0))
        self._medians = np.array(
            [
                np.median(column[seen]) if seen.any() else 0.0
                for column, seen in zip(reference.T, known.T, strict=True)
            ]
        )

    def __call__(self, rows: Array) -> Array:
        missing = ~np.isfinite(rows)
        told = missing[:, self._gaps].astype(np.float64)
        untold = missing.sum(axis=1, keepdims=True) - told.sum(axis=1, keepdims=True)
        return np.hstack([np.where(missing, self._medians, rows), told, untold])


def feed_of(name: str) -> Feed:
    """What the watch of a name reads."""
    return _PLANS[name].feed


class NamedWatch:
    """A detector by name, made from a reference.

    Its snapshot holds the reference that it was made from: it is made again on a restart, which is
    exact, as everything here is a function of the reference and the seed. Only what a detector of
    alibi-detect took minutes to simulate is kept as well.

    Parameters
    ----------
    name
        Of the watch, as `wanted` gives it.
    factor
        What its alarms hint at.
    rows, labels
        The reference in time order, shapes (n, d) and (n,).
    n_classes
        Classes that labels may have.
    arl0
        Rows between false alarms, for the detectors that keep a promise.
    seed
        Of what is learned.
    configured
        What an equal watch's detector had simulated; none to simulate, where there is something.

    Raises
    ------
    ValueError
        If the name is unknown, or the reference is too small for the detector.
    ModuleNotFoundError
        If the detector comes from a package that is not installed.
    """

    def __init__(
        self,
        name: str,
        factor: Factor,
        rows: Array,
        labels: IntArray,
        *,
        n_classes: int,
        arl0: float,
        seed: int,
        configured: State | None = None,
    ) -> None:
        if name not in _PLANS:
            raise ValueError(f"name must be one of {sorted(_PLANS)}, got {name!r}")
        self.name = name
        self.factor = factor
        self._plan = _PLANS[name]
        # Copied, because a reference's labels are filled in as they come.
        self._lesson = _Lesson(rows, labels.copy(), n_classes, arl0, seed, configured)
        self._model: ClassModel | None = None
        self._filled = _Filled(rows) if self._plan.fills else None
        lesson = self._lesson
        if self._filled is not None:
            lesson = replace(lesson, rows=self._filled(rows))
        with threadpool_limits(limits=1):
            if self._plan.read is None:
                self._model = ClassModel(n_classes).fit(rows, labels, seed)
            self.detector = self._plan.make(lesson, factor)
        self._at_rest = self.detector.snapshot()

    @property
    def feed(self) -> Feed:
        """What it reads."""
        return self._plan.feed

    @property
    def statistic(self) -> float:
        """The statistic as a share of its threshold, where the detector has one; else 0."""
        value = float(getattr(self.detector, "statistic", 0.0))
        threshold = float(getattr(self.detector, "threshold", 0.0))
        # The e-detectors' statistics and those of the banks are such shares already.
        return value / threshold if isinstance(self.detector, Newma) and threshold else value

    def update(self, rows: Array, labels: IntArray) -> Sequence[Alarm]:
        """Take rows (n, d) and their labels (n,) in order; return the alarms."""
        if not len(rows):
            return ()
        if self._model is not None:
            wrong = self._model.predict(rows).argmax(axis=1) != labels
            return self.detector.update(wrong.astype(np.float64)[:, None])
        if self._filled is not None:
            rows = self._filled(rows)
        assert self._plan.read is not None
        return self.detector.update(self._plan.read(rows, labels))

    def reset(self) -> None:
        """Forget what was summed up; what was learned stays."""
        self.detector.restore(self._at_rest)

    def mark(self) -> State:
        """The sums, to come back to with `back`."""
        return self.detector.snapshot()

    def back(self, mark: State) -> None:
        """Go back to a mark."""
        self.detector.restore(mark)

    def snapshot(self) -> State:
        """The reference that it was made from, and what was summed up."""
        lesson = self._lesson
        return {
            "named": self.name,
            "factor": str(self.factor),
            "rows": lesson.rows,
            "labels": lesson.labels,
            "n_classes": lesson.n_classes,
            "arl0": lesson.arl0,
            "seed": lesson.seed,
            "configured": getattr(self.detector, "configured", None),
            "detector": self.detector.snapshot(),
        }

    @classmethod
    def from_snapshot(cls, state: State) -> NamedWatch:
        """The watch that a snapshot was taken of."""
        watch = cls(
            state["named"],
            Factor(state["factor"]),
            state["rows"],
            state["labels"],
            n_classes=state["n_classes"],
            arl0=state["arl0"],
            seed=state["seed"],
            configured=state.get("configured"),
        )
        watch.detector.restore(state["detector"])
        return watch
