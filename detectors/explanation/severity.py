"""Where a rise of the loss comes from: known inputs, a changed rule, or new inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from detectors.base import Array, IntArray
from detectors.learners.features import principal, standardise
from detectors.learners.folds import out_of_fold
from detectors.learners.nuisance import cross_fit, make_folds

__all__ = ["Severity", "Term", "decompose_loss"]

N_FOLDS = 3

N_NEIGHBOURS = 5
"""The distance to the fifth neighbour: that to the first depends on single odd rows."""

INSIDE = 0.98
"""Share of the reference's rows that count as inside of it."""

QUANTILE = 1.96
"""Normal quantile of a 95 % interval."""


@dataclass(frozen=True, slots=True)
class Term:
    """A part of the loss's change and its 95 % interval, in the loss's unit."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Severity:
    """The change of the mean loss in three parts.

    Attributes
    ----------
    shared
        From other frequencies of inputs that both windows have; negative where the recent window
        has more of the easy ones.
    concept
        From another P(Y|X) at those inputs.
    new
        From inputs that the reference has rarely or never.
    overlap
        In [0, 1]: 1 where P(X) is the same, 0 where every row tells its window. Near 0 the parts
        rest on few rows.
    outside
        Share of the recent rows that are farther from the reference than 98 % of its rows are from
        the others; about 0.02 where P(X) is the same.
    n_reference, n_recent
        Rows that were used.
    """

    shared: Term
    concept: Term
    new: Term
    overlap: float
    outside: float
    n_reference: int
    n_recent: int

    @property
    def total(self) -> float:
        """Mean loss of the recent window minus that of the reference: the sum of the parts."""
        return self.shared.value + self.concept.value + self.new.value


def decompose_loss(
    reference: Array, reference_loss: Array, recent: Array, recent_loss: Array, *, seed: int
) -> Severity:
    """Decompose the change of a model's mean loss by what caused it (DISDE [1]_).

    The windows' shared inputs S have a density proportional to p q / (a q + (1 - a) p), with p and
    q the densities of the windows and a the share of recent rows. With R the mean loss given x in
    a window, the parts are E_S[R_p] - E_p[R_p], E_S[R_q - R_p] and E_q[R_q] - E_S[R_q]. Means over
    S weigh reference rows by e and recent rows by 1 - e, where e = P(recent | x) is fitted on other
    rows; as a loss m(x) fitted on both windows is taken off first, an error of e or of m alone
    does not look like concept drift.

    Parameters
    ----------
    reference, recent
        Rows, shapes (n, d) and (m, d); at least 15 each.
    reference_loss, recent_loss
        Loss of one fixed model on each row, shapes (n,) and (m,), finite. The model must not have
        been trained on these rows.
    seed
        Chooses the folds.

    Returns
    -------
    Severity
        Its three values sum to the difference of the mean losses; the intervals are asymptotic,
        from influence functions.

    Raises
    ------
    ValueError
        If shapes do not fit, a loss is not finite, or a window is too small.

    References
    ----------
    .. [1] T. Cai, H. Namkoong, S. Yadlowsky (2023). Diagnosing model performance under distribution
       shift. arXiv 2303.02011.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> def window(shift, rule):  # a model that says "x > 0"
    ...     x = rng.normal(shift, 1.0, size=(600, 2))
    ...     y = rng.random(600) < 1 / (1 + np.exp(-rule * x[:, 0]))
    ...     return x, ((x[:, 0] > 0) != y).astype(float)
    >>> found = decompose_loss(*window(0.0, 3.0), *window(0.5, -1.0), seed=1)
    >>> found.concept.low > 0.3, found.new.low < 0.1
    (True, True)
    """
    _check(reference, reference_loss, recent, recent_loss)
    rows = np.concatenate([reference, recent])
    loss = np.concatenate([reference_loss, recent_loss]).astype(np.float64)
    window = np.repeat(np.array([0, 1]), [len(reference), len(recent)])
    with threadpool_limits(limits=1):
        z = np.clip(standardise(rows), -6.0, 6.0)
        dense = principal(z)
        folds = make_folds(window, N_FOLDS, np.random.default_rng(seed))
        e = cross_fit(dense, window, 2, folds)[:, 1]
        expected = _expected_loss(dense, loss, folds)
        outside = _outside(dense[window == 0], dense[window == 1])
    base_rate = len(recent) / len(rows)
    overlap = float(np.mean(e * (1.0 - e)) / (base_rate * (1.0 - base_rate)))
    shared, concept, new = _terms(loss, window, e, expected)
    return Severity(shared, concept, new, min(1.0, overlap), outside, len(reference), len(recent))


def _terms(loss: Array, window: IntArray, e: Array, expected: Array) -> tuple[Term, Term, Term]:
    """The parts, each the mean of its influence function plus a constant."""
    n = len(loss)
    recent = window == 1
    # An e of exactly 0 or 1 everywhere would leave no shared row to divide by.
    e = np.clip(e, 1e-3, 1.0 - 1e-3)

    def mean(values: Array, weight: Array) -> tuple[float, Array]:
        """Weighted mean, and what each row adds to it beyond."""
        average = float(np.average(values, weights=weight))
        return average, weight / weight.mean() * (values - average)

    # (D - e)^2 has mean e (1 - e) at x up to the square of e's error; with e (1 - e) itself, that
    # error stayed in the first power, and intervals of new inputs covered 0.76 instead of 0.92.
    base, base_rows = mean(expected, np.square(window - e))
    old, old_rows = mean(loss - expected, np.where(recent, 0.0, e))
    now, now_rows = mean(loss - expected, np.where(recent, 1.0 - e, 0.0))
    before, before_rows = mean(loss, np.where(recent, 0.0, 1.0))
    after, after_rows = mean(loss, np.where(recent, 1.0, 0.0))

    def term(value: float, influence: Array) -> Term:
        half = QUANTILE * float(influence.std() / np.sqrt(n))
        return Term(value, value - half, value + half)

    return (
        term(base + old - before, base_rows + old_rows - before_rows),
        term(now - old, now_rows - old_rows),
        term(after - base - now, after_rows - base_rows - now_rows),
    )


def _expected_loss(rows: Array, loss: Array, folds: IntArray) -> Array:
    """Loss given the columns, whatever the window, by models that never saw the row's fold."""
    from sklearn.ensemble import HistGradientBoostingRegressor  # noqa: PLC0415 - only learning needs scikit-learn

    def judge(taught: npt.NDArray[np.bool_], judged: npt.NDArray[np.bool_]) -> Array:
        trees = HistGradientBoostingRegressor(
            max_iter=60,
            learning_rate=0.1,
            max_leaf_nodes=8,
            min_samples_leaf=20,
            early_stopping=False,
            random_state=0,
        )
        return np.asarray(trees.fit(rows[taught], loss[taught]).predict(rows[judged]))

    return out_of_fold(folds, judge)


