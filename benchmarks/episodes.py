"""The count of alarms against one drift an episode, after Cerqueira and others [1]_.

An alarm from the drift's first row to `max_delay` rows after it is right, and so is every further
one there; any other alarm is false, before and after alike. An episode without a right alarm is
missed. Recall and F1 count alarms and not episodes, as in the authors' published figures, and
false alarms are those of all episodes per 1000 rows of one stream.

References
----------
.. [1] V. Cerqueira, H. M. Gomes, M. Heyden, B. Pfahringer, A. Bifet (2026). arXiv 2606.07789.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Count:
    """What was counted over episodes.

    Attributes
    ----------
    right, false, missed
        Right alarms, false alarms, and episodes without a right alarm.
    delays
        Rows from the drift to the first right alarm, of the episodes that have one.
    n_episodes
        Episodes.
    n_rows
        Rows of one episode's stream.
    """

    right: int
    false: int
    missed: int
    delays: tuple[int, ...]
    n_episodes: int
    n_rows: int

    @property
    def precision(self) -> float:
        """Share of the alarms that were right; 0 without alarms."""
        return self.right / max(self.right + self.false, 1)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, where recall is right / (right + missed)."""
        return 2 * self.right / max(2 * self.right + self.false + self.missed, 1)

    @property
    def episode_recall(self) -> float:
        """Share of the episodes with a right alarm."""
        return len(self.delays) / max(self.n_episodes, 1)

    @property
    def mean_delay(self) -> float | None:
        """Mean rows to the first right alarm, the authors' `mdt`; None without one."""
        return float(np.mean(self.delays)) if self.delays else None

    @property
    def median_delay(self) -> float | None:
        """Median rows to the first right alarm; None without one."""
        return float(np.median(self.delays)) if self.delays else None

    @property
    def false_per_1000(self) -> float:
        """False alarms of all episodes per 1000 rows of one stream, the authors' `far`."""
        return 1000 * self.false / self.n_rows


def count(episodes: Sequence[tuple[int, Sequence[int]]], *, max_delay: int, n_rows: int) -> Count:
    """Count alarms.

    Parameters
    ----------
    episodes
        Of each, the drift's first row and the rows of the alarms, increasing.
    max_delay
        Rows after the drift's first within which an alarm is right.
    n_rows
        Rows of one episode's stream.
    """
    right = false = 0
    delays: list[int] = []
    for onset, alarms in episodes:
        good = [alarm - onset for alarm in alarms if onset <= alarm <= onset + max_delay]
        right += len(good)
        false += len(alarms) - len(good)
        delays += good[:1]
    return Count(right, false, len(episodes) - len(delays), tuple(delays), len(episodes), n_rows)
