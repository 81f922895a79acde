"""Trainings and champions at work on the streams of the lanes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection

import structlog

from models.registry import Registry
from models.spec import ModelVersion
from service.monitor.outcomes import Outcomes
from service.pipeline.containment import contained
from service.pipeline.lane import Lane
from service.pipeline.lanes import Lanes
from service.pipeline.stream import Stream
from service.pipeline.unwritten import Unwritten
from service.repair.budget import Budget
from service.repair.champions import Champions
from service.repair.ending import Ending, Finished, ending
from service.repair.jobs import Jobs
from service.repair.scorers import Scorer
from service.repair.serving import Serving
from service.settings.service import Settings
from service.store.errors import StoreError
from service.store.store import Store
from service.telemetry.metrics import Metrics
from service.telemetry.trouble import Trouble

log = structlog.get_logger()


class Repairs:
    """Ends trainings, starts them, and has streams served by their champions.

    Parameters
    ----------
    settings
        The whole configuration.
    store
        Where jobs and champions are.
    registry
        Where versions are.
    metrics
        Counts trainings.
    jobs
        Trains; None where nothing is to be trained.
    scorer_of
        Loads a version's scorer.
    monotonic
        Seconds by a clock that is never set; only for when to try again.
    after
        Puts down what was done to a stream besides its records.

    Raises
    ------
    NoChampionError
        If a stream is to be scored and no model was ever trained for it.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        registry: Registry,
        metrics: Metrics,
        *,
        jobs: Jobs | None,
        scorer_of: Callable[[ModelVersion], Scorer],
        monotonic: Callable[[], float],
        after: Callable[[Lane, Stream, Outcomes], None],
    ) -> None:
        self.jobs = jobs
        self.budget = Budget(store)
        self.champions = Champions(store, registry, metrics, scorer_of)
        self.champions.load(s.name for s in settings.streams if s.model is not None)
        self._serving = Serving(store, registry, settings, monotonic)
        self._metrics = metrics
        self._after = after
        self._ended: deque[Finished] = deque()
        self._registry_trouble = Trouble(monotonic)

    @property
    def is_busy(self) -> bool:
        """Whether a training runs, is about to, or has ended and is not seen to."""
        return bool(self._ended) or (self.jobs is not None and self.jobs.is_busy)

    def end(self, lanes: Lanes) -> None:
        """See to the training that has ended, if one has: promote its candidate, or say why not.

        Raises
        ------
        StoreError
            If the store does not answer; it is seen to later.
        """
        if self.jobs is not None and not self._ended:
            finished = self.jobs.poll()
            if finished is not None:
                self._ended.append(finished)
        if not self._ended or not self._registry_trouble.may_try:
            return
        finished = self._ended[0]
        lane = lanes.get(finished.job.spec.lane)
        if lane is None:
            pass  # its owner trains again
        elif lanes.failures.of(lane.number, finished.job.stream) is not None:
            log.warning("training kept for the next start", job=finished.job.id)
        else:
            try:
                self._end(finished, lane)
            except OSError as error:
                # The registry is full or away; the candidate waits in its folder.
                self._registry_trouble.met(error)
                return
            self._registry_trouble.over()
        self._ended.popleft()

    def _end(self, finished: Finished, lane: Lane) -> None:
        name = finished.job.stream
        with contained(name, lane.number):
            stream = lane.open(name)
            index = stream.monitor.n_seen
        version, finished = self._published(finished)
        model = stream.settings.model
        end = ending(
            finished,
            version=None if version is None else version.version,
            needs_approval=model is not None and model.approval == "manual",
            index=index,
        )
        with contained(name, lane.number):
            if version is not None and end.promoted is not None:
                self.champions.use(stream, version)
            outcomes = _told(stream, end)
        lane.unwritten.endings.append(end)
        self._metrics.retrain_runs.labels(name, end.outcome).inc()
        self._metrics.retrain_duration.observe(end.elapsed_s)
        self._after(lane, stream, outcomes)

    def _published(self, finished: Finished) -> tuple[ModelVersion | None, Finished]:
        """The candidate as a version; or the training as one that failed over its candidate."""
        if self.jobs is None or not finished.is_better:
            return None, finished
        try:
            return self.jobs.publish(finished), finished
        except (StoreError, OSError):
            raise
        except Exception as error:
            log.exception("candidate not published", job=finished.job.id)
            return None, finished.failed(f"its candidate could not be published: {error}")

    def adopt(self, lanes: Lanes) -> None:
        """Serve with champions that an operator or another process has made."""
        parts = [(lane, s) for lane, s in lanes.parts() if s.settings.model is not None]
        for lane, stream in parts:
            with contained(stream.name, lane.number):
                reason = self.champions.adopt(stream)
                outcomes = None if reason is None else stream.repaired(reason)
            if outcomes is not None:
                self._serving.owe(stream.name)
                self._after(lane, stream, outcomes)
        self.champions.retire(stream for _, stream in parts)
        self._serving.settle()

    def start(self, lanes: Lanes) -> None:
        """Start the next training, if there is one that can be."""
        if self.jobs is not None:
            self.jobs.start_next(lanes.keys())

    def written(self, unwritten: Unwritten, streams: Collection[str]) -> None:
        """Act on what was written of a lane with these streams."""
        if self.jobs is None:
            return
        for end in unwritten.endings:
            self.jobs.discard(end.finished.job)
            if end.promoted is not None:
                self._serving.owe(end.finished.job.stream)
        if unwritten.jobs or any(unwritten.labels.values()):
            self.jobs.notify()
            for name in streams:
                self.budget.learn(name)

    def close(self) -> None:
        """Stop scorers and the training; what it was doing goes on after the next start."""
        self.champions.close()
        if self.jobs is not None:
            self.jobs.close()

    def forgotten(self, unwritten: Unwritten) -> None:
        """See once more to the trainings whose end was put down and is not written."""
        self._ended.extendleft(end.finished for end in reversed(unwritten.endings))


def _told(stream: Stream, end: Ending) -> Outcomes:
    """What the end of its training does to a stream."""
    return (
        stream.repaired(end.detail) if end.is_repaired else stream.monitor.repair_failed(end.detail)
    )
