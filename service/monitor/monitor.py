"""One stream's monitor: from observations and labels to incidents with a verdict.

A monitor is a deterministic function of its stream's events in their order. It has no clock and
does no I/O; how the events are cut into batches changes nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from detectors.base import Alarm, Array, Factor, Kind, State, Verdict
from detectors.confirm import ConfirmPlan, Step, Suspicion
from detectors.learners.prior import PriorCorrection
from service.domain.accuracy import worse
from service.domain.decision import ActionKind, Decision
from service.domain.incident import Incident, IncidentState, Point, incident_id
from service.domain.waiting import Pruned, Side
from service.monitor import elsewhere as parts
from service.monitor.events import Arrival, Event, Labelled, Seen
from service.monitor.examiner import Examiner, aloud
from service.monitor.labels import Change, Counted, Ended, LabelJoin, Mistimed, Outcome
from service.monitor.outcomes import Outcomes
from service.monitor.phase import Phase
from service.monitor.reference import Baseline
from service.monitor.representation import NEWLY_MISSING, Representation
from service.monitor.stage1 import Found, Watches, stack
from service.settings.stream import StreamSettings

ROOM = 2.0
"""Stage 1 raises half of the alarms that would keep the promise if it and the tests held exactly:
both are estimates. At 3 false incidents were up to 12 times rarer than promised, and at 1 there
would have been more than promised on some kinds of streams."""
RECHECK_ALPHA_SHARE = 0.1
"""While an incident is open each re-check may name a further factor with this share of alpha."""
RETURN_ALPHA = 0.05
"""Evidence counts as returned to the reference when no factor is rejected at this level."""


@dataclass(frozen=True, slots=True)
class Joint:
    """Arrivals whose labels are joined: what a monitor reads.

    Attributes
    ----------
    events
        In order: each observation, and each label at the moment it is known.
    changes
        What each arrival changed among the observations that wait for their label.
    counted
        What happened to labels and observations besides, and how many records were mistimed.
    delays
        Of each label that came later than its observation: observations, and seconds or None.
    """

    events: list[Event]
    changes: list[Change]
    counted: Counted = dataclasses.field(default_factory=Counter)
    delays: list[tuple[int, float | None]] = dataclasses.field(default_factory=list)


class Monitor:
    """The monitor of one stream.

    Parameters
    ----------
    settings
        The stream's settings.
    representation
        Turns observations into rows; fitted here on the reference.
    decide
        The policy: verdict -> decision. Pure.
    score_classes
        The classes that `Arrival.scores` and re-weighting follow; empty where nothing scores.
    seed
        Seeds calibration and tests; equal seeds give equal incidents.
    joined_before
        Whether another monitor has joined the labels: then each one that comes meets its
        observation, and there are no repeats to recognise.
    elsewhere
        What other parts of the stream have found; asked at looks only.
    spills
        Whether there is a store for observations and labels that wait and have no room in memory.
    """

    def __init__(
        self,
        settings: StreamSettings,
        representation: Representation,
        decide: Callable[[Verdict], Decision],
        *,
        score_classes: tuple[str, ...] = (),
        seed: int = 0,
        joined_before: bool = False,
        elsewhere: parts.Elsewhere = parts.nowhere,
        spills: bool = False,
    ) -> None:
        self.settings = settings
        self.representation = representation
        self.score_classes = score_classes
        self._decide = decide
        self._elsewhere = elsewhere
        self._seed = seed
        confirm = settings.confirm
        self.plan = ConfirmPlan(
            settings.problem,
            alpha=confirm.alpha,
            looks=tuple(confirm.looks),
            max_wait=confirm.max_wait,
            min_labels=confirm.min_labels,
        )
        labels = settings.labels
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
        self.open: dict[str, Incident] = {}
        self.correction: PriorCorrection | None = None
        self._correct: deque[bool] = deque(maxlen=500)
        self._before_repair: tuple[int, int] | None = None
        self._served: OrderedDict[int, str] = OrderedDict()
        self._served_from = 0  # what was served before says nothing of the model at work
        self._served_elsewhere: dict[int, str] = {}  # of labels that are joined and not yet read
        self._begin_reference()

    # -- state ---------------------------------------------------------------------------------

    def _begin_reference(self, size: int | None = None) -> None:
        """Forget the reference and collect a new one from the next observation on."""
        size = self.settings.reference.warm_up if size is None else size
        self.generation += 1
        self.phase = Phase.WARMING_UP
        self.baseline = Baseline(
            self.n_seen, size, self.settings.confirm.min_labels, self.representation
        )
        self._watches = Watches(
            self.settings, self.baseline, arl0=self.suspicion_interval, seed=self._seed
        )
        self._recent_scores: deque[tuple[int, Array]] = deque(maxlen=2 * self.plan.looks[-1])
        self._suspicion: Suspicion | None = None
        self._suspected: Incident | None = None
        self._vague: Suspicion | None = None
        self._recheck_at = 0
        self._recheck_gap = self.plan.looks[-1]
        self._quiet_until = 0
        self._folded: list[tuple[str, Incident]] = []
        """What was given up for incidents of other parts, with their ids."""
        self.met: set[str] = set()
        """Ids of confirmed incidents of other parts that were open during the last suspicion."""

    @property
    def _examiner(self) -> Examiner:
        return Examiner(self.plan, self.baseline, self.settings.segments.by)

    @property
    def accuracy(self) -> float | None:
        """Share of right predictions among the last 500 labelled observations."""
        return sum(self._correct) / len(self._correct) if self._correct else None

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
    def statistics(self) -> dict[Factor, float]:
        """Largest statistic of each factor's monitors, as a share of its threshold."""
        return self._watches.statistics

    @property
    def left_out(self) -> dict[str, str]:
        """Watches that the reference could not teach, and why."""
        return dict(self._watches.left_out)

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
        return _by_kind(self.waiting.counted())[:2]

    # -- events --------------------------------------------------------------------------------

    def preload(self, arrivals: Sequence[Arrival]) -> None:
        """Take the reference window from elsewhere; the stream's own observations count from 0.

        Parameters
        ----------
        arrivals
            Observations of the reference with their labels; they get negative indices.

        Raises
        ------
        RuntimeError
            If the stream has observations already.
        """
        if self.n_seen:
            raise RuntimeError(f"{self.settings.name}: the stream has begun, at {self.n_seen}")
        n = sum(a.raw is not None for a in arrivals)
        self.n_seen = -n
        self._begin_reference(n)
        self.update(arrivals)
        if self.phase is Phase.WARMING_UP or self.n_seen:
            raise RuntimeError(f"{self.settings.name}: the reference of {n} did not complete")
        self._served.clear()
        self._correct.clear()
        self.waiting.restart_time()
        self.n_labelled = 0

    def update(self, arrivals: Sequence[Arrival]) -> Outcomes:
        """Take records in order; return what changed."""
        return self.read(self.join(arrivals))

    def join(self, arrivals: Sequence[Arrival]) -> Joint:
        """Join the labels of the next records; `read` has to follow.

        A late label's `prediction` is what had been served for its observation, where another
        monitor knows. A record with neither observation nor label says that the label of this id
        cannot come any more.
        """
        joint = Joint([], [])
        index = self.n_seen
        for a in arrivals:
            if a.raw is not None:
                change = self.waiting.observe(a.id, index, a.label, a.seconds)
                joint.events.append(
                    Seen(
                        a.at,
                        a.time,
                        index,
                        a.raw,
                        a.prediction,
                        a.scores,
                        a.segment,
                        change.spilled,
                    )
                )
                index += 1
            elif a.label is not None:
                change = self.waiting.label(a.id, a.label, index - 1, a.seconds)
                if change.joined is not None:
                    joint.delays.append((change.joined.delay, change.joined.seconds))
                    if a.prediction is not None:
                        self._served_elsewhere[change.joined.index] = a.prediction
            else:
                change = self.waiting.forget(a.id)
            joint.changes.append(change)
            if (joined := change.joined) is not None:
                joint.events.append(
                    Labelled(a.at, a.time, joined.index, joined.label, joined.spilled)
                )
        joint.counted.update(self.waiting.counted())
        return joint

    def read(self, joint: Joint) -> Outcomes:
        """Take what `join` has just returned; return what changed."""
        counted = joint.counted + Counter(c.outcome for c in joint.changes if c.outcome is not None)
        labels, unlabelled, mistimed = _by_kind(counted)
        out = Outcomes(labels=labels, unlabelled=unlabelled, mistimed=mistimed, delays=joint.delays)
        done = 0
        while done < len(joint.events):
            done += self._advance(joint.events[done:], out)
        return out

    def _advance(self, events: list[Event], out: Outcomes) -> int:
        """Take events up to and including the first one that changes the phase."""
        if self.phase is Phase.WARMING_UP:
            return self._warm_up(events, out)
        if self.phase is Phase.WATCHING:
            return self._watch(events, out)
        rows = self._rows_of(events)
        phase = self.phase
        for n, event in enumerate(events, 1):
            wrong = self._take(event, rows, out)
            if self._vague is not None and isinstance(event, Labelled):
                self._settle(self._vague, event, wrong, out)
            if self._suspicion is not None:
                self._gather(self._suspicion, event, rows, wrong, out)
            elif self.phase is Phase.OPEN and self.n_seen > self._recheck_at:
                self._release({i.id for i in self._elsewhere()}, out)
                self._suspicion = self._new_suspicion(
                    self._recheck_plan, Alarm("recheck", self._hint, 0, 0.0, 0.0, 1), event.index
                )
            if self.phase is not phase:
                return n
        return len(events)

    def _rows_of(self, events: list[Event]) -> dict[int, Array]:
        seen = [e for e in events if isinstance(e, Seen)]
        rows = self.representation.rows([e.raw for e in seen])
        return {e.index: row for e, row in zip(seen, rows, strict=True)}

    def _take(self, event: Event, rows: dict[int, Array], out: Outcomes) -> bool | None:
        """Note an event in what every phase keeps; return whether a label tells of a mistake."""
        self.waiting.read()
        self.newest_time = event.time or self.newest_time
        if isinstance(event, Seen):
            self.n_seen = event.index + 1
            if event.spilled is not None:
                event.spilled.value = self._served.pop(event.spilled.index, None)
            prediction = self._serve(event)
            if prediction is not None:
                self._served[event.index] = prediction
                if len(self._served) > self.settings.labels.max_pending:
                    self._served.popitem(last=False)
            if event.index in rows:
                self._watches.keep(event.index, rows[event.index])
            if self.baseline.labels_due(event):
                self._arm_labels(out)
            return None
        self.n_labelled += 1
        served = self._served_for(event)
        if served is not None:
            self._correct.append(served == event.label)
        out.joined.append((event.index, event.label, served))
        if self.baseline.holds(event.index):
            self.baseline.label(event, served)
            if self.baseline.labels_due(event):
                self._arm_labels(out)
        return None if served is None else served != event.label

    def _served_for(self, event: Labelled) -> str | None:
        """What was served for the observation that a label is for."""
        if event.spilled is not None:
            return event.spilled.value if event.index >= self._served_from else None
        elsewhere = self._served_elsewhere.pop(event.index, None)
        return self._served.pop(event.index, elsewhere)

    def _serve(self, event: Seen) -> str | None:
        """The prediction that is served: corrected for the prior where a correction is active."""
        if event.scores is None:
            return event.prediction
        self._recent_scores.append((event.index, event.scores))
        scores = event.scores
        if self.correction is not None:
            scores = self.correction.apply(scores[None])[0]
        return self.score_classes[int(np.argmax(scores))]

    # -- reference -----------------------------------------------------------------------------

    def _warm_up(self, events: list[Event], out: Outcomes) -> int:
        for n, event in enumerate(events, 1):
            self._take(event, {}, out)
            if isinstance(event, Seen) and self.baseline.add(event):
                self._arm_inputs(out)
                return n
        return len(events)

    def _arm_inputs(self, out: Outcomes) -> None:
        """The reference's observations are complete: begin to watch P(X)."""
        self.phase = Phase.WATCHING
        self._quiet_until = self.n_seen + self.settings.cool_down if self.generation > 1 else 0
        out.left_out.update(self._watches.arm_inputs())
        judged = self._before_repair is not None and self._before_repair[1] > 0
        if not judged or self.baseline.right[1] >= self.plan.min_labels:
            self._judge_reweighting(out)

    def _arm_labels(self, out: Outcomes) -> None:
        """The reference's labels are complete: begin to watch what needs labels."""
        self.baseline.complete_labels()
        out.left_out.update(self._watches.arm_labels())
        if self.phase is not Phase.REPAIRING:
            self._judge_reweighting(out)

    # -- stage 1 -------------------------------------------------------------------------------

    def _watch(self, events: list[Event], out: Outcomes) -> int:
        """Run the banks over the events up to the first alarm, if there is one."""
        events = events[: self.baseline.until_labels_may_be_due(events)]
        rows = self._rows_of(events)
        n, found = self._watches.advance(
            events, rows, newest=self.n_seen - 1, quiet_until=self._quiet_until
        )
        for event in events[:n]:
            self._take(event, rows, out)
            if isinstance(event, Labelled) and event.spilled is None:
                self._watches.labelled(event.index)
        if found is not None and self.phase is Phase.WATCHING:
            self._suspect(found, events[n - 1], out)
        return n

    def _suspect(self, found: Found, event: Event, out: Outcomes) -> None:
        """Open a suspicion and its incident."""
        alarm = found.alarm
        self._suspicion = self._new_suspicion(self.plan, alarm, event.index)
        self._suspicion.change_point = self._watches.change_point(found, event.index)
        self._watches.rest()  # they may be asked again whether the change came later
        self.phase = Phase.SUSPECTING
        self._suspected = Incident(
            id=incident_id(self.settings.name, *event.at),
            stream=self.settings.name,
            state=IncidentState.SUSPECTED,
            kind=Kind.UNDETERMINED,
            factors=(),
            opened_at=self._now(),
            change_point=self._suspicion.change_point,
            detail=f"{alarm.detector} on {alarm.factor}: "
            f"{alarm.statistic:.3g} over {alarm.threshold:.3g}",
        )
        self.met = set()
        self._meet(self._elsewhere())
        out.alarms.append(alarm)
        out.incidents.append(self._suspected)

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

    def _now(self) -> Point:
        return Point(self.n_seen - 1, self.newest_time)

    # -- stage 2 -------------------------------------------------------------------------------

    @property
    def _recheck_plan(self) -> ConfirmPlan:
        return dataclasses.replace(
            self.plan,
            alpha=self.plan.alpha * RECHECK_ALPHA_SHARE,
            looks=self.plan.looks[-1:],
        )

    @property
    def _hint(self) -> Factor:
        return self.settings.problem.marginal

    def _gather(
        self,
        suspicion: Suspicion,
        event: Event,
        rows: dict[int, Array],
        wrong: bool | None,
        out: Outcomes,
    ) -> None:
        """Give an event to the suspicion, and look when a look is due."""
        if isinstance(event, Seen):
            suspicion.seen(event.index, rows[event.index], event.segment)
        else:
            row = self._watches.release(event.index)
            if self.baseline.labelled:
                suspicion.labelled(event.index, row, self.baseline.code(event.label), wrong)
        labels_expected = self.baseline.expects_labels
        if suspicion.due(labels_expected=labels_expected):
            if self._suspected is not None:
                suspicion.restart(self._watches.all, self.representation.complete)
            if suspicion.due(labels_expected=labels_expected):
                self._look(suspicion, event, out)
        elif self._suspected is not None and self._labels_are_late(suspicion, event):
            provisional = self._examiner.provisional(suspicion)
            self._suspected = dataclasses.replace(
                self._suspected,
                explanation={**self._suspected.explanation, "provisional": provisional},
                detail="labels are late; what the inputs alone say is provisional",
            )
            out.incidents.append(self._suspected)

    def _settle(self, vague: Suspicion, event: Labelled, wrong: bool | None, out: Outcomes) -> None:
        """Give a label to the evidence of an undetermined verdict; name it if that is enough.

        It is tested again when there are enough labels for a test, and as many as for a look.
        """
        before = vague.n_labelled
        if self.baseline.labelled:
            vague.labelled(event.index, None, self.baseline.code(event.label), wrong)
        steps = (self.plan.min_labels, *self.plan.looks)
        if not any(before < step <= vague.n_labelled for step in steps):
            return
        incident = next((i for i in self.open.values() if i.kind == Kind.UNDETERMINED), None)
        verdict = self._examiner.settle(vague)
        out.evidence.extend(verdict.evidence)
        if incident is not None and verdict.kind not in (Kind.NONE, Kind.UNDETERMINED):
            self._confirm(_renamed(incident, verdict), verdict, vague, out)

    def _labels_are_late(self, suspicion: Suspicion, event: Event) -> bool:
        """Whether the last look's observations have come, and not the first look's labels."""
        return (
            isinstance(event, Seen)
            and suspicion.n_fresh == self.plan.looks[-1]
            and suspicion.looks_done == 0
        )

    def _look(self, suspicion: Suspicion, event: Event, out: Outcomes) -> None:
        # A comparison made again and again is the part's own: the others' evidence is an old one.
        others = self._alongside() if self._suspected is not None else []
        n_parts = 1 + len({i.lane for i in others})
        look = self._examiner.look(suspicion, [parts.evidence_of(i) for i in others], n_parts)
        out.evidence.extend(look.verdict.evidence)
        if self._suspected is None:
            self._suspicion = None
            self._rechecked(look.verdict, suspicion, event, out)
            return
        incident = dataclasses.replace(
            self._suspected,
            change_point=max(suspicion.change_point, self.baseline.end),
            explanation={
                **parts.unpooled(self._suspected.explanation),
                **parts.told_of(others, look.own),
            },
            **_findings(look.verdict),
        )
        if look.step is Step.WAIT:
            self._suspected = dataclasses.replace(incident, kind=Kind.UNDETERMINED, factors=())
            out.incidents.append(self._suspected)
            return
        self._suspicion = self._suspected = None
        if look.step is Step.DISMISS:
            detail = (
                f"dismissed: {suspicion.n_labelled} labelled of {suspicion.n_fresh} "
                "fresh observations agree with the reference"
            )
            out.incidents.append(_dismissed(incident, detail))
            self._watch_again()
        else:
            self._confirm(incident, look.verdict, suspicion, out)

    def _watch_again(self) -> None:
        self.phase = Phase.WATCHING
        self._vague = None
        self._watches.rest()

    def _confirm(
        self, incident: Incident, verdict: Verdict, suspicion: Suspicion, out: Outcomes
    ) -> None:
        """Confirm an incident, say what goes with it and take the policy's decision."""
        decision = self._decide(verdict)
        explanation = self._examiner.explanation(suspicion, verdict, self.waiting)
        correction = None
        if decision.action is ActionKind.REWEIGHT:
            correction = self._estimate_correction(incident.change_point or 0)
            if correction is None:
                decision = Decision(
                    ActionKind.ALERT_ONLY, "too few labelled scores to estimate the new prior"
                )
        incident = dataclasses.replace(
            incident,
            state=(
                IncidentState.CONFIRMED
                if decision.action is ActionKind.ALERT_ONLY
                else IncidentState.REPAIRING
            ),
            confirmed_at=incident.confirmed_at or self._now(),
            detail="; ".join([decision.reason, *aloud(explanation)]),
            explanation={**_kept(incident.explanation), **explanation},
            actions=(
                *incident.actions,
                self._action(decision.action, decision.reason, correction),
            ),
        )
        self.open[incident.id] = incident
        out.incidents.append(incident)
        out.decisions.append((incident, decision))
        # Labels that are asked for come later, and are for the rows of this evidence.
        self._vague = suspicion if "label_queries" in explanation else None
        if correction is not None:
            self.correction = correction
            self._before_repair = self.baseline.right
            self._begin_reference()
            out.renewed.append(self.n_seen)
        elif decision.action is ActionKind.FINE_TUNE:
            self.phase = Phase.REPAIRING
        else:
            self._recheck_gap = self.plan.looks[-1]
            self._open_phase()

    def _action(
        self, action: ActionKind, reason: str, correction: PriorCorrection | None
    ) -> dict[str, Any]:
        document: dict[str, Any] = {
            "kind": str(action),
            "index": self.n_seen - 1,
            "reason": reason,
        }
        if correction is not None:
            document["method"] = str(correction.method)
            document["prior"] = {
                c: round(float(p), 4)
                for c, p in zip(self.score_classes, correction.target_prior, strict=True)
            }
        return document

    def _open_phase(self) -> None:
        """Wait before the next comparison; the gap doubles, because each one costs a test."""
        self.phase = Phase.OPEN
        self._suspicion = None
        self._recheck_at = self.n_seen + self._recheck_gap
        self._recheck_gap = min(2 * self._recheck_gap, 16 * self.plan.looks[-1])

    def _rechecked(
        self, verdict: Verdict, suspicion: Suspicion, event: Event, out: Outcomes
    ) -> None:
        """Settle, extend or close the open incidents by a later comparison."""
        tested = {e.test: e.p_value for e in verdict.evidence if e.p_value is not None}
        standing = self.standing
        confirmed_by = {e["test"] for i in standing for e in i.evidence if e["p_value"] is not None}
        if tested and confirmed_by <= tested.keys() and min(tested.values()) > RETURN_ALPHA:
            for incident in list(self.open.values()):
                self._resolve(incident, "the evidence has returned to the reference", out)
            self._release((), out)
            self._watch_again()
            return
        self._open_phase()
        known = {f for i in standing for f in i.factors}
        if verdict.kind in (Kind.NONE, Kind.UNDETERMINED):
            if not standing:
                self._watch_again()
            return
        vague = next((i for i in self.open.values() if i.kind == Kind.UNDETERMINED), None)
        if vague is not None:
            self._confirm(_renamed(vague, verdict), verdict, suspicion, out)
        elif fresh := verdict.factors - {Factor(f) for f in known}:
            further = dataclasses.replace(verdict, kind=Kind(min(fresh)), factors=fresh)
            incident = Incident(
                id=incident_id(f"{self.settings.name}/{min(fresh)}", *event.at),
                stream=self.settings.name,
                state=IncidentState.SUSPECTED,
                opened_at=Point(suspicion.opened_index, self.newest_time),
                change_point=suspicion.change_point,
                **_findings(further),
            )
            self._confirm(incident, further, suspicion, out)

    def _resolve(self, incident: Incident, detail: str, out: Outcomes) -> None:
        self.open.pop(incident.id, None)
        out.incidents.append(
            dataclasses.replace(
                incident,
                state=IncidentState.RESOLVED,
                resolved_at=self._now(),
                detail=detail,
            )
        )

    # -- repair --------------------------------------------------------------------------------

    def _estimate_correction(self, change_point: int) -> PriorCorrection | None:
        """The new prior from the scores since the change, against the reference."""
        reference, labels = self.baseline.scored(self.score_classes)
        newest = self._recent_scores[-1][0] if self._recent_scores else -1
        first = max(change_point, newest - self.plan.looks[-1] + 1)
        recent = [s for i, s in self._recent_scores if i >= first]
        if len(reference) < self.plan.min_labels or not recent:
            return None
        return PriorCorrection.estimate(
            reference, labels, np.stack(recent), since_index=self.n_seen
        )

    def _judge_reweighting(self, out: Outcomes) -> None:
        """Judge the re-weightings that the new reference can tell about."""
        for incident in list(self.open.values()):
            if incident.state is IncidentState.REPAIRING:
                self._after_reweighting(incident, out)

    def _after_reweighting(self, incident: Incident, out: Outcomes) -> None:
        """Resolve an incident if the re-weighted scores are as good as the reference's were.

        If they are worse beyond chance the prior was not all that moved, and the answer to a
        concept drift is tried. Without labels of the new reference nothing is known, so the
        incident waits for them.
        """
        if not worse(self._before_repair, self.baseline.right):
            self._resolve(incident, "re-weighted; the stream has a new reference", out)
            return
        verdict = Verdict(Kind.CONCEPT, frozenset({Factor.CONCEPT}), ())
        decision = self._decide(verdict)
        reason = "re-weighting was not enough"
        if decision.action is not ActionKind.FINE_TUNE:
            self._resolve(incident, f"{reason}, and no training is possible", out)
            return
        incident = dataclasses.replace(
            incident,
            detail=f"{reason}: {decision.reason}",
            actions=(*incident.actions, self._action(decision.action, reason, None)),
        )
        self.open[incident.id] = incident
        self._drop_suspicion(f"{incident.id} is repaired instead", out)
        self.phase = Phase.REPAIRING
        out.incidents.append(incident)
        out.decisions.append((incident, decision))

    def _drop_suspicion(self, detail: str, out: Outcomes) -> None:
        """End what is under test without a verdict."""
        if self._suspected is not None:
            out.incidents.append(_dismissed(self._suspected, f"dismissed: {detail}"))
        self._suspicion = self._suspected = None

    def repaired(self, detail: str) -> Outcomes:
        """A new champion serves from the next observation on: begin a new reference."""
        out = Outcomes()
        self._drop_suspicion(detail, out)
        self._release((), out)
        self.correction = None
        for incident in list(self.open.values()):
            self._resolve(incident, detail, out)
        self._correct.clear()
        self._served.clear()
        self._served_from = self.n_seen
        self._begin_reference()
        out.renewed.append(self.n_seen)
        return out

    def close(self, incident_id: str, detail: str) -> Outcomes:
        """Resolve an incident by hand; with the last one the stream is watched again.

        Raises
        ------
        KeyError
            If no incident of that id is open.
        """
        out = Outcomes()
        self._resolve(self.open[incident_id], detail, out)
        if not self.open and not self._folded and self.phase is Phase.OPEN:
            self._suspicion = None
            self._watch_again()
        return out

    def repair_failed(self, detail: str) -> Outcomes:
        """No better model was found; the incident stays open for people."""
        out = Outcomes()
        for incident in list(self.open.values()):
            if incident.state is IncidentState.REPAIRING:
                changed = dataclasses.replace(
                    incident, state=IncidentState.CONFIRMED, detail=detail
                )
                self.open[incident.id] = changed
                out.incidents.append(changed)
        self._open_phase()
        return out

    # -- other parts of the stream -------------------------------------------------------------

    @property
    def standing(self) -> list[Incident]:
        """What persists here: open incidents, and those given up for another part's."""
        return [*self.open.values(), *(i for _, i in self._folded)]

    def _alongside(self) -> list[Incident]:
        """Incidents of other parts that were under test while the suspicion is."""
        assert self._suspected is not None
        others = self._elsewhere()
        self._meet(others)
        return parts.alongside(self._suspected, self._now(), others, within=self.plan.max_wait)

    def _meet(self, others: Sequence[Incident]) -> None:
        self.met |= {i.id for i in others if i.confirmed_at is not None}

    def fold(self, incident_id: str, into: Incident, known: Collection[str]) -> Outcomes:
        """Give an incident up for one of another part, which has the same cause.

        Parameters
        ----------
        incident_id
            Of an open incident.
        into
            The other part's.
        known
            All factors that have moved by the incidents of other parts. What has moved beside them
            plainly enough for a re-check to say so stays an incident.

        Raises
        ------
        KeyError
            If no incident of that id is open.
        """
        out = Outcomes()
        incident = self.open.pop(incident_id)
        fresh = parts.further(incident, known, self._recheck_plan.alpha / 2)
        given_up = parts.folded(incident, into)
        if fresh:
            left = frozenset(map(Factor, incident.factors)) - fresh
            self.open[incident_id] = kept = parts.narrowed(incident, fresh)
            out.incidents.append(kept)
            if left:
                self._folded.append((into.id, parts.narrowed(incident, left)))
            return out
        out.incidents.append(given_up)
        self._vague = None
        if parts.is_reweighted(incident):
            return out  # a new reference has begun, and there is nothing to compare again
        self._folded.append((into.id, given_up))
        if self.phase is Phase.REPAIRING:
            self._recheck_gap = self.plan.looks[-1]
            self._open_phase()
        return out

    def _release(self, still_open: Collection[str], out: Outcomes) -> None:
        """Hold no longer what was given up for incidents of other parts that are over."""
        ended = [incident for into, incident in self._folded if into not in still_open]
        self._folded = [(into, i) for into, i in self._folded if into in still_open]
        for incident in ended:
            if incident.state is IncidentState.FOLDED:
                out.incidents.append(dataclasses.replace(incident, resolved_at=self._now()))

    # -- snapshot ------------------------------------------------------------------------------

    def snapshot(self) -> State:
        """Everything needed to go on."""
        return {
            "phase": str(self.phase),
            "n_seen": self.n_seen,
            "n_labelled": self.n_labelled,
            "newest_time": self.newest_time,
            "generation": self.generation,
            "join": self.waiting.snapshot(),
            "open": [i.to_json() for i in self.open.values()],
            "correction": None if self.correction is None else self.correction.snapshot(),
            "correct": np.array(self._correct, bool),
            "before_repair": self._before_repair,
            "served_from": self._served_from,
            "served": [np.array(list(self._served), np.int64), list(self._served.values())],
            "baseline": self.baseline.snapshot(),
            "watches": self._watches.snapshot(),
            "recent_scores": [
                np.array([i for i, _ in self._recent_scores], np.int64),
                stack(s for _, s in self._recent_scores),
            ],
            "suspicion": None if self._suspicion is None else self._suspicion.snapshot(),
            "suspected": None if self._suspected is None else self._suspected.to_json(),
            "vague": None if self._vague is None else self._vague.snapshot(),
            "recheck_at": self._recheck_at,
            "recheck_gap": self._recheck_gap,
            "quiet_until": self._quiet_until,
            "folded": [[into, i.to_json()] for into, i in self._folded],
            "met": sorted(self.met),
        }

    def restore(self, state: State, n_spilled: Mapping[Side, int] | None = None) -> None:
        """Go on from a snapshot of an equally configured monitor.

        `n_spilled` are the observations and labels that wait in the store.
        """
        self.n_seen = state["n_seen"]
        self.n_labelled = state["n_labelled"]
        self._begin_reference()
        self.phase = Phase(state["phase"])
        self.newest_time = state["newest_time"]
        self.generation = state["generation"]
        self.baseline.restore(state["baseline"])
        self.waiting.restore(state["join"], n_spilled)
        self.open = {i["id"]: Incident.from_json(i) for i in state["open"]}
        self.correction = (
            None
            if state["correction"] is None
            else PriorCorrection.from_snapshot(state["correction"])
        )
        self._correct = deque(map(bool, state["correct"]), maxlen=self._correct.maxlen)
        self._before_repair = state["before_repair"]
        self._served_from = state["served_from"]
        index, served = state["served"]
        self._served = OrderedDict(zip(index.tolist(), served, strict=True))
        self._watches.restore(state["watches"])
        index, scores = state["recent_scores"]
        self._recent_scores.extend(zip(index.tolist(), scores, strict=True))
        self._suspected = (
            None if state["suspected"] is None else Incident.from_json(state["suspected"])
        )
        plan = self.plan if self._suspected is not None else self._recheck_plan
        if state["suspicion"] is not None:
            self._suspicion = Suspicion.from_snapshot(plan, state["suspicion"])
        if state["vague"] is not None:
            self._vague = Suspicion.from_snapshot(self.plan, state["vague"])
        self._recheck_at = state["recheck_at"]
        self._recheck_gap = state["recheck_gap"]
        self._quiet_until = state["quiet_until"]
        self._folded = [(into, Incident.from_json(i)) for into, i in state["folded"]]
        self.met = set(state["met"])


