"""One stream's monitor: from observations and labels to incidents with a verdict.

A monitor is a deterministic function of its stream's events in their order. It has no clock and
does no I/O; how the events are cut into batches changes nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime

import numpy as np

from detectors.base import Alarm, Factor, Kind, State, Verdict
from detectors.confirm import ConfirmPlan, Step, Suspicion
from service.domain.decision import ActionKind, Decision, Means
from service.domain.incident import Incident, IncidentState, Point, incident_id
from service.domain.waiting import Pruned, Side
from service.monitor import elsewhere
from service.monitor.batch import Batch
from service.monitor.confirming import action_of, confirmed, further, has_returned
from service.monitor.events import Events
from service.monitor.examiner import Examiner
from service.monitor.findings import dismissed, findings, renamed
from service.monitor.join import join
from service.monitor.labels import Ended, LabelJoin, Outcome
from service.monitor.outcomes import NOTHING, Outcomes, all_of, by_kind
from service.monitor.phase import Phase
from service.monitor.reference import Baseline
from service.monitor.representation import Representation
from service.monitor.reweighting import Reweighting
from service.monitor.served import Served
from service.monitor.stage1 import Found, Watches
from service.monitor.standing import Standing
from service.monitor.suspected import Labels, Suspected
from service.records.columns import Columns
from service.settings.stream import StreamSettings

ROOM = 2.0
"""Stage 1 raises half of the alarms that would keep the promise if it and the tests held exactly:
both are estimates. At 3 false incidents were up to 12 times rarer than promised, and at 1 there
would have been more than promised on some kinds of streams."""
RECHECK_ALPHA_SHARE = 0.1
"""While an incident is open each re-check may name a further factor with this share of alpha."""

Policy = Callable[[Verdict, Means, str], Decision]
"""Which action answers a verdict, with what is at hand, on a day of the stream's time; pure."""


