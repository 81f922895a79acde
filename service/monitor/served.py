"""What was served for the observations, and how often it was right."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from detectors.base import Array, IntArray, State
from detectors.learners.prior import PriorCorrection
from service.domain.waiting import Spilled
from service.monitor.kept import Kept

ACCURACY_OF = 500
"""Newest labelled observations that the accuracy is of."""


class Served:
    """The predictions of the model at work, until the observation's label comes.

    Parameters
    ----------
    classes
        Of the scores; empty where nothing scores.
    n_recent
        Newest scores that are kept to estimate a prior from.

    Attributes
    ----------
    classes
        Of the scores that come next.
    since
        Index from which on the model at work has served: what was served before says nothing of it.
    """

    def __init__(self, classes: tuple[str, ...], n_recent: int) -> None:
        self.classes = classes
        self.since = 0
        self._kept = Kept(dtype=object)
        self._right: deque[bool] = deque(maxlen=ACCURACY_OF)
        self._recent: deque[tuple[int, Array]] = deque(maxlen=n_recent)

    @property
    def accuracy(self) -> float | None:
        """Share of right predictions among the last 500 labelled observations."""
        return sum(self._right) / len(self._right) if self._right else None

    def renew(self, since: int) -> None:
        """Another model serves from an index on."""
        self.since = since
        self._kept.clear()
        self._right.clear()

    def forget_scores(self) -> None:
        """A new reference begins: scores from before it are compared with nothing any more."""
        self._recent.clear()

    def answers(
        self,
        first: int,
        predictions: Sequence[str | None],
        scores: Array | None,
        correction: PriorCorrection | None,
    ) -> list[str | None]:
        """What is served for the next observations.

        Parameters
        ----------
        first
            Index of the first of n.
        predictions
            The class that came along with each; it counts where there are no scores.
        scores
            By class, shape (n, K), with a row of NaN where there are none; or None.
        correction
            Of a moved prior, for the scores.
        """
        if scores is None:
            return list(predictions)
        has_scores = ~np.isnan(scores).any(axis=1)
        own = np.ascontiguousarray(scores[has_scores])
        at = np.flatnonzero(has_scores)
        self._recent.extend(zip((first + at).tolist(), own, strict=True))
        if correction is not None and len(own):
            own = correction.apply(own)
        answers = list(predictions)
        best = own.argmax(axis=1) if len(own) else []
        for n, k in zip(at.tolist(), best, strict=True):
            answers[n] = self.classes[k]
        return answers

    def of(self, index: IntArray) -> list[str | None]:
        """What was served for observations of earlier batches; None where it is not known."""
        values, found = self._kept.of(index)
        return [v if known else None for v, known in zip(values, found.tolist(), strict=True)]

    def of_spilled(self, entry: Spilled) -> str | None:
        """What was served for an observation that had been pushed out of memory."""
        return entry.value if entry.index >= self.since else None

    def judge(self, labels: Sequence[str], served: Sequence[str | None]) -> list[bool | None]:
        """Take labels in order; return whether each tells of a mistake, if that is known."""
        wrong = [
            None if answer is None else answer != label
            for label, answer in zip(labels, served, strict=True)
        ]
        self._right.extend(not mistaken for mistaken in wrong if mistaken is not None)
        return wrong

    def keep(self, index: IntArray, answers: Sequence[str | None]) -> None:
        """Keep what was served for observations that wait for their label."""
        known = [n for n, answer in enumerate(answers) if answer is not None]
        if known:
            values = np.array([answers[n] for n in known], object)
            self._kept.add(index[known], values)

    def drop(self, index: IntArray) -> None:
        """Keep what was served for observations no longer."""
        self._kept.drop(index)

    def recent(self, since: int, at_most: int) -> Array | None:
        """The newest scores from an index on, shape (n, K), of the last observations; or None."""
        newest = self._recent[-1][0] if self._recent else -1
        first = max(since, newest - at_most + 1)
        found = [scores for index, scores in self._recent if index >= first]
        return np.stack(found) if found else None

    # -- snapshot ------------------------------------------------------------------------------

    def snapshot(self) -> State:
        """Everything needed to go on."""
        scores = [scores for _, scores in self._recent]
        return {
            "since": self.since,
            "kept": [self._kept.index, self._kept.values.tolist()],
            "right": np.array(self._right, np.bool_),
            "recent": [
                np.array([index for index, _ in self._recent], np.int64),
                np.stack(scores) if scores else np.empty((0, 0)),
            ],
        }

    def restore(self, state: State) -> None:
        """Go on from a snapshot of an equally made one."""
        self.since = state["since"]
        self._kept.clear()
        index, answers = state["kept"]
        self.keep(index, answers)
        self._right.clear()
        self._right.extend(map(bool, state["right"]))
        index, scores = state["recent"]
        self._recent.clear()
        self._recent.extend(zip(index.tolist(), scores, strict=True))
