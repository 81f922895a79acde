"""Re-weighting the scores for a moved prior."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detectors.base import Array, State
from detectors.learners.prior import PriorCorrection
from service.domain.accuracy import worse
from service.monitor.reference import Baseline


class Reweighting:
    """The correction in force, and how well the scores did before it.

    Attributes
    ----------
    correction
        None while the scores are served as they are.
    """

    def __init__(self) -> None:
        self.correction: PriorCorrection | None = None
        self._before: tuple[int, int] | None = None

    @staticmethod
    def estimate(
        baseline: Baseline,
        classes: tuple[str, ...],
        recent: Array | None,
        *,
        min_labels: int,
        since: int,
    ) -> PriorCorrection | None:
        """The new prior from recent scores, against the reference; None if there are too few."""
        reference, labels = baseline.scored(classes)
        if len(reference) < min_labels or recent is None:
            return None
        return PriorCorrection.estimate(reference, labels, recent, since_index=since)

    def begin(self, correction: PriorCorrection, baseline: Baseline) -> None:
        """Correct the scores from now on; what `baseline` had right is what to come back to."""
        self.correction = correction
        self._before = baseline.right

    def end(self) -> None:
        """Serve the scores as they are."""
        self.correction = None

    def can_judge(self, baseline: Baseline, min_labels: int) -> bool:
        """Whether the new reference can tell already, or never will."""
        judged = self._before is not None and self._before[1] > 0
        return not judged or baseline.right[1] >= min_labels

    def is_not_enough(self, baseline: Baseline) -> bool:
        """Whether the new reference has worse predictions than the one before, beyond chance."""
        return worse(self._before, baseline.right)

    def snapshot(self) -> State:
        """Everything needed to go on."""
        correction = None if self.correction is None else self.correction.snapshot()
        return {"correction": correction, "before": self._before}

    def restore(self, state: State) -> None:
        """Go on from a snapshot."""
        found = state["correction"]
        self.correction = None if found is None else PriorCorrection.from_snapshot(found)
        self._before = None if state["before"] is None else tuple(state["before"])


def prior_in_force(
    classes: Sequence[str], correction: PriorCorrection | None, baseline: Baseline
) -> dict[str, float]:
    """The share of each class that the scores are for; empty where it is not known.

    Parameters
    ----------
    classes
        Of the scores, in their order.
    correction
        What is in force; its target counts.
    baseline
        The reference, whose labels' shares count while there is no correction.
    """
    if correction is not None:
        return dict(zip(classes, correction.target_prior.tolist(), strict=True))
    if not len(baseline.scores) or not baseline.labelled:
        return {}
    codes = baseline.codes[baseline.codes >= 0]
    by_code = np.bincount(codes, minlength=baseline.n_classes).tolist()
    counts = dict(zip(baseline.classes, by_code, strict=False))  # the last code is no class
    total = sum(counts.get(c, 0) for c in classes)
    return {c: counts.get(c, 0) / total for c in classes} if total else {}
