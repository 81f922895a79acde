"""Several processes in one group on one store: lanes move, and nothing else changes."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from service.domain.incident import Incident, IncidentState
from service.store.store import Store
from tests.kafka.broker import Message, new_topic, produce
from tests.kafka.runs import DEADLINE_S, Child, Topics, document, incidents, run_whole

N = 1300
STREAMS = ("s0", "s1", "s2", "s3")
STORM_S = 60.0


@pytest.fixture
def topics(servers: str) -> Topics:
    return Topics(new_topic(servers, "features", partitions=len(STREAMS)))


def interleaved(topics: Topics, n: int = N) -> list[Message]:
    """A stream in each partition, in the order of time."""
    found = [
        message
        for lane, name in enumerate(STREAMS)
        for message in topics.messages(n, partition=lane, stream=name, seed=8 + lane)
    ]
    return sorted(found, key=lambda m: (m[3], m[1]))


class Fleet:
    """Processes that share a store and a group."""

    def __init__(self, settings: Mapping[str, Any], folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        self._n = 0
        self.all: list[Child] = []
        self.running: list[Child] = []

    def join(self, instance: str | None = None) -> Child:
        """Start one more process."""
        self._n += 1
        source = {**self._settings["source"], "group_instance_id": instance}
        child = Child({**self._settings, "source": source}, self._folder / f"process-{self._n}")
        self.all.append(child)
        self.running.append(child)
        return child

    def stop(self, child: Child) -> None:
        self.running.remove(child)
        has_started = '"started"' in child.log
        code = child.stop()
        # Before it has started, the signal ends it as it ends any program.
        assert code == 0 or (code == -signal.SIGTERM and not has_started), child.log[-2000:]

    def kill(self, child: Child) -> None:
        self.running.remove(child)
        child.kill()


@contextmanager
def fleet(settings: Mapping[str, Any], folder: Path) -> Iterator[tuple[Fleet, Store]]:
    with closing(Store(settings["store"]["url"], time.time)) as store:
        found = Fleet(settings, folder)
        try:
            yield found, store
        finally:
            for child in list(found.running):
                child.go_on()
                found.kill(child)


def done(store: Store) -> int:
    return sum(store.offsets().values())


def wait_for(store: Store, n: int, fleet: Fleet) -> None:
    until = time.monotonic() + DEADLINE_S
    while (at := done(store)) < n:
        logs = [c.log[-1500:] for c in fleet.running]
        assert time.monotonic() < until, f"{at} of {n} records in {DEADLINE_S} s: {logs}"
        time.sleep(0.05)


def lanes_of(child: Child) -> set[int]:
    """The lanes that a process has, by its own log."""
    lanes: set[int] = set()
    for line in child.log.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry.get("event") == "lane assigned":
            lanes.add(entry["lane"])
        elif entry.get("event") == "lane given up":
            lanes.discard(entry["lane"])
    return lanes


def by_stream(found: Sequence[Incident]) -> list[Incident]:
    return sorted(found, key=lambda i: (i.stream, i.opened_at.index, i.id))


def whole(
    servers: str, topics: Topics, messages: Sequence[Message], folder: Path
) -> list[Incident]:
    """What one process finds that nothing interrupts."""
    found = run_whole(document(servers, topics, folder, STREAMS), len(messages))
    confirmed = {i.stream for i in found if i.state == IncidentState.CONFIRMED}
    assert confirmed == set(STREAMS)
    return by_stream(found)


def test_lanes_move_between_processes_and_the_incidents_are_the_same(
    servers: str, client: str, topics: Topics, tmp_path: Path
) -> None:
    messages = interleaved(topics)
    settings = document(servers, topics, tmp_path / "fleet", STREAMS, client=client)
    third = len(messages) // 3
    with fleet(settings, tmp_path) as (processes, store):
        produce(servers, messages[:third])
        first = processes.join()
        wait_for(store, third, processes)
        second = processes.join()
        second.wait_until(lambda: len(lanes_of(second)) == 2 and len(lanes_of(first)) == 2)
        assert lanes_of(first) | lanes_of(second) == {0, 1, 2, 3}
        produce(servers, messages[third : 2 * third])
        wait_for(store, 2 * third, processes)
        processes.kill(second)
        produce(servers, messages[2 * third :])
        wait_for(store, len(messages), processes)
        assert lanes_of(first) == {0, 1, 2, 3}
        processes.stop(first)
        found = by_stream(incidents(store))
    assert found == whole(servers, topics, messages, tmp_path / "whole")


def test_a_process_that_was_asleep_when_its_lanes_moved_is_fenced(
    servers: str, topics: Topics, tmp_path: Path
) -> None:
    messages = interleaved(topics)
    settings = document(servers, topics, tmp_path / "fleet", STREAMS)
    half = len(messages) // 2
    with fleet(settings, tmp_path) as (processes, store):
        produce(servers, messages[:half])
        first = processes.join()
        second = processes.join()
        second.wait_until(lambda: len(lanes_of(second)) == 2 and len(lanes_of(first)) == 2)
        wait_for(store, half // 2, processes)
        first.pause()
        produce(servers, messages[half:])
        second.wait_until(lambda: lanes_of(second) == {0, 1, 2, 3})
        wait_for(store, len(messages) // 2 + half // 2, processes)
        first.go_on()
        wait_for(store, len(messages), processes)
        second.wait_until(lambda: len(lanes_of(second)) == 2 and len(lanes_of(first)) == 2)
        for child in (first, second):
            processes.stop(child)
        found = by_stream(incidents(store))
    assert found == whole(servers, topics, messages, tmp_path / "whole")


def test_a_storm_of_processes_that_join_and_leave_changes_nothing(
    servers: str, topics: Topics, tmp_path: Path
) -> None:
    messages = interleaved(topics)
    settings = document(servers, topics, tmp_path / "fleet", STREAMS)
    turn = random.Random(4)
    end = time.monotonic() + STORM_S
    with fleet(settings, tmp_path) as (processes, store):
        sent = 0
        processes.join()
        while (left := end - time.monotonic()) > 0:
            # The records come all the time, so that every rebalance finds work under way.
            due = round(len(messages) * (1 - left / STORM_S))
            produce(servers, messages[sent:due])
            sent = due
            if len(processes.running) < 2 or (len(processes.running) < 4 and turn.random() < 0.5):
                processes.join()
            elif turn.random() < 0.5:
                processes.kill(turn.choice(processes.running))
            else:
                processes.stop(turn.choice(processes.running))
            time.sleep(turn.uniform(0.5, 4.0))
        produce(servers, messages[sent:])
        wait_for(store, len(messages), processes)
        for child in list(processes.running):
            processes.stop(child)
        found = by_stream(incidents(store))
    assert len(processes.all) > 8
    assert found == whole(servers, topics, messages, tmp_path / "whole")
