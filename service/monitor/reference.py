"""The reference window of a stream: collected, frozen, then only read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from detectors.attribution.windows import Reference, Sample
from detectors.base import Array, IntArray, State
from detectors.confirm import UNLABELLED
from detectors.learners.dependence import dependence_length
from service.monitor.events import Events
from service.monitor.representation import Representation
from service.records.columns import Features

MAX_CLASSES = 50
"""Classes with codes of their own; rarer ones share the last code."""
COMPLETE = 0.9
"""Share of the window's labels with which the label watches can be calibrated."""
DRIED_UP = 0.02
"""Labels count as no longer coming when a tenth of a window brings less than this share more."""


class Baseline:
    """The window of a stream that later observations are compared with.

    It is complete in two steps: the observations when there are `size` of them, the labels when
    nine tenths have come, or fewer (at least `min_labels`) and hardly any more arrive.

    Parameters
    ----------
    start
        Index of the window's first observation.
    size
        Observations in the window.
    min_labels
        Fewest labels that count as enough.
    representation
        Fitted on the window when it is full.
    """

    def __init__(
        self, start: int, size: int, min_labels: int, representation: Representation
    ) -> None:
        self.start = start
        self.size = size
        self.min_labels = min_labels
        self.representation = representation
        self.frozen = False
        self.labelled = False
        self.classes: tuple[str, ...] = ()
        self.rows: Array = np.empty((0, 0))
        self.codes: IntArray = np.empty(0, np.int64)
        self.scores: Array = np.empty((0, 0))
        self.block_length = 1
        """Rows that depend on each other, so that tests permute them together."""
        self.right = (0, 0)
        """Right predictions, and all predictions whose label has come."""
        self._codes: dict[str, int] = {}
        self._n = 0
        self._features: list[Features] = []
        self._scores: list[Array] = []
        self._labels: dict[int, str] = {}
        self._wrong: dict[int, bool] = {}
        self._segments: dict[int, Mapping[str, str]] = {}
        self._labels_at_check = 0
        self._check_at = start + size
        self._compared: tuple[int, Reference] | None = None

    @property
    def end(self) -> int:
        """Index behind the window's last observation."""
        return self.start + self.size

    def holds(self, index: int) -> bool:
        """Whether an observation belongs to the window."""
        return self.start <= index < self.end

    @property
    def expects_labels(self) -> bool:
        """Whether any label of the window has come."""
        return bool(self._labels)

    # -- collecting ----------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """Observations that the window still takes."""
        return self.size - self._n

    def add(
        self,
        features: Features,
        segments: Sequence[Mapping[str, str]] | None,
        scores: Array | None,
    ) -> None:
        """Take the next observations; with the last one that it takes the window is frozen.

        Parameters
        ----------
        features
            Of n observations, at most as many as there is `room` for.
        segments
            Of each of them; None where none has any.
        scores
            By class, shape (n, K), with a row of NaN for none; None where none has any.
        """
        for n, segment in enumerate(segments or (), self._n):
            if segment:
                self._segments[n] = segment
        self._n += len(features)
        self._features.append(features)
        if scores is not None:
            self._scores.append(scores[~np.isnan(scores).any(axis=1)])
        if self._n < self.size:
            return
        whole = Features.joined(self._features)
        self.representation.fit(whole)
        self.rows = self.representation.rows(whole)
        self.block_length = dependence_length(self.rows)
        self.codes = np.full(self.size, UNLABELLED, np.int64)
        if sum(map(len, self._scores)) == self.size:
            self.scores = np.concatenate(self._scores)
        self._features, self._scores = [], []
        self.frozen = True

    def label(self, index: IntArray, labels: Sequence[str], served: Sequence[str | None]) -> None:
        """Take those labels that are of the window, and what had been predicted; also late."""
        held = (index >= self.start) & (index < self.end)
        for k in np.flatnonzero(held).tolist():
            n, label, answer = int(index[k]), labels[k], served[k]
            self._labels[n] = label
            if answer is not None:
                is_right = answer == label
                self.right = (self.right[0] + is_right, self.right[1] + 1)
                self._wrong[n] = not is_right
            if self.labelled:
                self.codes[n - self.start] = self.code(label)
                self._compared = None

    def labels_due(self, *, is_label: bool, index: int) -> bool:
        """Whether the labels are complete now; to be asked after that event was taken."""
        if self.labelled or not self.frozen:
            return False
        n = len(self._labels)
        if is_label:
            return n == self.size
        if index < self._check_at:
            return False
        grown = n - self._labels_at_check
        self._labels_at_check = n
        self._check_at = index + max(self.size // 10, 1)
        return n >= self.min_labels and (n >= COMPLETE * self.size or grown < DRIED_UP * n)

    def until_labels_may_be_due(self, events: Events, start: int) -> int:
        """The place behind the first event from `start` on after which `labels_due` may say so."""
        if self.labelled:
            return len(events)
        is_label, index = events.is_label[start:], events.index[start:]
        held = is_label & (index >= self.start) & (index < self.end)
        missing = max(self.size - len(self._labels), 1)
        may_be = (~is_label & (index >= self._check_at)) | (held & (np.cumsum(held) >= missing))
        return start + int(np.argmax(may_be)) + 1 if may_be.any() else len(events)

    def complete_labels(self) -> None:
        """Give the classes their codes."""
        counts: dict[str, int] = {}
        for label in self._labels.values():
            counts[label] = counts.get(label, 0) + 1
        frequent = sorted(counts, key=lambda c: (-counts[c], c))[:MAX_CLASSES]
        self._name(tuple(sorted(frequent)))
        for index, label in self._labels.items():
            self.codes[index - self.start] = self.code(label)
        self.labelled = True
        self._compared = None

    def _name(self, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self._codes = {c: i for i, c in enumerate(classes)}

    # -- reading -------------------------------------------------------------------------------

    @property
    def n_classes(self) -> int:
        """Codes that labels may have: one for each class, and one for all others."""
        return len(self.classes) + 1

    def code(self, label: str) -> int:
        """The label's code; labels that the window does not know share the last one."""
        return self._codes.get(label, len(self.classes))

    def codes_of(self, labels: Sequence[str | None]) -> IntArray:
        """The codes of labels, shape (n,), each as of `code`."""
        known, other = self._codes.get, len(self.classes)
        return np.array([known(label, other) for label in labels], np.int64)  # type: ignore[arg-type]

    @property
    def first(self) -> int:
        """First row that is compared with others; those before it taught the representation."""
        return self.representation.n_spent(self.size)

    def compared(self, most: int) -> Reference:
        """The window for the factor tests, thinned evenly to `most` rows.

        It is kept with what it has taught until a label changes it. A restored one learns the same
        again, so that is not part of a snapshot.
        """
        if self._compared is None or self._compared[0] != most:
            chosen = self._thinned(most)
            sample = Sample(self.representation.complete(self.rows[chosen]), self.codes[chosen])
            reference = Reference(
                sample,
                n_classes=self.n_classes,
                columns=self.representation.complete_columns,
                block_length=self.block_length,
            )
            self._compared = most, reference
        return self._compared[1]

    def losses(self, most: int) -> Array | None:
        """1 for a wrong prediction on each row of `sample`, NaN if not known; None if none is."""
        if not self._wrong:
            return None
        return np.array(
            [float(self._wrong.get(self.start + i, np.nan)) for i in self._thinned(most).tolist()]
        )

    def segment(self, name: str, most: int) -> list[str]:
        """The value of a segment on each row of `sample`; empty where a row has none."""
        return [self._segments.get(i, {}).get(name, "") for i in self._thinned(most).tolist()]

    def _thinned(self, most: int) -> IntArray:
        n = min(self.size - self.first, most)
        return np.unique(np.linspace(self.first, self.size - 1, n).astype(np.int64))

    def labelled_rows(self) -> tuple[Array, IntArray]:
        """Rows without missing values and their codes, for the labelled observations."""
        known = self.codes != UNLABELLED
        known[: self.first] = False
        return self.representation.complete(self.rows[known]), self.codes[known]

    def scored(self, score_classes: tuple[str, ...]) -> tuple[Array, IntArray]:
        """Scores of the labelled observations, and their labels as columns of the scores."""
        column = {c: k for k, c in enumerate(score_classes)}
        known = [
            (n, column[self.classes[y]])
            for n, y in enumerate(self.codes.tolist())
            if 0 <= y < len(self.classes) and self.classes[y] in column
        ]
        if not known or not len(self.scores):
            return np.empty((0, len(score_classes))), np.empty(0, np.int64)
        rows, labels = np.array(known, np.int64).T
        return self.scores[rows], labels

    # -- snapshot ------------------------------------------------------------------------------

    def snapshot(self) -> State:
        """Everything needed to go on."""
        return {
            "start": self.start,
            "size": self.size,
            "frozen": self.frozen,
            "labelled": self.labelled,
            "classes": list(self.classes),
            "rows": self.rows,
            "block_length": self.block_length,
            "codes": self.codes.copy(),
            "scores": self.scores,
            "right": self.right,
            "collected": self._collected(),
            "labels": [list(self._labels), list(self._labels.values())],
            "wrong": [list(self._wrong), list(self._wrong.values())],
            "segments": [list(self._segments), [dict(s) for s in self._segments.values()]],
            "labels_at_check": self._labels_at_check,
            "check_at": self._check_at,
            "representation": self.representation.snapshot() if self.frozen else None,
        }

    def _collected(self) -> list[Any] | None:
        """What of a window that is not full has come so far."""
        if not self._features:
            return None
        whole = Features.joined(self._features)
        scores = np.concatenate(self._scores) if self._scores else np.empty((0, 0))
        return [whole.numbers, list(whole.levels), scores]

    def restore(self, state: State) -> None:
        """Go on from a snapshot."""
        self.start, self.size = state["start"], state["size"]
        self.frozen, self.labelled = state["frozen"], state["labelled"]
        self._name(tuple(state["classes"]))
        self.rows, self.scores = state["rows"], state["scores"]
        self.block_length = state["block_length"]
        self.codes = state["codes"].copy()
        self._compared = None
        self.right = tuple(state["right"])
        self._n = self.size if self.frozen else 0
        if (collected := state["collected"]) is not None:
            numbers, levels, scores = collected
            self._n = len(numbers)
            self._features = [Features(numbers, tuple(levels))]
            self._scores = [scores] if len(scores) else []
        self._labels = dict(zip(*state["labels"], strict=True))
        self._wrong = dict(zip(*state["wrong"], strict=True))
        self._segments = dict(zip(*state["segments"], strict=True))
        self._labels_at_check = state["labels_at_check"]
        self._check_at = state["check_at"]
        if state["representation"] is not None:
            self.representation.restore(state["representation"])
