"""Conformal test martingales as change detectors, with a run length that is a theorem."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from detectors.base import Alarm, Array, Factor
from detectors.martingales.bins import as_bins, as_calibration, bins_of
from detectors.martingales.jumpers import Jumpers
from detectors.rows import as_rows


class ConformalShiryaevRoberts(Jumpers):
    r"""Alarms when the ranks of new scores can no longer be those of exchangeable rows [1]_, [2]_.

    A score's smoothed p-value is its rank in the bag of the calibration scores and all scores since
    then, ties broken at random. If they are exchangeable the p-values of a column are independent
    and uniform, so a bet on them multiplies its stake by e with mean 1. With
    :math:`R_t = e_t (R_{t-1} + 1)`, :math:`R_t - t` is a martingale, and stopping at
    :math:`R \ge A` takes at least A rows in the mean [3]_.

    **The promise.** *If the calibration scores and the stream are exchangeable, the mean number of
    rows to the first alarm is at least `arl0`*: no other condition, no approximation, any
    calibration size. The mean is over bags and streams together. Autocorrelated scores are not
    exchangeable; nothing is promised for them.

    Parameters
    ----------
    edges
        Inner edges of each column's bins, shape (k, b - 1), not decreasing; from rows that are not
        in the bag.
    counts
        Calibration scores in each bin, shape (k, b).
    arl0
        The promise; above 1.
    factor
        The factor that the scores watch.
    seed
        Breaks ties.
    name
        The detector's name in its alarms.

    Raises
    ------
    ValueError
        If shapes differ or `arl0` is out of range.

    Notes
    -----
    *The bag grows.* Ranks in a frozen bag are uniform on average over bags only: given one bag they
    are off by its own error, all rows bet on the same error, and the run length depends on the bag
    with no lower bound. A growing bag has no such error. Its price is that rows from after a change
    enter it too, so that a shift that is not found within about as many rows as the bag holds
    fades. An alarm restores the calibration bag; the promise is for the rows up to the first one.

    *The bag is bounded.* Scores are counted in bins whose edges come from other rows; ranks of
    binned scores are exchangeable as the scores are.

    *Bets.* A jumper spreads its capital over no bet, 1 +- (2p - 1), and 1 +- (6 (p - 1/2)^2 - 1/2),
    and moves a share of it to equal parts at every row. Four jumpers with shares 0.001 to 1 are
    averaged.

    *Several columns.* Each column's sum is such a process given that column's own past. Given the
    past of all columns the p-values are not exactly uniform: past ranks of two columns together
    tell something about the bag. A mean over columns would need that, so it is not used. The
    detector alarms when one of k > 1 columns reaches 2 k `arl0`, which by the union bound
    P(alarm within t) <= t / (2 `arl0`) keeps the promise whatever the columns have to do with each
    other. It costs a factor of 2 against the mean's threshold for one moved column.

    *Measured.* Normal scores, 100 seeds: one column keeps 1.1 times the promise, three independent
    columns 3 times. A shift by 0.5 and 1 standard deviation after 500 rows is found after 69 and 26
    rows in the median at `arl0` = 10,000 with 1,000 calibration rows.

    A value that is not finite means "nothing seen" in that column.

    References
    ----------
    .. [1] V. Vovk, I. Nouretdinov, A. Gammerman (2021). Conformal testing: binary case with Markov
       alternatives; V. Vovk et al. (2021). Retrain or not retrain: conformal test martingales for
       change-point detection. COPA 2021, PMLR 152, 191-210.
    .. [2] V. Vovk, A. Gammerman, G. Shafer (2022). Algorithmic Learning in a Random World, 2nd ed.,
       chapter 8. Springer.
    .. [3] J. Shin, A. Ramdas, A. Rinaldo (2024). E-detectors: a nonparametric framework for
       sequential change detection. New England Journal of Statistics in Data Science 2, 229-260.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> detector = ConformalShiryaevRoberts.learn(
    ...     rng.normal(size=(1000, 2)), arl0=1e4, factor=Factor.COVARIATE, seed=0
    ... )
    >>> rows = rng.normal(size=(600, 2))
    >>> rows[500:, 1] += 1.0
    >>> alarm = detector.update(rows)[0]
    >>> alarm.row, alarm.run_length, alarm.columns
    (527, 104, (1,))
    """

    def __init__(
        self,
        edges: npt.ArrayLike,
        counts: npt.ArrayLike,
        *,
        arl0: float,
        factor: Factor,
        seed: int,
        name: str = "conformal",
    ) -> None:
        inner, bag = as_bins(edges, counts, ndim=2)
        super().__init__(inner[None], bag[None], arl0=arl0, factor=factor, name=name, seed=seed)

    @classmethod
    def learn(
        cls,
        scores: npt.ArrayLike,
        *,
        arl0: float,
        factor: Factor,
        seed: int,
        name: str = "conformal",
    ) -> ConformalShiryaevRoberts:
        """A detector whose bag is a reference.

        Parameters
        ----------
        scores
            Scores of the reference, shape (n, k), n at least 8; those of a learned map must be on
            rows that did not teach it. Every fourth row sets the bins, the others are the bag. NaN
            means "nothing seen".
        arl0, factor, seed, name
            As of the class.

        Raises
        ------
        ValueError
            If `scores` is not a matrix of at least 8 rows.
        """
        x = as_calibration(scores)
        edges, counts = bins_of([x])
        return cls(edges[0], counts[0], arl0=arl0, factor=factor, seed=seed, name=name)

    def update(self, batch: Array, /) -> Sequence[Alarm]:
        """Take rows of scores, shape (n, k); return the alarms they raised, in row order.

        Raises
        ------
        ValueError
            If the batch does not have k columns; names both shapes.
        """
        rows = as_rows(batch, self._counts.shape[1], self.name)
        return self._take(rows, np.zeros(len(rows), np.int64))
