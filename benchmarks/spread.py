"""A stream over several partitions beside the same one in one: `python -m benchmarks.spread`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from benchmarks.report import MARKS, markdown_table, versions
from benchmarks.runner import Results, run_table, workers
from benchmarks.table import Summary
from benchmarks.tables.spread import TABLE

DEFAULT_OUT = Path("benchmarks/results/spread")


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; returns 1 if a trial failed or something is far off, 0 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spread", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, in about three minutes")
    parser.add_argument("--jobs", type=int, default=1, help="worker processes; 0 for none")
    parser.add_argument(
        "--minutes",
        type=float,
        default=float("inf"),
        help="begin no trial after so long, and report what has run",
    )
    parser.add_argument("--out", type=Path, help=f"folder of results (default {DEFAULT_OUT})")
    parser.add_argument("--fresh", action="store_true", help="forget the trials that have run")
    chosen = parser.parse_args(argv)
    out = chosen.out or Path(f"{DEFAULT_OUT}-quick" if chosen.quick else DEFAULT_OUT)
    file = out / "trials" / "spread.jsonl"
    if chosen.fresh:
        file.unlink(missing_ok=True)
    ends = time.monotonic() + 60 * chosen.minutes
    with workers(chosen.jobs) as pool:
        results = run_table(
            TABLE, file, pool, quick=chosen.quick, enough=lambda: time.monotonic() > ends
        )
    console = Console()
    for failure in results.failures:
        console.print(f"{failure.error} at {failure.trial}", markup=False)
    summary = TABLE.summarise(results.done)
    write(out, results, summary, quick=chosen.quick)
    console.print(summary.markdown, markup=False)
    return int(bool(results.failures) or any(target.far_off for target in summary.targets))


def write(out: Path, results: Results, summary: Summary, *, quick: bool) -> None:
    """Write `README.md` for people and `spread.json` for programs."""
    targets = markdown_table(
        ("promise", "wanted", "measured", "met"),
        [(t.what, t.wanted, t.measured, MARKS[t.met]) for t in summary.targets],
    )
    command = "python -m benchmarks.spread" + (" --quick" if quick else "")
    seeds = [trial["seed"] for trial, _ in results.done]
    cut = "" if len(results.done) == results.n_trials else f" of {results.n_trials}, at random"
    packages = ", ".join(f"{name} {number}" for name, number in versions().items())
    (out / "README.md").write_text(
        f"# {TABLE.title}\n\nWritten by `{command}`. No decision was taken on these seeds.\n\n"
        f"{summary.markdown}\n\n{targets}\n\n{len(results.done)} trials{cut}, seeds {min(seeds)} "
        f"to {max(seeds)}; {packages}.\n",
        "utf-8",
    )
    document = {
        "quick": quick,
        "n_trials": len(results.done),
        "of": results.n_trials,
        "versions": versions(),
        "targets": [asdict(target) for target in summary.targets],
        "figures": summary.figures,
    }
    text = json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False)
    (out / "spread.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
