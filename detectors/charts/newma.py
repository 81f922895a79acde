"""NEWMA: two moving averages of random features, which need no window of raw rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from numba import njit

from detectors.base import Alarm, Array, Factor, IntArray, State
from detectors.charts.calibration import MIN_ROWS, SIMULATED_ROWS, STREAMS
from detectors.learners.bootstrap import draw_blocks, whiten_lag_1
from detectors.learners.dependence import bootstrap_block_length
from detectors.learners.mmd import FourierFeatures, median_bandwidth
from detectors.learners.moments import column_moments
from detectors.rows import as_rows, bounded

CLIP = 100.0
"""Standardised values are cut to +-CLIP: the kernel's width is a few units, so all beyond look
alike to it, and the cosine of an overflow is not a number."""


N_WORLDS, WORLD_ROWS = 20, 5000
"""Truths that streams are simulated from, and rows of each where rows depend on each other: far
more than a block, or blocks would be too much alike."""


class Newma:
    r"""Distance of a fast and a slow moving average of random Fourier features [1]_.

    .. math:: z_t = (1 - \Lambda) z_{t-1} + \Lambda \psi(x_t), \qquad
              z'_t = (1 - \lambda) z'_{t-1} + \lambda \psi(x_t), \qquad
              \text{alarm if } \lVert z_t - z'_t \rVert > h

    The features stand for a Gaussian kernel, so any change of the joint distribution moves the
    distance, an estimate of the maximum mean discrepancy of the last rows and those before. Memory
    is two vectors of m numbers; no row is kept.

    `Newma.learn` makes one from a reference. The threshold is fixed, unlike that of [1]_, which
    follows the statistic: it can then promise a run length.

    Parameters
    ----------
    mean, scale
        Centre and standard deviation of each column without a shift, shape (d,); `scale` positive.
    features
        Of standardised rows: d columns, m features.
    start
        Mean features without a shift, shape (m,): where both averages begin.
    threshold
        h; positive.
    window
        Rows B for which the averages are tuned: a row that is B rows old weighs the same in both,
        newer ones weigh more in the fast one (:math:`\Lambda = 2 / (B + 1)`).
    level
        What the statistic usually is without a shift; only the alarms' run length uses it.
    factor
        The factor that the columns watch.
    name
        The detector's name in its alarms.

    Raises
    ------
    ValueError
        If shapes differ or a value is out of range; names the parameter and the value.

    Notes
    -----
    After an alarm both averages start again. The run length of an alarm counts the rows since the
    statistic was last at or below `level`. Alarms name no columns. A row with a value that is not
    finite means "nothing seen" and is skipped.

    References
    ----------
    .. [1] N. Keriven, D. Garreau, I. Poli (2020). NEWMA: a new method for scalable model-free
       online change-point detection. IEEE Transactions on Signal Processing 68, 3515-3528.

    Examples
    --------
    Each column stays standard normal, but they begin to move together:

    >>> rng = np.random.default_rng(0)
    >>> detector = Newma.learn(rng.normal(size=(1000, 2)), arl0=2000, seed=0)
    >>> rows = rng.normal(size=(600, 2))
    >>> rows[300:, 1] = 0.2 * rows[300:, 1] + np.sqrt(0.96) * rows[300:, 0]
    >>> detector.update(rows)[0].row
    367
    """

    def __init__(
        self,
        mean: npt.ArrayLike,
        scale: npt.ArrayLike,
        features: FourierFeatures,
        start: npt.ArrayLike,
        *,
        threshold: float,
        window: int = 250,
        level: float = 0.0,
        factor: Factor = Factor.COVARIATE,
        name: str = "newma",
    ) -> None:
        self._mean = np.array(mean, dtype=np.float64)
        self._scale = np.array(scale, dtype=np.float64)
        self._start = np.array(start, dtype=np.float64)
        self._features = features
        d, m = features.frequencies.shape
        if self._mean.shape != (d,) or self._scale.shape != (d,):
            raise ValueError(
                f"mean and scale must have the {d} columns of the features, "
                f"got shapes {self._mean.shape} and {self._scale.shape}"
            )
        if self._start.shape != (m,):
            raise ValueError(f"start must have shape ({m},), got {self._start.shape}")
        if not (np.isfinite(self._scale).all() and (self._scale > 0).all()):
            raise ValueError(f"scale must be finite and positive, got {self._scale.tolist()}")
        if not threshold > 0:
            raise ValueError(f"threshold must be positive, got {threshold}")
        self._weights = forgetting_weights(window)
        self.threshold = float(threshold)
        self._level = float(level)
        self.factor = factor
        self.name = name
        self._averages = np.stack([self._start, self._start])
        self._rows_seen = 0
        self._calm_at = 0

    @classmethod
    def learn(
        cls,
        reference: npt.ArrayLike,
        *,
        arl0: float,
        window: int = 250,
        n_features: int = 200,
        factor: Factor = Factor.COVARIATE,
        seed: int,
        name: str = "newma",
    ) -> Newma:
        """A detector that alarms once in `arl0` rows without a shift.

        Streams are simulated from the reference's rows by the pre-whitened block bootstrap of
        `detectors.charts.calibration.calibrate_cusum`. The threshold is that at which a
        share 1 - 1/e of them alarms within `arl0` rows.

        Parameters
        ----------
        reference
            Rows without a shift in time order, shape (n, d); at least 50 without a missing value.
        arl0
            Promised mean number of rows between false alarms; at least 10.
        window, factor, name
            As of the class.
        n_features
            m. The published choice is about the squared memory of the averages; 200 is enough for
            the power measured here.
        seed
            Of the features and the simulation.

        Raises
        ------
        ValueError
            If the reference is too small or `arl0` is out of range; names them.

        Notes
        -----
        The reference is one sample of what will come, and a threshold from its own rows alone
        would promise too much. So streams are drawn from twenty bootstrapped references: worlds
        that the reference is as wrong about as it is about the truth.

        Rows between alarms over `arl0` (2,000), 20 references of 1,000 rows:

        =======  ======  ===========  ============  ===========================
        columns  normal  t, 3 d.f.    Poisson(1.5)  autoregression, 0.5
        =======  ======  ===========  ============  ===========================
        4        0.90    1.01         1.00          0.72
        16       1.22    1.15         1.29          1.06
        =======  ======  ===========  ============  ===========================

        *Limits.* 0.6 of the promise with references of 200 rows, and as much with 1,000 rows of
        autocorrelation 0.9: they hold too little of what the stream will do.
        """
        x = bounded(np.array(reference, dtype=np.float64))
        if x.ndim == 2:
            x = x[np.isfinite(x).all(axis=1)]
        if x.ndim != 2 or len(x) < MIN_ROWS or x.shape[1] == 0:
            raise ValueError(
                f"a reference needs columns and {MIN_ROWS} rows without a missing value, "
                f"got shape {x.shape}"
            )
        if not 10 <= arl0 < math.inf:
            raise ValueError(f"arl0 must be finite and at least 10 rows, got {arl0}")
        mean, scale, _ = column_moments(x)
        z = np.clip((x - mean) / scale, -CLIP, CLIP)
        features = FourierFeatures.draw(
            x.shape[1],
            bandwidth=median_bandwidth(z, seed=seed),
            n_features=n_features,
            seed=seed,
        )
        rng = np.random.default_rng([seed, 1])
        own = _mapped(z, features)
        horizon = math.ceil(arl0)
        n_streams = int(np.clip(SIMULATED_ROWS // horizon, *STREAMS)) // N_WORLDS
        peaks, levels = [], []
        for _ in range(N_WORLDS):
            world, length = _world(rng, z)
            mapped = _mapped(world, features)
            for _ in range(n_streams):
                order = draw_blocks(rng, len(world), horizon, length)
                peak, level = _simulate(mapped, order, own.mean(axis=0), forgetting_weights(window))
                peaks.append(peak)
                levels.append(level)
        return cls(
            mean,
            scale,
            features,
            own.mean(axis=0),
            threshold=float(np.quantile(peaks, math.exp(-horizon / arl0))),
            window=window,
            level=float(np.mean(levels)),
            factor=factor,
            name=name,
        )

    @property
    def statistic(self) -> float:
        """Distance of the averages after the last row."""
        return float(np.linalg.norm(self._averages[0] - self._averages[1]))

    def update(self, batch: Array, /) -> Sequence[Alarm]:
        """Take rows, shape (n, d); return the alarms they raised, in row order.

        Raises
        ------
        ValueError
            If the batch does not have d columns; names both shapes.
        """
        rows = as_rows(batch, self._mean.size, self.name)
        fast, slow = self._weights
        alarms = []
        start = 0
        while start < len(rows):
            row, calm_at, statistic = _advance(
                rows,
                start,
                self._mean,
                self._scale,
                self._features.frequencies,
                self._features.phases,
                fast,
                slow,
                self._averages,
                self.threshold,
                self._level,
                self._rows_seen,
                self._calm_at,
            )
            self._calm_at = calm_at
            self._rows_seen += min(row + 1, len(rows)) - start
            if row < len(rows):
                alarms.append(
                    Alarm(
                        detector=self.name,
                        factor=self.factor,
                        row=row,
                        statistic=statistic,
                        threshold=self.threshold,
                        run_length=max(self._rows_seen - self._calm_at, 1),
                    )
                )
                self._averages[:] = self._start
                self._calm_at = self._rows_seen
            start = row + 1
        return alarms

    def snapshot(self) -> State:
        """Everything needed to go on: both averages, and the counts of rows."""
        return {
            "averages": self._averages.copy(),
            "rows_seen": self._rows_seen,
            "calm_at": self._calm_at,
        }

    def restore(self, state: State, /) -> None:
        """Go on from a snapshot of an equally configured detector.

        Raises
        ------
        ValueError
            If the snapshot has another number of features; names both shapes.
        """
        averages = np.array(state["averages"], dtype=np.float64)
        if averages.shape != self._averages.shape:
            raise ValueError(
                f"{self.name} keeps averages of shape {self._averages.shape}, "
                f"the snapshot has {averages.shape}"
            )
        self._averages = averages
        self._rows_seen, self._calm_at = int(state["rows_seen"]), int(state["calm_at"])


def _mapped(z: Array, features: FourierFeatures) -> Array:
    """Features of standardised rows, shape (n, m)."""
    out = np.empty((len(z), len(features.phases)))
    _map(z, features.frequencies, features.phases, out)
    return out


def _world(rng: np.random.Generator, z: Array) -> tuple[Array, int]:
    """A truth that the reference z may have come from, as rows, and rows per block to draw there.

    Made by the pre-whitened block bootstrap of `calibrate_cusum`, from as many of the reference's
    blocks as it has, so that it is as wrong about the world as the reference is about the truth.
    """
    n = len(z)
    coefficient, residuals = whiten_lag_1(z)
    length = bootstrap_block_length(residuals)
    starts = rng.integers(0, n, -(-n // length))
    if length == 1 and not coefficient.any():
        return z[starts], 1
    blocks = rng.choice(starts, -(-WORLD_ROWS // length))
    order: IntArray = ((blocks[:, None] + np.arange(length)) % n).ravel()
    world = np.empty((len(order), z.shape[1]))
    _regress(order, z[order[0] - 1], residuals, coefficient, world)
    return world, max(length, WORLD_ROWS // 50)


def forgetting_weights(window: int) -> tuple[float, float]:
    """The weights of the fast and the slow average for a window of B rows.

    The fast one is 2 / (B + 1), as in an average over about B rows. The slow one is the smaller
    solution of w (1 - w)^B = that of the fast: a row B rows old then weighs the same in both.

    Raises
    ------
    ValueError
        If the window is below 2.

    Examples
    --------
    >>> fast, slow = forgetting_weights(250)
    >>> print(f"{fast:.4f} {slow:.4f}")
    0.0080 0.0016
    """
    if window < 2:
        raise ValueError(f"window must be at least 2 rows, got {window}")
    fast = 2.0 / (window + 1)
    equal = fast * (1 - fast) ** window
    low, high = 0.0, 1.0 / (window + 1)  # where w (1 - w)^B is largest
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if middle * (1 - middle) ** window < equal else (low, middle)
    return fast, high


@njit(cache=True)
def _features_of(
    row: Array, mean: Array, scale: Array, frequencies: Array, phases: Array, out: Array
) -> None:
    """Features of one row, summed in one order: a matrix product depends on the batch's length."""
    m = phases.size
    for j in range(m):
        out[j] = phases[j]
    for c in range(row.size):
        z = min(max((row[c] - mean[c]) / scale[c], -CLIP), CLIP)
        for j in range(m):
            out[j] += z * frequencies[c, j]
    amplitude = math.sqrt(2.0 / m)
    for j in range(m):
        out[j] = amplitude * math.cos(out[j])


