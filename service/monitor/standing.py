"""What persists in a stream: open incidents, and those given up for another part's."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable

from detectors.base import Factor, Kind, State
from service.domain.incident import Incident, IncidentState, Point
from service.monitor import elsewhere


class Standing:
    """The confirmed incidents that are not over.

    Attributes
    ----------
    open
        Open incidents by id; replaced as a whole, and never changed, when one of them changes.
    """

    def __init__(self) -> None:
        self.open: dict[str, Incident] = {}
        self._folded: list[tuple[str, Incident]] = []
        """What was given up for incidents of other parts, with their ids."""

    @property
    def all(self) -> list[Incident]:
        """Open incidents, and those given up for another part's."""
        return [*self.open.values(), *(i for _, i in self._folded)]

    @property
    def is_empty(self) -> bool:
        """Whether nothing persists."""
        return not self.open and not self._folded

    @property
    def vague(self) -> Incident | None:
        """The open incident of which it is not known what moved."""
        return next((i for i in self.open.values() if i.kind == Kind.UNDETERMINED), None)

    @property
    def repairing(self) -> list[Incident]:
        """Open incidents that something is being done about."""
        return [i for i in self.open.values() if i.state is IncidentState.REPAIRING]

    def put(self, incident: Incident) -> Incident:
        """An incident is open, or has changed."""
        self.open = {**self.open, incident.id: incident}
        return incident

    def resolve(self, incidents: Iterable[Incident], detail: str, now: Point) -> list[Incident]:
        """End incidents."""
        over = [
            dataclasses.replace(i, state=IncidentState.RESOLVED, resolved_at=now, detail=detail)
            for i in incidents
        ]
        ids = {i.id for i in over}
        self.open = {id_: i for id_, i in self.open.items() if id_ not in ids}
        return over

    def resolve_all(self, detail: str, now: Point) -> list[Incident]:
        """End all of them."""
        return self.resolve(list(self.open.values()), detail, now)

    def repair_failed(self, detail: str) -> list[Incident]:
        """No better model was found; the incidents stay open for people."""
        return [
            self.put(dataclasses.replace(i, state=IncidentState.CONFIRMED, detail=detail))
            for i in self.repairing
        ]

    def fold(
        self, incident_id: str, into: Incident, known: Collection[str], level: float
    ) -> Incident:
        """Give an open incident up for one of another part, which has the same cause.

        Parameters
        ----------
        incident_id
            Of the incident.
        into
            The other part's.
        known
            All factors that have moved by the incidents of other parts.
        level
            What has moved beside them by a p-value of at most this stays an incident.

        Returns
        -------
        Incident
            As it is now: folded, or open with what it has besides.

        Raises
        ------
        KeyError
            If no incident of that id is open.
        """
        incident = self.open[incident_id]
        fresh = elsewhere.further(incident, known, level)
        given_up = elsewhere.folded(incident, into)
        if fresh:
            left = frozenset(map(Factor, incident.factors)) - fresh
            if left:
                self._folded.append((into.id, elsewhere.narrowed(incident, left)))
            return self.put(elsewhere.narrowed(incident, fresh))
        self.open = {id_: i for id_, i in self.open.items() if id_ != incident_id}
        if not elsewhere.is_reweighted(incident):
            # Re-weighted, a new reference has begun, and there is nothing to compare again.
            self._folded.append((into.id, given_up))
        return given_up

    def release(self, still_open: Collection[str], now: Point) -> list[Incident]:
        """Hold no longer what was given up for incidents of other parts that are over."""
        ended = [incident for into, incident in self._folded if into not in still_open]
        self._folded = [(into, i) for into, i in self._folded if into in still_open]
        return [
            dataclasses.replace(incident, resolved_at=now)
            for incident in ended
            if incident.state is IncidentState.FOLDED
        ]

    def forget_folded(self) -> None:
        """A new reference begins: nothing will be compared with the former one."""
        self._folded = []

    def snapshot(self) -> State:
        """Everything needed to go on."""
        return {
            "open": [i.to_json() for i in self.open.values()],
            "folded": [[into, i.to_json()] for into, i in self._folded],
        }

    def restore(self, state: State) -> None:
        """Go on from a snapshot."""
        self.open = {i["id"]: Incident.from_json(i) for i in state["open"]}
        self._folded = [(into, Incident.from_json(i)) for into, i in state["folded"]]
