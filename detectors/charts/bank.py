"""Charts over many columns at once: what every bank of them has."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from detectors.base import Alarm, Array, Factor
from detectors.restarting import Restarting
from detectors.rows import as_rows


class Bank(Restarting):
    """A chart for each column of scores, and one alarm for all of them.

    Subclasses say what a chart sums up: `detectors.charts.cusum`, `detectors.charts.ewma`.

    Parameters
    ----------
    mean, scale
        Centre and standard deviation of each column without a shift, shape (k,); `scale` positive.
    factor, name
        As of `Restarting`.

    Raises
    ------
    ValueError
        If shapes differ or a value is out of range; names the parameter and the value.
    """

    def __init__(
        self, mean: npt.ArrayLike, scale: npt.ArrayLike, *, factor: Factor, name: str
    ) -> None:
        super().__init__(factor=factor, name=name)
        self._mean = np.array(mean, dtype=np.float64)
        self._scale = np.array(scale, dtype=np.float64)
        if self._mean.ndim != 1 or self._scale.shape != self._mean.shape:
            raise ValueError(
                "mean and scale must be vectors of one length, "
                f"got shapes {self._mean.shape} and {self._scale.shape}"
            )
        if not np.isfinite(self._mean).all():
            raise ValueError(f"mean must be finite, got {self._mean.tolist()}")
        if not (np.isfinite(self._scale).all() and (self._scale > 0).all()):
            raise ValueError(f"scale must be finite and positive, got {self._scale.tolist()}")

    def update(self, batch: Array, /) -> Sequence[Alarm]:
        """Take rows of scores, shape (n, k); return the alarms they raised, in row order.

        Raises
        ------
        ValueError
            If the batch does not have k columns; names both shapes.
        """
        rows = as_rows(batch, self._mean.size, self.name)
        return self._follow(len(rows), lambda start: self._advance(rows, start))

    @abstractmethod
    def _advance(self, rows: Array, start: int) -> int:
        """Take rows from `start` up to the first that alarms; return it, or their number."""
