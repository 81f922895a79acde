"""Which action answers a verdict: a pure decision, tested as a table."""

from __future__ import annotations

from collections.abc import Mapping

from detectors.base import Factor, Kind, Verdict
from service.domain.decision import ActionKind, Decision, Means


def decide(verdict: Verdict, wanted: Mapping[Factor, ActionKind], means: Means) -> Decision:
    """Choose the action for a verdict.

    Of a mixed verdict the concept decides, because a model that is trained on recent data meets
    both. Nothing is ever trained on an `undetermined` verdict: it may be the wrong repair.

    Parameters
    ----------
    verdict
        A confirmed verdict.
    wanted
        The operator's choice by factor.
    means
        What the stream has at hand.

    Examples
    --------
    >>> verdict = Verdict(Kind.PRIOR, frozenset({Factor.PRIOR}), ())
    >>> decide(verdict, {Factor.PRIOR: ActionKind.REWEIGHT}, Means(True, True, 1)).action
    <ActionKind.REWEIGHT: 'reweight'>
    """
    if verdict.kind is Kind.UNDETERMINED:
        why = (
            "the inputs hardly overlap with the reference's"
            if any(e.hopeless for e in verdict.evidence)
            else "labels are missing"
        )
        return Decision(ActionKind.ALERT_ONLY, f"the verdict is undetermined: {why}")
    factor = Factor.CONCEPT if Factor.CONCEPT in verdict.factors else min(verdict.factors)
    action = wanted[factor]
    if action is ActionKind.REWEIGHT and not means.has_scores:
        return Decision(ActionKind.ALERT_ONLY, "there are no scores per class to re-weight")
    if action is ActionKind.FINE_TUNE and not means.has_model:
        return Decision(ActionKind.ALERT_ONLY, "the stream has no model that could be trained")
    if action is ActionKind.FINE_TUNE and means.jobs_left < 1:
        return Decision(ActionKind.ALERT_ONLY, "today's budget of trainings is used up")
    return Decision(action, f"{verdict.kind} shift: {action} is the policy for {factor}")
