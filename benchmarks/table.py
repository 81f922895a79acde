"""What a table of the benchmark is: seeded trials, what each gives, and what they say together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Trial = dict[str, Any]
"""Parameters of one trial, `seed` among them; JSON values only."""
Outcome = dict[str, Any]
"""What one trial gave; JSON values only."""


@dataclass(frozen=True, slots=True)
class Target:
    """A promise and what was measured.

    Attributes
    ----------
    what
        The promise in words, with its unit.
    wanted
        The bound in words, such as ``">= 0.97"``.
    measured
        What was measured, with its interval where it has one.
    met
        Whether the bound holds; None where too few trials ran to say so.
    far_off
        Whether what was measured is so far from the bound that a handful of trials shows it:
        something is broken. It makes the benchmark fail, which an unmet promise does not.
    """

    what: str
    wanted: str
    measured: str
    met: bool | None
    far_off: bool = False


@dataclass(frozen=True, slots=True)
class Summary:
    """What a table's trials say together.

    Attributes
    ----------
    markdown
        The tables for people.
    figures
        The same for programs; JSON values only.
    targets
        The promises that the table measures.
    plots
        Figures by file stem.
    """

    markdown: str
    figures: dict[str, Any]
    targets: Sequence[Target] = ()
    plots: dict[str, Figure] = field(default_factory=dict)


class Table(Protocol):
    """One table. `run` is a pure function of the trial, so results can be kept and gone on from."""

    @property
    def name(self) -> str:
        """Word on the command line and stem of the result files."""
        ...

    @property
    def title(self) -> str:
        """Heading of the table."""
        ...

    def missing(self) -> str:
        """Why the table cannot run here, such as data that is absent; empty if it can."""
        ...

    def trials(self, *, quick: bool) -> list[Trial]:
        """The trials; with `quick` those few that give the same tables in a minute."""
        ...

    def run(self, trial: Trial) -> Outcome:
        """Run one trial."""
        ...

    def summarise(self, results: Sequence[tuple[Trial, Outcome]]) -> Summary:
        """Summarise the trials that have run, in any order."""
        ...
