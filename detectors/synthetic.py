"""Seeded streams of two classes whose shift is known: what tests and benchmarks measure against."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from detectors.base import Array, Factor, IntArray, Kind, Problem

Mask = npt.NDArray[np.bool_]
Family = Literal["linear", "nonlinear"]
Strength = Literal["moderate", "strong"]

ACTIVE = 5
"""Features that carry the signal and the shifts, at most; the others are correlated noise."""

CALIBRATION_ROWS = 20_000
"""Rows that set a base rate or an effect size: fixes either to within a hundredth."""


class Stream:
    """One synthetic problem before and after its shift.

    Features are correlated normals (0.3 to the power of their distance). What moves, and how, is
    drawn from the seed, so that no detector can be tuned to one shape:

    - covariate: a mean shift (0.5 or 1 sd), a wider spread of three features (1.35 or 1.8), or a
      new subpopulation (20 or 40 %);
    - prior: 0.5 to 0.65 or 0.8; with imbalance 0.12 to 0.22 or 0.35;
    - concept, X->Y: another direction, a flipped region or another intercept of P(Y|X), scaled to a
      mean absolute change of 0.10 or up to 0.25;
    - concept, Y->X: one or both class conditionals shifted (0.45 or 0.9 sd), widened (1.3 or 1.7),
      or replaced for a share of rows (18 or 35 %).

    Parameters
    ----------
    problem
        The causal direction.
    kind
        What moves: `none`, `concept`, `mixed`, and `covariate` (X->Y) or `prior` (Y->X).
    n_features
        At least 2.
    family
        Shape of P(Y|X), or of P(X|Y).
    imbalance
        True for P(Y=1) = 0.12 before the shift instead of 0.5.
    strength
        The smaller or the larger of the two sizes above.
    seed
        Fixes the problem and its rows.

    Attributes
    ----------
    factors
        The truth: the factors of the problem's factorisation that move.
    change
        How they move, for reports: for example ``"scale+flip"``; empty if nothing does.

    Raises
    ------
    ValueError
        If `kind` is not one that the problem can have, or `n_features` is below 2.

    Examples
    --------
    >>> stream = Stream(Problem.Y_TO_X, Kind.PRIOR, n_features=4, strength="strong", seed=0)
    >>> _, before = stream.draw(2000, shifted=False)
    >>> _, after = stream.draw(2000, shifted=True)
    >>> round(float(before.mean()), 1), round(float(after.mean()), 1)
    (0.5, 0.8)
    """

    def __init__(
        self,
        problem: Problem,
        kind: Kind,
        *,
        n_features: int = 8,
        family: Family = "linear",
        imbalance: bool = False,
        strength: Strength = "moderate",
        seed: int,
    ) -> None:
        moved = {
            Kind.NONE: frozenset[Factor](),
            Kind(problem.marginal.value): frozenset({problem.marginal}),
            Kind.CONCEPT: frozenset({Factor.CONCEPT}),
            Kind.MIXED: frozenset(problem.factors),
        }
        if kind not in moved:
            raise ValueError(f"a {problem} stream can move by {sorted(moved)}, got {kind}")
        if n_features < 2:
            raise ValueError(f"n_features must be at least 2, got {n_features}")
        self.factors = moved[kind]
        make = _XToY if problem is Problem.X_TO_Y else _YToX
        self._world: _XToY | _YToX = make(
            np.random.default_rng([seed, 0]), n_features, family, imbalance, strength == "strong"
        )
        self._rng = np.random.default_rng([seed, 1])
        changes = {
            problem.marginal: self._world.marginal_change,
            Factor.CONCEPT: self._world.change,
        }
        self.change = "+".join(changes[f] for f in problem.factors if f in self.factors)

    def draw(self, n: int, *, shifted: bool) -> tuple[Array, IntArray]:
        """The stream's next n rows, features (n, d) and labels (n,), before or after the shift."""
        return self._world.draw(self._rng, n, self.factors if shifted else frozenset())


def _sigmoid(x: Array) -> Array:
    p: Array = 1 / (1 + np.exp(-x))
    return p


class _Features:
    """Correlated normals and unit vectors in their first few directions."""

    def __init__(self, rng: np.random.Generator, n_features: int) -> None:
        distance = np.abs(np.subtract.outer(np.arange(n_features), np.arange(n_features)))
        self.n_features = n_features
        self.root: Array = np.linalg.cholesky(np.power(0.3, distance, dtype=np.float64))
        self._rng = rng

    def draw(self, rng: np.random.Generator, n: int) -> Array:
        x: Array = rng.normal(size=(n, self.n_features)) @ self.root.T
        return x

    def vector(self) -> Array:
        """A random unit vector in the active features."""
        v = self._rng.normal(size=self.n_features)
        v[ACTIVE:] = 0.0
        unit: Array = v / np.linalg.norm(v)
        return unit

    def direction(self) -> Array:
        """A random vector in the active features along which the features have variance 1."""
        v = self.vector()
        scaled: Array = v / np.linalg.norm(v @ self.root)
        return scaled


