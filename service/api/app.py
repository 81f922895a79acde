"""The service's life: put the parts together, run until told to stop, stop in order."""

from __future__ import annotations

import gc
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any

import structlog
from prometheus_client import CollectorRegistry

from models.registry import Registry
from service.api.correction import correct_scores
from service.api.documents import stream_document
from service.api.events import Ingest
from service.api.http import HttpServer, create_app
from service.api.wiring import open_decoder
from service.domain.incident import Incident
from service.notify.incident_topic import INCIDENTS_KIND, IncidentTopic
from service.notify.outbox import Handler, Outbox
from service.notify.publisher import Publisher
from service.notify.webhook import Webhook
from service.pipeline.pipeline import Pipeline
from service.pipeline.view import StreamView
from service.records.request import Limits
from service.repair.jobs import Jobs, Progress
from service.repair.promotion import promote, rollback
from service.settings.service import Settings
from service.sources.source import Source
from service.sources.spool.source import SpoolSource
from service.store.store import Store
from service.telemetry.metrics import Metrics

log = structlog.get_logger()

_GARBAGE_OBJECTS = 50_000
"""New objects after which Python looks for garbage among the newest; 700 by default."""


@dataclass(slots=True)
class App:
    """A wired service.

    Attributes
    ----------
    pipeline, outbox
        The straight line, and what carries out its actions.
    prometheus
        Where the metrics are registered.
    ingest
        What takes events over HTTP, where they come so.
    """

    settings: Settings
    store: Store
    registry: Registry
    pipeline: Pipeline
    outbox: Outbox
    prometheus: CollectorRegistry
    ingest: Ingest | None = None

    # -- what the HTTP interface shows ---------------------------------------------------------
    #
    # Called from other threads: all of it comes from the view that the loop published last, and
    # from the store; the streams themselves are the loop's alone.

    def streams(self) -> list[dict[str, Any]]:
        """Every stream as it was after its last batch."""
        view = self.pipeline.view
        return [self._document(view.stream(name)) for name in view.names]

    def stream(self, name: str) -> dict[str, Any] | None:
        """One stream, or None if this process has no such stream."""
        view = self.pipeline.view
        return self._document(view.stream(name)) if view.parts(name) else None

    def _document(self, stream: StreamView) -> dict[str, Any]:
        has_model = stream.settings.model is not None
        return stream_document(stream, self.store.champion(stream.name) if has_model else None)

    def correct_scores(self, stream: str, scores: object) -> dict[str, Any]:
        """Scores as the service would correct its own now."""
        known = self.pipeline.view.stream(stream)
        if not known.classes:
            raise ValueError(
                f"stream {stream!r} has no scores: it has neither a model nor declared classes"
            )
        return correct_scores(known.classes, known.correction, scores)

    def incidents(
        self, stream: str | None = None, state: str | None = None, limit: int = 100
    ) -> list[dict[str, Any]]:
        """Incidents, newest first."""
        return [i.to_json() for i in self.store.incidents(stream, state, limit)]

    def incident(self, id_: str) -> dict[str, Any] | None:
        """One incident."""
        found: Incident | None = self.store.incident(id_)
        return None if found is None else found.to_json()

    def healthy(self) -> bool:
        """Whether the process does its work."""
        return True

    def ready(self) -> tuple[bool, str]:
        """Whether records are being taken, and otherwise why not."""
        is_ready = self.pipeline.view.is_ready
        return is_ready, "" if is_ready else "starting"

    # -- what an operator can ask for ----------------------------------------------------------

    def close_incident(self, id_: str, reason: str) -> dict[str, Any]:
        """Have an open incident resolved at the next step of the loop."""
        if not self.pipeline.view.has_open(id_):
            raise LookupError(f"no open incident has the id {id_!r}")
        self.pipeline.requests.close(id_, reason)
        return {"id": id_, "detail": "it is closed with the next records"}

    def promote(self, stream: str, version: int, reason: str) -> dict[str, Any]:
        """Make a version the champion; the loop adopts it at its next checkpoint."""
        self.pipeline.view.stream(stream)
        return asdict(promote(self.store, self.registry, stream, version, reason))

    def rollback(self, stream: str, reason: str) -> dict[str, Any]:
        """Make the former champion the champion again, as above."""
        self.pipeline.view.stream(stream)
        return asdict(rollback(self.store, self.registry, stream, reason))

    # -- life ----------------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Work until the source is exhausted or `stop` is set."""
        spare_collections()
        log.info("started", streams=self.pipeline.view.names)
        try:
            self.pipeline.run(stop)
        finally:
            if self.ingest is not None:
                self.ingest.stop()
        log.info("stopped", records="written")

    def drain(self, limit_s: float = 10.0) -> None:
        """Deliver what is due, for at most `limit_s` seconds."""
        until = time.monotonic() + limit_s
        while self.outbox.run_once() and time.monotonic() < until:
            pass


