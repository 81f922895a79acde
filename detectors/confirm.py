"""From a suspicion to a verdict: growing looks at evidence gathered after the alarm."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from detectors.attribution.attribution import conclude, examine
from detectors.attribution.pooling import pool
from detectors.attribution.unlabelled import examine_unlabelled
from detectors.attribution.windows import Examination, Sample
from detectors.base import Array, Evidence, Factor, Kind, Problem, State, Verdict
from detectors.watches.contract import Feed, Watching

UNLABELLED = -1

Complete = Callable[[Array], Array]
"""From rows with NaN, shape (n, d), to the columns of the tests, shape (n, q), without."""


class Step(StrEnum):
    """What a look decided."""

    WAIT = "wait"
    CONFIRM = "confirm"
    DISMISS = "dismiss"


@dataclass(frozen=True, slots=True)
class ConfirmPlan:
    """When to look, and how much error each look may spend.

    Attributes
    ----------
    problem
        The causal direction; it picks the two hypotheses.
    alpha
        Probability that a false alarm ends confirmed, over all looks together; in (0, 1).
    looks
        Fresh labelled observations at which to look, increasing.
    max_wait
        Fresh observations after which the last look is taken with what labels there are.
    min_labels
        Fewest labels in each window for the label-bound tests.
    """

    problem: Problem
    alpha: float = 0.01
    looks: tuple[int, ...] = (250, 500, 1000)
    max_wait: int = 5000
    min_labels: int = 100

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha must be in (0, 1), got {self.alpha}")
        if not self.looks or any(b <= a for a, b in zip(self.looks, self.looks[1:], strict=False)):
            raise ValueError(f"looks must increase, got {self.looks}")
        if self.max_wait < self.looks[-1]:
            raise ValueError(
                f"max_wait must be at least the last look {self.looks[-1]}, got {self.max_wait}"
            )

    def spend(self, look: int) -> float:
        """Error that the look (from 0) may spend.

        Later looks see more and get more: shares grow linearly and sum to `alpha`, so by the
        union bound the whole sequence errs at most `alpha` of the time.
        """
        k = len(self.looks)
        return self.alpha * (look + 1) / (k * (k + 1) / 2)


SETTLED_P = 0.05
"""A second factor whose p-value is above this at a middle look is not waited for. Waiting costs as
many labels again; and if it did move after all, the next comparison with the reference names it."""

GUARD = 0.5
"""Part of the first look's rows that may be from before the change: they cost the look a little
power, where a needless second start costs the whole delay."""


@dataclass(frozen=True, slots=True)
class Look:
    """The outcome of one look.

    Attributes
    ----------
    step
        What it decided.
    verdict
        What moved, as far as it is known.
    own
        The tests of this suspicion's rows alone, where the verdict's evidence is pooled with that
        of other parts of the stream; empty otherwise.
    """

    step: Step
    verdict: Verdict
    own: tuple[Evidence, ...] = ()


class Suspicion:
    """An alarm under test.

    It gathers observations that came after the alarm, and compares them with the frozen
    reference. The window that raised the alarm is never part of the evidence: it was selected
    for looking different, so a test on it confirms false alarms.

    Parameters
    ----------
    plan
        When to look.
    alarm_index
        Index of the observation that raised the alarm; evidence has a larger index.
    opened_index
        Index of the newest observation when the alarm was raised.
    factor
        The factor whose monitor raised it; a hint only.
    change_point
        Index where the detector saw the change begin.
    n_features
        Columns of the rows.
    seed
        Seeds the permutations.
    """

    def __init__(
        self,
        plan: ConfirmPlan,
        *,
        alarm_index: int,
        opened_index: int,
        factor: Factor,
        change_point: int,
        n_features: int,
        seed: int,
    ) -> None:
        self.plan = plan
        self.alarm_index = alarm_index
        self.opened_index = opened_index
        self.factor = factor
        self.change_point = change_point
        self.seed = seed
        self.looks_done = 0
        self.spent = 0.0
        self.n_fresh = 0
        self.restarted = False
        self._rows: dict[int, Array] = {}
        self._labels: dict[int, int] = {}
        self._wrong: dict[int, bool] = {}
        self._segments: dict[int, Mapping[str, str]] = {}
        self._n_features = n_features

    @property
    def n_labelled(self) -> int:
        """Fresh observations whose label is known."""
        return len(self._labels)

    def seen(self, index: int, row: Array, segment: Mapping[str, str] | None = None) -> None:
        """Take a fresh observation, shape (d,), NaN where a value is missing, and its segments."""
        self.n_fresh += 1
        if len(self._rows) < self.plan.max_wait:
            self._rows[index] = row
            if segment:
                self._segments[index] = segment

    def labelled(
        self, index: int, row: Array | None, label: int, wrong: bool | None = None
    ) -> None:
        """Take a label.

        `row` is the observation where this suspicion did not see it itself, `wrong` whether it was
        predicted wrongly.
        """
        if index <= self.alarm_index or len(self._labels) >= self.plan.looks[-1]:
            return
        if index not in self._rows:
            if row is None:
                return
            self._rows[index] = row
        self._labels[index] = label
        if wrong is not None:
            self._wrong[index] = wrong

    def due(self, *, labels_expected: bool) -> bool:
        """Whether the next look can be taken."""
        if self.n_fresh >= self.plan.max_wait:
            return True
        ready = self.n_labelled if labels_expected else self.n_fresh
        return ready >= self.plan.looks[self.looks_done]

    @property
    def evidence(self) -> list[int]:
        """Indices of the labelled rows, filled up with unlabelled ones to the last look."""
        others = [i for i in sorted(self._rows) if i not in self._labels]
        return sorted([*self._labels, *others[: max(0, self.plan.looks[-1] - len(self._labels))]])

    def sample(self, complete: Complete) -> Sample:
        """The rows of `evidence`, and their labels."""
        return Sample(
            complete(self._stacked(self.evidence)),
            np.array([self._labels.get(i, UNLABELLED) for i in self.evidence], np.int64),
        )

    def losses(self) -> Array | None:
        """1 for a wrong prediction on each row of `evidence`, NaN if not known; None if none is."""
        if not self._wrong:
            return None
        return np.array([float(self._wrong.get(i, np.nan)) for i in self.evidence])

    def segment(self, name: str) -> list[str]:
        """The value of a segment on each row of `evidence`; empty where a row has none."""
        return [self._segments.get(i, {}).get(name, "") for i in self.evidence]

    def _stacked(self, index: Sequence[int]) -> Array:
        if not index:
            return np.empty((0, self._n_features))
        return np.stack([self._rows[i] for i in index])

    def restart(self, watches: Sequence[Watching], complete: Complete) -> None:
        """Begin the evidence again if the change came clearly after the alarm.

        An alarm may be false and a change come while it is under test: then the evidence is a
        mixture, and the weaker of two moved factors drowns in it. The watches tell: under the
        change that raised the alarm their sums leave zero at once and stay away. So the rows are
        run through them once more, and if the first sum that crosses its limit has left zero only
        `GUARD` of the first look later, the evidence begins after that alarm; once in a suspicion.
        The rows that are kept came after the alarm that chose them, so they are fresh.

        Parameters
        ----------
        watches
            At rest; they are left at rest.
        complete
            What the labelled feed's watches read.
        """
        if self.restarted:
            return
        guard = self.alarm_index + GUARD * self.plan.looks[0]
        first: tuple[int, int, Factor] | None = None
        for watch in watches:
            index = list(self._labels) if watch.feed is Feed.LABELLED else sorted(self._rows)
            rows = self._stacked(index)
            if watch.feed is Feed.LABELLED:
                rows = complete(rows)
            labels = np.array([self._labels.get(i, UNLABELLED) for i in index], np.int64)
            for alarm in watch.update(rows, labels)[:1]:
                start = index[max(alarm.row - alarm.run_length + 1, 0)]
                if first is None or index[alarm.row] < first[0]:
                    first = index[alarm.row], start, alarm.factor
            watch.reset()
        if first is None or first[1] < guard:
            return
        self.restarted = True
        self.alarm_index, self.change_point, self.factor = first
        self.looks_done = 0  # what they have spent stays spent
        self._rows = {i: row for i, row in self._rows.items() if i > self.alarm_index}
        self._labels = {i: y for i, y in self._labels.items() if i > self.alarm_index}
        self._wrong = {i: w for i, w in self._wrong.items() if i > self.alarm_index}
        self.n_fresh = len(self._rows)

    def look(
        self,
        reference: Sample,
        complete: Complete,
        *,
        n_classes: int,
        columns: Sequence[str],
        block_length: int = 1,
        others: Sequence[Sequence[Evidence]] = (),
        n_parts: int = 1,
    ) -> Look:
        """Test both factors on what is there, and decide whether to wait, confirm or dismiss.

        `others` is the evidence of other parts of the stream, which is pooled with the own one. All
        `n_parts` that are under test share the look's error: a true shift brings each of them to
        its looks, and each could name a second factor that did not move.
        """
        timed_out = self.n_fresh >= self.plan.max_wait
        number = min(self.looks_done, len(self.plan.looks) - 1)
        last = timed_out or number == len(self.plan.looks) - 1
        self.looks_done += 1
        recent = self.sample(complete)
        left = self.plan.alpha - self.spent
        # The last look, also one that came early because labels did not, has all that is left.
        alpha = left if last else min(self.plan.spend(number), 0.5 * left)
        self.spent += alpha
        alpha /= n_parts
        # Of a pooled test the own p-value may be worth half: it has to be twice as fine.
        level = alpha / 2 if n_parts > 1 else alpha
        examined = self._examined(
            reference, recent, level, number, n_classes, columns, block_length
        )
        if all(e.p_value is None for e in examined.evidence):
            # Not pooled: of these two tests one decides whether the other means anything.
            verdict = self.provisional(
                reference, complete, n_classes=n_classes, alpha=alpha, block_length=block_length
            )
            return Look(self._step(verdict, number, last=last), verdict)
        evidence = pool(examined.evidence, others)
        verdict = conclude(evidence, self.plan.problem, alpha, examined.contributions)
        own = () if evidence == examined.evidence else examined.evidence
        return Look(self._step(verdict, number, last=last), verdict, own)

    def settle(
        self,
        reference: Sample,
        complete: Complete,
        *,
        n_classes: int,
        columns: Sequence[str],
        block_length: int = 1,
    ) -> Verdict:
        """Test again with the labels that have come since, at the last look's level."""
        last = len(self.plan.looks) - 1
        alpha = self.plan.spend(last)
        recent = self.sample(complete)
        examined = self._examined(reference, recent, alpha, last, n_classes, columns, block_length)
        return conclude(examined.evidence, self.plan.problem, alpha, examined.contributions)

    def _examined(
        self,
        reference: Sample,
        recent: Sample,
        level: float,
        number: int,
        n_classes: int,
        columns: Sequence[str],
        block_length: int,
    ) -> Examination:
        return examine(
            reference,
            recent,
            self.plan.problem,
            n_classes=n_classes,
            columns=columns,
            seed=self.seed + number,
            min_labels=self.plan.min_labels,
            block_length=block_length,
            level=level,
        )

    def provisional(
        self,
        reference: Sample,
        complete: Complete,
        *,
        n_classes: int,
        alpha: float,
        block_length: int = 1,
    ) -> Verdict:
        """What the inputs alone say; without any sign the kind is `none`.

        It cannot always tell which factor moved, but a suspicion without labels must not be
        confirmed because nothing speaks against it.
        """
        evidence = examine_unlabelled(
            reference,
            self.sample(complete).features,
            self.plan.problem,
            n_classes=n_classes,
            alpha=alpha,
            seed=self.seed,
            block_length=block_length,
        )
        verdict = conclude(evidence, self.plan.problem, alpha)
        if all(e.p_value is None for e in evidence):
            return dataclasses.replace(verdict, kind=Kind.NONE, factors=frozenset())
        return verdict

    def _step(self, verdict: Verdict, number: int, *, last: bool) -> Step:
        if verdict.kind is Kind.NONE:
            return Step.DISMISS if last else Step.WAIT
        if last or verdict.kind is Kind.MIXED:
            return Step.CONFIRM
        if verdict.kind is Kind.UNDETERMINED:
            untested = [e for e in verdict.evidence if e.p_value is None]
            settled = number >= 1 and all(e.hopeless for e in untested)
            return Step.CONFIRM if settled else Step.WAIT
        others = [e.p_value for e in verdict.evidence if e.factor not in verdict.factors]
        settled = number >= 1 and all(p is not None and p > SETTLED_P for p in others)
        return Step.CONFIRM if settled else Step.WAIT

    def snapshot(self) -> State:
        """Everything needed to go on."""
        index = sorted(self._rows)
        return {
            "alarm_index": self.alarm_index,
            "opened_index": self.opened_index,
            "factor": str(self.factor),
            "change_point": self.change_point,
            "seed": self.seed,
            "looks_done": self.looks_done,
            "spent": self.spent,
            "n_fresh": self.n_fresh,
            "restarted": self.restarted,
            "index": np.array(index, np.int64),
            "rows": self._stacked(index),
            # In the order in which they came: the watches read them in that order.
            "labelled": np.array(list(self._labels), np.int64),
            "labels": np.array(list(self._labels.values()), np.int64),
            "wrong": [list(self._wrong), list(self._wrong.values())],
            "segments": [list(self._segments), [dict(s) for s in self._segments.values()]],
        }

    @classmethod
    def from_snapshot(cls, plan: ConfirmPlan, state: State) -> Suspicion:
        """Go on from a snapshot taken under an equal plan."""
        rows: Array = state["rows"]
        self = cls(
            plan,
            alarm_index=state["alarm_index"],
            opened_index=state["opened_index"],
            factor=Factor(state["factor"]),
            change_point=state["change_point"],
            n_features=rows.shape[1],
            seed=state["seed"],
        )
        self.looks_done = state["looks_done"]
        self.spent = state["spent"]
        self.n_fresh = state["n_fresh"]
        self.restarted = state["restarted"]
        self._rows = {i: row.copy() for i, row in zip(state["index"].tolist(), rows, strict=True)}
        self._wrong = dict(zip(*state["wrong"], strict=True))
        self._segments = dict(zip(*state["segments"], strict=True))
        self._labels = dict(zip(state["labelled"].tolist(), state["labels"].tolist(), strict=True))
        return self
