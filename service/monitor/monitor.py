"""One stream's monitor: from observations and labels to incidents with a verdict.

A monitor is a deterministic function of its stream's events in their order. It has no clock and
does no I/O; how the events are cut into batches changes nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from datetime import UTC, datetime

import numpy as np

from detectors.base import State
from service.domain.decision import ActionKind, Means
from service.domain.incident import Incident, Point
from service.domain.waiting import Pruned, Side
from service.monitor import elsewhere
from service.monitor.batch import Batch
from service.monitor.events import Events
from service.monitor.join import join
from service.monitor.label_outcomes import Ended, Outcome
from service.monitor.labels import join_of
from service.monitor.moment import Moment
from service.monitor.outcomes import Outcomes, all_of, by_kind
from service.monitor.phase import STAY, Phase, Turn, turn_of
from service.monitor.reference import Baseline
from service.monitor.representation import Representation
from service.monitor.reweighting import Reweighting
from service.monitor.served import Served
from service.monitor.stage1 import Rows, Watches
from service.monitor.stage2 import Policy, Stage2, plan_of
from service.monitor.standing import Standing
from service.monitor.suspected import Labels, Suspected
from service.records.columns import Columns
from service.settings.stream import StreamSettings

ROOM = 2.0
"""Stage 1 raises half of the alarms that would keep the promise if it and the tests held exactly:
both are estimates. At 3 false incidents were up to 12 times rarer than promised, and at 1 there
would have been more than promised on some kinds of streams."""


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
        self._seed = seed
        self.plan = plan_of(settings)
        self.waiting = join_of(settings.labels, spills=spills, joined_before=joined_before)
        self.n_seen = 0
        self.n_labelled = 0
        self.newest_time = ""
        self.generation = 0
        self.served = Served(score_classes, 2 * self.plan.looks[-1])
        self.stage2 = Stage2(
            settings,
            self.plan,
            policy,
            served=self.served,
            waiting=self.waiting,
            others=others,
            seed=seed,
        )
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
        self.stage2.begin(self.baseline, self.watches)
        self.served.forget_scores()
        self._quiet_until = 0

    def _go(self, turn: Turn) -> Outcomes:
        """Go where a turn leads, and return what it changed."""
        if turn.phase is Phase.WARMING_UP:
            self._begin_reference(self.settings.reference.warm_up)
        elif turn.phase is not None:
            self.phase = turn.phase
        return turn.outcomes

    # -- what it is asked ------------------------------------------------------------------------

    @property
    def standing(self) -> Standing:
        """What persists."""
        return self.stage2.standing

    @property
    def suspected(self) -> Suspected:
        """What is under test."""
        return self.stage2.suspected

    @property
    def reweighting(self) -> Reweighting:
        """The correction of a moved prior."""
        return self.stage2.reweighting

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
    def _now(self) -> Point:
        return Point(self.n_seen - 1, self.newest_time)

    def _moment(self, means: Means) -> Moment:
        return Moment(self.n_seen, self.newest_time, self.day, means)

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
            at, turn = self._advance(batch, at, means)
            outcomes = self._go(turn)
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

    def _advance(self, batch: Batch, at: int, means: Means) -> tuple[int, Turn]:
        """Take events up to and including the first one that may change the phase."""
        if self.phase is Phase.WARMING_UP:
            return self._warm_up(batch, at, means)
        rows = batch.encode(self.representation, self.n_seen)
        if self.phase is Phase.WATCHING:
            return self._watch(batch, rows, at, means)
        return self._test(batch, rows, at, means)

    def _take(self, batch: Batch, start: int, stop: int) -> Labels:
        """Note events in what every phase keeps; return their labels."""
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
        self.baseline.label(index, texts, answers)
        if batch.rows is not None:
            rows, found = self.watches.rows_of(index, batch.rows)
        else:
            rows, found = np.empty((len(index), 0)), np.zeros(len(index), np.bool_)
        return Labels(index, texts, wrong, rows, found & events.in_memory(places))

    # -- the reference ---------------------------------------------------------------------------

    def _warm_up(self, batch: Batch, at: int, means: Means) -> tuple[int, Turn]:
        stop = batch.place_of_seen(at, self.baseline.room) + 1
        self._take(batch, at, stop)
        seen = batch.seen(at, stop)
        if seen.stop > seen.start:
            features, scores = batch.columns.features[seen], batch.scores(seen)
            self.baseline.add(features, batch.segments(seen), scores)
        return stop, self._arm_inputs(means) if self.baseline.frozen else STAY

    def _arm_inputs(self, means: Means) -> Turn:
        """The reference's observations are complete: begin to watch P(X)."""
        self._quiet_until = self.n_seen + self.settings.cool_down if self.generation > 1 else 0
        found = Outcomes(
            left_out=self.watches.arm_inputs(),
            placeholders=self.representation.placeholders(self.baseline.rows),
        )
        turns = [Turn(found, Phase.WATCHING)]
        if self.reweighting.can_judge(self.baseline, self.plan.min_labels):
            turns.append(self.stage2.judge_reweighting(self._moment(means)))
        return turn_of(turns)

    def _arm_labels_if_due(self, batch: Batch, place: int, means: Means) -> Turn:
        """If the reference's labels are complete: begin to watch what needs labels."""
        is_label, index = batch.is_label(place), batch.index(place)
        if is_label and not self.baseline.holds(index):
            return STAY
        if not self.baseline.labels_due(is_label=is_label, index=index):
            return STAY
        self.baseline.complete_labels()
        turns = [Turn(Outcomes(left_out=self.watches.arm_labels()))]
        if self.phase is not Phase.REPAIRING:
            turns.append(self.stage2.judge_reweighting(self._moment(means)))
        return turn_of(turns)

    # -- the stages ------------------------------------------------------------------------------

    def _watch(self, batch: Batch, rows: Rows, at: int, means: Means) -> tuple[int, Turn]:
        """Run the banks over the events up to the first alarm, if there is one."""
        stop = self.baseline.until_labels_may_be_due(batch.events, at)
        newest, quiet_until = self.n_seen - 1, self._quiet_until
        stop, found = self.watches.advance(
            batch.events, at, stop, rows, newest=newest, quiet_until=quiet_until
        )
        self._take(batch, at, stop)
        turn = self._arm_labels_if_due(batch, stop - 1, means)
        if found is None or turn.phase is not None:
            return stop, turn
        index, record = batch.index(stop - 1), batch.at(stop - 1)
        return stop, turn_of([turn, self.stage2.suspect(found, index, record, self._moment(means))])

    def _test(self, batch: Batch, rows: Rows, at: int, means: Means) -> tuple[int, Turn]:
        """Give events to what is under test, up to the first one at which something is due."""
        phase = self.phase
        compares = self.stage2.compares(phase)
        seen, labels = self.stage2.until_due(phase, self.n_seen)
        stop = 1 + min(
            batch.place_of_seen(at, seen) if seen > 0 else at, batch.place_of_label(at, labels)
        )
        stop = min(stop, self.baseline.until_labels_may_be_due(batch.events, at))
        was_labelled = self.baseline.labelled
        given = self._take(batch, at, stop)
        turns = [self._arm_labels_if_due(batch, stop - 1, means)]
        if not was_labelled:
            # Labels have codes from the one on that completes the reference's.
            given = given.last_if(self.baseline.labelled and batch.is_label(stop - 1))
        moment = self._moment(means)
        turns.append(self.stage2.settle(given, moment))
        if self.suspected.is_under_test:
            which = batch.seen(at, stop)
            turns.append(
                self.stage2.gather(
                    rows.among(batch.first + which.start, batch.first + which.stop),
                    batch.segments(which),
                    given,
                    at=batch.at(stop - 1),
                    is_label=batch.is_label(stop - 1),
                    moment=moment,
                )
            )
        elif compares and turn_of(turns).phase is None:
            turns.append(self.stage2.compare_if_due(batch.index(stop - 1), moment))
        return stop, turn_of(turns)

    # -- from outside ----------------------------------------------------------------------------

    def repaired(self, detail: str) -> Outcomes:
        """A new champion serves from the next observation on: begin a new reference."""
        turn = self.stage2.repaired(detail, self._now)
        self.served.renew(self.n_seen)
        return self._go(turn)

    def repair_failed(self, detail: str) -> Outcomes:
        """No better model was found; the incident stays open for people."""
        return self._go(self.stage2.repair_failed(detail, self.n_seen))

    def close(self, incident_id: str, detail: str) -> Outcomes:
        """Resolve an incident by hand; errors as of `Stage2.close`."""
        return self._go(self.stage2.close(incident_id, detail, self.phase, self._now))

    def fold(self, incident_id: str, into: Incident, known: Collection[str]) -> Outcomes:
        """Give an incident up for one of another part; see `Stage2.fold`."""
        return self._go(self.stage2.fold(incident_id, into, known, self.phase, self.n_seen))

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
            "served": self.served.snapshot(),
            "baseline": self.baseline.snapshot(),
            "watches": self.watches.snapshot(),
            "stage2": self.stage2.snapshot(),
            "quiet_until": self._quiet_until,
        }

    def restore(self, state: State, n_spilled: Mapping[Side, int] | None = None) -> None:
        """Go on from a snapshot of an equally configured monitor.

        `n_spilled` are the observations and labels that wait in the store.
        """
        self.n_seen = state["n_seen"]
        self.n_labelled = state["n_labelled"]
        self._begin_reference(self.settings.reference.warm_up)
        self._go(Turn(phase=Phase(state["phase"])))
        self.newest_time = state["newest_time"]
        self.generation = state["generation"]
        self.baseline.restore(state["baseline"])
        self.waiting.restore(state["join"], n_spilled)
        self.served.restore(state["served"])
        self.watches.restore(state["watches"])
        self.stage2.restore(state["stage2"])
        self._quiet_until = state["quiet_until"]