def spare_collections() -> None:
    """Have Python look for garbage in cycles less often; it has taken a fifth of the time.

    What is there at the start stays to the end, and the records of a batch are in no cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE_OBJECTS)


@contextmanager
def open_app(
    settings: Settings,
    source: Source,
    *,
    on_progress: Progress = lambda job, event: None,
    durable: bool = True,
) -> Iterator[App]:
    """Put the parts together, and take them apart again whatever happens.

    Parameters
    ----------
    settings, source
        Of the service.
    on_progress
        Told of what trainings say.
    durable
        As of `service.store.store.Store`.
    """
    with ExitStack() as stack:
        prometheus = CollectorRegistry()
        metrics = Metrics(prometheus)
        for stream in settings.streams:
            metrics.add_stream(stream.name)
            metrics.false_alarm_promised_interval_observations.labels(stream.name).set(
                stream.false_alarm_every
            )
        store = Store(settings.store.url, time.time, durable=durable)
        stack.callback(store.close)
        registry = Registry(settings.registry.path)
        jobs = None
        if any(s.model for s in settings.streams):
            jobs = Jobs(
                store, registry, settings, settings.registry.path.parent / "jobs", on_progress
            )
        pipeline = Pipeline(
            settings,
            source,
            store,
            registry,
            metrics,
            time.time,
            decoder=open_decoder(settings),
            jobs=jobs,
        )
        stack.callback(pipeline.close)
        handlers: dict[str, Handler] = {
            f"webhook:{n}": Webhook(hook, metrics=metrics)
            for n, hook in enumerate(settings.webhooks)
        }
        if settings.source.topics is not None and settings.source.topics.incidents is not None:
            publisher = Publisher(settings.source, settings.source.topics.incidents)
            stack.callback(publisher.close)
            handlers[INCIDENTS_KIND] = IncidentTopic(publisher)
        outbox = Outbox(store, handlers, time.time)
        pipeline.on_written = outbox.notify
        ingest = _ingest(settings, source, metrics)
        yield App(settings, store, registry, pipeline, outbox, prometheus, ingest)


def _ingest(settings: Settings, source: Source, metrics: Metrics) -> Ingest | None:
    if not isinstance(source, SpoolSource):
        return None
    spool = source.spool
    metrics.ingest_spool_bytes.set_function(lambda: spool.backlog_bytes)
    return Ingest(
        spool,
        Limits(settings.source.max_request_bytes, settings.source.max_request_records),
        [stream.name for stream in settings.streams],
        settings.images.max_bytes,
        metrics.ingest_requests,
    )


@contextmanager
def serving(app: App) -> Iterator[HttpServer | None]:
    """Answer HTTP and deliver actions beside the loop."""
    app.outbox.start()
    server = None
    http = app.settings.http
    if http.port is not None:
        server = HttpServer(
            create_app(app, app.prometheus, http.read_token(), app, app.ingest),
            http.host,
            http.port,
        )
        server.start()
    try:
        yield server
    finally:
        if server is not None:
            server.stop()
        app.outbox.stop()


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; the handlers are put back afterwards."""
    stop = threading.Event()

    def on_signal(number: int, _: FrameType | None) -> None:
        log.info("stopping", signal=signal.Signals(number).name)
        stop.set()

    former = {s: signal.signal(s, on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
