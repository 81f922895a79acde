"""What an operator asks of the loop; asked from other threads, carried out between two batches."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue

from service.monitor.outcomes import Outcomes
from service.pipeline.containment import contained
from service.pipeline.lane import Lane
from service.pipeline.lanes import Lanes
from service.pipeline.stream import Stream


class Requests:
    """Incidents that are to be resolved by hand.

    Parameters
    ----------
    after
        Puts down what was done to a stream besides its records.
    """

    def __init__(self, after: Callable[[Lane, Stream, Outcomes], None]) -> None:
        self._after = after
        self._to_close: SimpleQueue[tuple[str, str]] = SimpleQueue()

    def close(self, incident: str, reason: str) -> None:
        """Ask for an incident to be resolved; from any thread."""
        self._to_close.put((incident, reason))

    def carry_out(self, lanes: Lanes) -> None:
        """Do what was asked for; an incident that is not open by now is passed over."""
        while not self._to_close.empty():
            id_, reason = self._to_close.get()
            for lane, stream in lanes.parts():
                with contained(stream.name, lane.number):
                    is_open = id_ in stream.open
                    outcomes = stream.close(id_, f"closed: {reason}") if is_open else None
                if outcomes is not None:
                    self._after(lane, stream, outcomes)
