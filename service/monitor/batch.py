"""A batch on its way through a monitor: its events, and what has been made of its observations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from detectors.base import Array, IntArray
from service.monitor.events import Events
from service.monitor.outcomes import Joined
from service.monitor.representation import Representation
from service.monitor.served import Served
from service.monitor.stage1 import Rows
from service.records.columns import LABEL, Columns, Coordinates


class Batch:
    """The events of a batch and the columns that they came from.

    Parameters
    ----------
    columns
        The records.
    events
        What they come to once their labels are joined.
    first
        Index of the first observation.

    Attributes
    ----------
    rows
        What detectors read of the observations from some index on; None while there is no
        reference.
    """

    def __init__(self, columns: Columns, events: Events, first: int) -> None:
        self.columns = columns
        self.events = events
        self.first = first
        self.rows: Rows | None = None
        self._answers: list[str | None] = []
        self._observations = columns.observations
        self._labels: list[str] = []
        self._served: list[str | None] = []
        self._index: list[int] = []

    def __len__(self) -> int:
        return len(self.events)

    def is_label(self, place: int) -> bool:
        """Whether an event is a label."""
        return bool(self.events.is_label[place])

    def index(self, place: int) -> int:
        """The index of an event's observation."""
        return int(self.events.index[place])

    def at(self, place: int) -> Coordinates:
        """Where the record of an event stands."""
        return self.columns.at(int(self.events.records[place]))

    def newest_time(self, start: int, stop: int) -> str:
        """The time of the last of some events that has one, or an empty text."""
        if self.columns.times is not None:
            for place in range(stop - 1, start - 1, -1):
                if time := self.columns.time(int(self.events.records[place])):
                    return time
        return ""

    def seen(self, start: int, stop: int) -> slice:
        """The observations among some events, as places among the batch's observations."""
        index = self.events.index[start:stop][~self.events.is_label[start:stop]]
        if not len(index):
            return slice(0, 0)
        return slice(int(index[0]) - self.first, int(index[-1]) - self.first + 1)

    def labels(self, start: int, stop: int) -> IntArray:
        """The places of the labels among some events."""
        return np.flatnonzero(self.events.is_label[start:stop]) + start

    def place_of_seen(self, start: int, n: int) -> int:
        """The place of the n-th observation from a place on; of the last event if there are fewer.

        So many events are enough to have it.
        """
        return _place_of(~self.events.is_label[start:], start, n, len(self))

    def place_of_label(self, start: int, n: int) -> int:
        """The same for the n-th label."""
        return _place_of(self.events.is_label[start:], start, n, len(self))

    def segments(self, which: slice) -> list[Mapping[str, str]] | None:
        """The segments of some of the observations."""
        if self.columns.segments is None:
            return None
        return [self.columns.segments[n] for n in self._observations[which].tolist()]

    def predictions(self, which: slice) -> list[str | None]:
        """The classes that came along with some of the observations."""
        if self.columns.predictions is None:
            return [None] * (which.stop - which.start)
        return [self.columns.predictions[n] for n in self._observations[which].tolist()]

    def scores(self, which: slice) -> Array | None:
        """The scores of some of the observations."""
        return None if self.columns.scores is None else self.columns.scores[which]

    # -- what is made of the observations --------------------------------------------------------

    def answer(self, answers: Sequence[str | None]) -> None:
        """Note what is served for the next observations."""
        self._answers += answers

    def encode(self, representation: Representation, since: int) -> Rows:
        """What detectors read of the observations from an index on."""
        if self.rows is None:
            features = self.columns.features[slice(since - self.first, None)]
            self.rows = Rows(since, representation.rows(features))
        return self.rows

    def served(self, places: IntArray, served: Served) -> list[str | None]:
        """What was served for the observations that some labels are for; it is noted as joined."""
        events, columns = self.events, self.columns
        index = events.index[places]
        found = served.of(index)
        for n, (place, at) in enumerate(zip(places.tolist(), index.tolist(), strict=True)):
            record = int(events.records[place])
            if place in events.spilled:
                found[n] = served.of_spilled(events.spilled[place])
            elif self.first <= at < self.first + len(self._answers):
                found[n] = self._answers[at - self.first]
            if found[n] is None and columns.kinds[record] == LABEL:
                found[n] = columns.prediction(record)
        self._index += index.tolist()
        self._labels += [str(events.labels[place]) for place in places.tolist()]
        self._served += found
        return found

    def push_out(self, start: int, stop: int, served: Served) -> None:
        """Note with observations that are pushed out of memory what was served for them."""
        for place, entry in self.events.pushed_out.items():
            if start <= place < stop:
                at = entry.index - self.first
                if at >= 0:
                    entry.value = self._answers[at] if at < len(self._answers) else None
                else:
                    [entry.value] = served.of(np.array([entry.index], np.int64))

    @property
    def joined(self) -> Joined:
        """The observations whose label is known now."""
        return Joined(np.array(self._index, np.int64), self._labels, self._served)

    def keep_waiting(self, served: Served) -> IntArray:
        """Keep what was served while the label does not come; return who waits, of this batch.

        To be called when all events are read: until then the labels find what was before.
        """
        waits = np.ones(len(self._answers), np.bool_)
        for ended in (self.events.ended, self.events.index[self.events.is_label]):
            own = ended[ended >= self.first] - self.first
            waits[own] = False
        at = np.flatnonzero(waits)
        served.drop(self.events.ended)
        served.keep(self.first + at, [self._answers[n] for n in at.tolist()])
        return self.first + at


def _place_of(which: npt.NDArray[np.bool_], start: int, n: int, end: int) -> int:
    found = np.flatnonzero(which)
    return start + int(found[n - 1]) if len(found) >= n else end - 1
