"""From a suspicion to a verdict: growing looks at evidence gathered after the alarm."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from detectors.attribution import Sample, conclude, examine
from detectors.base import Array, Evidence, Factor, IntArray, Kind, Problem, State, Verdict
from detectors.permutation import two_sample

UNLABELLED = -1


MIN_ROWS = 20
"""Rows that a test of the inputs needs."""


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


SETTLED_P = 0.3
"""A second factor whose p-value is above this at a middle look is not waited for: a moved factor
leaves so weak a trace at 500 labels in less than one of twenty moderate shifts."""


@dataclass(frozen=True, slots=True)
class Look:
    """The outcome of one look: the step, and the verdict as far as it is known."""

    step: Step
    verdict: Verdict


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
        Columns of the evidence.
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
        self.n_fresh = 0
        self._rows: dict[int, Array] = {}
        self._labels: dict[int, int] = {}
        self._n_features = n_features

    @property
    def n_labelled(self) -> int:
        """Fresh observations whose label is known."""
        return len(self._labels)

    def seen(self, index: int, row: Array) -> None:
        """Take a fresh observation, shape (d,)."""
        self.n_fresh += 1
        if len(self._rows) < self.plan.max_wait:
            self._rows[index] = row

    def labelled(self, index: int, row: Array | None, label: int) -> None:
        """Take a label; `row` is the observation where this suspicion did not see it itself."""
        if index <= self.alarm_index or len(self._labels) >= self.plan.looks[-1]:
            return
        if index not in self._rows:
            if row is None:
                return
            self._rows[index] = row
        self._labels[index] = label

    def due(self, *, labels_expected: bool) -> bool:
        """Whether the next look can be taken."""
        if self.n_fresh >= self.plan.max_wait:
            return True
        ready = self.n_labelled if labels_expected else self.n_fresh
        return ready >= self.plan.looks[self.looks_done]

    def sample(self) -> Sample:
        """The evidence: the labelled rows, filled up with unlabelled ones to the last look."""
        labelled = sorted(self._labels)
        others = [i for i in sorted(self._rows) if i not in self._labels]
        chosen = labelled + others[: max(0, self.plan.looks[-1] - len(labelled))]
        if not chosen:
            return Sample(np.empty((0, self._n_features)), np.empty(0, np.int64))
        return Sample(
            np.stack([self._rows[i] for i in chosen]),
            np.array([self._labels.get(i, UNLABELLED) for i in chosen], np.int64),
        )

    def look(self, reference: Sample, *, n_classes: int, columns: Sequence[str]) -> Look:
        """Test both factors on what is there, and decide whether to wait, confirm or dismiss."""
        timed_out = self.n_fresh >= self.plan.max_wait
        number = min(self.looks_done, len(self.plan.looks) - 1)
        last = timed_out or number == len(self.plan.looks) - 1
        self.looks_done += 1
        examined = examine(
            reference,
            self.sample(),
            self.plan.problem,
            n_classes=n_classes,
            columns=columns,
            seed=self.seed + number,
            min_labels=self.plan.min_labels,
        )
        alpha = self.plan.spend(number)
        verdict = conclude(examined.evidence, self.plan.problem, alpha, examined.contributions)
        if all(e.p_value is None for e in examined.evidence):
            verdict = self._by_inputs(reference, verdict, alpha)
        return Look(self._step(verdict, number, last=last), verdict)

    def _by_inputs(self, reference: Sample, verdict: Verdict, alpha: float) -> Verdict:
        """Whether anything moved, where neither factor could be tested.

        In Y->X problems P(X) moves with either factor. It cannot tell which one, but a suspicion
        without labels must not be confirmed because nothing speaks against it.
        """
        recent = self.sample()
        if len(recent.features) < MIN_ROWS:
            return dataclasses.replace(verdict, kind=Kind.NONE, factors=frozenset())
        found = two_sample(reference.features, recent.features, seed=self.seed)
        evidence = Evidence(
            "two-sample of the inputs",
            self.plan.problem.marginal,
            found.statistic,
            found.p_value,
            found.effect,
            found.n_reference,
            found.n_recent,
            "labels are missing: P(X) moves with either factor",
        )
        moved = found.p_value <= alpha
        return dataclasses.replace(
            verdict,
            kind=Kind.UNDETERMINED if moved else Kind.NONE,
            factors=verdict.factors if moved else frozenset(),
            evidence=(*verdict.evidence, evidence),
        )

    def _step(self, verdict: Verdict, number: int, *, last: bool) -> Step:
        if verdict.kind is Kind.NONE:
            return Step.DISMISS if last else Step.WAIT
        if last or verdict.kind is Kind.MIXED:
            return Step.CONFIRM
        if verdict.kind is Kind.UNDETERMINED:
            return Step.WAIT
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
            "n_fresh": self.n_fresh,
            "index": np.array(index, np.int64),
            "rows": (
                np.stack([self._rows[i] for i in index])
                if index
                else np.empty((0, self._n_features))
            ),
            "labels": np.array([self._labels.get(i, UNLABELLED) for i in index], np.int64),
        }

    @classmethod
    def from_snapshot(cls, plan: ConfirmPlan, state: State) -> Suspicion:
        """Go on from a snapshot taken under an equal plan."""
        rows: Array = state["rows"]
        labels: IntArray = state["labels"]
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
        self.n_fresh = state["n_fresh"]
        for i, row, label in zip(state["index"].tolist(), rows, labels.tolist(), strict=True):
            self._rows[i] = row.copy()
            if label != UNLABELLED:
                self._labels[i] = label
        return self
