"""Topics that change under a service that reads them."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import structlog
from kafka.admin import KafkaAdminClient, NewPartitions, NewTopic
from kafka.errors import TopicAlreadyExistsError

from service.sources.kafka.source import KafkaSource
from service.sources.source import SourceError
from tests.kafka.broker import new_topic, produce
from tests.kafka.runs import Topics, document, opened, step_until
from tests.kafka.test_source import DEADLINE_S, Desk, Open, drive, open_source

__all__ = ["open_source"]


def create_anew(servers: str, topic: str) -> None:
    """Delete a topic and create one of the same name."""
    with closing(KafkaAdminClient(bootstrap_servers=servers)) as admin:
        admin.delete_topics([topic])
        until = time.monotonic() + DEADLINE_S
        while True:
            try:
                admin.create_topics([NewTopic(topic, 1, 1)])
            except TopicAlreadyExistsError:  # the old one is still being deleted
                assert time.monotonic() < until
                time.sleep(0.1)
            else:
                return


def test_a_topic_that_is_created_anew_is_read_by_the_policy_and_the_alarm_is_raised(
    servers: str, client: str, tmp_path: Path
) -> None:
    topics = Topics(new_topic(servers, "features"))
    at = (topics.features, 0)
    messages = topics.messages(700)
    produce(servers, messages[:900])
    settings = document(servers, topics, tmp_path, client=client, metadata_max_age_ms=500)
    with opened(settings) as (pipeline, store), structlog.testing.capture_logs() as logs:
        step_until(pipeline, lambda: store.offsets().get(at) == 900)
        create_anew(servers, topics.features)
        produce(servers, messages[900:1100])
        step_until(pipeline, lambda: store.offsets().get(at) == 200)
        produce(servers, messages[1100:1200])
        step_until(pipeline, lambda: store.offsets().get(at) == 300)
        resets = pipeline.metrics.offset_resets.labels(topics.features, "0")._value.get()
        observed = pipeline.streams["s"].monitor.n_seen
    [entry] = [e for e in logs if e["event"] == "offset out of range"]
    assert entry["log_level"] == "error"
    assert (entry["topic"], entry["partition"], entry["wanted"]) == (topics.features, 0, 900)
    assert (entry["available"], entry["going_on_at"]) == ("0 to 200", "earliest")
    assert resets == 1
    # Every event once, those of the first topic and those of the second.
    assert observed == sum(b'"features"' in (m[2] or b"") for m in messages[:1200])


def test_without_a_policy_a_topic_that_is_created_anew_ends_the_service_with_the_reason(
    servers: str, client: str, tmp_path: Path
) -> None:
    topics = Topics(new_topic(servers, "features"))
    messages = topics.messages(200)
    settings = document(servers, topics, tmp_path, client=client, metadata_max_age_ms=500)
    produce(servers, messages[:50])
    with opened(settings) as (pipeline, store):
        step_until(pipeline, lambda: sum(store.offsets().values()) == 50)
    create_anew(servers, topics.features)
    produce(servers, messages[50:60])
    settings["source"]["auto_offset_reset"] = "none"
    says = rf"{topics.features}\[0\]: offset 50 is not there any more .* 0 to 10"
    with opened(settings) as (pipeline, _), pytest.raises(SourceError, match=says):
        step_until(pipeline, lambda: False)


def add_partition(servers: str, topic: str, total: int) -> None:
    with closing(KafkaAdminClient(bootstrap_servers=servers)) as admin:
        admin.create_partitions({topic: NewPartitions(total)})


@pytest.mark.parametrize("is_restarted", [False, True], ids=["", "restarted"])
def test_a_partition_that_is_added_becomes_a_lane_once_all_topics_have_it(
    servers: str, open_source: Open, *, is_restarted: bool
) -> None:
    features, labels = new_topic(servers, "features", 1), new_topic(servers, "labels", 1)

    def send(lane: int, first: int) -> None:
        produce(
            servers,
            [
                (t, lane, b"%d" % k, 1000 + k)
                for k in range(first, first + 10)
                for t in (features, labels)
            ],
        )

    def is_read(n: int) -> Callable[[], bool]:
        return lambda: sum(desk.offsets.values()) == n

    desk = Desk()
    more = {"metadata_max_age_ms": 200, "group_instance_id": "one"}
    members: dict[KafkaSource, Desk] = {open_source(features, labels, desk, **more): desk}
    send(0, 0)
    drive(members, is_read(20))
    if is_restarted:  # the broker gives it what it had, and does not tell it that it leads
        [source] = members
        source.close()
        desk.lanes.clear()
        members = {open_source(features, labels, desk, **more): desk}
        drive(members, lambda: desk.lanes == {0})
    with structlog.testing.capture_logs() as logs:
        add_partition(servers, features, 2)
        drive(members, lambda: any(e.get("not_in_all") == [1] for e in logs))
    assert desk.lanes == {0}
    send(0, 10)
    drive(members, is_read(40))
    add_partition(servers, labels, 2)
    send(1, 0)
    drive(members, is_read(60))
    assert desk.lanes == {0, 1}
    assert desk.offsets == {
        (t, lane): 20 - 10 * lane for t in (features, labels) for lane in (0, 1)
    }