class Monitor:
    """The phases of one stream: warming up, watching, testing an alarm, repairing.

    Parameters
    ----------
    settings
        The stream's settings.
    representation
        Turns observations into rows; fitted here on the reference.
    policy
        Verdict -> decision. Pure.
    score_classes
        The classes of the scores; empty where nothing scores.
    seed
        Seeds calibration and tests; equal seeds give equal incidents.
    joined_before
        Whether another monitor has joined the labels: then each one that comes meets its
        observation, and there are no repeats to recognise.
    others
        What other parts of the stream have found; asked at looks only.
    spills
        Whether there is a store for observations and labels that wait and have no room in memory.
    """

    def __init__(
        self,
        settings: StreamSettings,
        representation: Representation,
        policy: Policy,
        *,
        score_classes: tuple[str, ...] = (),
        seed: int = 0,
        joined_before: bool = False,
        others: elsewhere.Elsewhere = elsewhere.nowhere,
        spills: bool = False,
    ) -> None:
        self.settings = settings
        self.representation = representation
        self._policy = policy
        self._others = others
        self._seed = seed
        confirm, labels = settings.confirm, settings.labels
        self.plan = ConfirmPlan(
            settings.problem,
            alpha=confirm.alpha,
            looks=tuple(confirm.looks),
            max_wait=confirm.max_wait,
            min_labels=confirm.min_labels,
        )
        self.waiting = LabelJoin(
            labels.max_pending,
            max_spilled=labels.max_spilled if spills else 0,
            max_age_s=math.inf if joined_before else labels.max_age_s,
            recall=0 if joined_before else None,
            from_first_label=not labels.spill_from_start,
        )
        self.n_seen = 0
        self.n_labelled = 0
        self.newest_time = ""
        self.generation = 0
        self.standing = Standing()
        self.reweighting = Reweighting()
        self.served = Served(score_classes, 2 * self.plan.looks[-1])
        self._begin_reference(settings.reference.warm_up)

    def _begin_reference(self, size: int) -> None:
        """Forget the reference and collect a new one from the next observation on."""
        self.generation += 1
        self.phase = Phase.WARMING_UP
        self.baseline = Baseline(
            self.n_seen, size, self.settings.confirm.min_labels, self.representation
        )
        self.watches = Watches(
            self.settings, self.baseline, arl0=self.suspicion_interval, seed=self._seed
        )
        again = dataclasses.replace(
            self.plan, alpha=self.plan.alpha * RECHECK_ALPHA_SHARE, looks=self.plan.looks[-1:]
        )
        self.suspected = Suspected(self.plan, again)
        self.served.forget_scores()
        self.standing.forget_folded()
        self._recheck_at = 0
        self._recheck_gap = self.plan.looks[-1]
        self._quiet_until = 0

    # -- what it is asked ------------------------------------------------------------------------

    @property
    def n_waiting(self) -> int:
        """Observations whose label has not come, in memory and in the store."""
        return self.waiting.n_waiting + self.waiting.n_spilled[Side.OBSERVATION]

    @property
    def day(self) -> str:
        """The day of the stream's time, such as 2026-11-23; empty while it has none."""
        time = self.waiting.read_time
        return datetime.fromtimestamp(time, UTC).date().isoformat() if math.isfinite(time) else ""

    @property
    def suspicion_interval(self) -> float:
        """Observations between stage-1 alarms that the thresholds promise while nothing moves."""
        share = self.plan.alpha * ROOM
        # The stream and each of its segment names get an equal part of the promise.
        parts = 1 + len(self.settings.segments.by)
        return max(self.settings.false_alarm_every * share * parts, float(self.plan.looks[-1]))

    def spill_written(self, pruned: Pruned) -> tuple[dict[Outcome, int], dict[Ended, int]]:
        """Note that what waits without room in memory is written; return what was given up."""
        self.waiting.written(pruned)
        labels, unlabelled, _ = by_kind(self.waiting.counted())
        return labels, unlabelled

    @property
    def _examiner(self) -> Examiner:
        return Examiner(self.plan, self.baseline, self.settings.segments.by)

    @property
    def _now(self) -> Point:
        return Point(self.n_seen - 1, self.newest_time)

    # -- records ---------------------------------------------------------------------------------

    def preload(self, columns: Columns) -> None:
        """Take the reference window from elsewhere; the stream's own observations count from 0.

        Parameters
        ----------
        columns
            Observations of the reference with their labels; they get negative indices.

        Raises
        ------
        RuntimeError
            If the stream has observations already.
        """
        if self.n_seen:
            raise RuntimeError(f"{self.settings.name}: the stream has begun, at {self.n_seen}")
        n = columns.n_observations
        self.n_seen = -n
        self._begin_reference(n)
        self.update(columns, Means())
        if self.phase is Phase.WARMING_UP or self.n_seen:
            raise RuntimeError(f"{self.settings.name}: the reference of {n} did not complete")
        self.served.renew(0)
        self.waiting.restart_time()
        self.n_labelled = 0

    def update(self, columns: Columns, means: Means) -> Outcomes:
        """Take records in order; return what changed."""
        return self.read(self.join(columns), columns, means)

    def join(self, columns: Columns, *, with_changes: bool = False) -> Events:
        """Join the labels of the next records; `read` has to follow."""
        return join(self.waiting, columns, self.n_seen, with_changes=with_changes)

    def read(self, events: Events, columns: Columns, means: Means) -> Outcomes:
        """Take what `join` has just made of records; return what changed."""
        batch = Batch(columns, events, self.n_seen)
        steps: list[Outcomes] = []
        at = 0
        while at < len(events):
            generation = self.generation
            at, outcomes = self._advance(batch, at, means)
            if self.generation != generation:
                batch.rows = None  # they were of the former reference
            steps.append(outcomes)
            for _, decision in outcomes.decisions:
                if decision.action is ActionKind.FINE_TUNE:
                    means = means.after(self.day)
        self._keep_waiting(batch)
        labels, unlabelled, mistimed = by_kind(events.counted)
        return dataclasses.replace(
            all_of(steps),
            joined=batch.joined,
            labels=labels,
            unlabelled=unlabelled,
            mistimed=mistimed,
            delays=events.delays,
        )

    def _keep_waiting(self, batch: Batch) -> None:
        """Keep what labels need that come later."""
        waits = batch.keep_waiting(self.served)
        self.watches.drop(batch.events.ended)
        if batch.rows is not None:
            rows, found = batch.rows.of(waits)
            self.watches.keep(waits[found], rows[found])

    def _advance(self, batch: Batch, at: int, means: Means) -> tuple[int, Outcomes]:
        """Take events up to and including the first one that may change the phase."""
        if self.phase is Phase.WARMING_UP:
            return self._warm_up(batch, at, means)
        batch.encode(self.representation, self.n_seen)
        if self.phase is Phase.WATCHING:
            return self._watch(batch, at, means)
        return self._test(batch, at, means)

    def _take(self, batch: Batch, start: int, stop: int, means: Means) -> tuple[Labels, Outcomes]:
        """Note events in what every phase keeps: their labels, and what came with the last one."""
        events = batch.events
        self.waiting.read(stop - start)
        self.newest_time = batch.newest_time(start, stop) or self.newest_time
        seen = batch.seen(start, stop)
        if seen.stop > seen.start:
            first = batch.first + seen.start
            correction = self.reweighting.correction
            batch.answer(
                self.served.answers(first, batch.predictions(seen), batch.scores(seen), correction)
            )
            self.n_seen = batch.first + seen.stop
        batch.push_out(start, stop, self.served)
        places = batch.labels(start, stop)
        index = events.index[places]
        texts = [str(events.labels[place]) for place in places.tolist()]
        answers = batch.served(places, self.served)
        wrong = self.served.judge(texts, answers)
        self.n_labelled += len(places)
        own = (index >= self.baseline.start) & (index < self.baseline.end)
        if own.any():
            at = np.flatnonzero(own).tolist()
            self.baseline.label(index[own], [texts[n] for n in at], [answers[n] for n in at])
        outcomes = self._labels_may_be_due(batch, stop - 1, means)
        codes = np.array([self.baseline.code(text) for text in texts], np.int64)
        if batch.rows is not None and len(index):
            rows, found = self.watches.rows_of(index, batch.rows)
        else:
            rows, found = np.empty((len(index), 0)), np.zeros(len(index), np.bool_)
        found &= events.in_memory(places)
        return Labels(index, codes, wrong, rows, found), outcomes

    # -- reference -------------------------------------------------------------------------------

    def _warm_up(self, batch: Batch, at: int, means: Means) -> tuple[int, Outcomes]:
        stop = batch.place_of_seen(at, self.baseline.room) + 1
        self._take(batch, at, stop, means)
        seen = batch.seen(at, stop)
        if seen.stop > seen.start:
            features, scores = batch.columns.features[seen], batch.scores(seen)
            self.baseline.add(features, batch.segments(seen), scores)
        return stop, self._arm_inputs(means) if self.baseline.frozen else NOTHING

    def _arm_inputs(self, means: Means) -> Outcomes:
        """The reference's observations are complete: begin to watch P(X)."""
        self.phase = Phase.WATCHING
        self._quiet_until = self.n_seen + self.settings.cool_down if self.generation > 1 else 0
        left_out = self.watches.arm_inputs()
        judged = NOTHING
        if self.reweighting.can_judge(self.baseline, self.plan.min_labels):
            judged = self._judge_reweighting(means)
        return dataclasses.replace(judged, left_out=left_out) if left_out else judged

    def _labels_may_be_due(self, batch: Batch, place: int, means: Means) -> Outcomes:
        """If the reference's labels are complete: begin to watch what needs labels."""
        is_label, index = bool(batch.events.is_label[place]), int(batch.events.index[place])
        if is_label and not self.baseline.holds(index):
            return NOTHING
        if not self.baseline.labels_due(is_label=is_label, index=index):
            return NOTHING
        self.baseline.complete_labels()
        left_out = self.watches.arm_labels()
        judged = NOTHING if self.phase is Phase.REPAIRING else self._judge_reweighting(means)
        return dataclasses.replace(judged, left_out=left_out) if left_out else judged

    # -- stage 1 ---------------------------------------------------------------------------------

    def _watch(self, batch: Batch, at: int, means: Means) -> tuple[int, Outcomes]:
        """Run the banks over the events up to the first alarm, if there is one."""
        assert batch.rows is not None
        stop = self.baseline.until_labels_may_be_due(batch.events, at)
        stop, found = self.watches.advance(
            batch.events,
            at,
            stop,
            batch.rows,
            newest=self.n_seen - 1,
            quiet_until=self._quiet_until,
        )
        _, outcomes = self._take(batch, at, stop, means)
        if found is not None and self.phase is Phase.WATCHING:
            outcomes = all_of([outcomes, self._suspect(found, batch, stop - 1)])
        return stop, outcomes

    def _suspect(self, found: Found, batch: Batch, place: int) -> Outcomes:
        """Open a suspicion and its incident."""
        alarm, index = found.alarm, int(batch.events.index[place])
        suspicion = self._new_suspicion(self.plan, alarm, index)
        suspicion.change_point = self.watches.change_point(found, index)
        self.watches.rest()  # they may be asked again whether the change came later
        incident = Incident(
            id=incident_id(self.settings.name, *batch.at(place)),
            stream=self.settings.name,
            state=IncidentState.SUSPECTED,
            kind=Kind.UNDETERMINED,
            factors=(),
            opened_at=self._now,
            change_point=suspicion.change_point,
            detail=f"{alarm.detector} on {alarm.factor}: "
            f"{alarm.statistic:.3g} over {alarm.threshold:.3g}",
        )
        self.phase = Phase.SUSPECTING
        self.suspected.open(suspicion, incident, self._others())
        return Outcomes(incidents=[incident], alarms=[alarm])

    def _new_suspicion(self, plan: ConfirmPlan, alarm: Alarm, alarm_index: int) -> Suspicion:
        return Suspicion(
            plan,
            alarm_index=alarm_index,
            opened_index=self.n_seen - 1,
            factor=alarm.factor,
            change_point=alarm_index,
            n_features=self.baseline.rows.shape[1],
            # Looks of one suspicion use consecutive seeds, so suspicions are spaced apart.
            seed=(self._seed * 1_000_003 + alarm_index * 17) % 2**31,
        )

    # -- stage 2 ---------------------------------------------------------------------------------

    def _test(self, batch: Batch, at: int, means: Means) -> tuple[int, Outcomes]:
        """Give events to what is under test, up to the first one at which something is due."""
        assert batch.rows is not None
        seen, labels = self.suspected.until_due(labels_expected=self.baseline.expects_labels)
        compares = self.phase is Phase.OPEN and not self.suspected.is_under_test
        if compares:
            seen = self._recheck_at + 1 - self.n_seen
        stop = 1 + min(
            batch.place_of_seen(at, seen) if seen > 0 else at, batch.place_of_label(at, labels)
        )
        stop = min(stop, self.baseline.until_labels_may_be_due(batch.events, at))
        phase, was_labelled = self.phase, self.baseline.labelled
        given, taken = self._take(batch, at, stop, means)
        if not was_labelled:
            # Labels have codes from the one on that completes the reference's.
            given = given.last_if(self.baseline.labelled and bool(batch.events.is_label[stop - 1]))
        steps = [taken]
        if self.suspected.is_vague:
            steps.append(self._settle(given, means))
        if self.suspected.is_under_test:
            which = batch.seen(at, stop)
            rows = batch.rows.rows[
                batch.first + which.start - batch.rows.first : batch.first
                + which.stop
                - batch.rows.first
            ]
            self.suspected.gather(rows, batch.segments(which), given)
            steps.append(self._look_if_due(batch, stop - 1, means))
        elif compares and self.phase is phase and self.n_seen > self._recheck_at:
            steps.append(self._compare(int(batch.events.index[stop - 1])))
        return stop, all_of(steps)

    def _compare(self, index: int) -> Outcomes:
        """Compare the stream with the reference once more."""
        ended = self.standing.release({i.id for i in self._others()}, self._now)
        hint = Alarm("recheck", self.settings.problem.marginal, 0, 0.0, 0.0, 1)
        self.suspected.compare(self._new_suspicion(self.suspected.recheck_plan, hint, index))
        return Outcomes(incidents=ended) if ended else NOTHING

    def _settle(self, given: Labels, means: Means) -> Outcomes:
        """Name an undetermined incident once the labels that came since are enough."""
        if not self.baseline.labelled or (suspicion := self.suspected.settles(given)) is None:
            return NOTHING
        incident = self.standing.vague
        verdict = self._examiner.settle(suspicion)
        tested = Outcomes(evidence=verdict.evidence)
        if incident is None or verdict.kind in (Kind.NONE, Kind.UNDETERMINED):
            return tested
        incident = renamed(incident, verdict)
        return all_of([tested, self._confirm(incident, verdict, suspicion, means)])

    def _look_if_due(self, batch: Batch, place: int, means: Means) -> Outcomes:
        expected = self.baseline.expects_labels
        complete = self.representation.complete
        if self.suspected.due(self.watches.all, complete, labels_expected=expected) is None:
            if not batch.events.is_label[place]:
                told = self.suspected.provisional(self._examiner)
                return NOTHING if told is None else Outcomes(incidents=[told])
            return NOTHING
        look, suspicion = self.suspected.look(self._examiner, self._others(), self._now)
        tested = Outcomes(evidence=look.verdict.evidence)
        incident = self.suspected.incident
        if incident is None:
            step = self._compared(look.verdict, suspicion, batch, place, means)
        elif look.step is Step.WAIT:
            waits = dataclasses.replace(incident, kind=Kind.UNDETERMINED, factors=())
            self.suspected.incident = waits
            step = Outcomes(incidents=[waits])
        elif look.step is Step.DISMISS:
            self.suspected.rest()
            detail = (
                f"dismissed: {suspicion.n_labelled} labelled of {suspicion.n_fresh} "
                "fresh observations agree with the reference"
            )
            self._watch_again()
            step = Outcomes(incidents=[dismissed(incident, detail)])
        else:
            self.suspected.rest()
            step = self._confirm(incident, look.verdict, suspicion, means)
        return all_of([tested, step])

    def _watch_again(self) -> None:
        self.phase = Phase.WATCHING
        self.suspected.wait_for_labels(None)
        self.watches.rest()

    def _compared(
        self, verdict: Verdict, suspicion: Suspicion, batch: Batch, place: int, means: Means
    ) -> Outcomes:
        """Settle, extend or close the open incidents by a later comparison."""
        standing = self.standing.all
        if has_returned(verdict, standing):
            detail = "the evidence has returned to the reference"
            ended = self.standing.resolve_all(detail, self._now)
            ended += self.standing.release((), self._now)
            self._watch_again()
            return Outcomes(incidents=ended)
        self._stay_open()
        if verdict.kind in (Kind.NONE, Kind.UNDETERMINED):
            if not standing:
                self._watch_again()
            return NOTHING
        if (vague := self.standing.vague) is not None:
            return self._confirm(renamed(vague, verdict), verdict, suspicion, means)
        fresh = further(verdict, standing)
        if fresh is None:
            return NOTHING
        incident = Incident(
            id=incident_id(f"{self.settings.name}/{fresh.kind}", *batch.at(place)),
            stream=self.settings.name,
            state=IncidentState.SUSPECTED,
            opened_at=Point(suspicion.opened_index, self.newest_time),
            change_point=suspicion.change_point,
            **findings(fresh),
        )
        return self._confirm(incident, fresh, suspicion, means)

    def _stay_open(self) -> None:
        """Wait before the next comparison; the gap doubles, because each one costs a test."""
        self.phase = Phase.OPEN
        self.suspected.rest()
        self._recheck_at = self.n_seen + self._recheck_gap
        self._recheck_gap = min(2 * self._recheck_gap, 16 * self.plan.looks[-1])

    def _confirm(
        self, incident: Incident, verdict: Verdict, suspicion: Suspicion, means: Means
    ) -> Outcomes:
        """Confirm an incident, say what goes with it and take the policy's decision."""
        decision = self._policy(verdict, means, self.day)
        explanation = self._examiner.explanation(suspicion, verdict, self.waiting)
        correction = None
        if decision.action is ActionKind.REWEIGHT:
            correction = self.reweighting.estimate(
                self.baseline,
                self.served.classes,
                self.served.recent(incident.change_point or 0, self.plan.looks[-1]),
                min_labels=self.plan.min_labels,
                since=self.n_seen,
            )
            if correction is None:
                reason = "too few labelled scores to estimate the new prior"
                decision = Decision(ActionKind.ALERT_ONLY, reason)
        action = action_of(decision, self._now, self.served.classes, correction)
        incident = confirmed(incident, decision, explanation, action, self._now)
        self.standing.put(incident)
        changed = Outcomes(incidents=[incident], decisions=[(incident, decision)])
        # Labels that are asked for come later, and are for the rows of this evidence.
        self.suspected.wait_for_labels(suspicion if "label_queries" in explanation else None)
        if correction is not None:
            self.reweighting.begin(correction, self.baseline)
            self._begin_reference(self.settings.reference.warm_up)
            return dataclasses.replace(changed, renewed=[self.n_seen])
        if decision.action is ActionKind.FINE_TUNE:
            self.phase = Phase.REPAIRING
        else:
            self._recheck_gap = self.plan.looks[-1]
            self._stay_open()
        return changed

    # -- repair ----------------------------------------------------------------------------------

    def _judge_reweighting(self, means: Means) -> Outcomes:
        """Judge the re-weightings that the new reference can tell about."""
        return all_of([self._after_reweighting(i, means) for i in self.standing.repairing])

    def _after_reweighting(self, incident: Incident, means: Means) -> Outcomes:
        """Resolve an incident if the re-weighted scores are as good as the reference's were.

        If they are worse beyond chance the prior was not all that moved, and the answer to a
        concept drift is tried. Without labels of the new reference nothing is known, so the
        incident waits for them.
        """
        if not self.reweighting.is_not_enough(self.baseline):
            detail = "re-weighted; the stream has a new reference"
            return Outcomes(incidents=self.standing.resolve([incident], detail, self._now))
        concept = Verdict(Kind.CONCEPT, frozenset({Factor.CONCEPT}), ())
        decision = self._policy(concept, means, self.day)
        reason = "re-weighting was not enough"
        if decision.action is not ActionKind.FINE_TUNE:
            detail = f"{reason}, and no training is possible"
            return Outcomes(incidents=self.standing.resolve([incident], detail, self._now))
        action = action_of(Decision(decision.action, reason), self._now)
        incident = self.standing.put(
            dataclasses.replace(
                incident,
                detail=f"{reason}: {decision.reason}",
                actions=(*incident.actions, action),
            )
        )
        ended = self.suspected.drop(f"{incident.id} is repaired instead")
        self.phase = Phase.REPAIRING
        return Outcomes(incidents=[*ended, incident], decisions=[(incident, decision)])

    def repaired(self, detail: str) -> Outcomes:
        """A new champion serves from the next observation on: begin a new reference."""
        ended = self.suspected.drop(detail)
        ended += self.standing.release((), self._now)
        ended += self.standing.resolve_all(detail, self._now)
        self.reweighting.end()
        self.served.renew(self.n_seen)
        self._begin_reference(self.settings.reference.warm_up)
        return Outcomes(incidents=ended, renewed=[self.n_seen])

    def close(self, incident_id: str, detail: str) -> Outcomes:
        """Resolve an incident by hand; with the last one the stream is watched again.

        Raises
        ------
        KeyError
            If no incident of that id is open.
        """
        closed = self.standing.resolve([self.standing.open[incident_id]], detail, self._now)
        if self.standing.is_empty and self.phase is Phase.OPEN:
            self.suspected.rest()
            self._watch_again()
        return Outcomes(incidents=closed)

    def repair_failed(self, detail: str) -> Outcomes:
        """No better model was found; the incident stays open for people."""
        changed = self.standing.repair_failed(detail)
        self._stay_open()
        return Outcomes(incidents=changed)

    def fold(self, incident_id: str, into: Incident, known: Collection[str]) -> Outcomes:
        """Give an incident up for one of another part, which has the same cause.

        Parameters and errors as of `Standing.fold`. What has moved beside the factors that are
        known, plainly enough for a comparison to say so, stays an incident.
        """
        level = self.suspected.recheck_plan.alpha / 2
        reweights = elsewhere.is_reweighted(self.standing.open[incident_id])
        incident = self.standing.fold(incident_id, into, known, level)
        if incident.state.is_over:
            self.suspected.wait_for_labels(None)
            if self.phase is Phase.REPAIRING and not reweights:
                self._recheck_gap = self.plan.looks[-1]
                self._stay_open()
        return Outcomes(incidents=[incident])

    # -- snapshot --------------------------------------------------------------------------------

    def snapshot(self) -> State:
        """Everything needed to go on."""
        return {
            "phase": str(self.phase),
            "n_seen": self.n_seen,
            "n_labelled": self.n_labelled,
            "newest_time": self.newest_time,
            "generation": self.generation,
            "join": self.waiting.snapshot(),
            "standing": self.standing.snapshot(),
            "reweighting": self.reweighting.snapshot(),
            "served": self.served.snapshot(),
            "baseline": self.baseline.snapshot(),
            "watches": self.watches.snapshot(),
            "suspected": self.suspected.snapshot(),
            "recheck": [self._recheck_at, self._recheck_gap],
            "quiet_until": self._quiet_until,
        }

    def restore(self, state: State, n_spilled: Mapping[Side, int] | None = None) -> None:
        """Go on from a snapshot of an equally configured monitor.

        `n_spilled` are the observations and labels that wait in the store.
        """
        self.n_seen = state["n_seen"]
        self.n_labelled = state["n_labelled"]
        self._begin_reference(self.settings.reference.warm_up)
        self.phase = Phase(state["phase"])
        self.newest_time = state["newest_time"]
        self.generation = state["generation"]
        self.baseline.restore(state["baseline"])
        self.waiting.restore(state["join"], n_spilled)
        self.standing.restore(state["standing"])
        self.reweighting.restore(state["reweighting"])
        self.served.restore(state["served"])
        self.watches.restore(state["watches"])
        self.suspected.restore(state["suspected"])
        self._recheck_at, self._recheck_gap = state["recheck"]
        self._quiet_until = state["quiet_until"]
