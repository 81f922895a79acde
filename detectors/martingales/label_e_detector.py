"""P(Y) from labels with an e-detector: whatever path the class frequencies take."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from numba import njit

from detectors.base import Alarm, Array, Factor, IntArray, State
from detectors.martingales.e_detector import EDetector
from detectors.martingales.shiryaev_roberts import pay
from detectors.rows import as_labels, as_rows, label_column

TOLERANCE = 0.03
"""A shift of a class's probability that is not worth an alarm."""

CONFIDENCE = 0.99
"""Share of references whose band around the class frequencies holds all of the true ones."""

FORGETTING = np.array([0.005, 0.02])
"""Weights of the newest label in the frequencies that the detector bets on."""


class LabelEDetector(EDetector):
    r"""P(Y) from labels: bets that the class frequencies have left a band around the reference's.

    .. math:: R_t = e_t (R_{t-1} + 1), \qquad e_t = q_t(y_t) / \pi^*_t(y_t), \qquad
              \text{alarm if } R_t \ge A

    q is a moving average of the labels before t, and :math:`\pi^*` the element of the band that is
    nearest to q in Kullback-Leibler divergence: the nearest edge with two classes [2]_. Two moving
    averages are run and their sums averaged.

    **The promise.** *If the probability of each class given all labels before it stays in its band,
    the mean number of rows to an alarm is at least `arl0`* [1]_: labels may depend on each other
    and wander inside the band in any way. With the band of `learn`, 99 of 100 references of
    independent rows have the true frequencies inside.

    Parameters
    ----------
    low, high
        The band of each class's probability, shape (K,); a probability vector must fit in it.
    start
        Frequencies that bets begin with, shape (K,); positive, sum 1.
    arl0
        A, the promise; above 1.
    factor
        The factor that the labels watch.
    name
        The detector's name in its alarms.

    Raises
    ------
    ValueError
        If shapes differ or a value is out of range; names the parameter and the value.

    Notes
    -----
    A shift inside the band is never found, however long it lasts. Where q is inside the band there
    is no bet, and R stays as it is. The run length of an alarm counts the rows since the winning
    bet last had nothing to show.

    References
    ----------
    .. [1] J. Shin, A. Ramdas, A. Rinaldo (2024). E-detectors: a nonparametric framework for
       sequential change detection. New England Journal of Statistics in Data Science 2, 229-260.
    .. [2] P. Grünwald, R. de Heide, W. Koolen (2024). Safe testing. JRSS B 86, 1091-1128, theorem 1
       (reverse information projection).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> reference = (rng.random(2000) < 0.3).astype(np.int64)
    >>> detector = LabelEDetector.learn(reference, n_classes=2, arl0=1e5)
    >>> labels = np.r_[rng.random(1000) < 0.3, rng.random(400) < 0.6].astype(float)
    >>> alarm = detector.update(labels[:, None])[0]
    >>> alarm.row, alarm.run_length
    (1068, 233)
    """

    def __init__(
        self,
        low: npt.ArrayLike,
        high: npt.ArrayLike,
        start: npt.ArrayLike,
        *,
        arl0: float,
        factor: Factor = Factor.PRIOR,
        name: str = "label_e",
    ) -> None:
        self._low = np.array(low, dtype=np.float64)
        self._high = np.array(high, dtype=np.float64)
        self._start = np.array(start, dtype=np.float64)
        shapes = {self._low.shape, self._high.shape, self._start.shape}
        if self._low.ndim != 1 or len(shapes) != 1 or self._low.size < 2:
            raise ValueError(
                "low, high and start must be vectors of one length of at least 2, "
                f"got shapes {self._low.shape}, {self._high.shape}, {self._start.shape}"
            )
        if not ((self._low >= 0) & (self._low <= self._high)).all() or not (
            self._low.sum() <= 1 <= self._high.sum()
        ):
            raise ValueError(
                "no probabilities fit between "
                f"low {self._low.tolist()} and high {self._high.tolist()}"
            )
        if not ((self._start > 0).all() and math.isclose(self._start.sum(), 1.0)):
            raise ValueError(f"start must be positive and sum to 1, got {self._start.tolist()}")
        super().__init__(FORGETTING.shape, arl0=arl0, factor=factor, name=name)
        self._frequencies = np.empty((FORGETTING.size, self._start.size))
        self._begin()

    @classmethod
    def learn(
        cls,
        labels: npt.ArrayLike,
        *,
        n_classes: int,
        arl0: float,
        tolerance: float = TOLERANCE,
        factor: Factor = Factor.PRIOR,
        name: str = "label_e",
    ) -> LabelEDetector:
        """A detector around a reference's frequencies.

        The band of a class is the Clopper-Pearson interval of its frequency, 99 % for all classes
        together, and at least the frequency +- `tolerance`.

        Parameters
        ----------
        labels
            Class codes of the reference, shape (n,); negative codes are left out.
        n_classes
            Codes that labels may have; at least 2.
        arl0, factor, name
            As of the class.
        tolerance
            Shift of a class's probability that is not worth an alarm, in [0, 1).

        Raises
        ------
        ValueError
            If there is no label, or a value is out of range.
        """
        from scipy.stats import beta  # noqa: PLC0415 - slow to import, rarely needed

        if n_classes < 2:
            raise ValueError(f"n_classes must be at least 2, got {n_classes}")
        if not 0 <= tolerance < 1:
            raise ValueError(f"tolerance must be in [0, 1), got {tolerance}")
        codes = as_labels(labels, np.size(labels), n_classes, name)
        counts = np.bincount(codes[codes >= 0], minlength=n_classes)
        n = int(counts.sum())
        if n == 0:
            raise ValueError("a reference needs labels, got none")
        tail = (1 - CONFIDENCE) / (2 * n_classes)
        low = np.where(counts > 0, beta.ppf(tail, np.maximum(counts, 1), n - counts + 1), 0.0)
        high = np.where(counts < n, beta.isf(tail, counts + 1, np.maximum(n - counts, 1)), 1.0)
        share = counts / n
        return cls(
            np.maximum(np.minimum(low, share - tolerance), 0.0),
            np.minimum(np.maximum(high, share + tolerance), 1.0),
            (counts + 0.5) / (n + 0.5 * n_classes),
            arl0=arl0,
            factor=factor,
            name=name,
        )

    def _begin(self) -> None:
        super()._begin()
        self._frequencies[:] = self._start

    def update(self, batch: Array, /) -> Sequence[Alarm]:
        """Take class codes in order, shape (n, 1); return the alarms they raised, in row order.

        A code that is negative or not finite means "no label": the row is skipped.

        Raises
        ------
        ValueError
            If the batch does not have 1 column, or a code is no class.
        """
        rows = as_rows(batch, 1, self.name)
        codes = label_column(rows, self._start.size, self.name)
        bets = self._bets
        return self._follow(
            len(codes),
            lambda start: _advance(
                codes,
                start,
                self._rows_seen,
                self._low,
                self._high,
                FORGETTING,
                self._frequencies,
                bets.sums,
                bets.logs,
                bets.zero_at,
                self.threshold,
            ),
        )

    def snapshot(self) -> State:
        """Everything needed to go on: the frequencies, the sums and the rows seen."""
        return {
            "frequencies": self._frequencies.copy(),
            **self._bets.snapshot(),
            "rows_seen": self._rows_seen,
        }

    def restore(self, state: State, /) -> None:
        """Go on from a snapshot of an equally configured detector.

        Raises
        ------
        ValueError
            If the snapshot has another number of classes; names both shapes.
        """
        frequencies = np.array(state["frequencies"], dtype=np.float64)
        if frequencies.shape != self._frequencies.shape:
            raise ValueError(
                f"{self.name} keeps frequencies of shape {self._frequencies.shape}, "
                f"the snapshot has {frequencies.shape}"
            )
        self._frequencies = frequencies
        self._bets.restore(state)
        self._rows_seen = int(state["rows_seen"])


