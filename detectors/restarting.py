"""Detectors that begin anew after each alarm: the one loop in which they take their rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from detectors.base import Alarm, Factor


class Restarting(ABC):
    """Counts rows, and begins anew after each alarm.

    Parameters
    ----------
    factor
        The factor that the rows watch.
    name
        The detector's name in its alarms.

    Examples
    --------
    >>> class EveryThird(Restarting):
    ...     def _alarm(self, row):
    ...         length = self._rows_seen - self._began
    ...         return Alarm(self.name, self.factor, row, 3.0, 3.0, run_length=length)
    ...     def _begin(self):
    ...         self._began = self._rows_seen
    >>> detector = EveryThird(factor=Factor.COVARIATE, name="third")
    >>> detector._begin()
    >>> alarms = detector._follow(8, lambda start: min(start + 2, 8))
    >>> [(alarm.row, alarm.run_length) for alarm in alarms]
    [(2, 3), (5, 3)]
    """

    def __init__(self, *, factor: Factor, name: str) -> None:
        self.factor = factor
        self.name = name
        self._rows_seen = 0

    def _follow(self, n_rows: int, advance: Callable[[int], int]) -> list[Alarm]:
        """The alarms of a batch of `n_rows`.

        `advance` takes rows from a start up to the first that alarms; it returns that row, or
        `n_rows`.
        """
        alarms = []
        start = 0
        while start < n_rows:
            row = advance(start)
            self._rows_seen += min(row + 1, n_rows) - start
            if row < n_rows:
                alarms.append(self._alarm(row))
                self._begin()
            start = row + 1
        return alarms

    @abstractmethod
    def _alarm(self, row: int) -> Alarm:
        """The alarm at a row of the batch, which is the last of the rows seen."""

    @abstractmethod
    def _begin(self) -> None:
        """Forget what was summed up; what was learned stays."""
