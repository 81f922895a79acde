"""A broker that is killed at work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from tests.kafka.broker import Broker, new_topic
from tests.kafka.runs import Topics, document, incidents, opened, run_whole, step_until

N = 1300
KILL_AT = {"kafka-python": 400, "confluent": 1600}
"""Records after which it is killed: in the warm-up, and with a suspicion under test."""
AHEAD = 200
"""Records that are written before those are read, so that neither is done before the other."""


def end_of(servers: str, topic: str) -> int:
    """How many records partition 0 of a topic has."""
    with closing(KafkaConsumer(bootstrap_servers=servers)) as consumer:
        [end] = consumer.end_offsets([TopicPartition(topic, 0)]).values()
        return int(end)


def test_a_broker_that_is_killed_while_it_is_read_and_written_changes_nothing(
    own_broker: Broker, servers: str, client: str, tmp_path: Path
) -> None:
    topics = Topics(new_topic(servers, "features"))
    messages = topics.messages(N)
    written, given_up = threading.Event(), threading.Event()

    def write(done: Callable[[], int]) -> None:
        producer = KafkaProducer(
            bootstrap_servers=servers, acks="all", reconnect_backoff_max_ms=200
        )
        with closing(producer):
            for n, (topic, partition, value, time_ms) in enumerate(messages):
                while n > done() + AHEAD and not given_up.is_set():
                    time.sleep(0.01)
                sent = producer.send(topic, value, partition=partition, timestamp_ms=time_ms)
                sent.get(timeout=60)
        written.set()

    with opened(document(servers, topics, tmp_path / "killed", client=client)) as (pipeline, store):
        writer = threading.Thread(target=write, args=(lambda: pipeline.n_records,))
        writer.start()
        try:
            step_until(pipeline, lambda: pipeline.n_records >= KILL_AT[client])
            assert not written.is_set(), "it was not killed at work"
            own_broker.kill()
            try:
                for _ in range(3):
                    assert pipeline.step(timeout_s=0.1)
            finally:
                own_broker.start()
            step_until(pipeline, written.is_set)
            # What the broker took before it could say so, the producer has written twice.
            n = end_of(servers, topics.features)
            assert n >= len(messages)
            step_until(pipeline, lambda: sum(store.offsets().values()) == n)
        finally:
            given_up.set()
            writer.join(timeout=120)
        found = incidents(store)
    assert any(i.confirmed_at for i in found)
    assert found == run_whole(document(servers, topics, tmp_path / "whole"), n)
