"""The benchmark of what Shiftwatch claims: `python -m benchmarks.verdict`."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
import time
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from benchmarks.report import MARKS, Report
from benchmarks.runner import Workers, run_table, workers
from benchmarks.table import Summary, Table

NAMES = (
    "attribution",
    "end_to_end",
    "alibi",
    "raza",
    "injected",
    "real_streams",
    "drift_free",
    "cost",
)
"""The tables, in the order of the report."""

DEFAULT_OUT = Path("benchmarks/results/verdict")
INTERRUPTED = 130
"""What a shell reports of a command that Ctrl-C ended."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns 1 if a trial failed or something is far off, 0 otherwise.

    A promise that is missed by less is reported and changes nothing: how far off counts as broken
    stands in each table.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verdict", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few seeds, in about five minutes")
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="NAME", help="these tables")
    parser.add_argument("--jobs", type=int, default=1, help="worker processes; 0 for none")
    parser.add_argument(
        "--minutes",
        type=float,
        default=float("inf"),
        help="begin no trial of a table after so long, and report what has run",
    )
    parser.add_argument("--out", type=Path, help=f"folder of results (default {DEFAULT_OUT})")
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="forget the trials that have run, as is needed after the code has changed",
    )
    chosen = parser.parse_args(argv)
    out = chosen.out or Path(f"{DEFAULT_OUT}-quick" if chosen.quick else DEFAULT_OUT)
    tables = {name: load(name) for name in chosen.only or NAMES}
    console = Console()
    try:
        with workers(chosen.jobs) as pool:
            return run(
                tables,
                out,
                pool,
                quick=chosen.quick,
                fresh=chosen.fresh,
                minutes=chosen.minutes,
                console=console,
            )
    except KeyboardInterrupt:
        console.print("Stopped. What has run is kept: the same command goes on from there.")
        return INTERRUPTED
    except BrokenExecutor as error:
        console.print(f"A worker process died: {error} The same command goes on from there.")
        return 1


def load(name: str) -> Table | None:
    """The table of a name; None if this version does not have it."""
    module = f"benchmarks.tables.{name}"
    if importlib.util.find_spec(module) is None:
        return None
    table: Table = importlib.import_module(module).TABLE
    return table


def run(
    tables: dict[str, Table | None],
    out: Path,
    pool: Workers,
    *,
    quick: bool,
    fresh: bool,
    minutes: float = float("inf"),
    console: Console,
) -> int:
    """Run tables one after the other, and write the report after each."""
    report = Report(out, quick=quick)
    broken = False
    for name, table in tables.items():
        why = "not part of this version" if table is None else table.missing()
        if table is not None and not table.trials(quick=quick):
            why = "takes hours, and is no part of a quick run"
        if table is None or why:
            report.skip(name, why)
            report.write(NAMES)
            console.print(f"{name}: not run, {why}")
            continue
        file = out / "trials" / f"{name}.jsonl"
        if fresh:
            file.unlink(missing_ok=True)
        ends = time.monotonic() + 60 * minutes
        with _progress(console) as progress:
            task = progress.add_task(name, total=None)
            results = run_table(
                table,
                file,
                pool,
                quick=quick,
                progress=lambda done, of: progress.update(task, completed=done, total=of),  # noqa: B023
                enough=lambda: time.monotonic() > ends,  # noqa: B023
            )
        for failure in results.failures:
            console.print(f"{name}: {failure.error} at {failure.trial}", markup=False)
        if results.done:
            summary = table.summarise(results.done)
            report.add(table, results, summary)
            report.write(NAMES)
            _show(name, summary, console)
            broken |= any(target.far_off for target in summary.targets)
        broken |= bool(results.failures)
    console.print(f"The report: {out / 'README.md'}", markup=False)
    return int(broken)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:>14}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("remaining"),
        TimeRemainingColumn(),
        console=console,
    )


def _show(name: str, summary: Summary, console: Console) -> None:
    for target in summary.targets:
        line = f"{name}: {target.what}: {target.measured} (wanted {target.wanted}), met: "
        console.print(line + MARKS[target.met].strip("*"), markup=False)


if __name__ == "__main__":
    sys.exit(main())
