"""The parts of a stream watched by themselves: a monitor for each value of each segment.

A fault of one camera among twenty moves the whole stream by a twentieth. Its own monitor sees all
of it. The false-alarm budget is shared: with one segment name, the stream and its segments get half
each, and a value's monitor gets its part by seeing only its own observations.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence

from detectors.base import State, Verdict
from service.arrivals import Arrival, Outcomes
from service.incidents import Incident, IncidentState, Point
from service.monitor import Monitor
from service.policy import ActionKind, Decision
from service.representation import Representation
from service.settings import StreamSettings

Key = tuple[str, str]
"""Name and value of a segment, such as ("camera", "7")."""

SHOWN = {IncidentState.CONFIRMED, IncidentState.RESOLVED}
"""A segment's suspicions are its own affair: twenty cameras raise twenty times as many."""

REMEMBERED = 20_000
"""Own observations whose place in the stream is remembered; older ones count as the oldest."""


def only_alert(verdict: Verdict) -> Decision:
    """The answer to a segment's verdict: the model serves the whole stream."""
    return Decision(
        ActionKind.ALERT_ONLY,
        f"{verdict.kind} shift in this segment: the model serves the whole stream",
    )


class _Part:
    """One value's monitor, and where its observations stand in the stream."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self.places: list[int] = []
        self.dropped = 0
        self.quiet: set[str] = set()
        """Open incidents that are not shown, because the whole stream had one."""

    def place(self, index: int) -> int:
        """The stream's index of an own index."""
        if not self.places:
            return index
        return self.places[min(max(index - self.dropped, 0), len(self.places) - 1)]

    def forget_old(self) -> None:
        excess = len(self.places) - REMEMBERED
        if excess > 0:
            del self.places[:excess]
            self.dropped += excess


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
        self._of_id: OrderedDict[str, tuple[Key, ...]] = OrderedDict()
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
            for incident in list(part.monitor.open.values())
            if incident.id not in part.quiet
        }

    @property
    def values(self) -> dict[Key, str]:
        """The phase of each value's monitor."""
        return {key: str(part.monitor.phase) for key, part in list(self._parts.items())}

    def update(self, arrivals: Sequence[Arrival], whole: Outcomes, n_seen: int) -> list[Incident]:
        """Take what the stream's own monitor has just taken; return incidents to show.

        Parameters
        ----------
        arrivals
            As given to the stream's monitor.
        whole
            What came of them there: while the stream has an open incident its segments are quiet,
            and with a new reference of the stream they begin one too.
        n_seen
            The stream's observations before these.
        """
        self._n_seen = n_seen
        self._note(whole.incidents)
        shown: list[Incident] = []
        renewals = list(whole.renewed)
        waiting: dict[Key, list[Arrival]] = {}
        for arrival in arrivals:
            if arrival.raw is not None and renewals and self._n_seen >= renewals[0]:
                shown += self._feed(waiting)
                waiting = {}
                while renewals and self._n_seen >= renewals[0]:
                    renewals.pop(0)
                shown += self.renew()
            for key in self._keys(arrival):
                waiting.setdefault(key, []).append(arrival)
                if arrival.raw is not None:
                    self._parts[key].places.append(self._n_seen)
            self._n_seen += arrival.raw is not None
        shown += self._feed(waiting)
        if renewals:
            shown += self.renew()
        return shown

    def renew(self) -> list[Incident]:
        """Begin a new reference in every segment; return the incidents that end with the old."""
        ended = [
            self._shown(key, part, incident)
            for key, part in self._parts.items()
            for incident in part.monitor.repaired("the stream has a new reference").incidents
            if incident.id not in part.quiet
        ]
        self._parts = {}
        self._of_id.clear()
        return ended

    def close(self, incident_id: str, detail: str) -> list[Incident]:
        """Resolve an incident by hand.

        Raises
        ------
        KeyError
            If no segment has an open incident of that id.
        """
        for key, part in self._parts.items():
            if incident_id in part.monitor.open:
                closed = part.monitor.close(incident_id, detail).incidents
                return [self._shown(key, part, incident) for incident in closed]
        raise KeyError(incident_id)

    # -- routing -------------------------------------------------------------------------------

    def _keys(self, arrival: Arrival) -> tuple[Key, ...]:
        """The segments that an arrival belongs to; a label goes where its observation went."""
        if arrival.raw is None:
            return tuple(k for k in self._of_id.get(arrival.id, ()) if k in self._parts)
        keys = tuple(
            (name, arrival.segment[name])
            for name in self.settings.segments.by
            if name in arrival.segment
        )
        watched = tuple(key for key in keys if self._watches(key))
        self.unwatched += len(keys) > len(watched)
        if arrival.label is None:
            self._of_id[arrival.id] = watched
            if len(self._of_id) > self.settings.labels.max_pending:
                self._of_id.popitem(last=False)
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
        return Monitor(own, self._make(), only_alert, seed=self._seed)

    def _feed(self, waiting: Mapping[Key, Sequence[Arrival]]) -> list[Incident]:
        shown: list[Incident] = []
        for key, arrivals in waiting.items():
            part = self._parts[key]
            for incident in part.monitor.update(arrivals).incidents:
                if incident.state not in SHOWN or incident.confirmed_at is None:
                    continue
                placed = self._shown(key, part, incident)
                assert placed.confirmed_at is not None
                if incident.id not in part.quiet and self._is_stream_open(placed.confirmed_at):
                    part.quiet.add(incident.id)
                if incident.id not in part.quiet:
                    shown.append(placed)
                if incident.state.is_over:
                    part.quiet.discard(incident.id)
            part.forget_old()
        return shown

    # -- the whole stream's incidents ----------------------------------------------------------

    def _note(self, incidents: Iterable[Incident]) -> None:
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
        return any(a <= at.index and (b is None or at.index <= b) for a, b in self._stream_open)

    def _shown(self, key: Key, part: _Part, incident: Incident) -> Incident:
        """An incident of a part, with the stream's name and indices."""

        def point(at: Point | None) -> Point | None:
            return None if at is None else Point(part.place(at.index), at.time)

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
                None if incident.change_point is None else part.place(incident.change_point)
            ),
            actions=tuple({**a, "index": part.place(a["index"])} for a in incident.actions),
        )

    # -- snapshot ------------------------------------------------------------------------------

    def snapshot(self) -> State:
        """Everything needed to go on."""
        return {
            "n_seen": self._n_seen,
            "unwatched": self.unwatched,
            "stream_open": [list(span) for span in self._stream_open],
            "of_id": [[id_, [list(key) for key in keys]] for id_, keys in self._of_id.items()],
            "parts": [
                {
                    "key": list(key),
                    "monitor": part.monitor.snapshot(),
                    "places": list(part.places),
                    "dropped": part.dropped,
                    "quiet": sorted(part.quiet),
                }
                for key, part in self._parts.items()
            ],
        }

    def restore(self, state: State) -> None:
        """Go on from a snapshot of an equally configured stream."""
        self._n_seen, self.unwatched = state["n_seen"], state["unwatched"]
        self._stream_open = [(a, b) for a, b in state["stream_open"]]
        self._of_id = OrderedDict(
            (id_, tuple((name, value) for name, value in keys)) for id_, keys in state["of_id"]
        )
        self._parts = {}
        for document in state["parts"]:
            name, value = document["key"]
            part = _Part(self._monitor((name, value)))
            part.monitor.restore(document["monitor"])
            part.places, part.dropped = list(document["places"]), document["dropped"]
            part.quiet = set(document["quiet"])
            self._parts[name, value] = part
