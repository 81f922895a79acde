"""The topics that the service writes: what is in them after a run, and while the broker is away."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from service.api.app import open_app
from service.api.wiring import open_source
from service.domain.action import Action, ActionState
from service.domain.dead_letter import DeadLetter
from service.notify import publisher as publisher_module
from service.notify.dead_letters import DeadLetterTopic
from service.notify.incident_topic import INCIDENTS_KIND, IncidentTopic
from service.notify.publisher import Message, Publisher
from service.settings.service import Settings
from service.settings.source import SourceSettings
from service.sources.source import SourceError
from tests.kafka.broker import Broker, new_topic, produce
from tests.kafka.runs import Topics, document, step_until

N = 1300


@dataclass(frozen=True)
class Found:
    key: bytes | None
    value: bytes
    headers: dict[str, bytes]


def contents(servers: str, topic: str) -> list[Found]:
    """Everything that is in partition 0 of a topic now."""
    with closing(KafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False)) as consumer:
        at = TopicPartition(topic, 0)
        consumer.assign([at])
        consumer.seek_to_beginning(at)
        [end] = consumer.end_offsets([at]).values()
        found: list[Found] = []
        until = time.monotonic() + 60
        while consumer.position(at) < end:
            assert time.monotonic() < until, f"{len(found)} of {end} messages"
            for records in consumer.poll(500).values():
                found += [Found(r.key, r.value, dict(r.headers)) for r in records]
        return found


def settings_of(servers: str) -> SourceSettings:
    return SourceSettings.model_validate(
        {"kind": "kafka", "bootstrap_servers": servers, "topics": {"features": "unused"}}
    )


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that gives a message up sooner than in production."""
    monkeypatch.setattr(publisher_module, "_DELIVERY_MS", 3000)
    monkeypatch.setattr(publisher_module, "_REQUEST_MS", 1000)
    monkeypatch.setattr(publisher_module, "_CONNECT_MS", 1000)


@contextmanager
def published(servers: str, topic: str) -> Iterator[Publisher]:
    with closing(Publisher(settings_of(servers), topic)) as found:
        yield found


def letter(offset: int, value: bytes = b"not json", **more: Any) -> DeadLetter:
    return DeadLetter("events", 0, offset, "", "not_json", "no", value, **more)


def action(n: int, **data: Any) -> Action:
    document = {"id": f"inc-{n}", "stream": "s", "state": "confirmed", **data}
    payload = {"event": "incident.confirmed", "data": document}
    return Action(f"inc-{n}:confirmed:kafka", "s", f"inc-{n}", INCIDENTS_KIND, payload)


def test_a_run_writes_its_incidents_and_its_dead_letters_to_their_topics(
    servers: str, tmp_path: Path
) -> None:
    dead, incidents = new_topic(servers, "dead"), new_topic(servers, "incidents")
    more = {"dead_letters": dead, "incidents": incidents}
    read = Topics(new_topic(servers, "features"), more=more)
    messages = read.messages(N)
    produce(servers, messages)
    poison = [(b"not json", "not_json"), (b"\x1f\x8b\x00", "bad_gzip"), (b"", "empty")]
    with closing(KafkaProducer(bootstrap_servers=servers, acks="all")) as producer:
        for value, _ in poison:
            headers = [("traceparent", b"00-1")]
            producer.send(read.features, value, b"key", headers, timestamp_ms=10**8).get(60)
    plain = document(servers, read, tmp_path / "run")
    checked = Settings.model_validate(plain)
    with open_app(checked, open_source(checked.source)) as app:
        step_until(app.pipeline, lambda: app.pipeline.n_records >= len(messages) + len(poison))
        app.pipeline.write()
        app.drain()
        actions = app.store.actions()
        stored = {i.id: i.to_json() for i in app.store.incidents(limit=None)}
    found = contents(servers, incidents)
    events = [json.loads(one.value) for one in found]
    assert {one.key for one in found} == {b"s"}
    assert [e["id"] for e in events] == [a.id for a in actions if a.kind == INCIDENTS_KIND]
    assert len({e["id"] for e in events}) == len(events)
    assert {a.state for a in actions} == {ActionState.DONE}
    assert events[-1]["type"] == "io.shiftwatch.incident.confirmed"
    assert events[-1]["data"] == stored[events[-1]["data"]["id"]]
    letters = contents(servers, dead)
    assert [one.value for one in letters] == [value for value, _ in poison]
    assert not Path(plain["dead_letters"]["path"]).exists()
    for n, (one, (_, reason)) in enumerate(zip(letters, poison, strict=True)):
        place = f"{read.features}[0]@{len(messages) + n}: "
        assert one.key == b"key"
        assert one.headers.pop("shiftwatch.message").decode().startswith(place)
        assert one.headers == {
            "shiftwatch.reason": reason.encode(),
            "shiftwatch.stream": b"",
            "shiftwatch.topic": read.features.encode(),
            "shiftwatch.partition": b"0",
            "shiftwatch.offset": b"%d" % (len(messages) + n),
            "shiftwatch.timestamp": b"100000000",
            "traceparent": b"00-1",
        }


