"""What has happened in a lane since the last transaction."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog

from service.domain.action import Action
from service.domain.dead_letter import DeadLetter
from service.domain.decision import ActionKind
from service.domain.incident import Incident, IncidentState
from service.domain.job import Job, fine_tuning
from service.domain.sample import StoredSample
from service.domain.waiting import Pruned
from service.monitor.outcomes import Outcomes
from service.notify.messages import Subscriber, has_decided_nothing, messages
from service.repair.ending import Ending
from service.sources.source import Partition

log = structlog.get_logger()


@dataclass(slots=True)
class Unwritten:
    """What has happened in a lane since the last transaction.

    Attributes
    ----------
    offsets
        Where each partition goes on.
    touched
        Streams whose state has changed.
    incidents, actions, jobs
        In the order in which they came up; the last of an incident's id holds.
    samples, labels
        Of each stream that trains: observations, and labels by their index.
    dead_letters, n_filed
        Refused records, and how many of them are in the file or topic already.
    endings
        Of trainings.
    confirmed
        Stream and kind of what was decided, by incident.
    pruned
        Of each stream whose waiting labels were written: what the store did with them.
    n_records
        Records that were taken.
    """

    offsets: dict[Partition, int] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)
    incidents: list[Incident] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    samples: dict[str, list[StoredSample]] = field(default_factory=dict)
    labels: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    n_filed: int = 0
    endings: list[Ending] = field(default_factory=list)
    confirmed: dict[str, tuple[str, str]] = field(default_factory=dict)
    pruned: dict[str, Pruned] = field(default_factory=dict)
    n_records: int = 0

    def note(
        self, outcomes: Outcomes, *, stream: str, lane: int, day: str, to: Iterable[Subscriber]
    ) -> None:
        """Put incidents, their messages and their jobs down.

        Parameters
        ----------
        outcomes
            What came out of a stream; its incidents get their lane.
        stream, lane
            Which part it was.
        day
            The stream's own day, for the budget of trainings.
        to
            Who is told about incidents.
        """
        for watch, reason in outcomes.left_out.items():
            log.warning("detector left out", stream=stream, watch=watch, reason=reason)
        for found in outcomes.placeholders:
            log.warning(
                "placeholder in the reference",
                stream=stream,
                feature=found.feature,
                value=found.value,
                observations=found.n,
            )
        for own in outcomes.incidents:
            incident = dataclasses.replace(own, lane=lane)
            self.incidents.append(incident)
            self.actions.extend(messages(incident, to))
            if not has_decided_nothing(incident):
                log.info(
                    f"incident {incident.state}",
                    stream=incident.stream,
                    incident=incident.id,
                    kind=str(incident.kind),
                    factors=list(incident.factors),
                    detail=incident.detail,
                )
        for incident, decision in outcomes.decisions:
            self.confirmed[incident.id] = stream, str(incident.kind)
            if decision.action is ActionKind.FINE_TUNE:
                self.jobs.append(fine_tuning(dataclasses.replace(incident, lane=lane), day))

    def take_back(self, incident: Incident, *, is_over: bool) -> None:
        """Forget a confirmation that was not written, and what was asked for over it.

        Parameters
        ----------
        incident
            As it was confirmed.
        is_over
            Whether nothing of the incident is left, so that it is not counted or repaired either.
        """
        self.incidents = [
            i for i in self.incidents if i.id != incident.id or i.confirmed_at is None
        ]
        self.actions = [
            a
            for a in self.actions
            if a.incident_id != incident.id or not a.payload["data"]["confirmed_at"]
        ]
        if is_over:
            self.jobs = [j for j in self.jobs if j.incident_id != incident.id]
            self.confirmed.pop(incident.id, None)

    def drop(self, stream: str) -> None:
        """Forget what a stream did; its refused records stay refused."""
        self.touched.discard(stream)
        for of_streams in (self.samples, self.labels, self.pruned):
            of_streams.pop(stream, None)
        self.incidents = [i for i in self.incidents if i.stream != stream]
        self.actions = [a for a in self.actions if a.stream != stream]
        self.jobs = [j for j in self.jobs if j.stream != stream]
        self.endings = [e for e in self.endings if e.finished.job.stream != stream]
        self.confirmed = {id_: of for id_, of in self.confirmed.items() if of[0] != stream}

    @property
    def is_urgent(self) -> bool:
        """Whether people or a job wait for it.

        For what is less, nearly all of which are false suspicions, a state is not written.
        """
        return bool(self.jobs or self.endings or any(map(_is_news, self.incidents)))

    def __bool__(self) -> bool:
        return bool(
            self.n_records
            or self.offsets
            or self.touched
            or self.incidents
            or self.jobs
            or self.endings
        )


def _is_news(incident: Incident) -> bool:
    """Whether anybody has to know of it at once."""
    return incident.state is not IncidentState.DISMISSED and not has_decided_nothing(incident)
