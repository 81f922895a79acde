"""Stage 1 beside the libraries that people would use, in processor time.

``python -m benchmarks.banks [--json] [--quick]``

Every ratio is taken in one run, by turns on the same rows, and the median of the rounds counts.
What needs a process of its own (imports, memory, alibi-detect) gets one. alibi-detect is asked in
its own environment, where `make setup-alibi` has made it; else its rows stay empty, and say so.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import alibi_peers
from benchmarks.ready import COLUMNS, resident
from benchmarks.report import markdown_table
from detectors.base import Array, Factor, IntArray, Problem

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from detectors.watches.contract import Watching

FOLDER = Path("benchmarks/results/banks")
BATCH = 500
"""Rows that the service takes at a time."""
REFERENCE = 2000
SUSPICIONS_EVERY = 4000.0
"""Rows between alarms of stage 1 that a stream asks for by default."""
ERT, WINDOW = 1000, 20
"""Expected run and window of both joint monitors. alibi-detect's simulation grows with the run."""
SEED = 1
LENGTHS = (10_000, 100_000, 1_000_000, 10_000_000)
N_STREAMS = 1000


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table.

    Attributes
    ----------
    what
        What is compared with what.
    ours, theirs
        In `unit`; `theirs` is what ours is compared with, None where it was not measured.
    unit
        Of both.
    wanted
        The target, in words.
    ratio
        What the target speaks of.
    met
        Whether it is reached; None if it could not be measured.
    note
        Why it could not, or how it was measured.
    """

    what: str
    unit: str
    ours: float
    theirs: float | None
    ratio: float | None
    wanted: str
    met: bool | None
    note: str = ""


def spent(work: Callable[[], object]) -> float:
    """Processor seconds."""
    started = time.process_time()
    work()
    return time.process_time() - started


def by_turns(
    ours: Callable[[], float], theirs: Callable[[], float], rounds: int
) -> tuple[Array, Array]:
    """What both took in each round, after one that does not count: shapes (rounds,)."""
    both = np.array([(ours(), theirs()) for _ in range(rounds + 1)])[1:]
    return both[:, 0], both[:, 1]


def at_least(
    what: str, unit: str, ours: Array, theirs: Array, wanted: float, note: str = ""
) -> Row:
    """A row whose target is to be so many times as fast; the medians of the rounds count."""
    ratio = float(np.median(theirs / ours))
    mine, other = float(np.median(ours)), float(np.median(theirs))
    return Row(what, unit, mine, other, ratio, f"at least {wanted:g}x", ratio >= wanted, note)


def drawn(n: int, seed: int) -> tuple[Array, IntArray]:
    """Independent normal rows, and labels that follow them by one logistic rule."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, COLUMNS))
    rule = 1 / (1 + np.exp(-2 * rows[:, 0] - rows[:, 1]))
    return rows, (rng.random(n) < rule).astype(np.int64)


def learned() -> list[Watching]:
    """All default monitors of an X->Y stream."""
    from detectors.watches.build import Feed, build_watches  # noqa: PLC0415

    rows, labels = drawn(REFERENCE, SEED)
    return [
        watch
        for feed in Feed
        for watch in build_watches(
            feed,
            Problem.X_TO_Y,
            rows,
            labels,
            n_classes=2,
            arl0=SUSPICIONS_EVERY,
            seed=SEED,
        ).watches
    ]


def fed(watches: Sequence[Watching], rows: Array, labels: IntArray, batch: int = BATCH) -> float:
    """Processor seconds of all rows, in batches."""
    started = time.process_time()
    for start in range(0, len(rows), batch):
        part = slice(start, start + batch)
        for watch in watches:
            watch.update(rows[part], labels[part])
    return time.process_time() - started


def one_by_one(detectors: Sequence[Any], rows: Array) -> float:
    """Processor seconds of one of River's detectors for each column, row by row."""
    listed = rows.tolist()
    started = time.process_time()
    for row in listed:
        for detector, value in zip(detectors, row, strict=True):
            detector.update(value)
            if detector.drift_detected:
                pass
    return time.process_time() - started


