"""Stage 2 of one stream: from an alarm to a verdict, and what persists after it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from detectors.base import Alarm, Array, Factor, IntArray, Kind, State, Verdict
from detectors.confirm import ConfirmPlan, Step, Suspicion
from service.domain.decision import ActionKind, Decision, Means
from service.domain.incident import Incident, Point
from service.monitor import elsewhere
from service.monitor.confirming import (
    action_of,
    added,
    confirmed,
    further,
    has_returned,
    opened,
)
from service.monitor.examiner import Examiner
from service.monitor.findings import dismissed, renamed
from service.monitor.labels import LabelJoin
from service.monitor.moment import Moment
from service.monitor.outcomes import Outcomes
from service.monitor.phase import STAY, Phase, Turn, turn_of
from service.monitor.reference import Baseline
from service.monitor.reweighting import Reweighting
from service.monitor.served import Served
from service.monitor.stage1 import Found, Watches
from service.monitor.standing import Standing
from service.monitor.suspected import Labels, Suspected
from service.records.columns import Coordinates
from service.settings.stream import StreamSettings

RECHECK_ALPHA_SHARE = 0.1
"""While an incident is open each re-check may name a further factor with this share of alpha."""


def plan_of(settings: StreamSettings) -> ConfirmPlan:
    """When the suspicions of a stream are looked at."""
    confirm = settings.confirm
    return ConfirmPlan(
        settings.problem,
        alpha=confirm.alpha,
        looks=tuple(confirm.looks),
        max_wait=confirm.max_wait,
        min_labels=confirm.min_labels,
    )


Policy = Callable[[Verdict, Means, str], Decision]
"""Which action answers a verdict, with what is at hand, on a day of the stream's time; pure."""


