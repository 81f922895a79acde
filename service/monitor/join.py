"""Joins the labels of a batch, and says what events it brings."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from service.domain.waiting import Spilled
from service.monitor.events import Delay, Events
from service.monitor.label_outcomes import NO_CHANGE, Change, Joined, Outcome
from service.monitor.labels import LabelJoin
from service.records.columns import GONE, LABEL, OBSERVATION, Columns

AT_ONCE = 16
"""Observations in a row from which on it pays to take them at once."""


def join(
    waiting: LabelJoin,
    columns: Columns,
    first: int,
    *,
    with_changes: bool = False,
    at_once: int = AT_ONCE,
) -> Events:
    """Join the records of a batch.

    Parameters
    ----------
    waiting
        What has come so far.
    columns
        The records.
    first
        Index of the first observation among them.
    with_changes
        Whether somebody wants to know what each record changed.
    at_once
        Observations in a row that are taken at once, if nothing is known of them; the result is
        the same.
    """
    found = _Found(columns, first, with_changes=with_changes)
    for start, stop in _runs(columns):
        if stop - start < at_once or not _observe_all(waiting, found, start, stop):
            for n in range(start, stop):
                _take(waiting, found, n)
    return found.events(waiting)


class _Found:
    """Events as they are found."""

    def __init__(self, columns: Columns, first: int, *, with_changes: bool) -> None:
        self.columns = columns
        self.index = first
        self.with_changes = with_changes
        self._records: list[int] = []
        self._is_label: list[bool] = []
        self._index: list[int] = []
        self._labels: list[str | None] = []
        self._pushed_out: dict[int, Spilled] = {}
        self._spilled: dict[int, Spilled] = {}
        self.ended: list[int] = []
        self.delays: list[Delay] = []
        self.outcomes: dict[Outcome, int] = {}
        self.changes: list[Change] = []

    def observation(self, n: int, change: Change) -> None:
        """Note an observation and what came of it."""
        if change.spilled is not None:
            self._pushed_out[len(self._records)] = change.spilled
        self._add(n, is_label=False, index=self.index, label=None)
        self.index += 1

    def label(self, n: int, joined: Joined) -> None:
        """Note a label that is joined."""
        if joined.spilled is not None:
            self._spilled[len(self._records)] = joined.spilled
        self._add(n, is_label=True, index=joined.index, label=joined.label)

    def all(self, start: int, stop: int, labels: list[str | None] | None) -> None:
        """Note observations in a row, each with the label that it brought along behind it."""
        if labels is None:
            self._records += range(start, stop)
            self._is_label += [False] * (stop - start)
            self._index += range(self.index, self.index + stop - start)
            self._labels += [None] * (stop - start)
            self.index += stop - start
            return
        for n, label in enumerate(labels, start):
            self._add(n, is_label=False, index=self.index, label=None)
            if label is not None:
                self._add(n, is_label=True, index=self.index, label=label)
            self.index += 1

    def _add(self, n: int, *, is_label: bool, index: int, label: str | None) -> None:
        self._records.append(n)
        self._is_label.append(is_label)
        self._index.append(index)
        self._labels.append(label)

    def count(self, outcome: Outcome | None, n: int = 1) -> None:
        """Note what became of labels."""
        if outcome is not None and n:
            self.outcomes[outcome] = self.outcomes.get(outcome, 0) + n

    def events(self, waiting: LabelJoin) -> Events:
        """All that was found."""
        counted = waiting.counted()
        counted.update(self.outcomes)
        return Events(
            np.array(self._records, np.int64),
            np.array(self._is_label, np.bool_),
            np.array(self._index, np.int64),
            self._labels,
            self._pushed_out,
            self._spilled,
            np.array(self.ended, np.int64),
            counted,
            self.delays,
            self.changes,
        )


def _runs(columns: Columns) -> Iterator[tuple[int, int]]:
    """Neighbours that are observations, and those that are not."""
    is_observation = columns.kinds == OBSERVATION
    if is_observation.all():
        bounds = [0, len(columns)]
    else:
        bounds = [0, *(np.flatnonzero(np.diff(is_observation)) + 1).tolist(), len(columns)]
    for start, stop in pairwise(bounds):
        if stop > start:
            yield start, stop


def _observe_all(waiting: LabelJoin, found: _Found, start: int, stop: int) -> bool:
    columns = found.columns
    if columns.kinds[start] != OBSERVATION:
        return False
    labels = None if columns.labels is None else columns.labels[start:stop]
    if labels is not None and not any(label is not None for label in labels):
        labels = None
    first = found.index
    left = waiting.observe_all(columns.ids[start:stop], first, labels, columns.seconds[start:stop])
    if left is None:
        return False
    found.all(start, stop, labels)
    found.ended += [index for _, index, _ in left]
    if labels is not None:
        found.count(Outcome.JOINED, sum(label is not None for label in labels))
    if found.with_changes:
        gone = {n: (index, id_) for n, index, id_ in left}
        for n in range(stop - start):
            label = None if labels is None else labels[n]
            if label is not None:
                found.changes.append(Change(Outcome.JOINED, Joined(first + n, label, 0)))
            else:
                found.changes.append(Change(forgotten=gone[n]) if n in gone else NO_CHANGE)
    return True


def _take(waiting: LabelJoin, found: _Found, n: int) -> None:
    """Join one record."""
    columns = found.columns
    kind, id_ = columns.kinds[n], columns.ids[n]
    if kind == OBSERVATION:
        change = waiting.observe(id_, found.index, columns.label(n), float(columns.seconds[n]))
        found.observation(n, change)
    elif kind == LABEL:
        label = columns.label(n)
        assert label is not None
        change = waiting.label(id_, label, found.index - 1, float(columns.seconds[n]))
        if change.joined is not None:
            found.ended.append(change.joined.index)
            found.delays.append(Delay(change.joined.delay, change.joined.seconds))
    else:
        assert kind == GONE
        change = waiting.forget(id_)
    found.count(change.outcome)
    if change.joined is not None:
        found.label(n, change.joined)
    if change.forgotten is not None:
        found.ended.append(change.forgotten[0])
    if found.with_changes:
        found.changes.append(change)