def monitors_against_adwin(rounds: int) -> Row:
    """All default monitors, observations and labels, beside an ADWIN for each feature."""
    from river.drift import ADWIN  # noqa: PLC0415

    watches = learned()
    rows, labels = drawn(20_000, SEED + 1)
    few = rows[:5000]
    ours, theirs = by_turns(
        lambda: fed(watches, rows, labels) / len(rows) * 1e6,
        lambda: one_by_one([ADWIN() for _ in range(COLUMNS)], few) / len(few) * 1e6,
        rounds,
    )
    what = f"all default monitors of {COLUMNS} features, {COLUMNS} `river.drift.ADWIN`"
    return at_least(what, "us an event", ours, theirs, 2.0)


def banks_against_river(rounds: int) -> list[Row]:
    """Banks of published detectors beside as many of River's."""
    from river.drift import ADWIN, KSWIN, PageHinkley  # noqa: PLC0415

    from detectors.charts.adwin import Adwin  # noqa: PLC0415
    from detectors.charts.kswin import Kswin  # noqa: PLC0415
    from detectors.charts.page_hinkley import PageHinkley as PageHinkleyBank  # noqa: PLC0415

    columns = range(COLUMNS)
    factor = Factor.COVARIATE
    rows = drawn(20_000, SEED + 2)[0]
    of: list[tuple[str, Callable[[], Any], Callable[[], list[Any]], int, float, str]] = [
        (
            "ADWIN",
            lambda: Adwin(COLUMNS, factor=factor),
            lambda: [ADWIN() for _ in columns],
            3000,
            8.0,
            "alarms at the same rows",
        ),
        (
            "Page-Hinkley",
            lambda: PageHinkleyBank(COLUMNS, factor=factor),
            lambda: [PageHinkley() for _ in columns],
            3000,
            50.0,
            "alarms at the same rows",
        ),
        (
            "KSWIN",
            lambda: Kswin(COLUMNS, factor=factor),
            lambda: [KSWIN(seed=1) for _ in columns],
            200,
            100.0,
            "all older values, where River's draws some",
        ),
    ]
    found = []
    for name, make, make_theirs, few, wanted, note in of:

        def ours(make: Callable[[], Any] = make) -> float:
            bank = make()
            parts = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
            return spent(lambda: [bank.update(part) for part in parts]) / len(rows) * 1e6

        def theirs(make: Callable[[], list[Any]] = make_theirs, few: int = few) -> float:
            return one_by_one(make(), rows[:few]) / few * 1e6

        what = f"{name} bank of {COLUMNS} columns, as many of River's"
        found.append(at_least(what, "us an event", *by_turns(ours, theirs, rounds), wanted, note))
    return found


def joint_against_mmd(rounds: int) -> list[Row]:
    """The joint monitor on P(X) beside alibi-detect's online MMD, of the same expected run."""
    from detectors.charts.newma import Newma  # noqa: PLC0415

    reference, rows = drawn(500, SEED + 3)[0], drawn(20_000, SEED + 4)[0]

    def learn() -> Newma:
        return Newma.learn(reference, arl0=float(ERT), seed=SEED, factor=Factor.COVARIATE)

    monitor = learn()
    configured = np.array([spent(learn) for _ in range(rounds)])

    def run() -> float:
        parts = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
        return spent(lambda: [monitor.update(part) for part in parts]) / len(rows) * 1e6

    run()
    each = np.array([run() for _ in range(rounds)])
    what = f"joint monitor on P(X), {COLUMNS} features, alibi-detect `MMDDriftOnline` (TensorFlow)"
    whats = (f"{what}, an event", "the same, configuration")
    if reason := alibi_peers.missing():
        note = f"not run: {reason}"
        return [
            Row(whats[0], "us", float(np.median(each)), None, None, "at least 1000x", None, note),
            Row(
                whats[1], "s", float(np.median(configured)), None, None, "at least 20x", None, note
            ),
        ]
    answers = [
        alibi_peers.ask(
            "stream",
            reference=reference.astype(np.float32),
            rows=rows[:1000].astype(np.float32),
            change=len(rows),
            ert=ERT,
            window=WINDOW,
            simulations=10 * ERT,
            seed=SEED + k,
        )
        for k in range(rounds)
    ]
    note = f"expected run {ERT:,}, {len(reference)} reference rows, alibi-detect "
    note += alibi_peers.pinned("alibi-detect")
    theirs = np.array([1000 * a["row_ms"] for a in answers])
    setups = np.array([a["setup_s"] for a in answers])
    return [
        at_least(whats[0], "us", each, theirs, 1000.0, note),
        at_least(whats[1], "s", configured, setups, 20.0, f"window {WINDOW}, {10 * ERT:,} runs"),
    ]


