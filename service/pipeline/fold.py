"""One cause, one incident: a part of a stream gives its own up for that of another part.

Parts confirm by themselves, in processes that do not see each other's memory. Whether one was first
is known where all of them write: in the transaction.
"""

from __future__ import annotations

from collections.abc import Sequence

from service.domain.incident import Incident
from service.pipeline.containment import contained
from service.pipeline.lane import Lane
from service.store.transaction import Transaction


def fold(lanes: Sequence[Lane], tx: Transaction) -> None:
    """Give confirmed incidents up whose cause another lane has; write the others at once.

    So the next lane of the same transaction finds them. To be called before anything else is
    written: it takes the locks of the streams, in one order.
    """
    for name in sorted({i.stream for lane in lanes for i in _confirmed(lane)}):
        tx.lock_stream(name)
    for lane in lanes:
        for incident in _confirmed(lane):
            _fold(lane, incident, tx)
        for incident in _confirmed(lane):
            tx.put_incident(incident)


def _confirmed(lane: Lane) -> list[Incident]:
    """Incidents that were confirmed since the last time, or changed after that.

    Only where other lanes may have the same one.
    """
    newest = {} if lane.is_only else {i.id: i for i in lane.unwritten.incidents}
    return [i for i in newest.values() if i.confirmed_at is not None and not i.state.is_over]


def _fold(lane: Lane, incident: Incident, tx: Transaction) -> None:
    """Give an incident up if the stream has one with the same cause in another lane."""
    stream = lane.streams[incident.stream]
    with contained(stream.name, lane.number):
        met, is_open = stream.monitor.suspected.met, incident.id in stream.open
    standing = tx.standing(incident.stream, met)
    if any(i.id == incident.id for i in standing) or not is_open:
        return
    others = [i for i in standing if i.lane != lane.number and i.segment in ({}, incident.segment)]
    if not others:
        return
    known = {factor for other in others for factor in other.factors}
    into = next((i for i in others if set(i.factors) & set(incident.factors)), others[0])
    with contained(stream.name, lane.number):
        outcomes = stream.fold(incident, into, known)
    is_over = any(i.id == incident.id and i.state.is_over for i in outcomes.incidents)
    lane.unwritten.take_back(incident, is_over=is_over)
    lane.note(stream, outcomes)
