"""From a suspicion to a verdict: growing looks at evidence gathered after the alarm."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from detectors.attribution.attribution import conclude, examine
from detectors.attribution.pooling import pool
from detectors.attribution.unlabelled import examine_unlabelled
from detectors.attribution.windows import Reference, Sample, Windows
from detectors.base import Array, Evidence, Factor, IntArray, Kind, Problem, State, Verdict
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
        self._n_features = n_features
        self._first = opened_index + 1
        self._seen: list[Array] = []
        self._others: dict[int, Array] = {}
        self._labels: dict[int, int] = {}
        self._wrong: dict[int, bool] = {}
        self._segments: dict[int, Mapping[str, str]] = {}

    @property
    def n_labelled(self) -> int:
        """Fresh observations whose label is known."""
        return len(self._labels)

    def seen(self, rows: Array, segments: Sequence[Mapping[str, str]] | None = None) -> None:
        """Take the next fresh observations.

        Parameters
        ----------
        rows
            Of all observations since the last ones, shape (n, d), NaN where a value is missing.
        segments
            Of each of them; None where none has any.
        """
        first = self._first + self.n_fresh
        for index, segment in enumerate(segments or (), first):
            if segment:
                self._segments[index] = segment
        self.n_fresh += len(rows)
        self._seen.append(rows)

    def labelled(
        self,
        index: IntArray,
        labels: IntArray,
        wrong: Sequence[bool | None],
        rows: Array | None = None,
        found: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """Take labels.

        Parameters
        ----------
        index
            Of their observations, shape (n,).
        labels
            Their codes, shape (n,).
        wrong
            Whether each was predicted wrongly, if that is known.
        rows
            Of the observations, shape (n, d), for those that this suspicion did not see itself.
        found
            Which of these rows there are, shape (n,).
        """
        for n, (at, label, is_wrong) in enumerate(
            zip(index.tolist(), labels.tolist(), wrong, strict=True)
        ):
            if at <= self.alarm_index or len(self._labels) >= self.plan.looks[-1]:
                continue
            if not self._holds(at):
                if rows is None or found is None or not found[n]:
                    continue
                self._others[at] = rows[n].copy()
            self._labels[at] = label
            if is_wrong is not None:
                self._wrong[at] = is_wrong

    def _holds(self, index: int) -> bool:
        return self._first <= index < self._first + self.n_fresh or index in self._others

    def due(self, *, labels_expected: bool) -> bool:
        """Whether the next look can be taken."""
        if self.n_fresh >= self.plan.max_wait:
            return True
        ready = self.n_labelled if labels_expected else self.n_fresh
        return ready >= self.plan.looks[self.looks_done]

    def until_due(self, *, labels_expected: bool) -> tuple[int, int]:
        """After how many observations, or labels, something can be due.

        That is the next look, or that the labels are late: see `labels_are_late`. Labels may begin
        to be expected meanwhile. A look that is due already, because the evidence began again with
        enough for two, is taken with the next event.
        """
        if self.due(labels_expected=labels_expected):
            return 1, 1
        wanted = self.plan.looks[min(self.looks_done, len(self.plan.looks) - 1)]
        steps = [self.plan.max_wait, *([] if labels_expected else [wanted])]
        if self.looks_done == 0:
            steps.append(self.plan.looks[-1])
        seen = [step - self.n_fresh for step in steps if step > self.n_fresh]
        return min(seen, default=1), max(wanted - self.n_labelled, 1)

    @property
    def labels_are_late(self) -> bool:
        """Whether the last look's observations have come, and not the first look's labels."""
        return self.n_fresh == self.plan.looks[-1] and self.looks_done == 0

    @property
    def _index(self) -> list[int]:
        """Indices of all rows, in order."""
        return sorted([*self._others, *range(self._first, self._first + self.n_fresh)])

    @property
    def evidence(self) -> list[int]:
        """Indices of the labelled rows, filled up with unlabelled ones to the last look."""
        others = [i for i in self._index if i not in self._labels]
        return sorted([*self._labels, *others[: max(0, self.plan.looks[-1] - len(self._labels))]])

    def sample(self, complete: Complete) -> Sample:
        """The rows of `evidence`, and their labels."""
        return Sample(
            complete(self.rows),
            np.array([self._labels.get(i, UNLABELLED) for i in self.evidence], np.int64),
        )

    @property
    def rows(self) -> Array:
        """The rows of `evidence`, shape (n, d), NaN where a value is missing."""
        return self._stacked(self.evidence)

    def losses(self) -> Array | None:
        """1 for a wrong prediction on each row of `evidence`, NaN if not known; None if none is."""
        if not self._wrong:
            return None
        return np.array([float(self._wrong.get(i, np.nan)) for i in self.evidence])

    def segment(self, name: str) -> list[str]:
        """The value of a segment on each row of `evidence`; empty where a row has none."""
        return [self._segments.get(i, {}).get(name, "") for i in self.evidence]

    def _stacked(self, index: Sequence[int]) -> Array:
        """Rows of some observations, in their order."""
        if not index:
            return np.empty((0, self._n_features))
        seen = self._all_seen()
        at = np.array(index, np.int64) - self._first
        inside = (at >= 0) & (at < len(seen))
        rows = np.empty((len(index), self._n_features))
        rows[inside] = seen[at[inside]]
        for n in np.flatnonzero(~inside).tolist():
            rows[n] = self._others[index[n]]
        return rows

    def _all_seen(self) -> Array:
        if len(self._seen) != 1:
            self._seen = [np.concatenate([np.empty((0, self._n_features)), *self._seen])]
        return self._seen[0]

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
            index = list(self._labels) if watch.feed is Feed.LABELLED else self._index
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
        left = self._all_seen()[max(self.alarm_index + 1 - self._first, 0) :]
        self._first += self.n_fresh - len(left)
        self._seen = [left]
        self._others = {i: row for i, row in self._others.items() if i > self.alarm_index}
        self._labels = {i: y for i, y in self._labels.items() if i > self.alarm_index}
        self._wrong = {i: w for i, w in self._wrong.items() if i > self.alarm_index}
        self.n_fresh = len(left)

    def look(
        self,
        reference: Reference,
        complete: Complete,
        *,
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
        windows = self._windows(reference, complete)
        left = self.plan.alpha - self.spent
        # The last look, also one that came early because labels did not, has all that is left.
        alpha = left if last else min(self.plan.spend(number), 0.5 * left)
        self.spent += alpha
        alpha /= n_parts
        # Of a pooled test the own p-value may be worth half: it has to be twice as fine.
        level = alpha / 2 if n_parts > 1 else alpha
        examined = examine(windows, seed=self.seed + number, level=level)
        if all(e.p_value is None for e in examined.evidence):
            # Not pooled: of these two tests one decides whether the other means anything.
            verdict = self.provisional(reference, complete, alpha=alpha)
            return Look(self._step(verdict, number, last=last), verdict)
        evidence = pool(examined.evidence, others)
        verdict = conclude(evidence, self.plan.problem, alpha, examined.contributions)
        own = () if evidence == examined.evidence else examined.evidence
        return Look(self._step(verdict, number, last=last), verdict, own)

    def settle(self, reference: Reference, complete: Complete) -> Verdict:
        """Test again with the labels that have come since, at the last look's level."""
        last = len(self.plan.looks) - 1
        alpha = self.plan.spend(last)
        windows = self._windows(reference, complete)
        examined = examine(windows, seed=self.seed + last, level=alpha)
        return conclude(examined.evidence, self.plan.problem, alpha, examined.contributions)

    def provisional(self, reference: Reference, complete: Complete, *, alpha: float) -> Verdict:
        """What the inputs alone say; without any sign the kind is `none`.

        It cannot always tell which factor moved, but a suspicion without labels must not be
        confirmed because nothing speaks against it.
        """
        windows = self._windows(reference, complete)
        evidence = examine_unlabelled(windows, alpha=alpha, seed=self.seed)
        verdict = conclude(evidence, self.plan.problem, alpha)
        if all(e.p_value is None for e in evidence):
            return dataclasses.replace(verdict, kind=Kind.NONE, factors=frozenset())
        return verdict

    def _windows(self, reference: Reference, complete: Complete) -> Windows:
        recent = self.sample(complete)
        return Windows(reference, recent, self.plan.problem, self.plan.min_labels)

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
            "first": self._first,
            "rows": self._all_seen(),
            "others": [list(self._others), self._stacked(list(self._others))],
            # In the order in which they came: the watches read them in that order.
            "labelled": np.array(list(self._labels), np.int64),
            "labels": np.array(list(self._labels.values()), np.int64),
            "wrong": [list(self._wrong), list(self._wrong.values())],
            "segments": [list(self._segments), [dict(s) for s in self._segments.values()]],
        }

    @classmethod
    def from_snapshot(cls, plan: ConfirmPlan, state: State) -> Suspicion:
        """Go on from a snapshot taken under an equal plan."""
        rows: Array = state["rows"].copy()
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
        self._first = state["first"]
        self._seen = [rows]
        index, others = state["others"]
        self._others = dict(zip(index, others.copy(), strict=True))
        self._wrong = dict(zip(*state["wrong"], strict=True))
        self._segments = dict(zip(*state["segments"], strict=True))
        self._labels = dict(zip(state["labelled"].tolist(), state["labels"].tolist(), strict=True))
        return self