@njit(cache=True)
def _regress(
    order: IntArray, before: Array, residuals: Array, coefficient: Array, out: Array
) -> None:
    """Rows of an autoregression that goes on from a row, with the given residuals."""
    row = before.copy()
    for i in range(order.size):
        for c in range(row.size):
            row[c] = coefficient[c] * row[c] + residuals[order[i], c]
            out[i, c] = row[c]


@njit(cache=True)
def _map(rows: Array, frequencies: Array, phases: Array, out: Array) -> None:
    zero, one = np.zeros(rows.shape[1]), np.ones(rows.shape[1])
    for i in range(rows.shape[0]):
        _features_of(rows[i], zero, one, frequencies, phases, out[i])


@njit(cache=True, fastmath=True)
def _follow(averages: Array, psi: Array, fast: float, slow: float) -> float:
    """Move both averages towards a row's features; return their distance."""
    total = 0.0
    for j in range(psi.size):
        quick = averages[0, j] + fast * (psi[j] - averages[0, j])
        steady = averages[1, j] + slow * (psi[j] - averages[1, j])
        averages[0, j], averages[1, j] = quick, steady
        total += (quick - steady) * (quick - steady)
    return math.sqrt(total)


@njit(cache=True)
def _simulate(
    mapped: Array, order: IntArray, start: Array, weights: tuple[float, float]
) -> tuple[float, float]:
    """Largest and mean statistic of a simulated stream."""
    averages = np.empty((2, start.size))
    averages[:] = start
    peak = total = 0.0
    for row in order:
        statistic = _follow(averages, mapped[row], weights[0], weights[1])
        peak = max(peak, statistic)
        total += statistic
    return peak, total / order.size


@njit(cache=True)
def _advance(
    rows: Array,
    start: int,
    mean: Array,
    scale: Array,
    frequencies: Array,
    phases: Array,
    fast: float,
    slow: float,
    averages: Array,
    threshold: float,
    level: float,
    seen: int,
    calm_at: int,
) -> tuple[int, int, float]:
    """Take rows up to the first that alarms: (it or their number, row last calm, statistic)."""
    n, d = rows.shape
    psi = np.empty(phases.size)
    for i in range(start, n):
        seen += 1
        usable = True
        for c in range(d):
            usable &= np.isfinite(rows[i, c])
        if not usable:
            continue
        _features_of(rows[i], mean, scale, frequencies, phases, psi)
        statistic = _follow(averages, psi, fast, slow)
        if statistic <= level:
            calm_at = seen
        if statistic > threshold:
            return i, calm_at, statistic
    return n, calm_at, 0.0