@njit(cache=True)
def _project_on_band(q: Array, low: Array, high: Array, out: Array) -> None:
    """The element of the band nearest to q: q over a constant, cut to the band, with sum 1."""
    # At this constant the parts above `low` sum to what `low` leaves, at most.
    small, large = 0.0, 1.0 / max(1.0 - low.sum(), 1e-9)
    for _ in range(40):
        middle = (small + large) / 2
        total = 0.0
        for k in range(q.size):
            total += min(max(q[k] / middle, low[k]), high[k])
        if total > 1.0:
            small = middle
        else:
            large = middle
    for k in range(q.size):
        # `large` errs to less than 1 in all, so a little is added: e must not be too large.
        out[k] = min(max(q[k] / large, low[k]), high[k]) + 1e-10


@njit(cache=True)
def _advance(
    codes: IntArray,
    start: int,
    seen: int,
    low: Array,
    high: Array,
    forgetting: Array,
    frequencies: Array,
    sums: Array,
    logs: Array,
    zero_at: IntArray,
    threshold: float,
) -> int:
    """Take labels up to the first that alarms; return it, or their number."""
    nearest = np.empty(low.size)
    for i in range(start, codes.size):
        seen += 1
        y = codes[i]
        if y < 0:
            continue
        for r in range(forgetting.size):
            q = frequencies[r]
            if (q < low).any() or (q > high).any():
                _project_on_band(q, low, high, nearest)
                e = q[y] / nearest[y]
                pay(sums, logs, zero_at, r, e, seen)
            for k in range(q.size):
                q[k] += forgetting[r] * ((1.0 if k == y else 0.0) - q[k])
        if sums.mean() >= threshold:
            return i
    return codes.size