class Stage2:
    """What is under test, what persists, and what is done about it.

    Parameters
    ----------
    settings
        The stream's settings.
    plan
        When a suspicion is looked at.
    policy
        Verdict -> decision. Pure.
    served
        What the model at work has served.
    waiting
        Observations whose label has not come.
    others
        What other parts of the stream have found; asked at looks only.
    seed
        Of the tests.
    """

    def __init__(
        self,
        settings: StreamSettings,
        plan: ConfirmPlan,
        policy: Policy,
        *,
        served: Served,
        waiting: LabelJoin,
        others: elsewhere.Elsewhere,
        seed: int,
    ) -> None:
        self.settings = settings
        self.plan = plan
        self._policy = policy
        self._served = served
        self._waiting = waiting
        self._others = others
        self._seed = seed
        self.standing = Standing()
        self.reweighting = Reweighting()
        self._baseline: Baseline
        self._watches: Watches

    def begin(self, baseline: Baseline, watches: Watches) -> None:
        """Compare with a new reference from now on."""
        self._baseline, self._watches = baseline, watches
        again = dataclasses.replace(
            self.plan, alpha=self.plan.alpha * RECHECK_ALPHA_SHARE, looks=self.plan.looks[-1:]
        )
        self.suspected = Suspected(self.plan, again)
        self.standing.forget_folded()
        self._recheck_at = 0
        self._recheck_gap = self.plan.looks[-1]

    @property
    def _examiner(self) -> Examiner:
        return Examiner(self.plan, self._baseline, self.settings.segments.by)

    # -- a suspicion -----------------------------------------------------------------------------

    def suspect(self, found: Found, index: int, at: Coordinates, moment: Moment) -> Turn:
        """Open a suspicion and its incident, for an alarm at an observation and a record."""
        alarm = found.alarm
        suspicion = self._new_suspicion(self.plan, alarm, index, moment)
        suspicion.change_point = self._watches.change_point(found, index)
        self._watches.rest()  # they may be asked again whether the change came later
        incident = opened(self.settings.name, at, moment.now, alarm, suspicion.change_point)
        self.suspected.open(suspicion, incident, self._others())
        return Turn(Outcomes(incidents=[incident], alarms=[alarm]), Phase.SUSPECTING)

    def _new_suspicion(
        self, plan: ConfirmPlan, alarm: Alarm, index: int, moment: Moment
    ) -> Suspicion:
        return Suspicion(
            plan,
            alarm_index=index,
            opened_index=moment.n_seen - 1,
            factor=alarm.factor,
            change_point=index,
            n_features=self._baseline.rows.shape[1],
            # Looks of one suspicion use consecutive seeds, so suspicions are spaced apart.
            seed=(self._seed * 1_000_003 + index * 17) % 2**31,
        )

    def _codes(self, given: Labels) -> IntArray:
        return np.array([self._baseline.code(label) for label in given.labels], np.int64)

    # -- events ----------------------------------------------------------------------------------

    def compares(self, phase: Phase) -> bool:
        """Whether the next thing that is due is another comparison with the reference."""
        return phase is Phase.OPEN and not self.suspected.is_under_test

    def until_due(self, phase: Phase, n_seen: int) -> tuple[int, int]:
        """After how many observations, or labels, something can be due that is not yet."""
        seen, labels = self.suspected.until_due(labels_expected=self._baseline.expects_labels)
        return (self._recheck_at + 1 - n_seen if self.compares(phase) else seen), labels

    def compare_if_due(self, index: int, moment: Moment) -> Turn:
        """Begin another comparison with the reference behind an event, if it is time."""
        if moment.n_seen <= self._recheck_at:
            return STAY
        ended = self.standing.release({i.id for i in self._others()}, moment.now)
        hint = Alarm("recheck", self.settings.problem.marginal, 0, 0.0, 0.0, 1)
        plan = self.suspected.recheck_plan
        self.suspected.compare(self._new_suspicion(plan, hint, index, moment))
        return Turn(Outcomes(incidents=ended)) if ended else STAY

    def settle(self, given: Labels, moment: Moment) -> Turn:
        """Name an undetermined incident once the labels that came since are enough."""
        if not self.suspected.is_vague or not self._baseline.labelled:
            return STAY
        suspicion = self.suspected.settles(given, self._codes(given))
        if suspicion is None:
            return STAY
        incident = self.standing.vague
        verdict = self._examiner.settle(suspicion)
        tested = Turn(Outcomes(evidence=verdict.evidence))
        if incident is None or verdict.kind in (Kind.NONE, Kind.UNDETERMINED):
            return tested
        named = renamed(incident, verdict)
        return turn_of([tested, self._confirm(named, verdict, suspicion, moment)])

    def gather(
        self,
        rows: Array,
        segments: Sequence[Mapping[str, str]] | None,
        given: Labels,
        *,
        at: Coordinates,
        is_label: bool,
        moment: Moment,
    ) -> Turn:
        """Give events to what is under test, and look if a look is due.

        Parameters
        ----------
        rows, segments
            Of the observations among the events.
        given
            The labels among them.
        at, is_label
            Where the last event's record stands, and whether the event is a label.
        moment
            The same event.
        """
        self.suspected.gather(rows, segments, given, self._codes(given))
        complete = self._baseline.representation.complete
        expected = self._baseline.expects_labels
        if not self.suspected.is_due(self._watches.all, complete, labels_expected=expected):
            told = None if is_label else self.suspected.provisional(self._examiner)
            return STAY if told is None else Turn(Outcomes(incidents=[told]))
        look, suspicion = self.suspected.look(self._examiner, self._others(), moment.now)
        tested = Turn(Outcomes(evidence=look.verdict.evidence))
        incident = self.suspected.incident
        if incident is None:
            turn = self._compared(look.verdict, suspicion, at, moment)
        elif look.step is Step.WAIT:
            waits = dataclasses.replace(incident, kind=Kind.UNDETERMINED, factors=())
            self.suspected.incident = waits
            turn = Turn(Outcomes(incidents=[waits]))
        elif look.step is Step.DISMISS:
            detail = (
                f"dismissed: {suspicion.n_labelled} labelled of {suspicion.n_fresh} "
                "fresh observations agree with the reference"
            )
            turn = self._watch_again([dismissed(incident, detail)])
        else:
            self.suspected.rest()
            turn = self._confirm(incident, look.verdict, suspicion, moment)
        return turn_of([tested, turn])

    def _watch_again(self, incidents: Sequence[Incident] = ()) -> Turn:
        self.suspected.rest()
        self.suspected.wait_for_labels(None)
        self._watches.rest()
        return Turn(Outcomes(incidents=incidents), Phase.WATCHING)

    def _stay_open(self, n_seen: int, incidents: Sequence[Incident] = ()) -> Turn:
        """Wait before the next comparison; the gap doubles, because each one costs a test."""
        self.suspected.rest()
        self._recheck_at = n_seen + self._recheck_gap
        self._recheck_gap = min(2 * self._recheck_gap, 16 * self.plan.looks[-1])
        return Turn(Outcomes(incidents=incidents), Phase.OPEN)

    # -- verdicts --------------------------------------------------------------------------------

    def _compared(
        self, verdict: Verdict, suspicion: Suspicion, at: Coordinates, moment: Moment
    ) -> Turn:
        """Settle, extend or close the open incidents by a later comparison."""
        standing = self.standing.all
        if has_returned(verdict, standing):
            detail = "the evidence has returned to the reference"
            ended = self.standing.resolve_all(detail, moment.now)
            return self._watch_again([*ended, *self.standing.release((), moment.now)])
        stays = self._stay_open(moment.n_seen)
        if verdict.kind in (Kind.NONE, Kind.UNDETERMINED):
            return stays if standing else self._watch_again()
        if (vague := self.standing.vague) is not None:
            named = renamed(vague, verdict)
            return turn_of([stays, self._confirm(named, verdict, suspicion, moment)])
        fresh = further(verdict, standing)
        if fresh is None:
            return stays
        began = Point(suspicion.opened_index, moment.time)
        incident = added(self.settings.name, at, began, fresh, suspicion.change_point)
        return turn_of([stays, self._confirm(incident, fresh, suspicion, moment)])

    def _confirm(
        self, incident: Incident, verdict: Verdict, suspicion: Suspicion, moment: Moment
    ) -> Turn:
        """Confirm an incident, say what goes with it and take the policy's decision."""
        decision = self._policy(verdict, moment.means, moment.day)
        explanation = self._examiner.explanation(suspicion, verdict, self._waiting)
        classes, correction = self._served.classes, None
        if decision.action is ActionKind.REWEIGHT:
            correction = self.reweighting.estimate(
                self._baseline,
                classes,
                self._served.recent(incident.change_point or 0, self.plan.looks[-1]),
                min_labels=self.plan.min_labels,
                since=moment.n_seen,
            )
            if correction is None:
                reason = "too few labelled scores to estimate the new prior"
                decision = Decision(ActionKind.ALERT_ONLY, reason)
        action = action_of(decision, moment.now, classes, correction)
        incident = self.standing.put(confirmed(incident, decision, explanation, action, moment.now))
        changed = Outcomes(incidents=[incident], decisions=[(incident, decision)])
        # Labels that are asked for come later, and are for the rows of this evidence.
        self.suspected.wait_for_labels(suspicion if "label_queries" in explanation else None)
        if correction is not None:
            self.reweighting.begin(correction, self._baseline)
            return Turn(dataclasses.replace(changed, renewed=[moment.n_seen]), Phase.WARMING_UP)
        if decision.action is ActionKind.FINE_TUNE:
            return Turn(changed, Phase.REPAIRING)
        self._recheck_gap = self.plan.looks[-1]
        return turn_of([Turn(changed), self._stay_open(moment.n_seen)])

    # -- what becomes of it ----------------------------------------------------------------------

    def judge_reweighting(self, moment: Moment) -> Turn:
        """Judge the re-weightings that the new reference can tell about.

        An incident is resolved if the re-weighted scores are as good as the former reference's
        were. If they are worse beyond chance the prior was not all that moved, and the answer to a
        concept drift is tried.
        """
        return turn_of([self._after_reweighting(i, moment) for i in self.standing.repairing])

    def _after_reweighting(self, incident: Incident, moment: Moment) -> Turn:
        reason = "re-weighting was not enough"
        detail = "re-weighted; the stream has a new reference"
        if self.reweighting.is_not_enough(self._baseline):
            concept = Verdict(Kind.CONCEPT, frozenset({Factor.CONCEPT}), ())
            decision = self._policy(concept, moment.means, moment.day)
            if decision.action is ActionKind.FINE_TUNE:
                action = action_of(Decision(decision.action, reason), moment.now)
                incident = self.standing.put(
                    dataclasses.replace(
                        incident,
                        detail=f"{reason}: {decision.reason}",
                        actions=(*incident.actions, action),
                    )
                )
                ended = self.suspected.drop(f"{incident.id} is repaired instead")
                trains = [(incident, decision)]
                return Turn(
                    Outcomes(incidents=[*ended, incident], decisions=trains), Phase.REPAIRING
                )
            detail = f"{reason}, and no training is possible"
        return Turn(Outcomes(incidents=self.standing.resolve([incident], detail, moment.now)))

    def repaired(self, detail: str, now: Point) -> Turn:
        """A new champion serves: a new reference begins."""
        ended = self.suspected.drop(detail)
        ended += self.standing.release((), now)
        ended += self.standing.resolve_all(detail, now)
        self.reweighting.end()
        return Turn(Outcomes(incidents=ended, renewed=[now.index + 1]), Phase.WARMING_UP)

    def repair_failed(self, detail: str, n_seen: int) -> Turn:
        """No better model was found; the incident stays open for people."""
        return self._stay_open(n_seen, self.standing.repair_failed(detail))

    def close(self, incident_id: str, detail: str, phase: Phase, now: Point) -> Turn:
        """Resolve an incident by hand; with the last one the stream is watched again.

        Raises
        ------
        KeyError
            If no incident of that id is open.
        """
        closed = self.standing.resolve([self.standing.open[incident_id]], detail, now)
        if self.standing.is_empty and phase is Phase.OPEN:
            return self._watch_again(closed)
        return Turn(Outcomes(incidents=closed))

    def fold(
        self, incident_id: str, into: Incident, known: Collection[str], phase: Phase, n_seen: int
    ) -> Turn:
        """Give an incident up for one of another part, which has the same cause.

        Parameters and errors as of `Standing.fold`. What has moved beside the factors that are
        known, plainly enough for a comparison to say so, stays an incident.
        """
        level = self.suspected.recheck_plan.alpha / 2
        reweights = elsewhere.is_reweighted(self.standing.open[incident_id])
        incident = self.standing.fold(incident_id, into, known, level)
        if not incident.state.is_over:
            return Turn(Outcomes(incidents=[incident]))
        self.suspected.wait_for_labels(None)
        if phase is Phase.REPAIRING and not reweights:
            self._recheck_gap = self.plan.looks[-1]
            return self._stay_open(n_seen, [incident])
        return Turn(Outcomes(incidents=[incident]))

    # -- snapshot --------------------------------------------------------------------------------

    def snapshot(self) -> State:
        """Everything needed to go on."""
        return {
            "standing": self.standing.snapshot(),
            "reweighting": self.reweighting.snapshot(),
            "suspected": self.suspected.snapshot(),
            "recheck": [self._recheck_at, self._recheck_gap],
        }

    def restore(self, state: State) -> None:
        """Go on from a snapshot, after `begin`."""
        self.standing.restore(state["standing"])
        self.reweighting.restore(state["reweighting"])
        self.suspected.restore(state["suspected"])
        self._recheck_at, self._recheck_gap = state["recheck"]
