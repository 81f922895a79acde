"""How many trainings a stream may ask for on one of its own days."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from service.domain.job import Job
from service.store.reading import Reading


class Budget:
    """The trainings that were asked for, by the stream's day.

    A verdict must not wait for the store, so its word is asked for when it has changed, and kept.

    Parameters
    ----------
    store
        Has the jobs.
    """

    def __init__(self, store: Reading) -> None:
        self._store = store
        self._days: dict[str, list[str]] = {}

    def learn(self, stream: str) -> None:
        """Ask the store which trainings of the stream there were."""
        self._days[stream] = [job.spec.day for job in self._store.jobs(stream)]

    def asked(self, stream: str, unwritten: Iterable[Job]) -> Counter[str]:
        """Trainings that were asked for already, by the stream's day as in `JobSpec.day`.

        Parameters
        ----------
        stream
            Which stream.
        unwritten
            Jobs of any stream that the store does not have yet.
        """
        days = [job.spec.day for job in unwritten if job.stream == stream]
        return Counter([*self._days.get(stream, ()), *days])