def over_length(n_rounds: int, lengths: Sequence[int]) -> tuple[Row, dict[int, float]]:
    """What an event costs after so many, the median of batches around that place."""
    watches = learned()
    pool = [drawn(BATCH, SEED + 10 + k) for k in range(40)]
    taken = np.empty(lengths[-1] // BATCH)
    for n in range(len(taken)):
        rows, labels = pool[n % len(pool)]
        taken[n] = fed(watches, rows, labels)
        if n % 2000 == 0:
            progress(f"event {n * BATCH:,} of {lengths[-1]:,}")
    # As many batches for every length, spread over its second half.
    found = {}
    for length in lengths:
        last = length // BATCH
        at = np.linspace(last // 2, last - 1, min(last - last // 2, 40 * n_rounds)).astype(int)
        found[length] = float(np.median(taken[at])) / BATCH * 1e6
    least, most = min(found.values()), max(found.values())
    what = f"an event after {lengths[-1]:,}, after {lengths[0]:,}"
    row = Row(
        what,
        "us an event",
        found[lengths[-1]],
        found[lengths[0]],
        most / least,
        "within 1.1 over all lengths",
        most / least <= 1.1,
    )
    return row, found


def many_streams(n_streams: int, batch: int) -> dict[str, float]:
    """Memory and time of so many streams in this process: to be run in one of its own."""
    from detectors.watches.build import watch_from_snapshot  # noqa: PLC0415

    first = learned()
    states = [watch.snapshot() for watch in first]
    rows, labels = drawn(20 * BATCH, SEED + 5)
    alone = statistics.median(fed(first, rows, labels, batch) / len(rows) for _ in range(5)) * 1e6
    before = resident()
    streams = [[watch_from_snapshot(state) for state in states] for _ in range(n_streams)]
    times = []
    for turn in range(6):
        part = slice(turn * batch, (turn + 1) * batch)
        took = sum(fed(watches, rows[part], labels[part], batch) for watches in streams)
        times.append(took / (n_streams * batch) * 1e6)
    return {
        "alone_us": alone,
        "among_us": statistics.median(times[1:]),
        "mib": resident(),
        "mib_each": (resident() - before) / n_streams,
    }


def in_process(module: str, *arguments: object) -> dict[str, float]:
    """What a module answers in a process of its own, on one thread."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, check=True, text=True, env={**os.environ, **threads}
    )
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def streams_rows(n_streams: int) -> list[Row]:
    """One stream and many, in large batches and in small ones."""
    found = []
    for batch in (BATCH, 10):
        answer = in_process("benchmarks.banks", "--streams", n_streams, batch)
        ratio = answer["among_us"] / answer["alone_us"]
        what = f"an event among {n_streams:,} streams, of one alone, {batch} rows at a time"
        found.append(
            Row(
                what,
                "us an event",
                answer["among_us"],
                answer["alone_us"],
                ratio,
                "at most 1.5x",
                ratio <= 1.5,
            )
        )
    mib = answer["mib"]
    what = f"resident memory with the monitors of {n_streams:,} streams"
    found.append(
        Row(what, "MiB", mib, None, None, "at most 2,048 MiB", mib <= 2048, "stage 1 alone")
    )
    return found


def ready_rows(rounds: int) -> list[Row]:
    """What it takes until a monitor can read."""
    answers = [in_process("benchmarks.ready") for _ in range(rounds)]
    cpu = statistics.median(a["cpu_s"] for a in answers)
    mib = statistics.median(a["mib"] for a in answers)
    without = not any(a["tensorflow"] for a in answers)
    note = "without TensorFlow" if without else "TensorFlow was imported"
    return [
        Row(
            "a monitor is ready to read, from the start of Python",
            "processor s",
            cpu,
            None,
            None,
            "at most 1.5 s",
            cpu <= 1.5 and without,
            note,
        ),
        Row("resident memory then", "MiB", mib, None, None, "at most 172 MiB (180 MB)", mib <= 172),
    ]


def page(rows: Sequence[Row], found: dict[int, float], machine: dict[str, Any]) -> str:
    """The table for people."""
    lines = [
        "# Stage 1 beside the libraries people would use",
        "",
        "`python -m benchmarks.banks`; its figures for programs are in `banks.json`. Processor "
        f"time, medians of {machine['rounds']} rounds taken by turns in one run, after one that "
        f"does not count. {machine['processor']}, Python {machine['python']}, "
        f"river {machine['river']}, "
        f"numba {machine['numba']}.",
        "",
        markdown_table(
            ("what", "ours", "theirs", "ratio", "wanted", "met", ""),
            [
                (
                    row.what,
                    f"{digits(row.ours)} {row.unit}",
                    "" if row.theirs is None else digits(row.theirs),
                    "" if row.ratio is None else digits(row.ratio),
                    row.wanted,
                    {True: "yes", False: "**no**", None: "not measured"}[row.met],
                    row.note,
                )
                for row in rows
            ],
        ),
        "",
        "## What an event costs after many",
        "",
        markdown_table(
            ("events before it", "us"), [(f"{n:,}", f"{us:.2f}") for n, us in found.items()]
        ),
        "",
        "![How many times as fast as theirs](banks.png)",
        "",
    ]
    return "\n".join(lines)


def plot(rows: Sequence[Row]) -> Figure:
    """How many times as fast, beside what was wanted."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    shown = [r for r in rows if r.wanted.startswith("at least") and r.ratio is not None]
    figure = Figure(figsize=(8, 0.6 * len(shown) + 1.2))
    axes = figure.subplots()
    at = np.arange(len(shown))
    ratios = [r.ratio or 0.0 for r in shown]
    wanted = [float(r.wanted.removeprefix("at least ").removesuffix("x")) for r in shown]
    axes.barh(at, ratios, color="#4477aa", height=0.6)
    axes.plot(wanted, at, "|", color="black", markersize=22, markeredgewidth=2, label="wanted")
    for y, ratio in zip(at, ratios, strict=True):
        axes.annotate(f" {digits(ratio)}x", (ratio, y), va="center")
    axes.set_yticks(at, [r.what.replace(", ", ",\n", 1).replace("`", "") for r in shown])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(1, 6 * max(ratios))
    axes.set_xlabel("times as fast")
    axes.legend(loc="lower right")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure


def digits(number: float) -> str:
    """Three digits, and all of those before the point."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def progress(said: str) -> None:
    """Say on stderr how far it is."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {said}\n")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def main() -> None:
    """Measure, print the table or JSON, and write both beside a plot."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.banks", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--quick", action="store_true", help="fewer events; writes nothing")
    parser.add_argument("--streams", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.streams:
        sys.stdout.write(json.dumps(many_streams(*options.streams)) + "\n")
        return
    rounds = 5
    progress("ready to read")
    ready = ready_rows(rounds)
    progress("default monitors")
    rows = [monitors_against_adwin(rounds)]
    progress("joint monitor")
    rows += joint_against_mmd(1 if options.quick else rounds)
    progress("banks")
    rows += banks_against_river(rounds)
    progress("length")
    flat, found = over_length(rounds, LENGTHS[:2] if options.quick else LENGTHS)
    rows.append(flat)
    progress("streams")
    rows += [*streams_rows(50 if options.quick else N_STREAMS), *ready]
    machine = {
        "rounds": rounds,
        "processor": _processor(),
        "python": platform.python_version(),
        "river": version("river"),
        "numba": version("numba"),
    }
    figures = {
        **machine,
        "rows": [dataclasses.asdict(row) for row in rows],
        "us_by_length": {str(n): us for n, us in found.items()},
    }
    text = json.dumps(figures, indent=1)
    if not options.quick:
        FOLDER.mkdir(parents=True, exist_ok=True)
        (FOLDER / "banks.json").write_text(text + "\n", "utf-8")
        (FOLDER / "README.md").write_text(page(rows, found, machine), "utf-8")
        plot(rows).savefig(
            FOLDER / "banks.png", dpi=150, bbox_inches="tight", metadata={"Software": None}
        )
    sys.stdout.write((text if options.json else page(rows, found, machine)) + "\n")


if __name__ == "__main__":
    main()