def _outside(reference: Array, recent: Array) -> float:
    """Share of recent rows beyond the radius that holds 98 % of the reference's neighbours."""
    from sklearn.neighbors import NearestNeighbors  # noqa: PLC0415 - only learning needs scikit-learn

    neighbours = NearestNeighbors(n_neighbors=N_NEIGHBOURS).fit(reference)
    among = neighbours.kneighbors()[0][:, -1]  # without the row itself
    distance = neighbours.kneighbors(recent)[0][:, -1]
    return float(np.mean(distance > np.quantile(among, INSIDE)))


def _check(reference: Array, reference_loss: Array, recent: Array, recent_loss: Array) -> None:
    shapes = reference.shape, recent.shape
    if reference.ndim != 2 or recent.ndim != 2 or shapes[0][1] != shapes[1][1] or not shapes[0][1]:
        raise ValueError(
            f"windows must have shapes (n, d) and (m, d), got {shapes[0]}, {shapes[1]}"
        )
    least = N_FOLDS * N_NEIGHBOURS
    if min(len(reference), len(recent)) < least:
        raise ValueError(f"each window needs {least} rows, got {len(reference)} and {len(recent)}")
    for name, losses, rows in (
        ("reference_loss", reference_loss, reference),
        ("recent_loss", recent_loss, recent),
    ):
        if losses.shape != (len(rows),):
            raise ValueError(
                f"{name} must have shape ({len(rows)},), one for each row, got {losses.shape}"
            )
        wrong = np.flatnonzero(~np.isfinite(losses))
        if wrong.size:
            raise ValueError(f"{name}[{wrong[0]}] must be finite, got {losses[wrong[0]]}")
