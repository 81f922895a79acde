"""What is asked of the evidence of a suspicion: the look, the view without labels, the reasons."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from detectors.base import Evidence, Kind, Verdict
from detectors.confirm import ConfirmPlan, Look, Suspicion
from detectors.explanation.explain import explain
from detectors.explanation.localise import localise
from service.monitor.labels import LabelJoin
from service.monitor.reference import Baseline


class Examiner:
    """Compares the evidence of suspicions with a reference window.

    Parameters
    ----------
    plan
        Of the suspicions.
    baseline
        The frozen reference.
    segments
        Names of the segments in which a confirmed shift is looked for.
    """

    def __init__(
        self, plan: ConfirmPlan, baseline: Baseline, segments: tuple[str, ...] = ()
    ) -> None:
        self.plan = plan
        self.baseline = baseline
        self.segments = segments
        # A reference much larger than the evidence costs time and adds little power.
        self._most = 2 * plan.looks[-1]

    def look(
        self, suspicion: Suspicion, others: Sequence[Sequence[Evidence]] = (), n_parts: int = 1
    ) -> Look:
        """Take the look that is due, together with the evidence of other parts of the stream."""
        representation = self.baseline.representation
        return suspicion.look(
            self.baseline.sample(self._most),
            representation.complete,
            n_classes=self.baseline.n_classes,
            columns=representation.complete_columns,
            block_length=self.baseline.block_length,
            others=others,
            n_parts=n_parts,
        )

    def settle(self, suspicion: Suspicion) -> Verdict:
        """Test the evidence of an undetermined verdict again, with the labels that came since."""
        representation = self.baseline.representation
        return suspicion.settle(
            self.baseline.sample(self._most),
            representation.complete,
            n_classes=self.baseline.n_classes,
            columns=representation.complete_columns,
            block_length=self.baseline.block_length,
        )

    def provisional(self, suspicion: Suspicion) -> dict[str, Any]:
        """What the inputs alone say while labels are late, as a JSON object."""
        verdict = suspicion.provisional(
            self.baseline.sample(self._most),
            self.baseline.representation.complete,
            n_classes=self.baseline.n_classes,
            alpha=self.plan.spend(len(self.plan.looks) - 1),
            block_length=self.baseline.block_length,
        )
        return {
            "kind": str(verdict.kind),
            "factors": sorted(str(f) for f in verdict.factors),
            "evidence": [dataclasses.asdict(e) for e in verdict.evidence],
        }

    def explanation(
        self, suspicion: Suspicion, verdict: Verdict, waiting: LabelJoin
    ) -> dict[str, Any]:
        """What goes with a verdict, for people and programs."""
        most, losses = self._most, (self.baseline.losses(self._most), suspicion.losses())
        told = explain(
            self.baseline.sample(most),
            suspicion.sample(self.baseline.representation.complete),
            self.plan.problem,
            verdict,
            n_classes=self.baseline.n_classes,
            alpha=self.plan.alpha,
            seed=suspicion.seed,
            min_labels=self.plan.min_labels,
            block_length=self.baseline.block_length,
            losses=None if losses[0] is None or losses[1] is None else (losses[0], losses[1]),
        )
        document: dict[str, Any] = {}
        if told.severity is not None:
            document["severity"] = {"loss": told.loss, **dataclasses.asdict(told.severity)}
        if told.direction_suspect:
            document["direction_suspect"] = told.direction_suspect
        if segments := self._segments(suspicion):
            document["segments"] = segments
        if told.chosen_labels:
            document["chosen_labels"] = told.chosen_labels
        if verdict.kind is Kind.UNDETERMINED and told.labels_needed:
            rows = [suspicion.evidence[i] for i in told.queries.tolist()]
            document["labels_needed"] = told.labels_needed
            document["label_queries"] = waiting.ids(rows)
        return document

    def _segments(self, suspicion: Suspicion) -> dict[str, Any]:
        """In which values of each segment something moved, by the segment's name."""
        found: dict[str, Any] = {}
        for name in self.segments:
            values = self.baseline.segment(name, self._most), suspicion.segment(name)
            if len(set(values[0]) | set(values[1])) < 2:
                continue
            place = localise(
                self.baseline.sample(self._most),
                suspicion.sample(self.baseline.representation.complete),
                *values,
                self.plan.problem,
                n_classes=self.baseline.n_classes,
                alpha=self.plan.alpha,
                seed=suspicion.seed,
                min_labels=self.plan.min_labels,
                block_length=self.baseline.block_length,
            )
            found[name] = dataclasses.asdict(place)
        return found


def aloud(explanation: Mapping[str, Any]) -> list[str]:
    """The sentences of an explanation that nobody should have to look for.

    Examples
    --------
    >>> camera = {"moved": {"7": "covariate"}, "unmoved": ["3", "5"], "untested": [], "only": True}
    >>> aloud({"segments": {"camera": camera}, "labels_needed": 0})
    ['only camera 7']
    >>> aloud({"segments": {"camera": {**camera, "only": False}}})
    ['at least camera 7']
    """
    said = [
        f"{'only' if place['only'] else 'at least'} {name} {', '.join(place['moved'])}"
        for name, place in explanation.get("segments", {}).items()
        if place["moved"] and (place["unmoved"] or place["untested"])
    ]
    said += [
        explanation[key] for key in ("direction_suspect", "chosen_labels") if key in explanation
    ]
    if explanation.get("labels_needed"):
        said.append(f"about {explanation['labels_needed']:,} labels more would settle it")
    return said
