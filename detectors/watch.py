"""Stage 1 of a stream: score maps learned from the reference, each watched by a calibrated bank."""

from __future__ import annotations

from collections.abc import Sequence

from threadpoolctl import threadpool_limits

from detectors.base import Alarm, Array, Factor, IntArray, Problem, State
from detectors.calibration import Calibration, calibrate_cusum
from detectors.cusum import CusumBank
from detectors.names import DetectorName
from detectors.scores import ClassConditionalScores, InputScores, LabelScores, ResidualScores
from detectors.watch_named import Feed, NamedWatch, Watching, feed_of, wanted

__all__ = ["Feed", "Watch", "Watching", "build_watches", "watch_from_snapshot"]


ScoreMap = InputScores | LabelScores | ResidualScores | ClassConditionalScores

_MAPS: dict[str, type[ScoreMap]] = {
    "inputs": InputScores,
    "labels": LabelScores,
    "residuals": ResidualScores,
    "inputs by class": ClassConditionalScores,
}


class Watch:
    """A score map and the bank that watches its columns.

    Parameters
    ----------
    name
        One of "inputs", "labels", "residuals" and "inputs by class": the score map.
    factor
        What its alarms hint at.
    scores
        The fitted map.
    calibration
        Of the bank, on the map's scores.
    """

    def __init__(
        self, name: str, factor: Factor, scores: ScoreMap, calibration: Calibration
    ) -> None:
        self.name = name
        self.factor = factor
        self.scores = scores
        self.calibration = calibration
        self.bank = CusumBank(
            calibration.mean,
            calibration.scale,
            calibration.thresholds,
            factor=factor,
            name=f"cusum on {name}",
        )
        self._at_rest = self.bank.snapshot()

    @classmethod
    def learn(
        cls,
        name: str,
        factor: Factor,
        rows: Array,
        labels: IntArray,
        *,
        n_classes: int,
        arl0: float,
        seed: int,
    ) -> Watch:
        """Learn the map from the reference, and the bank's thresholds from the map's scores.

        Parameters
        ----------
        name
            The score map.
        factor
            What its alarms hint at.
        rows, labels
            The reference in time order, shapes (n, d) and (n,).
        n_classes
            Classes that labels may have.
        arl0
            Rows between false alarms of this watch.
        seed
            Of the map and the calibration.
        """
        scores = _MAPS[name]()
        # The products are small: threads would mostly wait for each other (16 s against 0.7 s of
        # processor time at 10 classes), and take the processors from a training beside them.
        with threadpool_limits(limits=1):
            if isinstance(scores, InputScores):
                own = scores.fit(rows, seed=seed)
            elif isinstance(scores, LabelScores):
                own = scores.fit(labels, n_classes=n_classes)
            else:
                own = scores.fit(rows, labels, n_classes=n_classes, seed=seed)
        return cls(name, factor, scores, calibrate_cusum(own, arl0=arl0, seed=seed))

    @property
    def feed(self) -> Feed:
        """What it reads."""
        return Feed.SEEN if self.name == "inputs" else Feed.LABELLED

    @property
    def statistic(self) -> float:
        """The largest statistic as a share of its threshold; 1 is an alarm."""
        return float(self.bank.statistics.max(initial=0.0))

    def update(self, rows: Array, labels: IntArray) -> Sequence[Alarm]:
        """Take rows (n, d) and their labels (n,) in order; return the alarms."""
        if not len(rows):
            return ()
        if isinstance(self.scores, InputScores):
            scores = self.scores.transform(rows)
        elif isinstance(self.scores, LabelScores):
            scores = self.scores.transform(labels)
        else:
            scores = self.scores.transform(rows, labels)
        return self.bank.update(scores)

    def reset(self) -> None:
        """Forget what was summed up; what was learned stays."""
        self.bank.restore(self._at_rest)

    def mark(self) -> State:
        """The sums, to come back to with `back`."""
        return self.bank.snapshot()

    def back(self, mark: State) -> None:
        """Go back to a mark."""
        self.bank.restore(mark)

    def snapshot(self) -> State:
        """What was learned and summed up."""
        return {
            "name": self.name,
            "factor": str(self.factor),
            "scores": self.scores.snapshot(),
            "mean": self.calibration.mean,
            "scale": self.calibration.scale,
            "thresholds": list(self.calibration.thresholds),
            "block_length": self.calibration.block_length,
            "bank": self.bank.snapshot(),
        }

    @classmethod
    def from_snapshot(cls, state: State) -> Watch:
        """The watch that a snapshot was taken of."""
        scores = _MAPS[state["name"]]()
        scores.restore(state["scores"])
        calibration = Calibration(
            state["mean"], state["scale"], tuple(state["thresholds"]), state["block_length"]
        )
        watch = cls(state["name"], Factor(state["factor"]), scores, calibration)
        watch.bank.restore(state["bank"])
        return watch


def build_watches(
    feed: Feed,
    problem: Problem,
    rows: Array,
    labels: IntArray,
    *,
    n_classes: int,
    arl0: float,
    seed: int,
    detectors: Sequence[DetectorName] = (DetectorName.CUSUM,),
) -> list[Watching]:
    """The watches of a problem that read a feed.

    The CUSUM banks: in X->Y problems the inputs for P(X), and the residuals of a frozen model of
    P(Y|X); in Y->X problems the labels for P(Y), the inputs by class for P(X|Y), and the inputs,
    which move with either, for the time until labels come.

    Parameters
    ----------
    rows, labels
        The reference in time order, shapes (n, d) and (n,).
    n_classes
        Classes that labels may have.
    arl0
        Rows between false alarms of all watches of the stream together, as far as the detectors
        keep a promise.
    seed
        As in `Watch.learn`.
    detectors
        Families, without repetition.
    """
    banks = {
        Problem.X_TO_Y: {"inputs": Factor.COVARIATE, "residuals": Factor.CONCEPT},
        Problem.Y_TO_X: {
            "inputs": Factor.PRIOR,
            "labels": Factor.PRIOR,
            "inputs by class": Factor.CONCEPT,
        },
    }[problem]
    if DetectorName.CUSUM not in detectors:
        banks = {}
    named = wanted(detectors, problem)
    promise = arl0 * (len(banks) + len(named))
    found: list[Watching] = [
        Watch.learn(name, factor, rows, labels, n_classes=n_classes, arl0=promise, seed=seed)
        for name, factor in banks.items()
        if (name == "inputs") == (feed is Feed.SEEN)
    ]
    found += [
        NamedWatch(name, factor, rows, labels, n_classes=n_classes, arl0=promise, seed=seed)
        for name, factor in named.items()
        if feed_of(name) is feed
    ]
    return found


def watch_from_snapshot(state: State) -> Watching:
    """The watch that a snapshot was taken of."""
    return (NamedWatch if "named" in state else Watch).from_snapshot(state)
