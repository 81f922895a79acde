"""A small service on topics of a real broker, in this process or in one of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import CollectorRegistry

from models.registry import Registry
from service.api.wiring import open_source
from service.domain.incident import Incident
from service.pipeline.pipeline import Pipeline
from service.settings.service import Settings
from service.store.store import Store
from service.telemetry.metrics import Metrics
from tests.kafka.broker import Message
from tests.service.streams import x_to_y_records

ROOT = Path(__file__).parents[2]
DEADLINE_S = 120.0
"""Only ever reached by a failure."""


@dataclass(frozen=True)
class Topics:
    """Where events and labels are written, and other topics by their settings."""

    features: str
    labels: str | None = None
    more: Mapping[str, str] = field(default_factory=dict)

    def messages(
        self, n: int, start_ms: int = 1000, partition: int = 0, **stream: Any
    ) -> list[Message]:
        """A stream whose P(X) moves, in the order of time: one message every 10 ms."""
        stream = {"shift": "covariate", "at": 700, "delay": 20, "seed": 8, **stream}
        found: list[Message] = []
        for k, record in enumerate(x_to_y_records(n, **stream)):
            is_label = b'"features"' not in record.value
            topic = self.labels if is_label and self.labels else self.features
            found.append((topic, partition, record.value, start_ms + 10 * k))
        return found


def document(
    servers: str, topics: Topics, folder: Path, streams: Sequence[str] = ("s",), **source: Any
) -> dict[str, Any]:
    """The settings of a run, whose files are in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "store": {"url": f"sqlite:///{folder}/s.db"},
        "registry": {"path": f"{folder}/models"},
        "dead_letters": {"path": f"{folder}/dead.jsonl"},
        "checkpoint": {"every_records": 50, "every_s": 0.05},
        "http": {"port": None},
        "source": {
            "kind": "kafka",
            "bootstrap_servers": servers,
            "topics": {"features": topics.features, "labels": topics.labels, **topics.more},
            "group_id": f"{topics.features}-{folder.name}",
            "group_instance_id": "one",
            "session_timeout_ms": 6000,
            **source,
        },
        "streams": [
            {
                "name": name,
                "problem": "x_to_y",
                "reference": {"warm_up": 400},
                "false_alarm_every": 50_000,
                "confirm": {"looks": [100, 200, 300], "max_wait": 1000, "min_labels": 60},
            }
            for name in streams
        ],
    }


@contextmanager
def opened(settings: Mapping[str, Any]) -> Iterator[tuple[Pipeline, Store]]:
    """The pipeline of these settings, in this process."""
    checked = Settings.model_validate(settings)
    store = Store(checked.store.url, time.time)
    pipeline = Pipeline(
        checked,
        open_source(checked.source),
        store,
        Registry(checked.registry.path),
        Metrics(CollectorRegistry()),
        time.time,
    )
    try:
        yield pipeline, store
    finally:
        pipeline.close()
        store.close()


def n_stored(store: Store) -> int:
    """Records behind the store's offsets."""
    return sum(store.offsets().values())


def step_until(pipeline: Pipeline, is_done: Callable[[], bool]) -> None:
    until = time.monotonic() + DEADLINE_S
    while not is_done():
        assert time.monotonic() < until, f"{pipeline.n_records} records in {DEADLINE_S} s"
        pipeline.step(timeout_s=0.1)


def run_whole(settings: Mapping[str, Any], n: int) -> list[Incident]:
    """The incidents after `n` records, oldest first, of a run that nothing interrupts."""
    with opened(settings) as (pipeline, store):
        step_until(pipeline, lambda: pipeline.n_records >= n)
        pipeline.write()
        return incidents(store)


def incidents(store: Store) -> list[Incident]:
    return sorted(store.incidents(limit=None), key=lambda i: (i.opened_at.index, i.id))


class Child:
    """`shiftwatch run` in a process of its own."""

    def __init__(self, settings: Mapping[str, Any], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "shiftwatch.yaml"
        config.write_text(yaml.safe_dump(dict(settings)))
        self._log = folder / "run.log"
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from service.cli import main; main()", "run", str(config)],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=output,
                stderr=output,
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_until(self, is_done: Callable[..., bool]) -> None:
        until = time.monotonic() + DEADLINE_S
        while not is_done():
            assert self._process.poll() is None, f"ended by itself: {self.log[-2000:]}"
            assert time.monotonic() < until, f"not done in {DEADLINE_S} s: {self.log[-2000:]}"
            time.sleep(0.01)

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """Ask it to end; its exit code."""
        self._process.terminate()
        return self._process.wait(timeout=DEADLINE_S)
