"""A service that takes events over HTTP and is killed: nothing lost, nothing doubled."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client import CollectorRegistry

from models.registry import Registry
from service.domain.incident import Incident
from service.pipeline.pipeline import Pipeline
from service.records.record import Record
from service.settings.service import Settings
from service.sources.listed import ListSource
from service.store.store import Store
from service.telemetry.metrics import Metrics
from tests.service.streams import x_to_y_records

ROOT = Path(__file__).parents[3]
DEADLINE_S = 180.0
"""Only ever reached by a failure."""
TOKEN = "a-token-for-tests"
N = 1300
BATCH = 15
"""Odd, so that neither an event nor a label always ends a batch."""


def document(folder: Path) -> dict[str, Any]:
    return {
        "store": {"url": f"sqlite:///{folder}/s.db"},
        "registry": {"path": f"{folder}/models"},
        "dead_letters": {"path": f"{folder}/dead.jsonl"},
        "checkpoint": {"every_records": 50, "every_s": 0.05},
        "http": {"port": 0, "token": TOKEN},
        "source": {"kind": "http", "path": f"{folder}/spool"},
        "streams": [
            {
                "name": "s",
                "problem": "x_to_y",
                "reference": {"warm_up": 400},
                "false_alarm_every": 50_000,
                "confirm": {"looks": [100, 200, 300], "max_wait": 1000, "min_labels": 60},
            }
        ],
    }


def values() -> list[bytes]:
    """A stream whose P(X) moves, with its labels 20 events later."""
    return [r.value for r in x_to_y_records(N, shift="covariate", at=700, delay=20, seed=8)]


def incidents(store: Store) -> list[Incident]:
    return sorted(store.incidents(limit=None), key=lambda i: (i.opened_at.index, i.id))


def uninterrupted(folder: Path, sent: Sequence[bytes]) -> tuple[list[Incident], bytes | None]:
    """The incidents and the last state of a run that nothing interrupts."""
    settings = Settings.model_validate(document(folder))
    source = ListSource([Record("http", 0, n, None, value) for n, value in enumerate(sent)])
    metrics = Metrics(CollectorRegistry())
    registry = Registry(settings.registry.path)
    with closing(Store(settings.store.url, time.time)) as store:
        pipeline = Pipeline(settings, source, store, registry, metrics, time.time)
        pipeline.run(threading.Event())
        pipeline.close()
        return incidents(store), store.state("s")


class Child:
    """`shiftwatch run` in a process of its own, started again each time that it was killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._n = 0
        self.url: str | None = None
        (folder / "c.yaml").write_text(yaml.safe_dump(document(folder)))

    @property
    def log(self) -> str:
        return (self._folder / f"run-{self._n}.log").read_text(errors="replace")

    def start(self) -> None:
        self._n += 1
        with (self._folder / f"run-{self._n}.log").open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from service.cli import main; main()", "run", "c.yaml"],
                cwd=self._folder,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=output,
                stderr=output,
            )
        self.wait_until(lambda: '"http server listens"' in self.log)
        (port,) = re.findall(r'"port": (\d+)', self.log)
        self.url = f"http://127.0.0.1:{port}"

    def wait_until(self, is_done: Callable[[], bool]) -> None:
        assert self._process is not None
        until = time.monotonic() + DEADLINE_S
        while not is_done():
            assert self._process.poll() is None, f"ended by itself: {self.log[-2000:]}"
            assert time.monotonic() < until, f"not done in {DEADLINE_S} s: {self.log[-2000:]}"
            time.sleep(0.005)

    def kill(self) -> None:
        self.url = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> int:
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(timeout=DEADLINE_S)


