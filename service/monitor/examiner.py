"""What is asked of the evidence of a suspicion: the look, the view without labels, the reasons."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from detectors.attribution.windows import Reference, Windows
from detectors.base import Array, Evidence, Kind, Verdict
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
        return suspicion.look(self._reference, self._complete, others=others, n_parts=n_parts)

    def settle(self, suspicion: Suspicion) -> Verdict:
        """Test the evidence of an undetermined verdict again, with the labels that came since."""
        return suspicion.settle(self._reference, self._complete)

    def provisional(self, suspicion: Suspicion) -> dict[str, Any]:
        """What the inputs alone say while labels are late, as a JSON object."""
        alpha = self.plan.spend(len(self.plan.looks) - 1)
        verdict = suspicion.provisional(self._reference, self._complete, alpha=alpha)
        return {
            "kind": str(verdict.kind),
            "factors": sorted(str(f) for f in verdict.factors),
            "evidence": [dataclasses.asdict(e) for e in verdict.evidence],
        }

    def explanation(
        self, suspicion: Suspicion, verdict: Verdict, waiting: LabelJoin
    ) -> dict[str, Any]:
        """What goes with a verdict, for people and programs."""
        windows = self._windows(suspicion)
        losses = self.baseline.losses(self._most), suspicion.losses()
        told = explain(
            windows,
            verdict,
            alpha=self.plan.alpha,
            seed=suspicion.seed,
            losses=None if losses[0] is None or losses[1] is None else (losses[0], losses[1]),
        )
        document: dict[str, Any] = {}
        if told.severity is not None:
            document["severity"] = {"loss": told.loss, **dataclasses.asdict(told.severity)}
        if placeholders := self._placeholders(suspicion):
            document["placeholders"] = placeholders
        if told.direction_suspect:
            document["direction_suspect"] = told.direction_suspect
        if segments := self._segments(suspicion, windows):
            document["segments"] = segments
        if told.chosen_labels:
            document["chosen_labels"] = told.chosen_labels
        if verdict.kind is Kind.UNDETERMINED and told.labels_needed:
            rows = [suspicion.evidence[i] for i in told.queries.tolist()]
            document["labels_needed"] = told.labels_needed
            document["label_queries"] = waiting.ids(rows)
        return document

    def _placeholders(self, suspicion: Suspicion) -> list[dict[str, Any]]:
        """Values of the evidence that stand for none, and how often they do in either window."""
        find = self.baseline.representation.placeholders
        reference = self.baseline.rows[self.baseline.first :]
        before = {(p.feature, p.value): p.n for p in find(reference)}
        rows = suspicion.rows
        return [
            {
                "feature": p.feature,
                "value": p.value,
                "recent": p.n / len(rows),
                "reference": before.get((p.feature, p.value), 0) / len(reference),
            }
            for p in find(rows)
        ]

    def _segments(self, suspicion: Suspicion, windows: Windows) -> dict[str, Any]:
        """In which values of each segment something moved, by the segment's name."""
        found: dict[str, Any] = {}
        for name in self.segments:
            values = self.baseline.segment(name, self._most), suspicion.segment(name)
            if len(set(values[0]) | set(values[1])) < 2:
                continue
            place = localise(windows, *values, alpha=self.plan.alpha, seed=suspicion.seed)
            found[name] = dataclasses.asdict(place)
        return found

    @property
    def _reference(self) -> Reference:
        return self.baseline.compared(self._most)

    def _complete(self, rows: Array) -> Array:
        return self.baseline.representation.complete(rows)

    def _windows(self, suspicion: Suspicion) -> Windows:
        return Windows(
            self._reference,
            suspicion.sample(self._complete),
            self.plan.problem,
            self.plan.min_labels,
        )


def aloud(explanation: Mapping[str, Any]) -> list[str]:
    """The sentences of an explanation that nobody should have to look for.

    Examples
    --------
    >>> camera = {"moved": {"7": "covariate"}, "unmoved": ["3", "5"], "untested": [], "only": True}
    >>> aloud({"segments": {"camera": camera}, "labels_needed": 0})
    ['only camera 7']
    >>> aloud({"segments": {"camera": {**camera, "only": False}}})
    ['at least camera 7']
    >>> sentinel = {"feature": "speed", "value": 1.79769e308, "recent": 0.05, "reference": 0.0}
    >>> aloud({"placeholders": [sentinel]})
    ['speed is 1.79769e+308 in 5 % of the observations (0 % of the reference): a placeholder?']
    """
    said = [
        f"{'only' if place['only'] else 'at least'} {name} {', '.join(place['moved'])}"
        for name, place in explanation.get("segments", {}).items()
        if place["moved"] and (place["unmoved"] or place["untested"])
    ]
    said += [
        f"{p['feature']} is {p['value']:g} in {100 * p['recent']:.2g} % of the observations "
        f"({100 * p['reference']:.2g} % of the reference): a placeholder?"
        for p in explanation.get("placeholders", ())
    ]
    said += [
        explanation[key] for key in ("direction_suspect", "chosen_labels") if key in explanation
    ]
    if explanation.get("labels_needed"):
        said.append(f"about {explanation['labels_needed']:,} labels more would settle it")
    return said
