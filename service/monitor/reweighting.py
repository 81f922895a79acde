"""Re-weighting the scores for a moved prior."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detectors.learners.prior import PriorCorrection
from service.monitor.reference import Baseline


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
