"""Time lines of streams: what is known to have changed, and what was confirmed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

COLOURS = {
    "covariate": "tab:blue",
    "prior": "tab:orange",
    "concept": "tab:red",
    "mixed": "tab:purple",
    "undetermined": "0.35",
    "return": "tab:green",
}
"""Of what is true and of what was said."""


@dataclass(frozen=True, slots=True)
class Lane:
    """One stream's time line, in rows.

    Attributes
    ----------
    title
        The stream.
    n_rows
        Its length.
    changes
        Of each known change the first row, the first row of the new regime, and what moves.
    references
        First row of each reference window, and the row behind it.
    confirmed
        Of each confirmed incident the rows where it was opened and confirmed, and its verdict.
    dismissed
        Rows where suspicions were opened that were dismissed.
    resolved
        Rows where incidents were resolved because the stream was as its reference again.
    """

    title: str
    n_rows: int
    changes: Sequence[tuple[int, int, str]]
    references: Sequence[tuple[int, int]]
    confirmed: Sequence[tuple[int, int, str]]
    dismissed: Sequence[int]
    resolved: Sequence[int]


def timelines(lanes: Sequence[Lane]) -> Figure:
    """One line a stream, on one axis of rows."""
    figure = Figure(figsize=(9, 0.55 * len(lanes) + 1.3), layout="constrained")
    axes = figure.subplots()
    for number, lane in enumerate(lanes):
        _draw(axes, len(lanes) - 1 - number, lane)
    axes.set_yticks(range(len(lanes)), [lane.title for lane in reversed(lanes)], size=8)
    axes.set_ylim(-0.6, len(lanes) - 0.4)
    axes.set_xlim(0, max(lane.n_rows for lane in lanes) * 1.01)
    axes.set_xlabel("row")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.legend(
        handles=_legend(lanes), loc="outside upper center", ncols=8, frameon=False, fontsize=8
    )
    return figure


def _draw(axes: Axes, y: int, lane: Lane) -> None:
    axes.hlines(y, 0, lane.n_rows, color="0.85", linewidth=1, zorder=1)
    for start, end in lane.references:
        axes.hlines(y, start, min(end, lane.n_rows), color="0.75", linewidth=6, zorder=1)
    for start, end, kind in lane.changes:
        colour = COLOURS[kind]
        if end > start:
            axes.fill_betweenx([y - 0.4, y + 0.4], start, end, color=colour, alpha=0.3, linewidth=0)
        else:
            axes.vlines(start, y - 0.4, y + 0.4, color=colour, linewidth=1.5, zorder=2)
    axes.plot(lane.dismissed, [y] * len(lane.dismissed), "x", color="0.45", ms=4, zorder=3)
    for opened, confirmed, kind in lane.confirmed:
        axes.hlines(y, opened, confirmed, color=COLOURS[kind], linewidth=2, zorder=3)
        axes.plot(confirmed, y, "o", color=COLOURS[kind], ms=7, zorder=4)
    axes.plot(
        lane.resolved, [y] * len(lane.resolved), "o", mfc="white", mec="tab:green", ms=7, zorder=4
    )


def _legend(lanes: Sequence[Lane]) -> list[Line2D | Patch]:
    """What occurs, and no more."""
    changes = [change for lane in lanes for change in lane.changes]
    said = {kind for lane in lanes for *_, kind in lane.confirmed}
    kinds = said | {kind for *_, kind in changes}
    shown: list[Line2D | Patch] = [Line2D([], [], color="0.75", linewidth=6, label="reference")]
    if any(end == start for start, end, _ in changes):
        shown.append(
            Line2D([], [], color="black", marker="|", ms=10, mew=1.5, ls="", label="known change")
        )
    if any(end > start for start, end, _ in changes):
        shown.append(Patch(color="black", alpha=0.3, linewidth=0, label="known gradual change"))
    shown.append(Line2D([], [], color="black", marker="o", ms=7, lw=2, label="confirmed"))
    if any(lane.resolved for lane in lanes):
        shown.append(
            Line2D([], [], mfc="white", mec="tab:green", marker="o", ms=7, ls="", label="resolved")
        )
    if any(lane.dismissed for lane in lanes):
        shown.append(Line2D([], [], color="0.45", marker="x", ms=4, ls="", label="dismissed"))
    shown += [Patch(color=colour, label=kind) for kind, colour in COLOURS.items() if kind in kinds]
    return shown
