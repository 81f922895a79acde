import pytest

from detectors.base import Factor, Kind, Verdict
from service.domain.decision import ActionKind, Means
from service.repair.policy import decide

WANTED = {
    Factor.COVARIATE: ActionKind.FINE_TUNE,
    Factor.PRIOR: ActionKind.REWEIGHT,
    Factor.CONCEPT: ActionKind.FINE_TUNE,
}
DAY = "2026-11-23"
ALL = Means(has_model=True, has_scores=True, per_day=1)


@pytest.mark.parametrize(
    ("kind", "factors", "means", "action", "reason"),
    [
        (Kind.PRIOR, {Factor.PRIOR}, ALL, "reweight", "policy for prior"),
        (Kind.CONCEPT, {Factor.CONCEPT}, ALL, "fine_tune", "policy for concept"),
        (Kind.COVARIATE, {Factor.COVARIATE}, ALL, "fine_tune", "policy for covariate"),
        (Kind.MIXED, {Factor.PRIOR, Factor.CONCEPT}, ALL, "fine_tune", "policy for concept"),
        (Kind.UNDETERMINED, {Factor.PRIOR, Factor.CONCEPT}, ALL, "alert_only", "undetermined"),
        (Kind.PRIOR, {Factor.PRIOR}, Means(True, False, 1), "alert_only", "no scores"),
        (Kind.CONCEPT, {Factor.CONCEPT}, Means(False, True, 1), "alert_only", "no model"),
        (Kind.CONCEPT, {Factor.CONCEPT}, Means(True, True, 1, {DAY: 1}), "alert_only", "budget"),
    ],
)
def test_each_verdict_has_its_action(
    kind: Kind, factors: set[Factor], means: Means, action: str, reason: str
) -> None:
    decision = decide(Verdict(kind, frozenset(factors), ()), WANTED, means, DAY)
    assert decision.action is ActionKind(action)
    assert reason in decision.reason


def test_a_training_uses_up_the_budget_of_its_own_day() -> None:
    means = Means(has_model=True, per_day=2, asked={"2026-11-22": 2}).after(DAY)
    assert (means.jobs_left(DAY), means.jobs_left("2026-11-22"), means.jobs_left("")) == (1, 0, 2)