class _XToY:
    """Features first, then P(Y=1|X)."""

    def __init__(
        self,
        rng: np.random.Generator,
        n_features: int,
        family: Family,
        imbalance: bool,
        strong: bool,
    ) -> None:
        self.marginal_change = str(rng.choice(["mean", "scale", "subpopulation"]))
        self.change = str(rng.choice(["rotate", "flip", "intercept"]))
        self._strong, self._linear = strong, family == "linear"
        self._features = _Features(rng, n_features)
        self._old, self._new = self._features.direction(), self._features.direction()
        self._shift = self._features.vector()
        x = self._features.draw(rng, CALIBRATION_ROWS)
        self._intercept = _intercept(self._logit(x), 0.12 if imbalance else 0.5)
        change = float(np.abs(self._changed(x) - self._before(x)).mean())
        self._share = min(1.0, (0.25 if strong else 0.10) / change)

    def draw(
        self, rng: np.random.Generator, n: int, moved: frozenset[Factor]
    ) -> tuple[Array, IntArray]:
        x = self._features.draw(rng, n)
        if Factor.COVARIATE in moved:
            x = self._moved(rng, x)
        p = self._before(x)
        if Factor.CONCEPT in moved:
            p = p + self._share * (self._changed(x) - p)
        return x, (rng.random(n) < p).astype(np.int64)

    def _moved(self, rng: np.random.Generator, x: Array) -> Array:
        if self.marginal_change == "mean":
            return x + (1.0 if self._strong else 0.5) * self._shift
        if self.marginal_change == "scale":
            return _scaled(x, np.ones(len(x), bool), 1.8 if self._strong else 1.35)
        new = rng.random(len(x)) < (0.4 if self._strong else 0.2)
        return np.where(new[:, None], 0.5 * rng.normal(size=x.shape) + 1.5 * self._shift, x)

    def _logit(self, x: Array, direction: Array | None = None) -> Array:
        linear: Array = x @ (self._old if direction is None else direction)
        if self._linear:
            return 2.2 * linear
        a, b = x[:, 0], x[:, 1]
        curved: Array = 1.6 * (np.sin(1.7 * a) + 0.8 * (b**2 - 1) - 0.7 * a * b) + 0.8 * linear
        return curved

    def _before(self, x: Array) -> Array:
        return _sigmoid(self._logit(x) + self._intercept)

    def _changed(self, x: Array) -> Array:
        """P(Y=1|X) if the whole change came through."""
        if self.change == "rotate":
            turned = self._logit(x, self._new) if self._linear else self._logit(x[:, ::-1])
            return _sigmoid(turned + self._intercept)
        if self.change == "intercept":
            return _sigmoid(self._logit(x) + self._intercept + 2.5)
        before = self._before(x)
        return np.where(x @ self._new > 0.3, 1 - before, before)


class _YToX:
    """Classes first, then P(X|Y)."""

    def __init__(
        self,
        rng: np.random.Generator,
        n_features: int,
        family: Family,
        imbalance: bool,
        strong: bool,
    ) -> None:
        self.marginal_change = "prior"
        self.change = str(rng.choice(["mean", "scale", "replace"]))
        self._changed_class = int(rng.integers(3))  # 2: both
        self._strong, self._linear = strong, family == "linear"
        self._features = _Features(rng, n_features)
        self._between, self._shift = 2.0 * self._features.vector(), self._features.vector()
        weak, much = (0.22, 0.35) if imbalance else (0.65, 0.8)
        self._prior, self._moved_prior = 0.12 if imbalance else 0.5, much if strong else weak

    def draw(
        self, rng: np.random.Generator, n: int, moved: frozenset[Factor]
    ) -> tuple[Array, IntArray]:
        prior = self._moved_prior if Factor.PRIOR in moved else self._prior
        y = (rng.random(n) < prior).astype(np.int64)
        x = self._features.draw(rng, n)
        if self._linear:
            x += np.where(y == 1, 0.5, -0.5)[:, None] * self._between
        else:
            side = np.where(rng.random(n) < 0.5, 1.5, -1.5)
            x[:, 0] += side
            x[:, 1] += np.where(y == 1, side, -side)
        if Factor.CONCEPT in moved:
            x = self._moved(rng, x, (y == self._changed_class) | (self._changed_class == 2))
        return x, y

    def _moved(self, rng: np.random.Generator, x: Array, rows: Mask) -> Array:
        if self.change == "mean":
            return x + (0.9 if self._strong else 0.45) * rows[:, None] * self._shift
        if self.change == "scale":
            return _scaled(x, rows, 1.7 if self._strong else 1.3)
        replaced = rows & (rng.random(len(x)) < (0.35 if self._strong else 0.18))
        return np.where(replaced[:, None], 0.5 * rng.normal(size=x.shape) + 1.8 * self._shift, x)


def _scaled(x: Array, rows: Mask, factor: float) -> Array:
    """The first three features of some rows, stretched."""
    stretched = x.copy()
    stretched[:, :3] = np.where(rows[:, None], factor * x[:, :3], x[:, :3])
    return stretched


def _intercept(logit: Array, rate: float) -> float:
    """What to add so that the mean probability is `rate`, by bisection."""
    low, high = -10.0, 10.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if _sigmoid(logit + middle).mean() < rate else (low, middle)
    return low
