"""What the product costs: processor time of an event and of a confirmation, and memory."""

from __future__ import annotations

import gc
import multiprocessing
import platform
import resource
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.confusion import arrow
from benchmarks.monitoring import columns_of, measured_only
from benchmarks.report import markdown_table
from benchmarks.table import Outcome, Summary, Target, Trial
from detectors.attribution.attribution import examine
from detectors.attribution.windows import Reference, Sample, Windows
from detectors.base import Kind, Problem
from detectors.synthetic import Stream
from service.domain.decision import Means
from service.monitor.monitor import Monitor
from service.monitor.phase import Phase
from service.monitor.representation import Tabular
from service.records.schema import FeatureSchema
from service.settings.stream import StreamSettings

FIRST_SEED = 1000
N_FEATURES = 32
N_ROWS = 1000
WARM_UP = 2000
BATCH = 500
N_BATCHES = 40
REPEATS, QUICK = 5, 1
MOST_US, MOST_S, MOST_MB = 50.0, 2.0, 300.0
BROKEN = 4.0
"""Times the bound: a busy machine doubles processor times, and does no more."""


@dataclass(frozen=True, slots=True)
class Cost:
    """See the module."""

    name: str = "cost"
    title: str = "What it costs"

    def missing(self) -> str:
        """Never."""
        return ""

    def trials(self, *, quick: bool) -> list[Trial]:
        """Each part for each problem."""
        return [
            {"part": part, "problem": str(problem), "seed": FIRST_SEED + number}
            for number in range(QUICK if quick else REPEATS)
            for part in ("event", "confirm")
            for problem in Problem
        ]

    def run(self, trial: Trial) -> Outcome:
        """Measure one part."""
        problem = Problem(trial["problem"])
        if trial["part"] == "event":
            return {"us": round(event_us(problem, trial["seed"]), 2)}
        # A process of its own, because the most memory that a process ever had only grows.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            cpu_s, extra_mb = pool.submit(confirm, problem, trial["seed"]).result()
        return {"cpu_s": round(cpu_s, 3), "extra_mb": round(extra_mb, 1)}

    def summarise(self, results: Sequence[tuple[Trial, Outcome]]) -> Summary:
        """Medians of the repetitions."""
        figures: dict[str, Any] = {"n_features": N_FEATURES, "n_rows": N_ROWS}
        rows, targets = [], []
        for part, unit, title, most in (
            ("event", "us", "one labelled event while nothing is suspected, µs", MOST_US),
            ("confirm", "cpu_s", "one confirmation, processor seconds", MOST_S),
            ("confirm", "extra_mb", "one confirmation, peak of extra memory, MB", MOST_MB),
        ):
            for problem in Problem:
                found = [
                    o[unit] for t, o in results if (t["part"], t["problem"]) == (part, problem)
                ]
                if not found:
                    continue
                middle, worst = float(np.median(found)), max(found)
                figures[f"{part}/{unit}/{problem}"] = {"median": middle, "most": worst}
                rows.append((title, arrow(problem), f"{middle:.3g}", f"{worst:.3g}", f"{most:g}"))
                targets.append(
                    Target(
                        f"{title}, {arrow(problem)}",
                        f"<= {most:g}",
                        f"{middle:.3g}",
                        middle <= most,
                        far_off=middle > BROKEN * most,
                    )
                )
        text = [
            f"{N_FEATURES} features. An event is one observation and its label through the whole "
            f"monitor, in batches of {BATCH}; a confirmation is both tests on {N_ROWS:,} + "
            f"{N_ROWS:,} labelled rows. One thread.",
            markdown_table(("what", "problem", "median", "most", "promised"), rows),
        ]
        return Summary("\n\n".join(text), figures, targets)


TABLE = Cost()


def event_us(problem: Problem, seed: int) -> float:
    """Processor microseconds of an event; the median over batches that stage 1 watched."""
    names = [f"x{j}" for j in range(N_FEATURES)]
    settings = {"name": "s", "problem": str(problem), "reference": {"warm_up": WARM_UP}}
    monitor = Monitor(
        StreamSettings.model_validate(settings),
        Tabular(FeatureSchema.declared(dict.fromkeys(names, "numeric"))),
        measured_only,
        seed=seed,
    )
    stream = Stream(problem, Kind.NONE, n_features=N_FEATURES, seed=seed)
    features, labels = stream.draw(WARM_UP + N_BATCHES * BATCH, shifted=False)
    records = columns_of(features, labels, np.ones(len(labels), np.bool_))
    monitor.update(records[np.arange(WARM_UP)], Means())
    spent = []
    gc.collect()
    for start in range(WARM_UP, len(records), BATCH):
        batch = records[np.arange(start, start + BATCH)]
        watching = monitor.phase is Phase.WATCHING
        started = time.process_time()
        monitor.update(batch, Means())
        if watching and monitor.phase is Phase.WATCHING:
            spent.append(time.process_time() - started)
    return float(np.median(spent)) / BATCH * 1e6


def confirm(problem: Problem, seed: int) -> tuple[float, float]:
    """Processor seconds of one confirmation, and the megabytes that it adds to the process's peak.

    A small one before it loads the libraries and compiles what is compiled.
    """
    _examine(problem, 200, 2, seed)
    before = _memory_mb(peak=False)
    started = time.process_time()
    _examine(problem, N_ROWS, N_FEATURES, seed)
    return time.process_time() - started, _memory_mb(peak=True) - before


def _examine(problem: Problem, n: int, n_features: int, seed: int) -> None:
    both = Kind.MIXED
    stream = Stream(problem, both, n_features=n_features, strength="strong", seed=seed)
    reference = Sample(*stream.draw(n, shifted=False))
    recent = Sample(*stream.draw(n, shifted=True))
    columns = [f"x{j}" for j in range(n_features)]
    known = Reference(reference, n_classes=2, columns=columns)
    examine(Windows(known, recent, problem), seed=seed)


def _memory_mb(*, peak: bool) -> float:
    """Memory that the process holds, or the most that it held since it was asked without `peak`.

    From Linux's own counters, which can be set back. What `getrusage` says begins with the parent's
    memory there; elsewhere it is all there is, and the peak since the start stands for both.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        unit = 1e6 if platform.system() == "Darwin" else 1e3
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    if not peak:
        Path("/proc/self/clear_refs").write_text("5", "ascii")
    field = "VmHWM:" if peak else "VmRSS:"
    line = next(v for v in status.read_text("ascii").splitlines() if v.startswith(field))
    return int(line.split()[1]) / 1e3
