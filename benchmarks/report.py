"""Writes what the tables say: a page and plots for each, one file for programs, one for people."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.runner import Results
from benchmarks.table import Summary, Table, Target

PACKAGES = ("numpy", "scipy", "scikit-learn", "river")
TUNED = (
    "No constant was fitted to these seeds. Earlier runs, on seeds from 1000 to 6999 that the "
    "attribution, the streams and the false alarms use no more, decided that the test of P(Y|X) "
    "keeps half of alpha, and how often stage 1 may alarm. The settings of the real streams, of "
    "which there is one each, were chosen with them in view."
)
MARKS = {True: "yes", False: "**no**", None: "too few trials"}


class Report:
    """The result files of a folder.

    A table that does not run keeps what an earlier run wrote of it.

    Parameters
    ----------
    folder
        Where `verdict.json`, `README.md` and each table's page and plots are.
    quick
        Whether the trials are the few of a quick run.
    """

    def __init__(self, folder: Path, *, quick: bool) -> None:
        self.folder = folder
        self._quick = quick
        self._file = folder / "verdict.json"
        known = json.loads(self._file.read_text("utf-8")) if self._file.exists() else {}
        self._tables: dict[str, dict[str, Any]] = known.get("tables", {})
        self._missing: dict[str, str] = known.get("missing", {})

    def add(self, table: Table, results: Results, summary: Summary) -> None:
        """Write a table's page and plots, and note its figures."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for stem, figure in summary.plots.items():
            # Without the date and the version, so that equal plots are equal files.
            figure.savefig(
                self.folder / f"{stem}.png",
                dpi=150,
                bbox_inches="tight",
                metadata={"Software": None},
            )
        seeds = [trial["seed"] for trial, _ in results.done if "seed" in trial]
        self._missing.pop(table.name, None)
        self._tables[table.name] = {
            "title": table.title,
            "n_trials": len(results.done),
            "of": results.n_trials,
            "failures": [dataclasses.asdict(failure) for failure in results.failures],
            "seeds": [min(seeds), max(seeds)] if seeds else None,
            "versions": versions(),
            "targets": [dataclasses.asdict(target) for target in summary.targets],
            "figures": summary.figures,
            "plots": list(summary.plots),
        }
        page = self._page(self._tables[table.name], summary.markdown)
        (self.folder / f"{table.name}.md").write_text(f"# {table.title}\n\n{page}", "utf-8")

    def skip(self, table: str, why: str) -> None:
        """Note that a table cannot run here."""
        self._missing[table] = why

    def write(self, order: Sequence[str]) -> None:
        """Write `verdict.json` and `README.md`, with the tables in this order."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tables = {name: self._tables[name] for name in order if name in self._tables}
        missing = {name: why for name, why in self._missing.items() if name not in tables}
        document = {"quick": self._quick, "tables": tables, "missing": missing}
        text = json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False)
        self._file.write_text(text + "\n", "utf-8")
        (self.folder / "README.md").write_text(self._readme(tables, missing), "utf-8")

    def _readme(self, tables: dict[str, dict[str, Any]], missing: dict[str, str]) -> str:
        lines = ["# What Shiftwatch promises, and what was measured", ""]
        command = "python -m benchmarks.verdict" + (" --quick" if self._quick else "")
        lines += [f"Written by `{command}`. {TUNED}", ""]
        if self._quick:
            lines += [
                "**A quick run: so few trials show whether something is broken, no more.**",
                "",
            ]
        rows = [
            (entry["title"], *_cells(Target(**target)))
            for entry in tables.values()
            for target in entry["targets"]
        ]
        lines += [markdown_table(("table", "promise", "wanted", "measured", "met"), rows), ""]
        for name, entry in tables.items():
            page = (self.folder / f"{name}.md").read_text("utf-8")
            lines += [f"## {entry['title']}", "", page.partition("\n\n")[2]]
        if missing:
            lines += ["## Not run", ""]
            lines += [f"- `{name}`: {why}" for name, why in missing.items()] + [""]
        return "\n".join(lines)

    @staticmethod
    def _page(entry: dict[str, Any], markdown: str) -> str:
        parts = [markdown.strip()]
        parts += [f"![{entry['title']}]({stem}.png)" for stem in entry["plots"]]
        seeds = entry["seeds"]
        cut = "" if entry["n_trials"] == entry["of"] else f" of {entry['of']:,}, chosen at random"
        parts.append(
            f"{entry['n_trials']:,} trials{cut}"
            + (f", seeds {seeds[0]} to {seeds[1]}" if seeds else "")
            + "; "
            + ", ".join(f"{name} {number}" for name, number in entry["versions"].items())
            + "."
        )
        if entry["failures"]:
            failures = [
                f"- `{f['error']}` at `{json.dumps(f['trial'])}`" for f in entry["failures"]
            ]
            parts.append("\n".join(["**Trials that failed:**", "", *failures]))
        return "\n\n".join(parts) + "\n"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; bars inside cells are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def versions() -> dict[str, str]:
    """Versions of Python and the packages that the figures depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _cells(target: Target) -> tuple[str, str, str, str]:
    met = MARKS[target.met] + (" (far off)" if target.far_off else "")
    return target.what, target.wanted, target.measured, met
