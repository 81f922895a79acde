"""The words of the field as types, and the contract every detector keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

State = dict[str, Any]
"""What a detector needs to go on: numpy arrays, numbers, strings, None, and lists and dicts of
these. Never an object that only pickle could store."""


class Factor(StrEnum):
    """A factor of the joint distribution that can move, under its usual name."""

    COVARIATE = "covariate"
    """P(X), in X->Y problems."""
    PRIOR = "prior"
    """P(Y), in Y->X problems."""
    CONCEPT = "concept"
    """P(Y|X) in X->Y problems, P(X|Y) in Y->X problems."""


class Problem(StrEnum):
    """The causal direction, which picks the two hypotheses that are tested."""

    X_TO_Y = "x_to_y"
    Y_TO_X = "y_to_x"

    @property
    def marginal(self) -> Factor:
        """The cause's own distribution: P(X) for X->Y, P(Y) for Y->X."""
        return Factor.COVARIATE if self is Problem.X_TO_Y else Factor.PRIOR

    @property
    def factors(self) -> tuple[Factor, Factor]:
        """The marginal and the conditional factor of this direction."""
        return self.marginal, Factor.CONCEPT


class Kind(StrEnum):
    """The name of a verdict."""

    NONE = "none"
    COVARIATE = "covariate"
    PRIOR = "prior"
    CONCEPT = "concept"
    MIXED = "mixed"
    UNDETERMINED = "undetermined"


@dataclass(frozen=True, slots=True)
class Alarm:
    """What an online detector raises; the alarm knows its row.

    Attributes
    ----------
    detector
        The detector's name.
    factor
        The factor whose monitor raised it: a hint, not a verdict.
    row
        Row of the batch, from 0.
    statistic, threshold
        The value that crossed and the limit it crossed, in the detector's unit.
    run_length
        Rows since the change began, by the detector's own estimate; at least 1.
    columns
        The columns that moved, strongest first; may be empty.
    """

    detector: str
    factor: Factor
    row: int
    statistic: float
    threshold: float
    run_length: int
    columns: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Evidence:
    """One test of one factor.

    Attributes
    ----------
    test
        Name of the test.
    factor
        The factor whose "nothing moved" hypothesis was tested.
    statistic
        The test's statistic; larger is more extreme.
    p_value
        In (0, 1]; None where the data could not carry the test (`note` says why).
    effect
        Size of the change on a scale that does not grow with the sample (each test says which).
    n_reference, n_recent
        Rows that the test used.
    note
        Why a test could not run, or what limits it; empty otherwise.
    effect_low, effect_high
        The effect's 95 % interval; None where there was no test.
    hopeless
        There was no test, and more rows like these would not allow one.
    """

    test: str
    factor: Factor
    statistic: float
    p_value: float | None
    effect: float
    n_reference: int
    n_recent: int
    note: str = ""
    effect_low: float | None = None
    effect_high: float | None = None
    hopeless: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of the confirm stage.

    Attributes
    ----------
    kind
        The name of what moved.
    factors
        The factors that moved; for `undetermined`, those that remain possible.
    evidence
        The tests behind it.
    contributions
        Share of the change by column name; non-negative, sums to 1 or is empty.
    """

    kind: Kind
    factors: frozenset[Factor]
    evidence: tuple[Evidence, ...]
    contributions: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable
class Detector(Protocol):
    """An online algorithm: bounded memory, deterministic given its seed.

    Results never depend on how a stream is cut into batches.
    """

    def update(self, batch: Array, /) -> Sequence[Alarm]:
        """Take rows in order, shape (n, d); return the alarms they raised, in row order."""
        ...

    def snapshot(self) -> State:
        """Everything needed to go on: arrays and scalars, copied."""
        ...

    def restore(self, state: State, /) -> None:
        """Go on from a snapshot of an equally configured detector."""
        ...
