"""Banks in which each column is a detector of its own, and begins anew after its own alarm."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from detectors.base import Alarm, Array, Factor, IntArray
from detectors.rows import as_rows


class Columnwise(ABC):
    """Detectors side by side: k columns give the alarms of k detectors of one column each.

    Unlike a `detectors.charts.bank.Bank`, whose columns are evidence of one thing and start again
    together.

    Parameters
    ----------
    n_columns
        k, at least 1.
    shortest
        Values of a column between two of its alarms, at least.
    factor
        The factor that the columns watch.
    name
        The detector's name in its alarms.

    Raises
    ------
    ValueError
        If there is no column.
    """

    def __init__(self, n_columns: int, *, shortest: int, factor: Factor, name: str) -> None:
        if n_columns < 1:
            raise ValueError(f"n_columns must be at least 1, got {n_columns}")
        self.factor = factor
        self.name = name
        self._n_columns = n_columns
        self._shortest = shortest

    def update(self, batch: Array, /) -> Sequence[Alarm]:
        """Take rows in order, shape (n, k); return the alarms they raised, in row order.

        Columns that alarm at one row make one alarm, which is the strongest one's.

        Raises
        ------
        ValueError
            If the batch does not have k columns; names both shapes.
        """
        rows = as_rows(batch, self._n_columns, self.name)
        most = self._n_columns * (len(rows) // self._shortest + 1)
        where = np.empty((most, 3), dtype=np.int64)
        strengths = np.empty((most, 2))
        n_found = self._take(rows, where, strengths)
        if not n_found:
            return []
        return self._alarms(where[:n_found], strengths[:n_found])

    @abstractmethod
    def _take(self, rows: Array, where: IntArray, strengths: Array) -> int:
        """Take rows; note the alarms of single columns, and return how many there are.

        To be filled: `where` with row, column and run length, shape (most, 3); `strengths` with
        statistic and threshold, shape (most, 2).
        """

    def _alarms(self, where: IntArray, strengths: Array) -> list[Alarm]:
        strongest_first = np.lexsort((where[:, 1], -strengths[:, 0] / strengths[:, 1], where[:, 0]))
        where, strengths = where[strongest_first], strengths[strongest_first]
        rows, first = np.unique(where[:, 0], return_index=True)
        ends = np.append(first[1:], len(where))
        return [
            Alarm(
                detector=self.name,
                factor=self.factor,
                row=row,
                statistic=float(strengths[start, 0]),
                threshold=float(strengths[start, 1]),
                run_length=int(where[start, 2]),
                columns=tuple(where[start:end, 1].tolist()),
            )
            for row, start, end in zip(rows.tolist(), first.tolist(), ends.tolist(), strict=True)
        ]