def test_a_message_that_comes_again_has_the_same_bytes(servers: str) -> None:
    topic = new_topic(servers, "incidents")
    with published(servers, topic) as out:
        handler = IncidentTopic(out)
        assert handler.deliver(action(1)).state is ActionState.DONE
        assert handler.deliver(action(1)).state is ActionState.DONE
    first, second = contents(servers, topic)
    assert first == second


def test_what_is_larger_than_the_topic_takes_is_cut_and_the_rest_is_written(servers: str) -> None:
    dead, incidents = new_topic(servers, "dead"), new_topic(servers, "incidents")
    with published(servers, dead) as out:
        large = letter(1, bytes(3_000_000), key=b"k")
        larger = letter(2, b"x", headers=(("h", bytes(2_000_000)),))
        DeadLetterTopic(out, lambda: False).write([letter(0), large, larger, letter(3)])
    found = {int(one.headers["shiftwatch.offset"]): one for one in contents(servers, dead)}
    assert sorted(found) == [0, 1, 2, 3]
    assert {found[n].value for n in (0, 3)} == {b"not json"}
    assert not any("shiftwatch.size" in found[n].headers for n in (0, 3))
    assert (found[1].key, found[1].value) == (b"k", bytes(65_536))
    assert found[1].headers["shiftwatch.size"] == b"3000000"
    assert (found[2].value, "h" in found[2].headers) == (b"x", False)
    with published(servers, incidents) as out:
        evidence = [{"note": "x" * 1000}] * 2000
        assert IncidentTopic(out).deliver(action(1, evidence=evidence)).state is ActionState.DONE
    [one] = contents(servers, incidents)
    assert json.loads(one.value)["data"]["truncated"] is True


def test_dead_letters_wait_for_a_broker_that_is_away_and_none_is_lost(
    own_broker: Broker, servers: str, short_waits: None
) -> None:
    topic = new_topic(servers, "dead")
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        if not slept:
            own_broker.start()
        slept.append(seconds)

    with published(servers, topic) as out:
        dead = DeadLetterTopic(out, lambda: False, sleep=sleep)
        dead.write([letter(0)])
        own_broker.stop()
        try:
            dead.write([letter(n) for n in range(1, 50)])
        finally:
            if not slept:
                own_broker.start()
    assert slept
    found = [int(one.headers["shiftwatch.offset"]) for one in contents(servers, topic)]
    assert sorted(set(found)) == list(range(50))


def test_a_service_that_is_to_stop_does_not_wait_for_the_broker(
    own_broker: Broker, servers: str, short_waits: None
) -> None:
    topic = new_topic(servers, "dead")
    stop = threading.Event()
    with published(servers, topic) as out:
        own_broker.stop()
        try:
            dead = DeadLetterTopic(out, stop.is_set, sleep=lambda seconds: stop.set())
            with pytest.raises(SourceError, match=rf"{topic}: 2 dead letters are not written"):
                dead.write([letter(0), letter(1)])
        finally:
            own_broker.start()
    assert len(contents(servers, topic)) in {0, 2}


def test_an_incident_that_was_not_written_is_retried(
    own_broker: Broker, servers: str, short_waits: None
) -> None:
    topic = new_topic(servers, "incidents")
    with published(servers, topic) as out:
        handler = IncidentTopic(out)
        own_broker.stop()
        try:
            first = handler.deliver(action(1))
        finally:
            own_broker.start()
        assert first.state is ActionState.PENDING
        assert topic in first.detail
        assert handler.deliver(action(1)).state is ActionState.DONE
    assert {one.key for one in contents(servers, topic)} == {b"s"}


def test_a_topic_that_is_not_there_and_a_broker_that_is_not_are_errors_at_the_start(
    servers: str, short_waits: None
) -> None:
    missing = f"none-{uuid4().hex[:8]}"
    with pytest.raises(SourceError, match=f"{missing}: cannot be written to"):
        Publisher(settings_of(servers), missing)
    with pytest.raises(SourceError, match=r"127\.0\.0\.1:9: .*cannot be written to"):
        Publisher(settings_of("127.0.0.1:9"), missing)


def test_many_messages_keep_their_order(servers: str) -> None:
    topic = new_topic(servers, "dead")
    with published(servers, topic) as out:
        assert out.send([]) == []
        assert out.send([Message(None, b"%d" % n) for n in range(2000)]) == []
    assert [one.value for one in contents(servers, topic)] == [b"%d" % n for n in range(2000)]
