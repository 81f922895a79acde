"""What is under test: the evidence of a suspicion, and the incident that it may become."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detectors.base import Array, IntArray, State
from detectors.confirm import Complete, ConfirmPlan, Look, Step, Suspicion
from detectors.watches.contract import Watching
from service.domain.incident import Incident, Point
from service.monitor import elsewhere
from service.monitor.examiner import Examiner
from service.monitor.findings import dismissed, findings


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels on their way to what is under test.

    Attributes
    ----------
    index
        Of their observations, shape (n,).
    labels
        Each one's class.
    wrong
        Whether each tells of a mistake, if that is known.
    rows, found
        Of the observations, shape (n, d), and which of them there are.
    """

    index: IntArray
    labels: Sequence[str]
    wrong: Sequence[bool | None]
    rows: Array
    found: npt.NDArray[np.bool_]

    def last_if(self, is_wanted: bool) -> Labels:
        """The last of them alone, if it is wanted, or none."""
        n = len(self.index)
        which = slice(n - 1 if is_wanted and n else n, n)
        return Labels(
            self.index[which],
            self.labels[which],
            self.wrong[which],
            self.rows[which],
            self.found[which],
        )


class Suspected:
    """The suspicion of a stream, or its comparison with the reference while an incident is open.

    Parameters
    ----------
    plan
        When a suspicion is looked at, and what each look may spend.
    recheck_plan
        The same for a comparison that is made again and again.

    Attributes
    ----------
    incident
        The incident that a suspicion may become; None for a comparison, and while there is nothing.
    met
        Ids of confirmed incidents of other parts that were open during the last suspicion.
    """

    def __init__(self, plan: ConfirmPlan, recheck_plan: ConfirmPlan) -> None:
        self.plan = plan
        self.recheck_plan = recheck_plan
        self.incident: Incident | None = None
        self.met: set[str] = set()
        self._suspicion: Suspicion | None = None
        self._vague: Suspicion | None = None

    @property
    def is_under_test(self) -> bool:
        """Whether evidence is gathered."""
        return self._suspicion is not None

    @property
    def is_vague(self) -> bool:
        """Whether an open incident waits for labels that tell what moved."""
        return self._vague is not None

    # -- beginning and end ---------------------------------------------------------------------

    def open(self, suspicion: Suspicion, incident: Incident, others: Sequence[Incident]) -> None:
        """An alarm is under test from now on."""
        self._suspicion = suspicion
        self.incident = incident
        self.met = set()
        self._meet(others)

    def compare(self, suspicion: Suspicion) -> None:
        """The stream is compared with the reference from now on, while an incident is open."""
        self._suspicion = suspicion

    def drop(self, detail: str) -> list[Incident]:
        """End what is under test without a verdict."""
        ended = [] if self.incident is None else [dismissed(self.incident, f"dismissed: {detail}")]
        self.rest()
        return ended

    def rest(self) -> None:
        """Nothing is under test."""
        self._suspicion = self.incident = None

    def wait_for_labels(self, suspicion: Suspicion | None) -> None:
        """Keep the evidence of an undetermined verdict for labels that come later; or not."""
        self._vague = suspicion

    # -- evidence ------------------------------------------------------------------------------

    def until_due(self, *, labels_expected: bool) -> tuple[int, int]:
        """After how many observations, or labels, something can be due that is not yet."""
        seen = labels = 2**62
        if self._suspicion is not None:
            seen, labels = self._suspicion.until_due(labels_expected=labels_expected)
        if self._vague is not None:
            left = [step - self._vague.n_labelled for step in self._steps]
            labels = min(labels, *(n for n in left if n > 0), 2**62)
        return seen, labels

    def gather(
        self,
        rows: Array,
        segments: Sequence[Mapping[str, str]] | None,
        labels: Labels,
        codes: IntArray,
    ) -> None:
        """Give what has come to the suspicion: observations, and labels of these or older ones."""
        assert self._suspicion is not None
        self._suspicion.seen(rows, segments)
        self._suspicion.labelled(labels.index, codes, labels.wrong, labels.rows, labels.found)

    def settles(self, labels: Labels, codes: IntArray) -> Suspicion | None:
        """Give labels to the evidence of an undetermined verdict; it, if that may be enough.

        It is tested again when there are enough labels for a test, and as many as for a look.
        """
        assert self._vague is not None
        before = self._vague.n_labelled
        self._vague.labelled(labels.index, codes, labels.wrong)
        after = self._vague.n_labelled
        return self._vague if any(before < step <= after for step in self._steps) else None

    @property
    def _steps(self) -> tuple[int, ...]:
        return (self.plan.min_labels, *self.plan.looks)

    # -- looks ---------------------------------------------------------------------------------

    def is_due(
        self, watches: Sequence[Watching], complete: Complete, *, labels_expected: bool
    ) -> bool:
        """Whether the suspicion is to be looked at; its evidence may begin anew instead."""
        suspicion = self._suspicion
        if suspicion is None or not suspicion.due(labels_expected=labels_expected):
            return False
        if self.incident is not None:
            suspicion.restart(watches, complete)
        return suspicion.due(labels_expected=labels_expected)

    def look(
        self, examiner: Examiner, others: Sequence[Incident], now: Point
    ) -> tuple[Look, Suspicion]:
        """Take the look that is due; while it decides nothing, what it saw is the incident's.

        Parameters
        ----------
        examiner
            Compares the evidence with the reference.
        others
            Open incidents of other parts of the stream.
        now
            The newest observation.
        """
        suspicion = self._suspicion
        assert suspicion is not None
        if self.incident is None:
            # A comparison made again and again is the part's own: others' evidence is an old one.
            self._suspicion = None
            return examiner.look(suspicion), suspicion
        self._meet(others)
        pooled = elsewhere.alongside(self.incident, now, others, within=self.plan.max_wait)
        n_parts = 1 + len({i.lane for i in pooled})
        evidence = [elsewhere.evidence_of(i) for i in pooled]
        look = examiner.look(suspicion, evidence, n_parts)
        self.incident = dataclasses.replace(
            self.incident,
            change_point=max(suspicion.change_point, examiner.baseline.end),
            explanation={
                **elsewhere.unpooled(self.incident.explanation),
                **elsewhere.told_of(pooled, look.own),
            },
            **findings(look.verdict),
        )
        if look.step is not Step.WAIT:
            self._suspicion = None
        return look, suspicion

    def provisional(self, examiner: Examiner) -> Incident | None:
        """What the inputs alone say of a suspicion whose labels are late; None if none is."""
        suspicion = self._suspicion
        if suspicion is None or self.incident is None or not suspicion.labels_are_late:
            return None
        told = examiner.provisional(suspicion)
        self.incident = dataclasses.replace(
            self.incident,
            explanation={**self.incident.explanation, "provisional": told},
            detail="labels are late; what the inputs alone say is provisional",
        )
        return self.incident

    def _meet(self, others: Sequence[Incident]) -> None:
        self.met |= {i.id for i in others if i.confirmed_at is not None}

    # -- snapshot ------------------------------------------------------------------------------

    def snapshot(self) -> State:
        """Everything needed to go on."""
        return {
            "suspicion": None if self._suspicion is None else self._suspicion.snapshot(),
            "incident": None if self.incident is None else self.incident.to_json(),
            "vague": None if self._vague is None else self._vague.snapshot(),
            "met": sorted(self.met),
        }

    def restore(self, state: State) -> None:
        """Go on from a snapshot of an equally planned one."""
        found = state["incident"]
        self.incident = None if found is None else Incident.from_json(found)
        plan = self.recheck_plan if self.incident is None else self.plan
        found = state["suspicion"]
        self._suspicion = None if found is None else Suspicion.from_snapshot(plan, found)
        found = state["vague"]
        self._vague = None if found is None else Suspicion.from_snapshot(self.plan, found)
        self.met = set(state["met"])
