"""When lanes are written, and what becomes of a store that is away."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from service.pipeline.lane import Lane
from service.pipeline.lanes import Lanes
from service.pipeline.unwritten import Unwritten
from service.settings.service import CheckpointSettings
from service.store.errors import StoreError
from service.telemetry.metrics import Metrics
from service.telemetry.trouble import Trouble


class Writing:
    """Writes lanes when it is time, and waits for a store that is away or full.

    What is not written stays in memory; nothing more is to be taken until it is (`is_away`).

    Parameters
    ----------
    lanes
        What is written.
    limits
        After how many records or seconds a checkpoint is due, whichever comes first.
    metrics
        Counts attempts that failed.
    monotonic
        Seconds by a clock that is never set.
    written
        Called after each time, to learn what others have written.
    """

    def __init__(
        self,
        lanes: Lanes,
        limits: CheckpointSettings,
        metrics: Metrics,
        *,
        monotonic: Callable[[], float],
        written: Callable[[], None],
    ) -> None:
        self._lanes = lanes
        self._limits = limits
        self._metrics = metrics
        self._monotonic = monotonic
        self._written = written
        self._written_at = monotonic()
        self._trouble = Trouble(monotonic)

    @property
    def is_away(self) -> bool:
        """Whether the last attempt failed."""
        return self._trouble.lasts

    @property
    def reason(self) -> str:
        """Why it failed; empty if it did not."""
        return self._trouble.reason

    def met(self, error: StoreError | OSError) -> None:
        """Note that the store could not do what was asked."""
        self._metrics.store_errors.inc()
        self._trouble.met(error)

    def all(self) -> None:
        """Write everything.

        Raises
        ------
        StoreError, OSError
            If it cannot be written now; nothing is lost, and it can be tried again.
        """
        self._write([*self._lanes.values()])

    def due(self) -> None:
        """Write what it is time for, if the store is there or may be there again."""
        lanes = [*self._lanes.values()]
        if self._trouble.lasts:
            if not self._trouble.may_try:
                return
        elif not self._is_due(lane.unwritten for lane in lanes):
            # Only what somebody waits for: a lane's states are some megabytes.
            lanes = [lane for lane in lanes if lane.unwritten.is_urgent]
            if not lanes:
                return
        try:
            self._write(lanes)
        except (StoreError, OSError) as error:
            self.met(error)

    def _is_due(self, unwritten: Iterable[Unwritten]) -> bool:
        pending = [u for u in unwritten if u]
        if not pending:
            return False
        n_records = sum(u.n_records for u in pending)
        waited = self._monotonic() - self._written_at
        return n_records >= self._limits.every_records or waited >= self._limits.every_s

    def _write(self, lanes: Sequence[Lane]) -> None:
        self._lanes.write(lanes)
        if not any(lane.unwritten for lane in self._lanes.values()):
            self._written_at = self._monotonic()
        self._trouble.over()
        self._written()
