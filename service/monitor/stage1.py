"""Stage 1 of one stream: what watches it, and the rows that wait for their label."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detectors.base import Alarm, Array, Factor, IntArray, State
from detectors.confirm import UNLABELLED
from detectors.watches.build import build_watches, watch_from_snapshot
from detectors.watches.contract import Feed, Watching
from service.monitor.events import Events
from service.monitor.kept import Kept
from service.monitor.reference import Baseline
from service.settings.stream import StreamSettings

REMEMBERED = 5000
"""Labelled observations that a run length of the labelled feed can reach back over."""


@dataclass(frozen=True, slots=True)
class Found:
    """An alarm, and what its watch reads."""

    alarm: Alarm
    feed: Feed


@dataclass(frozen=True, slots=True)
class Rows:
    """What detectors read of a batch: rows (m, d) of its observations, which begin at an index."""

    first: int
    rows: Array

    def of(self, index: IntArray) -> tuple[Array, npt.NDArray[np.bool_]]:
        """Rows of observations, and which of these belong to the batch."""
        at = index - self.first
        inside = (at >= 0) & (at < len(self.rows))
        if not len(self.rows):
            return np.empty((len(index), self.rows.shape[1])), inside
        return self.rows[np.where(inside, at, 0)], inside

    def among(self, start: int, stop: int) -> Array:
        """Rows of the observations from an index to another."""
        return self.rows[start - self.first : stop - self.first]


class Watches:
    """The watches of a stream against one reference.

    Parameters
    ----------
    settings
        The stream's settings.
    baseline
        The reference.
    arl0
        Observations between false alarms of all watches together.
    seed
        As in `detectors.watches.build.build_watches`.

    Attributes
    ----------
    all
        The watches at work.
    left_out
        For each watch that the reference could not teach, the reason; empty as a rule.
    """

    def __init__(
        self, settings: StreamSettings, baseline: Baseline, *, arl0: float, seed: int
    ) -> None:
        self.settings = settings
        self.baseline = baseline
        self._arl0 = arl0
        self._seed = seed
        self.all: list[Watching] = []
        self.left_out: dict[str, str] = {}
        self._kept: Kept | None = None
        self._labelled: deque[int] = deque(maxlen=REMEMBERED)

    @property
    def statistics(self) -> dict[Factor, float]:
        """Largest statistic of each factor's watches, as a share of its threshold."""
        out: dict[Factor, float] = {}
        for watch in self.all:
            out[watch.factor] = max(out.get(watch.factor, 0.0), watch.statistic)
        return out

    def arm_inputs(self) -> Mapping[str, str]:
        """The reference's observations are complete: begin to watch P(X).

        Returns
        -------
        Mapping[str, str]
            For each watch that the reference cannot teach, the reason.
        """
        compared = slice(self.baseline.first, None)
        self.all.clear()
        return self._learn(Feed.SEEN, self.baseline.rows[compared], self.baseline.codes[compared])

    def arm_labels(self) -> Mapping[str, str]:
        """The reference's labels are complete: begin to watch what needs labels.

        Returns
        -------
        Mapping[str, str]
            As of `arm_inputs`.
        """
        return self._learn(Feed.LABELLED, *self.baseline.labelled_rows())

    def _learn(self, feed: Feed, rows: Array, codes: IntArray) -> Mapping[str, str]:
        learned = build_watches(
            feed,
            self.settings.problem,
            rows,
            codes,
            n_classes=self.baseline.n_classes,
            arl0=self._arl0,
            seed=self._seed,
            detectors=self.settings.detectors,
            left_out=self.left_out,
        )
        self.all += learned.watches
        self.left_out = {**self.left_out, **learned.left_out}
        return learned.left_out

    # -- rows until their label comes ----------------------------------------------------------

    def keep(self, index: IntArray, rows: Array) -> None:
        """Keep rows of observations that wait for their label."""
        if self._kept is None and len(index):
            self._kept = Kept(rows.shape[1:])
        if self._kept is not None:
            self._kept.add(index, rows)

    def drop(self, index: IntArray) -> None:
        """Keep rows of observations no longer."""
        if self._kept is not None:
            self._kept.drop(index)

    def rows_of(self, index: IntArray, batch: Rows) -> tuple[Array, npt.NDArray[np.bool_]]:
        """Rows of labelled observations, of this batch or kept, and which of them there are."""
        rows, found = batch.of(index)
        if found.all() or self._kept is None:
            return rows, found
        kept, known = self._kept.of(index)
        return np.where(found[:, None], rows, kept), found | known

    # -- events --------------------------------------------------------------------------------

    def advance(
        self, events: Events, start: int, stop: int, batch: Rows, *, newest: int, quiet_until: int
    ) -> tuple[int, Found | None]:
        """Read events up to and including the first that raises an alarm.

        Parameters
        ----------
        events, start, stop
            What there is to read, in order.
        batch
            Rows of the observations among the events.
        newest
            Index of the observation before them.
        quiet_until
            Index up to which alarms are not heard.

        Returns
        -------
        tuple[int, Found | None]
            The place behind the last event that was read, and the alarm.
        """
        fed = {feed: self._fed(feed, events, start, stop, batch) for feed in Feed}
        before = [watch.mark() for watch in self.all]
        first: tuple[int, Found] | None = None
        for watch in self.all:
            places, rows, labels = fed[watch.feed]
            for alarm in watch.update(rows, labels):
                place = int(places[alarm.row])
                loud = _newest_at(events, start, place, newest) >= quiet_until
                if loud and (first is None or place < first[0]):
                    first = (place, Found(alarm, watch.feed))
                if loud:
                    break
        end = stop if first is None else first[0] + 1
        if first is not None:
            for watch, mark in zip(self.all, before, strict=True):
                watch.back(mark)
                places, rows, labels = fed[watch.feed]
                cut = int(np.searchsorted(places, first[0], side="right"))
                watch.update(rows[:cut], labels[:cut])
        self._note_labelled(events, start, end)
        return end, None if first is None else first[1]

    def _note_labelled(self, events: Events, start: int, end: int) -> None:
        """Remember which labels the watches have read."""
        places = np.flatnonzero(events.is_label[start:end]) + start
        self._labelled.extend(events.index[places[events.in_memory(places)]].tolist())

    def _fed(
        self, feed: Feed, events: Events, start: int, stop: int, batch: Rows
    ) -> tuple[IntArray, Array, IntArray]:
        """Places, rows and label codes of the events that a feed's watches read."""
        is_label = events.is_label[start:stop]
        if feed is Feed.SEEN:
            places = np.flatnonzero(~is_label) + start
            if not len(places):
                return places, batch.rows[:0], np.empty(0, np.int64)
            at = int(events.index[places[0]]) - batch.first
            rows = batch.rows[at : at + len(places)]
            return places, rows, np.full(len(places), UNLABELLED)
        wanted = is_label & (events.index[start:stop] >= self.baseline.end)
        places = np.flatnonzero(wanted) + start
        places = places[events.in_memory(places)]
        rows, found = self.rows_of(events.index[places], batch)
        if not found.all():
            places, rows = places[found], rows[found]
        complete = self.baseline.representation.complete(rows)
        return places, complete, self.baseline.codes_of([events.labels[i] for i in places.tolist()])

    def change_point(self, found: Found, index: int) -> int:
        """Index at which the watch saw the change begin, if it alarmed at this one."""
        if found.feed is Feed.SEEN:
            start = index - found.alarm.run_length + 1
        else:
            start = self._labelled[-min(found.alarm.run_length, len(self._labelled))]
        return max(start, self.baseline.end)

    def rest(self) -> None:
        """Forget what was summed up; what was learned stays."""
        self._labelled.clear()
        for watch in self.all:
            watch.reset()

    # -- snapshot ------------------------------------------------------------------------------

    def snapshot(self) -> State:
        """Everything needed to go on."""
        return {
            "watches": [watch.snapshot() for watch in self.all],
            "left_out": dict(self.left_out),
            "kept": [self._kept.index, self._kept.values] if self._kept else None,
            "labelled": np.array(self._labelled, np.int64),
        }

    def restore(self, state: State) -> None:
        """Go on from a snapshot against an equal reference."""
        self.all = [watch_from_snapshot(watch) for watch in state["watches"]]
        self.left_out = dict(state["left_out"])
        self._kept = None
        if state["kept"] is not None:
            self.keep(*state["kept"])
        self._labelled.clear()
        self._labelled.extend(state["labelled"].tolist())


def _newest_at(events: Events, start: int, place: int, newest: int) -> int:
    """Index of the newest observation as of an event."""
    seen = np.flatnonzero(~events.is_label[start : place + 1])
    return int(events.index[start + seen[-1]]) if len(seen) else newest
