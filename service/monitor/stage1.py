"""Stage 1 of one stream: what watches it, and the rows that wait for their label."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from detectors.base import Alarm, Array, Factor, IntArray, State
from detectors.confirm import UNLABELLED
from detectors.watches.build import build_watches, watch_from_snapshot
from detectors.watches.contract import Feed, Watching
from service.monitor.events import Event, Labelled, Seen
from service.monitor.reference import Baseline
from service.settings.stream import StreamSettings

REMEMBERED = 5000
"""Labelled observations that a run length of the labelled feed can reach back over."""


class Found(NamedTuple):
    """An alarm, and what its watch reads."""

    alarm: Alarm
    feed: Feed


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
        self._pending: OrderedDict[int, Array] = OrderedDict()
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

    def keep(self, index: int, row: Array) -> None:
        """Keep a row until its label comes, or there is no more room."""
        self._pending[index] = row
        if len(self._pending) > self.settings.labels.max_pending:
            self._pending.popitem(last=False)

    def release(self, index: int) -> Array | None:
        """The row that a label is for, which is kept no longer."""
        return self._pending.pop(index, None)

    def labelled(self, index: int) -> None:
        """Note that the watches have read a label."""
        self.release(index)
        self._labelled.append(index)

    # -- events --------------------------------------------------------------------------------

    def advance(
        self, events: list[Event], rows: dict[int, Array], *, newest: int, quiet_until: int
    ) -> tuple[int, Found | None]:
        """Read events up to and including the first that raises an alarm.

        Parameters
        ----------
        events
            In order.
        rows
            Rows of the observations among them, by index.
        newest
            Index of the observation before them.
        quiet_until
            Index up to which alarms are not heard.

        Returns
        -------
        tuple[int, Found | None]
            Events read, and the alarm.
        """
        fed = {feed: self._fed(feed, events, rows) for feed in Feed}
        before = [watch.mark() for watch in self.all]
        first: tuple[int, Found] | None = None
        for watch in self.all:
            positions, batch, labels = fed[watch.feed]
            for alarm in watch.update(batch, labels):
                position = positions[alarm.row]
                loud = _newest_at(events, position, newest) >= quiet_until
                if loud and (first is None or position < first[0]):
                    first = (position, Found(alarm, watch.feed))
                if loud:
                    break
        if first is None:
            return len(events), None
        for watch, mark in zip(self.all, before, strict=True):
            watch.back(mark)
            positions, batch, labels = fed[watch.feed]
            cut = int(np.searchsorted(positions, first[0], side="right"))
            watch.update(batch[:cut], labels[:cut])
        return first[0] + 1, first[1]

    def _fed(
        self, feed: Feed, events: list[Event], rows: dict[int, Array]
    ) -> tuple[list[int], Array, IntArray]:
        """Positions, rows and label codes of the events that a feed's watches read."""
        if feed is Feed.SEEN:
            seen = [(n, e.index) for n, e in enumerate(events) if isinstance(e, Seen)]
            batch = [rows[index] for _, index in seen]
            return [n for n, _ in seen], self._stacked(batch), np.full(len(seen), UNLABELLED)
        positions: list[int] = []
        batch = []
        labels: list[int] = []
        for position, event in enumerate(events):
            if (
                isinstance(event, Labelled)
                and event.spilled is None
                and event.index >= self.baseline.end
            ):
                row = self._pending.get(event.index)
                row = rows.get(event.index) if row is None else row
                if row is not None:
                    positions.append(position)
                    batch.append(row)
                    labels.append(self.baseline.code(event.label))
        complete = self.baseline.representation.complete(self._stacked(batch))
        return positions, complete, np.array(labels, np.int64)

    def _stacked(self, rows: list[Array]) -> Array:
        return np.array(rows) if rows else np.empty((0, self.baseline.rows.shape[1]))

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
            "pending": [np.array(list(self._pending), np.int64), stack(self._pending.values())],
            "labelled": np.array(self._labelled, np.int64),
        }

    def restore(self, state: State) -> None:
        """Go on from a snapshot against an equal reference."""
        self.all = [watch_from_snapshot(watch) for watch in state["watches"]]
        self.left_out = dict(state["left_out"])
        index, rows = state["pending"]
        self._pending = OrderedDict(zip(index.tolist(), rows, strict=True))
        self._labelled.clear()
        self._labelled.extend(state["labelled"].tolist())


def stack(rows: Iterable[Array]) -> Array:
    """Rows of shape (d,) as one array, shape (n, d); (0, 0) for none."""
    held = list(rows)
    return np.array(held) if held else np.empty((0, 0))


def _newest_at(events: list[Event], position: int, newest: int) -> int:
    seen = [e.index for e in events[: position + 1] if isinstance(e, Seen)]
    return seen[-1] if seen else newest
