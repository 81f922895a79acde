"""The source on a real broker: what it delivers, where it goes on, and what it survives."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any
from uuid import uuid4

import pytest
from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.base import MemberState
from kafka.protocol.consumer.metadata import ConsumerProtocolAssignment

from service.records.record import Record
from service.settings.source import SourceSettings
from service.sources.kafka.source import KafkaSource
from service.sources.source import NotNowError, Partition, SourceError
from tests.kafka.broker import Broker, new_topic, produce, produce_values

DEADLINE_S = 60.0
"""Only ever reached by a failure."""

Open = Callable[..., KafkaSource]


class Desk:
    """An owner that keeps the offsets of a store and what it is told."""

    def __init__(self, offsets: Mapping[Partition, int] | None = None) -> None:
        self.offsets = dict(offsets or {})
        self.lanes: set[int] = set()
        self.gone: dict[Partition, int] = {}
        self.is_away = False

    def assigned(self, lanes: Collection[int], total: int) -> Mapping[Partition, int]:
        assert max(lanes) < total
        if self.is_away:
            raise NotNowError("away")
        assert not self.lanes & set(lanes)
        self.lanes |= set(lanes)
        return {at: n for at, n in self.offsets.items() if at[1] in lanes}

    def begun(
        self, offsets: Mapping[Partition, int], gone: Mapping[Partition, int] | None = None
    ) -> None:
        self.offsets.update(offsets)
        self.gone.update(gone or {})

    def revoked(self, lanes: Collection[int]) -> None:
        self.lanes -= set(lanes)

    def lost(self, lanes: Collection[int]) -> None:
        self.lanes -= set(lanes)

    def take(self, records: Iterable[Record]) -> None:
        """Handle records as a pipeline would: only those of own lanes, and each once."""
        for record in records:
            at = (record.topic, record.partition)
            assert record.partition in self.lanes
            assert record.offset >= self.offsets.get(at, 0)
            self.offsets[at] = record.offset + 1


@pytest.fixture
def open_source(servers: str, client: str) -> Iterator[Open]:
    opened: list[KafkaSource] = []
    group = f"g-{uuid4().hex[:8]}"

    def open_source(
        features: str, labels: str | None = None, desk: Desk | None = None, **more: Any
    ) -> KafkaSource:
        settings = {
            "kind": "kafka",
            "client": client,
            "bootstrap_servers": servers,
            "topics": {"features": features, "labels": labels},
            "group_id": group,
            "session_timeout_ms": 6000,
            "merge_wait_ms": 100,
            **more,
        }
        opened.append(KafkaSource(SourceSettings.model_validate(settings)))
        opened[-1].start(desk or Desk())
        return opened[-1]

    yield open_source
    for source in opened:
        source.close()


def collect(source: KafkaSource, n: int) -> list[Record]:
    found: list[Record] = []
    until = time.monotonic() + DEADLINE_S
    while len(found) < n:
        assert time.monotonic() < until, f"{len(found)} of {n} records within {DEADLINE_S} s"
        found += source.poll(500, 0.2)
    return found


def silence(source: KafkaSource, polls: int = 5) -> None:
    for _ in range(polls):
        assert not source.poll(500, 0.1)


def committed(servers: str, group: str, topic: str) -> int | None:
    consumer = KafkaConsumer(bootstrap_servers=servers, group_id=group, enable_auto_commit=False)
    try:
        found: int | None = consumer.committed(TopicPartition(topic, 0))
        return found
    finally:
        consumer.close()


def values(n: int, start: int = 0) -> list[bytes]:
    return [b"%d" % k for k in range(start, start + n)]


def test_records_arrive_with_their_coordinates_and_values(servers: str, open_source: Open) -> None:
    topic = new_topic(servers, "events", partitions=2)
    sent = [(topic, n % 2, b"%d" % n, 1000 + n) for n in range(1200)]
    produce(servers, sent)
    source = open_source(topic)
    found = collect(source, 1200)
    for lane in (0, 1):
        assert [r for r in found if r.partition == lane] == [
            Record(topic, lane, n, None, b"%d" % (2 * n + lane)) for n in range(600)
        ]
    assert source.lag() == 0
    assert not source.exhausted
    silence(source)


def test_a_batch_is_no_larger_than_asked_and_the_lag_says_what_is_left(
    servers: str, open_source: Open
) -> None:
    topic = new_topic(servers, "events")
    produce_values(servers, topic, values(50))
    source = open_source(topic)
    assert source.lag() is None
    first: list[Record] = []
    while not first:
        first += source.poll(7, 0.2)
    assert (len(first), source.lag()) == (7, 43)


def test_the_stores_offsets_count_and_not_the_brokers(servers: str, open_source: Open) -> None:
    topic = new_topic(servers, "events")
    produce_values(servers, topic, values(20))
    source = open_source(topic)
    collect(source, 20)
    source.commit({(topic, 0): 15, ("elsewhere", 0): 3})
    source.close()
    group = source._settings.group_id
    assert committed(servers, group, topic) == 15
    again = open_source(topic, desk=Desk({(topic, 0): 4, ("elsewhere", 0): 3}))
    assert [r.offset for r in collect(again, 16)] == list(range(4, 20))
    again.seek({(topic, 0): 18})
    assert [r.offset for r in collect(again, 2)] == [18, 19]
    again.close()
    # Without an offset in the store it begins at the beginning, whatever the broker says.
    assert [r.offset for r in collect(open_source(topic), 20)] == list(range(20))


def test_two_topics_are_merged_by_record_time_however_they_were_produced(
    servers: str, open_source: Open
) -> None:
    features = new_topic(servers, "features", partitions=2)
    labels = new_topic(servers, "labels", partitions=2)
    late = [(labels, n % 2, b"l%d" % n, 10 * n + 25) for n in range(900)]
    # More than a fetch brings (1 MiB of a partition), so the labels are there before their events.
    early = [(features, n % 2, (b"f%d" % n).ljust(4000), 10 * n) for n in range(900)]
    produce(servers, late)
    produce(servers, early)
    found = collect(open_source(features, labels), 1800)
    order = sorted([*late, *early], key=lambda m: (m[3], m[0]))
    for lane in (0, 1):
        expected = [value for _, partition, value, _ in order if partition == lane]
        assert [r.value for r in found if r.partition == lane] == expected


def test_a_live_record_within_the_wait_takes_its_place_and_a_later_one_does_not(
    servers: str, open_source: Open
) -> None:
    features, labels = new_topic(servers, "features"), new_topic(servers, "labels")
    source = open_source(features, labels, merge_wait_ms=600_000)
    now = int(time.time() * 1000)
    produce(servers, [(features, 0, b"second", now)])
    silence(source)
    produce(servers, [(labels, 0, b"first", now - 1), (labels, 0, b"third", now + 1)])
    assert [r.value for r in collect(source, 2)] == [b"first", b"second"]
    source.close()
    source = open_source(features, labels, merge_wait_ms=0)
    collect(source, 3)
    produce(servers, [(labels, 0, b"too late", now - 5)])
    assert [r.value for r in collect(source, 1)] == [b"too late"]


def delete_before(servers: str, topic: str, offset: int) -> None:
    admin = KafkaAdminClient(bootstrap_servers=servers)
    try:
        admin.delete_records({TopicPartition(topic, 0): offset})
    finally:
        admin.close()


@pytest.mark.parametrize(("policy", "first"), [("earliest", 6), ("latest", 10)])
def test_an_offset_that_was_deleted_follows_the_policy(
    servers: str, open_source: Open, policy: str, first: int
) -> None:
    topic = new_topic(servers, "events")
    produce_values(servers, topic, values(10))
    delete_before(servers, topic, 6)
    desk = Desk({(topic, 0): 3})
    source = open_source(topic, desk=desk, auto_offset_reset=policy)
    until = time.monotonic() + DEADLINE_S
    found: list[Record] = []
    while source.lag() != 0:
        assert time.monotonic() < until
        found += source.poll(500, 0.1)
    produce_values(servers, topic, values(2, start=10))
    found += collect(source, 12 - first - len(found))
    assert [r.offset for r in found] == list(range(first, 12))
    assert desk.gone == {(topic, 0): 3}


def test_without_a_policy_a_deleted_offset_is_an_error_that_says_everything(
    servers: str, open_source: Open
) -> None:
    topic = new_topic(servers, "events")
    produce_values(servers, topic, values(10))
    delete_before(servers, topic, 6)
    source = open_source(topic, desk=Desk({(topic, 0): 3}), auto_offset_reset="none")
    with pytest.raises(SourceError, match=rf"{topic}\[0\]: offset 3 .* 6 to 10"):
        collect(source, 1)
    source.close()
    source = open_source(topic, auto_offset_reset="none")
    with pytest.raises(SourceError, match=rf"{topic}\[0\]: the store has no offset .* 6 to 10"):
        collect(source, 1)
    # A broker's offset is no substitute.
    source.close()
    consumer = KafkaConsumer(bootstrap_servers=servers, group_id=source._settings.group_id)
    consumer.commit({TopicPartition(topic, 0): OffsetAndMetadata(7, "", -1)})
    consumer.close()
    with pytest.raises(SourceError, match="the store has no offset"):
        collect(open_source(topic, auto_offset_reset="none"), 1)


def test_what_is_not_there_is_named(servers: str, open_source: Open) -> None:
    with pytest.raises(SourceError, match="there is no topic 'nowhere'"):
        open_source("nowhere")


def test_topics_with_different_numbers_of_partitions_are_refused(
    servers: str, open_source: Open
) -> None:
    features, labels = new_topic(servers, "features", 2), new_topic(servers, "labels", 3)
    with pytest.raises(SourceError, match=f"'{features}' has 2 partitions and '{labels}' has 3"):
        open_source(features, labels)


def drive(members: Mapping[KafkaSource, Desk], is_done: Callable[[], bool]) -> None:
    """Poll all sources by turns, each for its own owner."""
    until = time.monotonic() + DEADLINE_S
    while not is_done():
        assert time.monotonic() < until, [desk.lanes for desk in members.values()]
        for source, desk in members.items():
            desk.take(source.poll(500, 0.05))
            source.commit(desk.offsets)


def test_lanes_are_shared_out_over_processes_and_come_back(servers: str, open_source: Open) -> None:
    features, labels = new_topic(servers, "features", 4), new_topic(servers, "labels", 4)
    topics = (features, labels)

    def send(first: int, n: int) -> None:
        produce(
            servers,
            [(t, k % 4, b"%d" % k, 1000 + k) for k in range(first, first + n) for t in topics],
        )

    store: dict[Partition, int] = {}
    one, two = Desk(), Desk()
    one.offsets = two.offsets = store  # one store, in which each record may be taken once
    send(0, 400)
    first = open_source(features, labels, one)
    members = {first: one}
    drive(members, lambda: sum(store.values()) == 800)
    assert one.lanes == {0, 1, 2, 3}
    second = open_source(features, labels, two)
    members[second] = two
    drive(members, lambda: len(one.lanes) == 2 and len(two.lanes) == 2)
    assert one.lanes | two.lanes == {0, 1, 2, 3}
    assert set(first._merges) == one.lanes
    send(400, 400)
    drive(members, lambda: sum(store.values()) == 1600)
    kept = set(two.lanes)
    del members[first]
    first.close()
    drive(members, lambda: len(two.lanes) == 4)
    assert kept < two.lanes
    send(800, 400)
    drive(members, lambda: sum(store.values()) == 2400)
    assert store == {(t, lane): 300 for t in topics for lane in range(4)}


def test_two_processes_of_one_name_are_refused(servers: str, open_source: Open) -> None:
    topic = new_topic(servers, "events", 2)
    first, second = (Desk(), Desk())
    members = {open_source(topic, desk=first, group_instance_id="same"): first}
    drive(members, lambda: len(first.lanes) == 2)
    later = open_source(topic, desk=second, group_instance_id="same")
    # The broker takes the newer for the process started again.
    with pytest.raises(SourceError, match=r"group 'g-.*': .*same"):
        drive(members, lambda: False)
    produce_values(servers, topic, values(5))
    drive({later: second}, lambda: sum(second.offsets.values()) == 5)
    assert second.lanes == {0, 1}


def test_a_restart_under_the_same_name_moves_nothing(servers: str, open_source: Open) -> None:
    topic = new_topic(servers, "events", 4)
    one, two = Desk(), Desk()
    first = open_source(topic, desk=one, group_instance_id="one")
    second = open_source(topic, desk=two, group_instance_id="two")
    members = {first: one, second: two}
    drive(members, lambda: len(one.lanes) == 2 and len(two.lanes) == 2)
    before = set(one.lanes)
    first.close()
    del members[first]
    again = Desk()
    members[open_source(topic, desk=again, group_instance_id="one")] = again
    drive(members, lambda: len(again.lanes) == 2)
    assert again.lanes == before
    assert len(two.lanes) == 2


class AssignsNothing(CooperativeStickyAssignor):
    """What a leader makes of a group whose topic it has not heard of yet."""

    def assign(self, cluster: Any, members: Any) -> Any:
        given = super().assign(cluster, members)
        return {name: ConsumerProtocolAssignment(0, [], b"") for name in given}


def test_a_process_gets_its_lanes_though_the_one_before_was_killed_while_it_joined(
    servers: str, open_source: Open
) -> None:
    topic = new_topic(servers, "events", 2)
    group = f"{topic}-group"
    with closing(
        KafkaConsumer(
            bootstrap_servers=servers,
            group_id=group,
            group_instance_id="one",
            session_timeout_ms=60_000,
            partition_assignment_strategy=(AssignsNothing,),
        )
    ) as before:
        before.subscribe([topic])
        until = time.monotonic() + DEADLINE_S
        while before._coordinator.state is not MemberState.STABLE:
            assert time.monotonic() < until
            before.poll(100)
        assert not before.assignment()
    # A static member does not leave: the broker keeps what it was given for the next of its name.
    desk = Desk()
    source = open_source(topic, desk=desk, group_id=group, group_instance_id="one")
    drive({source: desk}, lambda: desk.lanes == {0, 1})


def test_a_process_that_finds_no_lane_left_takes_over_from_one_that_is_gone(
    servers: str, open_source: Open
) -> None:
    topic = new_topic(servers, "events", 1)
    one, two = Desk(), Desk()
    members = {open_source(topic, desk=one, group_instance_id="one"): one}
    drive(members, lambda: one.lanes == {0})
    members[open_source(topic, desk=two, group_instance_id="two")] = two
    until = time.monotonic() + 3.0
    drive(members, lambda: time.monotonic() > until)
    assert (one.lanes, two.lanes) == ({0}, set())
    first = next(iter(members))
    first.close()
    del members[first]
    drive(members, lambda: two.lanes == {0})


def test_a_store_that_cannot_be_asked_is_asked_again(servers: str, open_source: Open) -> None:
    topic = new_topic(servers, "events")
    produce_values(servers, topic, values(5))
    desk = Desk()
    desk.is_away = True
    source = open_source(topic, desk=desk)
    silence(source, polls=30)
    desk.is_away = False
    assert [r.offset for r in collect(source, 5)] == list(range(5))


def test_a_broker_that_goes_away_and_comes_back_is_survived(
    own_broker: Broker, servers: str, open_source: Open
) -> None:
    topic = new_topic(servers, "events")
    produce_values(servers, topic, values(30))
    desk = Desk()
    source = open_source(topic, desk=desk)
    desk.take(collect(source, 30))
    own_broker.stop()
    try:
        silence(source, polls=20)
        source.commit({(topic, 0): 30})
        silence(source)
    finally:
        own_broker.start()
    produce_values(servers, topic, values(30, start=30))
    # One that is away for longer than the session may cost the lane, which then comes back.
    found = collect(source, 30)
    desk.take(found)
    assert [r.offset for r in found] == list(range(30, 60))


def test_a_backlog_beside_a_silent_topic_is_read_however_the_group_is_formed(
    servers: str, open_source: Open
) -> None:
    # Each time the client forms its group twice, at another moment of the fetching: it must not
    # stay without partitions, nor with a paused one, nor wait for an end that it is not told.
    features, labels = new_topic(servers, "features"), new_topic(servers, "labels")
    produce_values(servers, features, values(15_000))
    for n in range(6):
        source = open_source(features, labels, group_id=f"{features}-{n}")
        found = collect(source, 15_000)
        assert [r.offset for r in found] == list(range(15_000))
        source.close()
