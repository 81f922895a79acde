"""What has happened in a lane since the last transaction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from service.domain.action import Action
from service.domain.dead_letter import DeadLetter
from service.domain.incident import Incident, IncidentState
from service.domain.job import Job
from service.domain.sample import StoredSample
from service.domain.waiting import Pruned
from service.sources.source import Partition
from service.store.transaction import Transaction


@dataclass(slots=True)
class Unwritten:
    """What has happened in a lane since the last transaction."""

    offsets: dict[Partition, int] = field(default_factory=dict)
    incidents: list[Incident] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    samples: dict[str, list[StoredSample]] = field(default_factory=dict)
    labels: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    n_filed: int = 0
    pruned: dict[str, Pruned] = field(default_factory=dict)
    writes: list[Callable[[Transaction], object]] = field(default_factory=list)
    touched: set[str] = field(default_factory=set)
    confirmed: dict[str, tuple[str, str]] = field(default_factory=dict)
    n_records: int = 0

    @property
    def is_urgent(self) -> bool:
        """Whether people or a job wait for it.

        For what is less, nearly all of which are false suspicions, a state is not written.
        """
        return bool(self.jobs or self.writes or any(map(_is_news, self.incidents)))

    def __bool__(self) -> bool:
        return bool(
            self.n_records
            or self.offsets
            or self.touched
            or self.incidents
            or self.jobs
            or self.writes
        )


def _has_decided_nothing(incident: Incident) -> bool:
    """Whether it is as a look left it that goes on."""
    return incident.state is IncidentState.SUSPECTED and bool(incident.evidence)


def _is_news(incident: Incident) -> bool:
    """Whether anybody has to know of it at once."""
    return incident.state is not IncidentState.DISMISSED and not _has_decided_nothing(incident)
