"""Stage 1 of a stream: score maps learned from the reference, each watched by a calibrated bank."""

from __future__ import annotations

from collections.abc import Sequence

from threadpoolctl import threadpool_limits

from detectors.base import Alarm, Array, Factor, IntArray, State
from detectors.charts.calibration import Calibration, calibrate_cusum
from detectors.charts.cusum import CusumBank
from detectors.scores.by_class import ClassConditionalScores
from detectors.scores.inputs import InputScores
from detectors.scores.labels import LabelScores
from detectors.scores.residuals import ResidualScores
from detectors.watches.contract import Feed

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
