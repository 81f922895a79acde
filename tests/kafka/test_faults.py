"""What goes wrong around the service, on a real broker: nothing lost, nothing doubled."""

from __future__ import annotations

import dataclasses
import itertools
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.domain.incident import Incident
from service.sources.kafka.source import KafkaSource
from tests.kafka.broker import Message, new_topic, produce
from tests.kafka.runs import Topics, document, incidents, opened, run_whole, step_until
from tests.postgres import Server, new_database

N = 1300
AWAY_S = 30.0


@pytest.fixture
def topics(servers: str) -> Topics:
    return Topics(new_topic(servers, "features"), new_topic(servers, "labels"))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["stopped", "crashed"])
def test_a_store_that_is_away_for_half_a_minute_changes_nothing(
    servers: str, topics: Topics, tmp_path: Path, own_postgres: Server, how: signal.Signals
) -> None:
    messages = topics.messages(N)
    produce(servers, messages)
    whole = run_whole(document(servers, topics, tmp_path / "whole"), len(messages))
    with new_database(own_postgres.url("postgres")) as url:
        settings = document(servers, topics, tmp_path / "away", max_poll_records=100)
        settings["store"] = {"url": url}
        with opened(settings) as (pipeline, store):
            step_until(pipeline, lambda: pipeline.n_records >= 900)
            own_postgres.stop(how)
            try:
                until = time.monotonic() + (AWAY_S if how is signal.SIGINT else 3.0)
                while time.monotonic() < until:
                    assert pipeline.step(timeout_s=0.1)
                stood = pipeline.n_records
                assert stood < len(messages)
                assert set(pipeline.lanes) == {0}, "the group has given it up"
            finally:
                own_postgres.start()
            step_until(pipeline, lambda: pipeline.n_records >= len(messages))
            pipeline.write()
            found = incidents(store)
            assert sum(store.offsets().values()) == len(messages)
    assert any(i.confirmed_at for i in whole)
    assert found == whole


def test_a_clock_that_jumps_changes_nothing(
    servers: str, topics: Topics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = topics.messages(N)
    produce(servers, messages)
    whole = run_whole(document(servers, topics, tmp_path / "whole"), len(messages))
    # A year ahead, a year back, the beginning of time, and the truth, at every call another.
    jumps: Iterator[float] = itertools.cycle([3.2e7, -3.2e7, -time.time(), 0.0])
    real = time.time
    monkeypatch.setattr(time, "time", lambda: max(real() + next(jumps), 0.0))
    settings = document(servers, topics, tmp_path / "jumps", max_poll_records=100)
    with opened(settings) as (pipeline, store):
        assert isinstance(pipeline.source, KafkaSource)
        step_until(pipeline, lambda: pipeline.n_records >= len(messages))
        pipeline.write()
        found = incidents(store)
    assert any(i.confirmed_at for i in whole)
    assert found == whole


POISON: list[bytes | None] = [
    b"not json",
    None,
    b"\xff\xfe\x00",
    b"{}",
    b"[1]",
    b'{"stream":"s","id":"n","features":{"x0":1,"x1":1,"x2":"tall"}}',
    b'{"stream":"s","label":"1"}',
    b'{"stream":"nobody","id":"n","label":"1"}',
    b'{"stream":"s","id":"n","features":{"x0":NaN,"x1":1,"x2":2}}',
    b"\x1f\x8b torn",
    b"\x00\x00\x00\x00\x01",
    b'{"specversion":"1.0"}',
]


def test_poison_in_every_position_changes_nothing(
    servers: str, topics: Topics, tmp_path: Path
) -> None:
    clean = topics.messages(N)
    produce(servers, clean)
    whole = run_whole(document(servers, topics, tmp_path / "whole"), len(clean))
    poisoned = Topics(new_topic(servers, "features"), new_topic(servers, "labels"))
    rename = {topics.features: poisoned.features, topics.labels: poisoned.labels}
    kinds = itertools.cycle(POISON)
    messages: list[Message] = []
    for topic, partition, value, time_ms in clean:
        place = rename[topic]
        assert place is not None
        # Before every record, and behind the last one.
        messages += [(place, partition, next(kinds), time_ms), (place, partition, value, time_ms)]
    for topic in rename.values():
        assert topic is not None
        messages.append((topic, 0, next(kinds), clean[-1][3]))
    produce(servers, messages)
    folder = tmp_path / "poisoned"
    found = run_whole(document(servers, poisoned, folder), len(messages))
    assert any(i.confirmed_at for i in whole)
    # The ids derive from offsets, which are others.
    assert [nameless(i) for i in found] == [nameless(i) for i in whole]
    letters = [json.loads(line) for line in (folder / "dead.jsonl").read_text().splitlines()]
    assert len(letters) == len(messages) - len(clean)
    assert len({(x["topic"], x["partition"], x["offset"]) for x in letters}) == len(letters)


def nameless(incident: Incident) -> Incident:
    return dataclasses.replace(incident, id="")