def _by_kind(
    counted: Mapping[Outcome | Ended | Mistimed, int],
) -> tuple[dict[Outcome, int], dict[Ended, int], dict[Mistimed, int]]:
    """What happened to labels, to observations, and to times."""
    return (
        {what: n for what, n in counted.items() if isinstance(what, Outcome)},
        {what: n for what, n in counted.items() if isinstance(what, Ended)},
        {what: n for what, n in counted.items() if isinstance(what, Mistimed)},
    )


def _findings(verdict: Verdict) -> dict[str, Any]:
    """A verdict as fields of an incident."""
    return {
        "kind": verdict.kind,
        "factors": tuple(sorted(str(f) for f in verdict.factors)),
        "evidence": tuple(dataclasses.asdict(e) for e in verdict.evidence),
        # That nothing newly misses goes without saying.
        "contributions": {
            name: share
            for name, share in verdict.contributions.items()
            if share or name != NEWLY_MISSING
        },
    }


def _renamed(incident: Incident, verdict: Verdict) -> Incident:
    """An incident after a later verdict on the part's own evidence."""
    explanation = parts.unpooled(incident.explanation)
    return dataclasses.replace(incident, explanation=explanation, **_findings(verdict))


def _dismissed(incident: Incident, detail: str) -> Incident:
    return dataclasses.replace(
        incident,
        state=IncidentState.DISMISSED,
        kind=Kind.UNDETERMINED,
        factors=(),
        detail=detail,
    )


def _kept(explanation: dict[str, Any]) -> dict[str, Any]:
    """What of an earlier verdict's explanation stays with a later one."""
    return {key: value for key, value in explanation.items() if key in ("provisional", "parts")}
