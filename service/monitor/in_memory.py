"""Observations that wait in memory for their label, and labels that wait for their observation."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from detectors.base import Array, IntArray


class Observations:
    """Observations that wait for their label, oldest first."""

    def __init__(self) -> None:
        self.index: OrderedDict[str, int] = OrderedDict()
        """By id."""
        self._times: dict[str, float] = {}  # of those that have one, in the same order

    def __len__(self) -> int:
        return len(self.index)

    def __contains__(self, id_: object) -> bool:
        return id_ in self.index

    def add(self, id_: str, index: int, time: float) -> None:
        """Wait for the label of an observation, whose time is not a number if it has none."""
        self.index[id_] = index
        if not math.isnan(time):
            self._times[id_] = time

    def add_all(self, ids: Sequence[str], index: IntArray, times: Array) -> None:
        """The same for n observations of which none waits yet."""
        self.index.update(zip(ids, index.tolist(), strict=True))
        timed = np.flatnonzero(~np.isnan(times))
        at = timed.tolist()
        self._times.update(zip([ids[n] for n in at], times[timed].tolist(), strict=True))

    def end(self, id_: str) -> int | None:
        """Wait no longer; the index of the observation that did."""
        index = self.index.pop(id_, None)
        if index is not None:
            self._times.pop(id_, None)
        return index

    def push_out_all(self, n: int) -> list[tuple[str, int]]:
        """Wait no longer for the `n` oldest: their ids and indices."""
        oldest = self.index.popitem
        out = [oldest(last=False) for _ in range(n)]
        if self._times:
            for id_, _ in out:
                self._times.pop(id_, None)
        return out

    def push_out(self) -> tuple[str, int, float]:
        """Wait no longer for the oldest: its id, index and time."""
        id_, index = self.index.popitem(last=False)
        return id_, index, self._times.pop(id_, math.nan)

    def time_of(self, id_: str) -> float:
        """Time of an observation; not a number if it has none."""
        return self._times.get(id_, math.nan)

    def oldest_between(self, since: float, until: float) -> float | None:
        """The first of the times that lies between two, in the order in which they came."""
        return next((t for t in self._times.values() if since <= t <= until), None)

    def age_all_before(self, time: float) -> None:
        """What is from before a time is as old as anything can be."""
        self._times = {id_: -math.inf if t < time else t for id_, t in self._times.items()}

    def snapshot(self) -> list[object]:
        """Ids, indices and times: columns, because lists of pairs took ten times as long."""
        n = len(self.index)
        if not self._times:
            times = np.full(n, math.nan)
        elif len(self._times) == n:  # all have one, and these are in the same order
            times = np.fromiter(self._times.values(), np.float64, n)
        else:
            times = np.fromiter(map(self.time_of, self.index), np.float64, n)
        return [list(self.index), np.fromiter(self.index.values(), np.int64, n), times]

    def restore(self, state: Iterable[object]) -> None:
        """Go on from a snapshot."""
        ids, index, times = state
        assert isinstance(ids, list)
        assert isinstance(index, np.ndarray)
        assert isinstance(times, np.ndarray)
        self.index = OrderedDict()
        self._times = {}
        self.add_all(ids, index, times)


class EarlyLabels:
    """Labels that wait for their observation, oldest first, each with its time."""

    def __init__(self) -> None:
        self._labels: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._labels)

    def __contains__(self, id_: object) -> bool:
        return id_ in self._labels

    def __iter__(self) -> Iterator[str]:
        return iter(self._labels)

    def get(self, id_: str) -> tuple[str, float] | None:
        """The label that waits for an observation, and its time."""
        return self._labels.get(id_)

    def put(self, id_: str, label: str, time: float) -> None:
        """Wait for an observation."""
        self._labels[id_] = (label, time)

    def pop(self, id_: str) -> tuple[str, float] | None:
        """The label that waits for an observation, and its time; it waits no longer."""
        return self._labels.pop(id_, None)

    def push_out(self) -> tuple[str, str, float]:
        """Wait no longer with the oldest: its id, label and time."""
        id_, (label, time) = self._labels.popitem(last=False)
        return id_, label, time

    @property
    def oldest_time(self) -> float:
        """The oldest one's time; not a number if it has none, or there is none."""
        return next((time for _, time in self._labels.values()), math.nan)

    def drop_before(self, time: float) -> int:
        """Wait no longer with those from before a time; how many they were."""
        old = [id_ for id_, (_, came) in self._labels.items() if came < time]
        for id_ in old:
            del self._labels[id_]
        return len(old)

    def snapshot(self) -> list[object]:
        """Ids, labels and times."""
        given = self._labels.values()
        return [
            list(self._labels),
            [label for label, _ in given],
            np.array([time for _, time in given], np.float64),
        ]

    def restore(self, state: Iterable[object]) -> None:
        """Go on from a snapshot."""
        ids, labels, times = state
        assert isinstance(ids, list)
        assert isinstance(labels, list)
        assert isinstance(times, np.ndarray)
        given = zip(labels, times.tolist(), strict=True)
        self._labels = OrderedDict(zip(ids, given, strict=True))
