"""River's drift detectors behind this package's contract."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from detectors.base import Alarm, Array, Factor, State
from detectors.rows import as_rows

Name = Literal["ddm", "eddm", "hddm_a", "hddm_w"]

# River's class names; HDDM_A became HDDMA between 0.23 and 0.26.
_CLASSES: dict[str, tuple[str, ...]] = {
    "ddm": ("DDM",),
    "eddm": ("EDDM",),
    "hddm_a": ("HDDMA", "HDDM_A"),
    "hddm_w": ("HDDMW", "HDDM_W"),
}


class RiverDetector:
    """One of River's detectors of error rates, on one column of values in [0, 1] [1]_.

    Its ADWIN, Page-Hinkley and KSWIN are banks of this package: `detectors.charts.adwin`,
    `page_hinkley` and `kswin`.

    Parameters
    ----------
    name
        Which.
    factor
        The factor that the column watches.
    memory
        Values that the detector may remember, at least 2: see Notes.
    **params
        The detector's own parameters, as River names them.

    Raises
    ------
    ValueError
        If the name is unknown, or a parameter is refused by River.

    Notes
    -----
    A River object's state cannot be had as arrays, and it is not pickled. It is a function of the
    values since its last alarm, so these are kept, and a snapshot is restored by taking them again.
    To bound them, the older half is forgotten whenever `memory` values are reached, in the running
    detector just as in a restored one: a restart changes nothing, but a detector on a long quiet
    stream knows its last `memory` / 2 to `memory` values and not the whole past.

    Values that are not finite are skipped. River does not publish its statistics, so alarms carry 1
    of 1. Their run length is the rows since the warning began.

    References
    ----------
    .. [1] J. Montiel et al. (2021). River: machine learning for streaming data in Python. JMLR 22,
       110.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> errors = (rng.random((1000, 1)) < np.repeat([[0.1], [0.5]], 500, axis=0)).astype(float)
    >>> alarm = RiverDetector("ddm", factor=Factor.CONCEPT).update(errors)[0]
    >>> alarm.detector, alarm.row, alarm.run_length
    ('ddm', 535, 16)
    """

    def __init__(self, name: Name, *, factor: Factor, memory: int = 4000, **params: Any) -> None:
        if name not in _CLASSES:
            raise ValueError(f"name must be one of {', '.join(get_args(Name))}, got {name!r}")
        if memory < 2:
            raise ValueError(f"memory must be at least 2 values, got {memory}")
        self.name = name
        self.factor = factor
        self._memory = memory
        self._params = params
        self._warning_rows = 0
        self._start(np.empty(0))

    def update(self, batch: Array, /) -> Sequence[Alarm]:
        """Take values in order, shape (n, 1); return the alarms they raised, in row order.

        Raises
        ------
        ValueError
            If the batch does not have one column, or a value is outside [0, 1]; names the row.
        """
        values = as_rows(batch, 1, self.name)[:, 0]
        seen = np.isfinite(values)
        outside = seen & ((values < 0) | (values > 1))
        if outside.any():
            row = int(np.argmax(outside))
            raise ValueError(f"{self.name} takes values in [0, 1], got {values[row]} at row {row}")
        alarms = []
        for row, value in enumerate(values.tolist()):
            if self._warning_rows:
                self._warning_rows += 1
            if not seen[row]:
                continue
            if self._take(value):
                alarms.append(self._alarm(row))
                self._start(np.empty(0))
            elif self._count == self._memory:
                warning_rows = self._warning_rows
                self._start(self._values[self._memory - self._memory // 2 :].copy())
                self._warning_rows = warning_rows
        return alarms

    def _start(self, values: Array) -> None:
        """Begin with a fresh River object that has taken some values."""
        self._river = self._make()
        self._values = np.empty(self._memory)
        self._count = 0
        self._warning_rows = 0
        for value in values.tolist():
            self._take(value)

    def _take(self, value: float) -> bool:
        """Hand one value on and remember it; whether River sees a drift."""
        self._values[self._count] = value
        self._count += 1
        self._river.update(value)
        if getattr(self._river, "warning_detected", False) or self._river.drift_detected:
            self._warning_rows = self._warning_rows or 1
        else:
            self._warning_rows = 0
        return bool(self._river.drift_detected)

    def _make(self) -> Any:
        # Here and not above: River takes a second to import, and only some streams configure it.
        module = importlib.import_module("river.drift.binary")
        made = next(getattr(module, n) for n in _CLASSES[self.name] if hasattr(module, n))
        try:
            return made(**self._params)
        except TypeError as error:
            raise ValueError(f"{self.name} refuses {sorted(self._params)}: {error}") from error

    def _alarm(self, row: int) -> Alarm:
        return Alarm(
            detector=self.name,
            factor=self.factor,
            row=row,
            statistic=1.0,
            threshold=1.0,
            run_length=max(self._warning_rows, 1),
            columns=(0,),
        )

    def snapshot(self) -> State:
        """The values since the last alarm, at most `memory`, and the rows since a warning."""
        return {"values": self._values[: self._count].copy(), "warning_rows": self._warning_rows}

    def restore(self, state: State, /) -> None:
        """Go on from a snapshot of an equally configured detector.

        Raises
        ------
        ValueError
            If the snapshot remembers as many values as this detector may, or more.
        """
        values = np.array(state["values"], dtype=np.float64)
        if len(values) >= self._memory:
            raise ValueError(
                f"{self.name} remembers fewer than {self._memory} values, "
                f"the snapshot has {len(values)}"
            )
        self._start(values)
        self._warning_rows = int(state["warning_rows"])
