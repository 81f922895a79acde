"""What e-detectors share: a promised run length, and alarms when their averaged sum reaches it."""

from __future__ import annotations

from detectors.base import Alarm, Factor
from detectors.martingales.shiryaev_roberts import ShiryaevRoberts, as_arl0
from detectors.restarting import Restarting


class EDetector(Restarting):
    """Averages the Shiryaev-Roberts sums of several bets.

    Subclasses make the bets: `detectors.martingales.label_e_detector`,
    `detectors.martingales.conditional_e_detector`.

    Parameters
    ----------
    shape
        Of the bets.
    arl0
        The promise, and the threshold of the average; above 1.
    factor, name
        As of `Restarting`.

    Raises
    ------
    ValueError
        If `arl0` is out of range.
    """

    def __init__(self, shape: tuple[int, ...], *, arl0: float, factor: Factor, name: str) -> None:
        super().__init__(factor=factor, name=name)
        self.threshold = as_arl0(arl0)
        self._bets = ShiryaevRoberts(shape)

    @property
    def statistic(self) -> float:
        """The averaged sum as a share of its threshold; 1 is an alarm."""
        return float(self._bets.sums.mean() / self.threshold)

    def _alarm(self, row: int) -> Alarm:
        return Alarm(
            detector=self.name,
            factor=self.factor,
            row=row,
            statistic=float(self._bets.sums.mean()),
            threshold=self.threshold,
            run_length=self._bets.run_length(self._rows_seen),
        )

    def _begin(self) -> None:
        self._bets.begin(self._rows_seen)
