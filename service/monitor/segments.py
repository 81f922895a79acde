"""The parts of a stream watched by themselves: a monitor for each value of each segment.

A fault of one camera among twenty moves the whole stream by a twentieth. Its own monitor sees all
of it. The false-alarm budget is shared: with one segment name, the stream and its segments get half
each, and a value's monitor gets its part by seeing only its own observations.
"""

from __future__ import annotations

import bisect
import dataclasses
from array import array
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from detectors.base import State, Verdict
from service.domain.decision import ActionKind, Decision, Means
from service.domain.incident import Incident, IncidentState, Point
from service.monitor import elsewhere
from service.monitor.events import Events
from service.monitor.label_outcomes import Change
from service.monitor.monitor import Monitor
from service.monitor.outcomes import Outcomes
from service.monitor.representation import Representation
from service.records.columns import GONE, LABEL, OBSERVATION, Columns
from service.settings.stream import StreamSettings

Key = tuple[str, str]
"""Name and value of a segment, such as ("camera", "7")."""

SHOWN = {IncidentState.CONFIRMED, IncidentState.RESOLVED}
"""A segment's suspicions are its own affair: twenty cameras raise twenty times as many."""

REMEMBERED = 20_000
"""Own observations whose place in the stream is remembered; older ones count as the oldest."""


def only_alert(verdict: Verdict, means: Means, day: str) -> Decision:  # noqa: ARG001 - a policy's
    """The answer to a segment's verdict: the model serves the whole stream."""
    return Decision(
        ActionKind.ALERT_ONLY,
        f"{verdict.kind} shift in this segment: the model serves the whole stream",
    )


class _Told:
    """What one part is told of a batch: records of the stream, and what they are to the part."""

    def __init__(self) -> None:
        self._records: list[int] = []
        self._kinds: list[int] = []
        self._ids: list[str] = []
        self._labels: list[str | None] = []
        self._served: list[str | None] = []

    def add(self, n: int, kind: int, id_: str, label: str | None, served: str | None) -> None:
        """Tell of a record."""
        self._records.append(n)
        self._kinds.append(kind)
        self._ids.append(id_)
        self._labels.append(label)
        self._served.append(served)

    def of(self, columns: Columns) -> Columns:
        """As columns."""
        return columns.told(
            np.array(self._records, np.int64),
            kinds=np.array(self._kinds, np.int8),
            ids=self._ids,
            labels=self._labels,
            predictions=self._served,
        )


def _told(told: dict[Key, _Told], key: Key) -> _Told:
    return told.setdefault(key, _Told())


class _Part:
    """One value's monitor, and where its observations stand in the stream."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self.places = array("q")
        self.dropped = 0
        self.quiet: set[str] = set()
        """Open incidents that are not shown, because the whole stream had one."""
        self._points: dict[str, dict[int, int]] = {}
        """Places by incident, which may stay open for longer than places are remembered."""

    def place(self, index: int, incident_id: str) -> int:
        """The stream's index of an own index that an incident names."""
        noted = self._points.get(incident_id, {}).get(index)
        if noted is not None:
            return noted
        if not self.places:
            return index
        return self.places[min(max(index - self.dropped, 0), len(self.places) - 1)]

    def note(self, incident: Incident) -> None:
        """Remember the places that an incident names until it is over."""
        found = {index: self.place(index, incident.id) for index in _indices(incident)}
        self._points.setdefault(incident.id, {}).update(found)

    def forget(self, incident: Incident) -> None:
        """Forget an incident that is over."""
        self._points.pop(incident.id, None)
        self.quiet.discard(incident.id)

    def forget_old(self) -> None:
        """Keep the newest places."""
        excess = len(self.places) - REMEMBERED
        if excess > 0:
            del self.places[:excess]
            self.dropped += excess

    def snapshot(self) -> State:
        """Everything needed to go on."""
        places = np.array(self.places, np.int64)
        gaps = np.diff(places)
        return {
            "monitor": self.monitor.snapshot(),
            # Gaps are small, and there may be REMEMBERED of them in every part of every batch.
            "first": int(places[0]) if len(places) else None,
            "gaps": gaps.astype(np.min_scalar_type(gaps.max(initial=0))),
            "dropped": self.dropped,
            "quiet": sorted(self.quiet),
            "points": [
                [id_, list(noted), list(noted.values())] for id_, noted in self._points.items()
            ],
        }

    def restore(self, state: State) -> None:
        """Go on from a snapshot of an equally configured part."""
        self.monitor.restore(state["monitor"])
        self.places = array("q")
        if state["first"] is not None:
            steps = np.concatenate([[state["first"]], state["gaps"]]).astype(np.int64)
            self.places.frombytes(np.cumsum(steps).tobytes())
        self.dropped = state["dropped"]
        self.quiet = set(state["quiet"])
        self._points = {
            id_: dict(zip(own, places, strict=True)) for id_, own, places in state["points"]
        }


