"""The two clients beside each other, and what only one of them could get wrong."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from uuid import uuid4

import pytest

from service.settings.source import SourceSettings
from service.sources.kafka.client import Reader
from service.sources.kafka.confluent import ConfluentReader
from service.sources.kafka.kafka_python import KafkaPythonReader
from service.sources.kafka.source import KafkaSource
from tests.kafka.broker import new_topic, produce
from tests.kafka.test_source import DEADLINE_S, Desk, drive

N = 6000


def settings(servers: str, topic: str, **more: Any) -> SourceSettings:
    return SourceSettings.model_validate(
        {
            "kind": "kafka",
            "bootstrap_servers": servers,
            "topics": {"features": topic},
            "group_id": f"g-{uuid4().hex[:8]}",
            "session_timeout_ms": 6000,
            **more,
        }
    )


@pytest.fixture
def reader(servers: str, client: str) -> Iterator[tuple[Reader, str]]:
    topic = new_topic(servers, "events", 2)
    produce(servers, [(topic, k % 2, b"%d" % (k // 2), 1000 + k) for k in range(2 * N)])
    kind = ConfluentReader if client == "confluent" else KafkaPythonReader
    with closing(kind(settings(servers, topic))) as found:
        yield found, topic


def test_a_partition_that_is_held_and_let_go_at_random_loses_and_doubles_nothing(
    reader: tuple[Reader, str],
) -> None:
    client, topic = reader
    turn = random.Random(5)
    seen = {(topic, 0): 0, (topic, 1): 0}
    client.assign(seen)
    until = time.monotonic() + DEADLINE_S
    held: set[tuple[str, int]] = set()
    while min(seen.values()) < N:
        assert time.monotonic() < until, seen
        if turn.random() < 0.4:
            held = {at for at in seen if turn.random() < 0.4}
        client.hold(held)
        for at, records in client.poll(0.05).items():
            assert at not in held
            assert [r.offset for r in records] == [seen[at] + k for k in range(len(records))]
            assert [r.value for r in records] == [b"%d" % r.offset for r in records]
            seen[at] += len(records)
    client.hold(())
    while not all(client.is_at_end(at) for at in seen):
        assert time.monotonic() < until
        assert client.poll(0.05) == {}
    assert {client.end(at) for at in seen} == {N}


def test_an_assignment_begins_where_it_says_whatever_was_on_its_way(
    reader: tuple[Reader, str],
) -> None:
    client, topic = reader
    turn = random.Random(6)
    for n in range(40):
        partitions = turn.choice([(0,), (1,), (0, 1)])
        wanted = {(topic, p): turn.randrange(N) for p in partitions}
        client.assign(wanted)
        assert not any(client.is_at_end(at) for at in wanted)
        until = time.monotonic() + DEADLINE_S
        missing = set(wanted)
        while missing if n % 2 else len(missing) == len(wanted):
            assert time.monotonic() < until
            for at, records in client.poll(0.05).items():
                offset = wanted[at]
                assert [r.offset for r in records] == [offset + k for k in range(len(records))]
                wanted[at] += len(records)
                missing.discard(at)
        client.hold({at for at in wanted if turn.random() < 0.5})


def test_both_clients_share_one_group(servers: str) -> None:
    topic = new_topic(servers, "events", 4)
    shared = settings(servers, topic)
    one, two = Desk(), Desk()
    store = one.offsets = two.offsets = {}

    def send(n: int) -> None:
        produce(servers, [(topic, k % 4, b"%d" % k, 1000 + k) for k in range(n)])

    first = KafkaSource(shared.model_copy(update={"client": "kafka-python"}))
    second = KafkaSource(shared.model_copy(update={"client": "confluent"}))
    with closing(first), closing(second):
        members = {first: one}
        first.start(one)
        send(400)
        drive(members, lambda: sum(store.values()) == 400)
        second.start(two)
        members[second] = two
        drive(members, lambda: len(one.lanes) == 2 and len(two.lanes) == 2)
        send(400)
        drive(members, lambda: sum(store.values()) == 800)
        del members[first]
        first.close()
        drive(members, lambda: len(two.lanes) == 4)
        send(400)
        drive(members, lambda: sum(store.values()) == 1200)