class Sender(threading.Thread):
    """Posts batches one after the other, each until it is answered 202."""

    def __init__(self, child: Child, batches: Sequence[Sequence[bytes]], name: str = "one") -> None:
        super().__init__(name=name)
        self._child = child
        self._batches = batches
        self.n_sent = 0
        self.n_retried = 0
        self.n_replayed = 0
        self.offsets: list[int] = []

    def run(self) -> None:
        until = time.monotonic() + DEADLINE_S
        with httpx.Client(trust_env=False, verify=False, timeout=10) as client:
            for n, batch in enumerate(self._batches):
                while time.monotonic() < until and not self._post(client, n, batch):
                    self.n_retried += 1
                    time.sleep(0.02)
                self.n_sent += 1

    def _post(self, client: httpx.Client, n: int, batch: Sequence[bytes]) -> bool:
        if self._child.url is None:
            return False
        headers = {
            "authorization": f"Bearer {TOKEN}",
            "content-type": "application/x-ndjson",
            "idempotency-key": f"{self.name}-{n}",
        }
        url = f"{self._child.url}/api/v1/events"
        try:
            answer = client.post(url, content=b"\n".join(batch), headers=headers)
        except httpx.TransportError:
            return False
        assert answer.status_code == 202, answer.text
        self.n_replayed += "idempotency-replayed" in answer.headers
        self.offsets.append(answer.json()["first_offset"])
        return True


@pytest.mark.parametrize("seed", [1, 2])
def test_a_service_that_is_killed_again_and_again_ends_with_the_same_incidents(
    tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    sent = values()
    batches = [sent[n : n + BATCH] for n in range(0, len(sent), BATCH)]
    child = Child(tmp_path)
    child.start()
    sender = Sender(child, batches)
    sender.start()
    try:
        with closing(Store(document(tmp_path)["store"]["url"], time.time)) as store:

            def n_stored() -> int:
                return store.offsets().get(("http", 0), 0)

            # While events come in, and while what has come is worked on: in the warm-up, watching,
            # with a suspicion under test, and after it was confirmed.
            for at in (20, 60, 100):
                child.wait_until(lambda at=at: sender.n_sent >= at)  # type: ignore[misc]
                time.sleep(chance.uniform(0, 0.3))
                child.kill()
                child.start()
            for at in (500, 1200, 1600, 2100):
                child.wait_until(lambda at=at: n_stored() >= at)  # type: ignore[misc]
                time.sleep(chance.uniform(0, 0.02))
                child.kill()
                child.start()
            child.wait_until(lambda: n_stored() == len(sent))
            assert child.stop() == 0, child.log
            sender.join()
            found, state = incidents(store), store.state("s")
            assert n_stored() == len(sent)
    finally:
        child.kill()
        sender.join()
    assert sender.n_retried > 0
    assert sender.offsets == list(range(0, len(sent), BATCH))
    assert [str(i.state) for i in found if i.confirmed_at] == ["confirmed"]
    assert not (tmp_path / "dead.jsonl").exists()
    (tmp_path / "whole").mkdir()
    assert (found, state) == uninterrupted(tmp_path / "whole", sent)


def test_every_event_of_many_senders_is_processed_once_whenever_the_service_is_killed(
    tmp_path: Path,
) -> None:
    chance = random.Random(3)
    child = Child(tmp_path)
    child.start()
    numbers = range(4 * 60 * BATCH)
    bodies = [
        json.dumps({"stream": "s", "id": str(n), "features": {"a": n % 7}}).encode()
        for n in numbers
    ]
    senders = []
    for who in range(4):
        mine = bodies[who::4]
        batches = [mine[n : n + BATCH] for n in range(0, len(mine), BATCH)]
        senders.append(Sender(child, batches, str(who)))
    for sender in senders:
        sender.start()
    try:
        with closing(Store(document(tmp_path)["store"]["url"], time.time)) as store:
            for kill in range(4):
                at = 4 * 60 * (kill + 1) // 6
                child.wait_until(lambda at=at: sum(s.n_sent for s in senders) >= at)  # type: ignore[misc]
                time.sleep(chance.uniform(0, 0.2))
                child.kill()
                child.start()
            child.wait_until(lambda: store.offsets().get(("http", 0), 0) >= len(bodies))
            url = f"{child.url}/api/v1/streams/s"
            stream = httpx.get(url, trust_env=False, verify=False).json()
            assert child.stop() == 0, child.log
            assert store.offsets() == {("http", 0): len(bodies)}
    finally:
        child.kill()
        for sender in senders:
            sender.join()
    firsts = sorted(offset for sender in senders for offset in sender.offsets)
    assert firsts == list(range(0, len(bodies), BATCH))
    assert stream["observations"] == len(bodies)