def _indices(incident: Incident) -> set[int]:
    """All indices that an incident names."""
    points = (incident.opened_at, incident.confirmed_at, incident.resolved_at)
    found = {point.index for point in points if point is not None}
    found.update(action["index"] for action in incident.actions)
    return found if incident.change_point is None else found | {incident.change_point}


class Segments:
    """The monitors of a stream's segments.

    Parameters
    ----------
    settings
        Of the stream; `settings.segments` says which names are watched.
    make_representation
        A new, unfitted representation of the stream's observations.
    seed
        As in `Monitor`.
    """

    def __init__(
        self,
        settings: StreamSettings,
        make_representation: Callable[[], Representation],
        *,
        seed: int,
    ) -> None:
        self.settings = settings
        self._make = make_representation
        self._seed = seed
        self._parts: dict[Key, _Part] = {}
        self._waiting: dict[int, tuple[Key, ...]] = {}
        """The parts of each observation whose label may still come, by its index in the stream."""
        self._renewals: list[int] = []
        """From which observations on new references begin."""
        self._n_seen = 0
        self._stream_open: list[tuple[int, int | None]] = []
        self.unwatched = 0
        """Observations with a value beyond `max_values`."""

    @property
    def open(self) -> dict[str, Incident]:
        """Confirmed incidents of segments, by id."""
        return {
            incident.id: self._shown(key, part, incident)
            for key, part in list(self._parts.items())  # the status page asks from its own thread
            for incident in list(part.monitor.standing.open.values())
            if incident.id not in part.quiet
        }

    @property
    def values(self) -> dict[Key, str]:
        """The phase of each value's monitor."""
        return {key: str(part.monitor.phase) for key, part in list(self._parts.items())}

    def update(
        self, columns: Columns, events: Events, whole: Outcomes, n_seen: int
    ) -> list[Incident]:
        """Take what the stream's own monitor has just taken; return incidents to show.

        Parameters
        ----------
        columns
            As given to the stream's monitor.
        events
            What came of them there, with the changes. The parts get the labels as they were joined
            there, so that both tell of the same ones.
        whole
            What that monitor made of them: what was served decides about right and wrong in the
            parts as well, while the stream has an open incident its segments are quiet, and with a
            new reference of the stream they begin one too.
        n_seen
            The stream's observations before these.
        """
        self._n_seen = n_seen
        self.note(whole.incidents)
        self._renewals += whole.renewed
        shown: list[Incident] = []
        served = iter(whole.joined.served)
        told: dict[Key, _Told] = {}
        for n, change in enumerate(events.changes):
            answer = None if change.joined is None else next(served)
            if columns.kinds[n] != OBSERVATION:
                if change.joined is not None:
                    for key in self._waiting.pop(change.joined.index, ()):
                        own = change.joined.label
                        _told(told, key).add(n, LABEL, columns.ids[n], own, answer)
                self._forget(n, change, told)
                continue
            # Labels that come before the next observation are still for the old reference: where
            # the batch ends must not matter.
            if self._renewals and self._n_seen >= self._renewals[0]:
                shown += self._feed(columns, told)
                told = {}
                later = [at for at in self._renewals if at > self._n_seen]
                shown += self.renew()
                self._renewals = later
            self._forget(n, change, told)
            keys = self._keys(columns.segment(n))
            label = None if change.joined is None else change.joined.label
            for key in keys:
                _told(told, key).add(n, OBSERVATION, columns.ids[n], label, answer)
                self._parts[key].places.append(self._n_seen)
            if keys and change.joined is None:
                self._waiting[self._n_seen] = keys
            self._n_seen += 1
        return shown + self._feed(columns, told)

    def _forget(self, n: int, change: Change, told: dict[Key, _Told]) -> None:
        """Tell the parts that the label of an observation cannot come any more."""
        if change.forgotten is not None:
            index, id_ = change.forgotten
            for key in self._waiting.pop(index, ()):
                _told(told, key).add(n, GONE, id_, None, None)

    def renew(self) -> list[Incident]:
        """Begin a new reference in every segment; return the incidents that end with the old."""
        ended = [
            self._shown(key, part, incident)
            for key, part in self._parts.items()
            for incident in part.monitor.repaired("the stream has a new reference").incidents
            if incident.id not in part.quiet
        ]
        self._parts = {}
        self._waiting.clear()
        self._renewals.clear()
        return ended

    def close(self, incident_id: str, detail: str) -> list[Incident]:
        """Resolve an incident by hand.

        Raises
        ------
        KeyError
            If no segment has an open incident of that id.
        """
        for key, part in self._parts.items():
            if incident_id in part.monitor.standing.open:
                closed = part.monitor.close(incident_id, detail).incidents
                shown = [self._shown(key, part, incident) for incident in closed]
                for incident in closed:
                    part.forget(incident)
                return shown
        raise KeyError(incident_id)

    def fold(self, incident: Incident, into: Incident) -> Outcomes:
        """Give an incident up for one of another part of the stream; it is not shown any more."""
        for part in self._parts.values():
            if incident.id in part.monitor.standing.open:
                part.quiet.add(incident.id)
        return Outcomes(incidents=[elsewhere.folded(incident, into)])

    # -- routing -------------------------------------------------------------------------------

    def _keys(self, segment: Mapping[str, str]) -> tuple[Key, ...]:
        """The segments that an observation belongs to."""
        keys = tuple((name, segment[name]) for name in self.settings.segments.by if name in segment)
        watched = tuple(key for key in keys if self._watches(key))
        self.unwatched += len(keys) > len(watched)
        return watched

    def _watches(self, key: Key) -> bool:
        if key not in self._parts:
            if sum(name == key[0] for name, _ in self._parts) >= self.settings.segments.max_values:
                return False
            self._parts[key] = _Part(self._monitor(key))
        return True

    def _monitor(self, key: Key) -> Monitor:
        own = self.settings.model_copy(
            update={
                "name": f"{self.settings.name}/{key[0]}={key[1]}",
                "reference": self.settings.reference.model_copy(
                    update={"file": None, "warm_up": self.settings.segments.warm_up}
                ),
            }
        )
        return Monitor(own, self._make(), only_alert, seed=self._seed, joined_before=True)

    def _feed(self, columns: Columns, told: Mapping[Key, _Told]) -> list[Incident]:
        shown: list[Incident] = []
        for key, own in told.items():
            part = self._parts[key]
            for incident in part.monitor.update(own.of(columns), Means()).incidents:
                part.note(incident)
                if incident.state in SHOWN and incident.confirmed_at is not None:
                    placed = self._shown(key, part, incident)
                    assert placed.confirmed_at is not None
                    if self._is_stream_open(placed.confirmed_at):
                        part.quiet.add(incident.id)
                    if incident.id not in part.quiet:
                        shown.append(placed)
                if incident.state.is_over:
                    part.forget(incident)
            part.forget_old()
        return shown

    # -- the whole stream's incidents ----------------------------------------------------------

    def note(self, incidents: Iterable[Incident]) -> None:
        """Remember from when to when the stream itself had an open incident."""
        for incident in incidents:
            if incident.confirmed_at is None:
                continue
            since = incident.confirmed_at.index
            until = None if incident.resolved_at is None else incident.resolved_at.index
            self._stream_open = [s for s in self._stream_open if s[0] != since]
            bisect.insort(self._stream_open, (since, until))
        del self._stream_open[:-20]

    def _is_stream_open(self, at: Point) -> bool:
        # Not at the very observation: a label behind it may have confirmed the stream's incident,
        # and where the batch ends between the two that is not known yet.
        return any(a < at.index and (b is None or at.index <= b) for a, b in self._stream_open)

    def _shown(self, key: Key, part: _Part, incident: Incident) -> Incident:
        """An incident of a part, with the stream's name and indices."""

        def point(at: Point | None) -> Point | None:
            return None if at is None else Point(part.place(at.index, incident.id), at.time)

        opened = point(incident.opened_at)
        assert opened is not None
        return dataclasses.replace(
            incident,
            stream=self.settings.name,
            segment={key[0]: key[1]},
            opened_at=opened,
            confirmed_at=point(incident.confirmed_at),
            resolved_at=point(incident.resolved_at),
            change_point=(
                None
                if incident.change_point is None
                else part.place(incident.change_point, incident.id)
            ),
            actions=tuple(
                {**a, "index": part.place(a["index"], incident.id)} for a in incident.actions
            ),
        )

    # -- snapshot ------------------------------------------------------------------------------

    def snapshot(self) -> State:
        """Everything needed to go on."""
        # The same few combinations of values over and over: a number for each.
        combinations = dict.fromkeys(self._waiting.values())
        number = {keys: n for n, keys in enumerate(combinations)}
        return {
            "n_seen": self._n_seen,
            "unwatched": self.unwatched,
            "stream_open": [list(span) for span in self._stream_open],
            "renewals": list(self._renewals),
            "waiting": [
                np.array(list(self._waiting), np.int64),
                np.array([number[keys] for keys in self._waiting.values()], np.int32),
                [[list(key) for key in keys] for keys in number],
            ],
            "parts": [{"key": list(key), **part.snapshot()} for key, part in self._parts.items()],
        }

    def restore(self, state: State) -> None:
        """Go on from a snapshot of an equally configured stream."""
        self._n_seen, self.unwatched = state["n_seen"], state["unwatched"]
        self._stream_open = [(a, b) for a, b in state["stream_open"]]
        self._renewals = list(state["renewals"])
        waiting, number, combinations = state["waiting"]
        known = [tuple((name, value) for name, value in keys) for keys in combinations]
        self._waiting = {
            index: known[n] for index, n in zip(waiting.tolist(), number.tolist(), strict=True)
        }
        self._parts = {}
        for document in state["parts"]:
            name, value = document["key"]
            part = _Part(self._monitor((name, value)))
            part.restore(document)
            self._parts[name, value] = part
