"""What was said against what is true: counts, scores and heat maps."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.report import markdown_table
from detectors.base import Array, Factor, IntArray, Problem

UNDETERMINED = "undetermined"
N_TRUTHS = 4

Pair = tuple[str, str]


def outcomes(problem: Problem) -> tuple[str, str, str, str]:
    """The names of what can be true of a problem."""
    return "none", str(problem.marginal), str(Factor.CONCEPT), "both"


def name_of(factors: Collection[str], problem: Problem) -> str:
    """The outcome that a set of factors is."""
    if len(factors) == 2:
        return "both"
    return next(iter(factors), outcomes(problem)[0])


def arrow(problem: Problem) -> str:
    """The problem as people write it."""
    return "X→Y" if problem is Problem.X_TO_Y else "Y→X"


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts of claims by truth.

    Attributes
    ----------
    problem
        Names the outcomes.
    counts
        Shape (4, 5): rows are the truths as `outcomes` orders them, columns the same and, last,
        undetermined.
    """

    problem: Problem
    counts: IntArray

    @classmethod
    def of(cls, problem: Problem, pairs: Iterable[Pair]) -> Confusion:
        """Count pairs of truth and claim.

        Raises
        ------
        ValueError
            If a pair has a name that the problem does not know.
        """
        names = (*outcomes(problem), UNDETERMINED)
        counts = np.zeros((N_TRUTHS, N_TRUTHS + 1), np.int64)
        for truth, claim in pairs:
            if truth not in names[:-1] or claim not in names:
                raise ValueError(f"{problem} knows {names}, got {truth!r} and {claim!r}")
            counts[names.index(truth), names.index(claim)] += 1
        return cls(problem, counts)

    @property
    def n(self) -> int:
        """All pairs."""
        return int(self.counts.sum())

    @property
    def right(self) -> int:
        """Claims that are the truth."""
        return int(np.trace(self.counts))

    @property
    def abstentions(self) -> int:
        """Claims that name nothing because the evidence does not allow it."""
        return int(self.counts[:, -1].sum())

    @property
    def macro_f1(self) -> float:
        """Mean of the truths' F1; undetermined is a miss of the truth and claims nothing."""
        return float(_macro_f1(self.counts[None])[0])

    def macro_f1_interval(self, *, n_draws: int = 2000, seed: int = 0) -> tuple[float, float]:
        """95 % bootstrap interval of `macro_f1`; trials are drawn again inside each truth."""
        rng = np.random.default_rng(seed)
        rows = [rng.multinomial(n, _shares(row), n_draws) for n, row in self._rows()]
        drawn = _macro_f1(np.stack(rows, axis=1))
        low, high = np.quantile(drawn, [0.025, 0.975])
        return float(low), float(high)

    def false_claims(self, factor: Factor) -> tuple[int, int]:
        """Claims of a factor that did not move, and the trials in which it did not."""
        own = 2 if factor is Factor.CONCEPT else 1
        still = [0, 3 - own]
        return int(self.counts[still][:, [own, 3]].sum()), int(self.counts[still].sum())

    def to_json(self) -> dict[str, Any]:
        """Counts and scores for programs."""
        false = {str(f): list(self.false_claims(f)) for f in self.problem.factors}
        return {
            "truths": list(outcomes(self.problem)),
            "counts": self.counts.tolist(),
            "macro_f1": round(self.macro_f1, 4),
            "macro_f1_interval": [round(v, 4) for v in self.macro_f1_interval()],
            "false_claims": false,
            "abstentions": self.abstentions,
        }

    def markdown(self) -> str:
        """The counts as a table, the right ones in bold."""
        names = outcomes(self.problem)
        rows = [
            [name, *(f"**{n}**" if i == j else n for j, n in enumerate(row))]
            for i, (name, row) in enumerate(zip(names, self.counts.tolist(), strict=True))
        ]
        return markdown_table(("truth \\ verdict", *names, UNDETERMINED), rows)

    def _rows(self) -> list[tuple[int, IntArray]]:
        return [(int(row.sum()), row) for row in self.counts]


def _shares(row: IntArray) -> Array:
    total = row.sum()
    shares: Array = row / total if total else np.eye(len(row))[0]
    return shares


def _macro_f1(counts: IntArray) -> Array:
    """Of each matrix, shape (b, 4, 5); truths without a trial do not count."""
    right = np.diagonal(counts[:, :, :N_TRUTHS], axis1=1, axis2=2)
    truths, claims = counts.sum(axis=2), counts[:, :, :N_TRUTHS].sum(axis=1)
    f1 = 2 * right / np.maximum(truths + claims, 1)
    asked = truths > 0
    mean: Array = (f1 * asked).sum(axis=1) / np.maximum(asked.sum(axis=1), 1)
    return mean


def heat_maps(panels: Sequence[Sequence[tuple[str, Confusion] | None]]) -> Figure:
    """A grid of confusion matrices: right verdicts green, wrong ones red, by the truth's share."""
    n_rows, n_columns = len(panels), max(map(len, panels))
    figure = Figure(figsize=(3.5 * n_columns, 3.0 * n_rows), layout="constrained")
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    for axes_row, row in zip(grid, panels, strict=True):
        for number, axes in enumerate(axes_row):
            panel = row[number] if number < len(row) else None
            if panel is None:
                axes.axis("off")
            else:
                _heat_map(axes, *panel)
    return figure


def _heat_map(axes: Axes, title: str, confusion: Confusion) -> None:
    names = outcomes(confusion.problem)
    counts = confusion.counts
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # Roots, because one wrong verdict in forty has to be seen.
    wrong, right = colormaps["Reds"](0.8 * np.sqrt(shares)), colormaps["Greens"](0.75 * shares)
    diagonal = np.eye(*counts.shape) == 1
    colours = np.where(diagonal[:, :, None], right, wrong)
    colours[counts == 0] = (0.96, 0.96, 0.96, 1.0)
    axes.imshow(colours, aspect="auto")
    for i, j in np.ndindex(*counts.shape):
        strong = shares[i, j] > (0.6 if i == j else 0.35)
        axes.text(
            j,
            i,
            str(counts[i, j]) if counts[i, j] else "·",
            ha="center",
            va="center",
            color="white" if strong else ("0.15" if counts[i, j] else "0.75"),
            fontsize=10,
            fontweight="bold" if i == j else "normal",
        )
    axes.set_xticks(range(N_TRUTHS + 1), [*names, "?"], fontsize=7.5)
    axes.set_yticks(range(N_TRUTHS), names, fontsize=7.5)
    axes.set_xticks(np.arange(0.5, N_TRUTHS), minor=True)
    axes.set_yticks(np.arange(0.5, N_TRUTHS - 1), minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("verdict", fontsize=7.5, color="0.4")
    axes.set_ylabel("truth", fontsize=7.5, color="0.4")
    axes.set_title(f"{title}\nmacro-F1 {confusion.macro_f1:.3f}", fontsize=9)
