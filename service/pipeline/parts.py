"""What the parts of a stream in other lanes have found."""

from __future__ import annotations

from service.domain.incident import Incident
from service.store.reading import Reading


class Parts:
    """Open incidents of the streams that are in several lanes, as the store had them last.

    Parameters
    ----------
    store
        Where the owners of all lanes write theirs.
    """

    def __init__(self, store: Reading) -> None:
        self._store = store
        self._found: dict[str, list[Incident]] = {}

    def learn(self) -> None:
        """Ask the store; never while records are taken, so that a batch sees one answer."""
        found: dict[str, list[Incident]] = {}
        for incident in self._store.incidents_of_parts():
            if not incident.segment:
                found.setdefault(incident.stream, []).append(incident)
        self._found = found

    def besides(self, stream: str, lane: int) -> list[Incident]:
        """Those of a stream in other lanes than this one."""
        return [i for i in self._found.get(stream, ()) if i.lane != lane]
