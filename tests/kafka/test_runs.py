"""The straight line on a real broker: the same incidents whatever happens on the way."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from service.domain.incident import Incident, IncidentState
from service.store.store import Store
from tests.kafka.broker import Broker, Message, new_topic, produce
from tests.kafka.runs import (
    Child,
    Topics,
    document,
    incidents,
    n_stored,
    opened,
    run_whole,
    step_until,
)

N = 1300
TALL = b'{"stream":"s","id":"n","features":{"x0":1,"x1":1,"x2":"tall"}}'


@pytest.fixture
def topics(servers: str) -> Topics:
    return Topics(new_topic(servers, "features"), new_topic(servers, "labels"))


def is_confirmed(found: list[Incident]) -> bool:
    return [str(i.state) for i in found if i.confirmed_at] == [str(IncidentState.CONFIRMED)]


def ends(topics: Topics, messages: Sequence[Message]) -> list[Message]:
    """A record behind the last one of each topic, without which that would wait for the other."""
    assert topics.labels is not None
    after = messages[-1][3] + 1
    return [(topic, 0, b"end", after) for topic in (topics.features, topics.labels)]


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_incidents(
    servers: str, client: str, topics: Topics, tmp_path: Path
) -> None:
    messages = topics.messages(N)
    settings = document(servers, topics, tmp_path / "killed", client=client)
    folder = tmp_path / "killed"
    produced = 0
    with closing(Store(settings["store"]["url"], time.time)) as store:
        # In the warm-up, watching, with a suspicion under test, and after it was confirmed.
        for n, at in enumerate([0, 500, 1200, 1600, 2100]):
            # More than it will have done when it is killed, and nothing of what comes later: what
            # is produced under its hands would make the order depend on the moment.
            produce(servers, messages[produced : at + 250])
            produced = at + 250
            child = Child(settings, folder)
            child.wait_until(lambda n=n, child=child: child.log.count('"started"') > n)
            child.wait_until(lambda at=at: n_stored(store) >= at)
            child.kill()
        produce(servers, messages[produced:])
        child = Child(settings, folder)
        child.wait_until(lambda: n_stored(store) == len(messages))
        assert child.stop() == 0, child.log
        found = incidents(store)
    whole = run_whole(document(servers, topics, tmp_path / "whole"), len(messages))
    assert is_confirmed(found)
    assert found == whole


def test_a_broker_that_is_away_for_a_while_changes_nothing(
    own_broker: Broker, servers: str, client: str, topics: Topics, tmp_path: Path
) -> None:
    # Of now, and with a long wait for the other topic: both are written while they are read.
    messages = topics.messages(N, start_ms=int(time.time() * 1000) - 10_000)
    settings = document(servers, topics, tmp_path / "away", client=client, merge_wait_ms=600_000)
    produce(servers, messages[:1500])
    with opened(settings) as (pipeline, store):
        step_until(pipeline, lambda: n_stored(store) >= 900)
        own_broker.stop()
        try:
            for _ in range(15):
                assert pipeline.step(timeout_s=0.1)
        finally:
            own_broker.start()
        produce(servers, [*messages[1500:], *ends(topics, messages)])
        step_until(pipeline, lambda: n_stored(store) >= len(messages))
        found = incidents(store)
    assert is_confirmed(found)
    assert found == run_whole(document(servers, topics, tmp_path / "whole"), len(messages))


def test_poison_goes_to_the_dead_letters_and_the_stream_goes_on(
    servers: str, topics: Topics, tmp_path: Path
) -> None:
    assert topics.labels is not None
    poison: list[tuple[str, bytes | None, str]] = [
        (topics.features, b"not json", "not_json"),
        (topics.features, None, "empty"),
        (topics.features, b"\xff\xfe\x00", "not_json"),
        (topics.features, TALL, "wrong_type"),
        (topics.labels, b'{"stream":"s","label":"1"}', "missing_field"),
        (topics.labels, b'{"stream":"nobody","id":"n","label":"1"}', "unknown_stream"),
    ]
    messages: list[Message] = []
    expected = []
    seen = {topics.features: 0, topics.labels: 0}
    for n, message in enumerate(topics.messages(N)):
        if n % 200 == 150:
            topic, value, reason = poison[n // 200 % len(poison)]
            messages.append((topic, 0, value, message[3]))
            expected.append((topic, 0, seen[topic], reason))
            seen[topic] += 1
        messages.append(message)
        seen[message[0]] += 1
    produce(servers, messages)
    folder = tmp_path / "run"
    found = run_whole(document(servers, topics, folder), len(messages))
    assert is_confirmed(found)
    letters = [json.loads(line) for line in (folder / "dead.jsonl").read_text().splitlines()]
    where = [(x["topic"], x["partition"], x["offset"], x["reason"]) for x in letters]
    assert sorted(where) == sorted(expected)
    assert len(expected) >= len(poison)


def live(
    servers: str, folder: Path, seed: int, n: int = N, max_pending: int = 10_000, delay: int = 20
) -> list[dict[str, object]]:
    """The incidents of a run while both topics are written, one ahead of the other by turns.

    Only what tells two runs of the same records apart is left out: the ids, which name topics.
    """
    topics = Topics(new_topic(servers, "features"), new_topic(servers, "labels"))
    assert topics.labels is not None
    messages = topics.messages(n, start_ms=int(time.time() * 1000) - 10_000, delay=delay)
    written = [*messages, *ends(topics, messages)]
    left = {t: [m for m in written if m[0] == t] for t in (topics.features, topics.labels)}
    turn = random.Random(seed)
    settings = document(servers, topics, folder, merge_wait_ms=600_000)
    settings["streams"][0]["labels"] = {
        "max_pending": max_pending,
        "spill_from_start": True,
    }
    with opened(settings) as (pipeline, store):
        while any(left.values()):
            topic = turn.choice([t for t, log in left.items() if log])
            some = turn.randint(1, 300)
            produce(servers, left[topic][:some])
            left[topic] = left[topic][some:]
            pipeline.step(timeout_s=0.05)
        step_until(pipeline, lambda: pipeline.n_records >= len(messages))
        pipeline.write()
        found = incidents(store)
        assert pipeline.streams["s"].monitor.n_labelled == n - delay
    assert is_confirmed(found)
    return [{**i.to_json(), "id": None} for i in found]


def test_how_two_topics_are_written_beside_each_other_changes_nothing(
    servers: str, tmp_path: Path
) -> None:
    first = live(servers, tmp_path / "a", seed=1)
    assert live(servers, tmp_path / "b", seed=2) == first
    assert live(servers, tmp_path / "c", seed=3) == first


def test_labels_that_come_long_after_may_be_written_whenever_they_like(
    servers: str, tmp_path: Path
) -> None:
    first = live(servers, tmp_path / "a", seed=1, n=2500, max_pending=50, delay=600)
    assert live(servers, tmp_path / "b", seed=2, n=2500, max_pending=50, delay=600) == first
