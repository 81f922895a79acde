"""Streams over several partitions: is the verdict that of the same stream in one partition."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from benchmarks.confusion import arrow
from benchmarks.intervals import share_interval, share_text
from benchmarks.report import markdown_table
from benchmarks.table import Outcome, Summary, Target, Trial
from detectors.base import Kind, Problem
from detectors.synthetic import Stream, Strength
from models.registry import Registry
from service.domain.incident import Incident, IncidentState
from service.pipeline.pipeline import Pipeline
from service.records.record import Record
from service.settings.service import Settings
from service.sources.listed import ListSource
from service.store.store import Store
from service.telemetry.metrics import Metrics

FIRST_SEED = 901_000
N_FEATURES = 3
PARTS = (1, 2, 4, 8)
WARM_UP = 400
CHANGE = 8 * 600
"""After which observation of the stream something moves: of eight parts each has then been watched
for 200 observations."""
N_EVENTS = CHANGE + 8 * 900
SEEDS, QUICK_SEEDS = 12, 1
CASES: tuple[tuple[Problem, Kind, Strength], ...] = (
    (Problem.X_TO_Y, Kind.NONE, "moderate"),
    (Problem.X_TO_Y, Kind.COVARIATE, "moderate"),
    (Problem.X_TO_Y, Kind.COVARIATE, "strong"),
    (Problem.X_TO_Y, Kind.CONCEPT, "moderate"),
    (Problem.X_TO_Y, Kind.CONCEPT, "strong"),
    (Problem.Y_TO_X, Kind.PRIOR, "moderate"),
    (Problem.Y_TO_X, Kind.PRIOR, "strong"),
)
BROKEN = 0.5
"""A quick run fails where even the upper end of a share of right verdicts is below this."""


@dataclass(frozen=True, slots=True)
class Spread:
    """See the module."""

    name: str = "spread"
    title: str = "A stream over several partitions"

    def missing(self) -> str:
        """Never."""
        return ""

    def trials(self, *, quick: bool) -> list[Trial]:
        """The same streams for every number of partitions."""
        return [
            {
                "problem": str(problem),
                "kind": str(kind),
                "strength": strength,
                "parts": parts,
                "seed": FIRST_SEED + n,
            }
            for n in range(QUICK_SEEDS if quick else SEEDS)
            for problem, kind, strength in CASES
            for parts in PARTS
        ]

    def run(self, trial: Trial) -> Outcome:
        """One stream through the service, from a list of records to the store."""
        parts = int(trial["parts"])
        found = incidents(
            Problem(trial["problem"]),
            Kind(trial["kind"]),
            trial["strength"],
            parts,
            trial["seed"],
        )
        own = [i for i in found if i.confirmed_at is not None]
        leading = [i for i in own if i.state is not IncidentState.FOLDED]
        at = [i.confirmed_at.index * parts + i.lane for i in leading if i.confirmed_at is not None]
        return {
            "kinds": sorted(str(i.kind) for i in leading),
            "folded": len(own) - len(leading),
            "pooled": sum("parts" in i.explanation for i in own),
            "delay": min(at) - CHANGE if at else None,
        }

    def summarise(self, results: Sequence[tuple[Trial, Outcome]]) -> Summary:
        """Right verdicts, incidents and delays, by what moved and the number of partitions."""
        rows, figures, targets = [], {}, []
        for problem, kind, strength in CASES:
            whole: list[Outcome] = []
            for parts in PARTS:
                case = {"problem": str(problem), "kind": str(kind), "strength": strength}
                own = [o for t, o in results if t["parts"] == parts and case.items() <= t.items()]
                if not own:
                    continue
                whole = own if parts == 1 else whole
                right = [o for o in own if is_right(kind, o)]
                counts = [len(o["kinds"]) for o in own]
                label = "nothing" if kind is Kind.NONE else f"{kind}, {strength}, {arrow(problem)}"
                rows.append(
                    [
                        label,
                        parts,
                        share_text(len(right), len(own)),
                        f"{np.mean(counts):.2f} ({max(counts)})",
                        _delays(right),
                        sum(o["folded"] for o in own),
                        sum(o["pooled"] for o in own),
                    ]
                )
                figures[f"{problem}/{kind}/{strength}/{parts}"] = {
                    "n": len(own),
                    "right": len(right),
                    "incidents": counts,
                    "delays": [o["delay"] for o in right if o["delay"] is not None],
                }
                if parts > 1 and whole:
                    targets.append(_target(f"{label}, {parts} partitions", kind, own, whole))
        head = ("partitions", "right verdicts", "streams with two confirmed incidents or more")
        text = [
            f"{N_FEATURES} features, labels at once, a shift at observation {CHANGE:,} of "
            f"{N_EVENTS:,}, written round robin. Each part has a reference of {WARM_UP} and looks "
            "at 100, 200 and 400 labels of its own. A verdict is right if the stream has one "
            "confirmed incident, of the kind that moved, or none where nothing moved; the interval "
            "is of 95 %. The delay is from the change to the confirmation, in observations of the "
            "stream, of the right ones: median and 90th percentile. Folded are the incidents of "
            "further parts, pooled those confirmed on evidence of several parts.",
            "All together:",
            markdown_table(head, [_together(parts, results) for parts in PARTS]),
            "By what moved:",
            markdown_table(
                (
                    "what moved",
                    "partitions",
                    "right verdicts",
                    "incidents a stream, mean (most)",
                    "delay",
                    "folded",
                    "pooled",
                ),
                rows,
            ),
        ]
        return Summary("\n\n".join(text), figures, targets)


TABLE = Spread()


def is_right(kind: Kind, outcome: Outcome) -> bool:
    """Whether a stream has the one incident that it should, or none where nothing moved."""
    return bool(outcome["kinds"] == ([] if kind is Kind.NONE else [str(kind)]))


def incidents(
    problem: Problem, kind: Kind, strength: Strength, parts: int, seed: int
) -> list[Incident]:
    """All incidents of a stream that is written round robin to partitions."""
    with tempfile.TemporaryDirectory() as folder, capture_logs():
        settings = _settings(Path(folder), problem, seed)
        with closing(Store(settings.store.url, lambda: 0.0)) as store:
            pipeline = Pipeline(
                settings,
                ListSource(_records(problem, kind, strength, parts, seed)),
                store,
                Registry(settings.registry.path),
                Metrics(CollectorRegistry()),
                lambda: 0.0,
            )
            while pipeline.step(timeout_s=0):
                pass
            pipeline.write()
            pipeline.close()
            return store.incidents(limit=None)


def _settings(folder: Path, problem: Problem, seed: int) -> Settings:
    return Settings.model_validate(
        {
            "store": {"url": f"sqlite:///{folder}/s.db"},
            "registry": {"path": folder / "models"},
            "dead_letters": {"path": folder / "dead.jsonl"},
            "checkpoint": {"every_records": 500, "every_s": 1e9},
            "seed": seed,
            "streams": [
                {
                    "name": "s",
                    "problem": str(problem),
                    "features": {f"x{j}": "numeric" for j in range(N_FEATURES)},
                    "reference": {"warm_up": WARM_UP},
                    "false_alarm_every": 100_000,
                    "confirm": {"looks": [100, 200, 400], "max_wait": 800, "min_labels": 60},
                }
            ],
        }
    )


def _records(
    problem: Problem, kind: Kind, strength: Strength, parts: int, seed: int
) -> list[Record]:
    stream = Stream(problem, kind, n_features=N_FEATURES, strength=strength, seed=seed)
    before = stream.draw(CHANGE, shifted=False)
    after = stream.draw(N_EVENTS - CHANGE, shifted=True)
    features, labels = (np.concatenate(pair) for pair in zip(before, after, strict=True))
    return [
        Record("events", i % parts, i // parts, None, _body(i, row, label))
        for i, (row, label) in enumerate(zip(features.tolist(), labels.tolist(), strict=True))
    ]


def _body(index: int, row: Sequence[float], label: int) -> bytes:
    features = {f"x{j}": value for j, value in enumerate(row)}
    body = {"stream": "s", "id": str(index), "features": features, "label": label}
    return json.dumps(body).encode()


def _together(parts: int, results: Sequence[tuple[Trial, Outcome]]) -> list[object]:
    """All streams over so many partitions."""
    own = [(Kind(t["kind"]), o) for t, o in results if t["parts"] == parts]
    right = sum(is_right(kind, outcome) for kind, outcome in own)
    several = sum(len(outcome["kinds"]) > 1 for _, outcome in own)
    return [parts, share_text(right, len(own)), share_text(several, len(own))]


def _delays(outcomes: Sequence[Outcome]) -> str:
    delays = [o["delay"] for o in outcomes if o["delay"] is not None]
    if not delays:
        return "–"
    return f"{np.median(delays):,.0f} ({np.quantile(delays, 0.9):,.0f})"


def _target(what: str, kind: Kind, own: Sequence[Outcome], whole: Sequence[Outcome]) -> Target:
    right, expected = (sum(is_right(kind, o) for o in part) for part in (own, whole))
    low, high = share_interval(right, len(own))
    share = expected / len(whole)
    return Target(
        f"share of right verdicts, {what}",
        f"{share:.2f}, as unsplit, inside the interval",
        share_text(right, len(own)),
        low <= share <= high,
        far_off=high < BROKEN * share,
    )
