"""The client confluent-kafka behind the contracts of `service.sources.kafka.client`; an extra."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from service.records.block import Block
from service.settings.source import SourceSettings
from service.sources.kafka.client import (
    AwayError,
    Bounds,
    ClientError,
    FencedMemberError,
    GroupListener,
    OffsetsGoneError,
    to_block,
)
from service.sources.source import Partition

_RECONNECT_MS = 2000
"""As with kafka-python: the client's own 10 s would add as much to every outage."""
_REACH_S = 10.0
"""How long to try to reach the first broker."""
_ASK_S = 5.0
"""How long to wait for the answer to a question."""
_AWAY_S = 2 * _RECONNECT_MS / 1000
"""How long brokers that cannot be reached are taken to be away; each attempt says so again."""
_CONNECT_S = 1.0
_TURN_S = 0.1
_BATCH = 1000
"""Records taken from the client at once."""
_QUEUE_RECORDS = 20_000
_QUEUE_KBYTES = 32 * 1024
"""What the client fetches ahead of a partition, and of all together."""
_QUEUE_FULL_MS = 20
"""How long it then fetches nothing; 1 s, the client's own, empties the queue meanwhile."""
_IDLE_MS = 100
"""How long a broker without records holds a fetch. Other partitions wait for the answer to it."""
_CRITICAL = 2
"""Of what the client logs. What goes wrong it also tells as errors, once each."""

_FIELD: Any = Message
"""Its methods, called by `map` over messages; the published types are those of errors too."""
_TIME_MS = itemgetter(1)
"""Of what a message gives as its timestamp: the kind, and the time."""
_GONE = {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._LOG_TRUNCATION}
_REFUSED = {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED}
_FENCED = {KafkaError.FENCED_INSTANCE_ID, KafkaError._FENCED}
_PASSING = {
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._MAX_POLL_EXCEEDED,
    KafkaError._RESOLVE,
    KafkaError._SSL,
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._WAIT_COORD,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.NOT_COORDINATOR,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
}
"""Errors that pass: the broker is away, or the group is being formed again."""


def _raise(error: KafkaError) -> None:
    """Raise an error of the client as one of the contract."""
    code = error.code()
    if code in _FENCED:
        raise FencedMemberError(error.str())
    if code in _PASSING or error.retriable():
        raise AwayError(error.str())
    raise ClientError(error.str())


@contextmanager
def _translated() -> Iterator[None]:
    """Turn the client's errors into those of the contract."""
    try:
        yield
    except KafkaException as error:
        _raise(error.args[0])
        raise


class _Reports:
    """What the client tells of its connections, beside its answers."""

    def __init__(self) -> None:
        self._refused: KafkaError | None = None
        self._last: KafkaError | None = None
        self._away_until = 0.0

    def __call__(self, error: KafkaError) -> None:
        """Hear of an error; called within `poll`."""
        if error.code() in _REFUSED:
            self._refused = error
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._away_until = time.monotonic() + _AWAY_S
        else:
            self._last = error

    @property
    def reason(self) -> str:
        """The last thing that went wrong with a connection."""
        return "no answer" if self._last is None else self._last.str()

    def check(self) -> None:
        """Raise what was heard of late, if no broker can be used."""
        if self._refused is not None:
            raise ClientError(self._refused.str())
        if time.monotonic() < self._away_until:
            raise AwayError(self.reason)

    def check_start(self) -> None:
        """Raise what waiting does not change."""
        for error in (self._refused, self._last):
            if error is not None and error.code() in {*_REFUSED, KafkaError._SSL}:
                raise ClientError(error.str())


def connection_config(settings: SourceSettings) -> dict[str, Any]:
    """How to reach the brokers, in the client's own names.

    Raises
    ------
    SettingsError
        If a password cannot be read.
    """
    config = {
        "bootstrap.servers": ",".join(settings.bootstrap_servers),
        "client.id": "shiftwatch",
        "reconnect.backoff.max.ms": _RECONNECT_MS,
        "topic.metadata.refresh.interval.ms": settings.metadata_max_age_ms,
        "log_level": _CRITICAL,
        "security.protocol": settings.security_protocol,
        "ssl.ca.location": settings.ssl_cafile,
        "ssl.certificate.location": settings.ssl_certfile,
        "ssl.key.location": settings.ssl_keyfile,
        "ssl.key.password": settings.read_ssl_key_password(),
        "sasl.mechanism": settings.sasl_mechanism,
        "sasl.username": settings.sasl_username,
        "sasl.password": settings.read_sasl_password(),
    }
    return {name: value for name, value in config.items() if value is not None}


class ConfluentReader:
    """A consumer that is told its partitions; it never joins the group that it names.

    Raises
    ------
    AwayError, ClientError
        If no broker can be reached.
    """

    def __init__(self, settings: SourceSettings) -> None:
        assert settings.topics is not None
        self._reports = _Reports()
        config = connection_config(settings) | {
            "group.id": settings.group_id,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "isolation.level": "read_uncommitted",
            "allow.auto.create.topics": False,
            "check.crcs": True,
            "fetch.min.bytes": settings.fetch_min_bytes,
            "fetch.wait.max.ms": _IDLE_MS if settings.fetch_min_bytes == 1 else 500,
            "queued.min.messages": _QUEUE_RECORDS,
            "queued.max.messages.kbytes": _QUEUE_KBYTES,
            "fetch.queue.backoff.ms": _QUEUE_FULL_MS,
            "error_cb": self._reports,
        }
        self._positions: dict[Partition, int] = {}
        self._heard: set[Partition] = set()
        self._gone: dict[Partition, int] = {}
        self._paused: set[Partition] = set()
        self._is_full = False
        with _translated():
            self._consumer = Consumer(config, logger=logging.getLogger("confluent_kafka"))
        try:
            self._connect(settings.topics.features)
        except (AwayError, ClientError):
            self._consumer.close()
            raise

    def _connect(self, topic: str) -> None:
        until = time.monotonic() + _REACH_S
        while True:
            try:
                with _translated():
                    self._consumer.list_topics(topic, timeout=_CONNECT_S)
            except AwayError as error:
                self._consumer.poll(0)
                self._reports.check_start()
                if time.monotonic() > until:
                    raise AwayError(self._reports.reason) from error
            else:
                return

    def partitions(self, topic: str) -> Collection[int]:
        """The numbers of a topic's partitions."""
        with _translated():
            found = self._consumer.list_topics(topic, timeout=_ASK_S).topics[topic]
        if found.error is not None and found.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            _raise(found.error)
        return found.partitions.keys()  # type: ignore[no-any-return]

    def bounds(self, partitions: Collection[Partition]) -> Mapping[Partition, Bounds]:
        """Ask the broker what there is to read."""
        with _translated():
            return {
                at: Bounds(
                    *self._consumer.get_watermark_offsets(TopicPartition(*at), timeout=_ASK_S)
                )
                for at in partitions
            }

    def assign(self, offsets: Mapping[Partition, int]) -> None:
        """Read exactly these partitions, each from its offset."""
        self._positions = dict(offsets)
        self._heard.clear()
        self._gone.clear()
        self._is_full = False
        self._pause(set())  # the client would keep it over the assignment
        with _translated():
            self._consumer.assign([TopicPartition(*at, n) for at, n in offsets.items()])

    def poll(self, timeout_s: float) -> Mapping[Partition, Block]:
        """Return what has been fetched."""
        if self._gone:
            raise OffsetsGoneError(self._gone)
        if self._is_full:
            time.sleep(timeout_s)
            return {}
        with _translated():
            messages = self._consumer.consume(_BATCH, 0)
            if not messages and timeout_s > 0:
                # `consume` would wait for a whole batch.
                first = self._consumer.poll(timeout_s)
                if first is not None:
                    messages = [first, *self._consumer.consume(_BATCH, 0)]
        fetched = self._sort(messages)
        if self._gone:
            raise OffsetsGoneError(self._gone)
        if not fetched:
            self._reports.check()
        return fetched

    def _sort(self, messages: list[Any]) -> dict[Partition, Block]:
        if any(map(_FIELD.error, messages)):
            messages = [message for message in messages if not self._is_met(message)]
        by_partition: dict[Partition, list[Any]] = defaultdict(list)
        for topic, of_topic in groupby(messages, _FIELD.topic):
            for number, own in groupby(of_topic, _FIELD.partition):
                by_partition[topic, number] += own
        fetched = {
            at: to_block(
                *at,
                list(map(_FIELD.offset, own)),
                list(map(_FIELD.key, own)),
                list(map(_FIELD.value, own)),
                list(map(_FIELD.headers, own)),
                list(map(_TIME_MS, map(_FIELD.timestamp, own))),
            )
            for at, own in by_partition.items()
        }
        for at, block in fetched.items():
            self._positions[at] = block.offsets[-1] + 1
        self._heard.update(fetched)
        return fetched

    def _is_met(self, message: Any) -> bool:
        """Whether it is no record but an error, which is met."""
        error = message.error()
        if error is None:
            return False
        at = (message.topic(), message.partition())
        if error.code() == KafkaError._PARTITION_EOF:
            # Behind the last record there may be marks of transactions, which are not delivered.
            self._positions[at] = message.offset()
            self._heard.add(at)
        elif error.code() in _GONE:
            self._gone[at] = self._positions[at]
        elif error.code() in _PASSING or error.retriable():
            self._reports(error)
        else:
            raise ClientError(error.str())
        return True

    def hold(self, partitions: Collection[Partition]) -> None:
        """Fetch nothing of these partitions."""
        held = set(partitions)
        # To pause throws away what the client has fetched. If nothing else is read, what it holds
        # may as well stay there.
        self._is_full = bool(held) and held >= self._positions.keys()
        if not self._is_full:
            self._pause(held)

    def _pause(self, held: set[Partition]) -> None:
        if held != self._paused:
            with _translated():
                self._consumer.resume([TopicPartition(*at) for at in self._paused - held])
                self._consumer.pause([TopicPartition(*at) for at in held - self._paused])
            self._paused = held

    def is_at_end(self, partition: Partition) -> bool:
        """Whether all that the broker has was returned."""
        end = self.end(partition)
        return end is not None and self._positions[partition] >= end

    def end(self, partition: Partition) -> int | None:
        """The offset behind the last record, as last heard."""
        if partition not in self._heard:
            return None  # what the client knows may be of an earlier assignment
        return self._consumer.get_watermark_offsets(TopicPartition(*partition), cached=True)[1]

    def close(self) -> None:
        """Release the connection."""
        with _translated():
            self._consumer.close()


class ConfluentMember:
    """A consumer that only belongs to the group: its partitions are paused from the beginning."""

    def __init__(self, settings: SourceSettings, topic: str, listener: GroupListener) -> None:
        self._reports = _Reports()
        self._listener = listener
        self._topic = topic
        self._answers: list[KafkaError | None] = []
        self._has_joined = False
        self._was_lost = False
        self._has_nothing = False
        self._is_static = settings.group_instance_id is not None
        self._config = connection_config(settings) | {
            "group.id": settings.group_id,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "allow.auto.create.topics": False,
            "session.timeout.ms": settings.session_timeout_ms,
            "heartbeat.interval.ms": min(3000, settings.session_timeout_ms // 3),
            "max.poll.interval.ms": settings.session_timeout_ms,
            "partition.assignment.strategy": "cooperative-sticky",
            "error_cb": self._reports,
            "on_commit": self._on_commit,
        }
        if self._is_static:
            self._config["group.instance.id"] = settings.group_instance_id
        with _translated():
            self._consumer = self._join()

    def _join(self) -> Consumer:
        consumer = Consumer(self._config, logger=logging.getLogger("confluent_kafka"))
        self._subscribe(consumer)
        return consumer

    def _subscribe(self, consumer: Consumer) -> None:
        consumer.subscribe(
            [self._topic],
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )

    def poll(self, timeout_s: float) -> None:
        """Take part in the group."""
        with _translated():
            message = self._consumer.poll(timeout_s)
            if self._was_lost:
                # A commit that waits for the broker would now be sent without a member's id; of a
                # static member the broker takes it for another process's, and fences this one.
                self._consumer.close()
                self._consumer = self._join()
                self._was_lost = False
            elif self._has_nothing:
                # A static member that comes back is given what it had: nothing, if it was killed
                # before the group was formed. To join once more has that done again.
                self._has_nothing = False
                self._consumer.unsubscribe()
                self._subscribe(self._consumer)
        error = None if message is None else message.error()
        # Of its paused partitions it needs to know nothing.
        if error is not None and message is not None and message.partition() is None:
            _raise(error)
        self._reports.check()

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Write offsets to the broker."""
        if not self._has_joined:
            raise AwayError("not in the group now")
        self._reports.check()
        self._answers.clear()
        until = time.monotonic() + _ASK_S
        asked = [TopicPartition(*at, n) for at, n in offsets.items()]
        with _translated():
            # A synchronous commit would wait for a broker that is away, without end.
            self._consumer.commit(offsets=asked, asynchronous=True)
            while not self._answers and self._has_joined and time.monotonic() < until:
                self._consumer.poll(_TURN_S)
        if not self._answers:
            raise AwayError(self._reports.reason)
        for error in self._answers:
            if error is not None:
                _raise(error)

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        self._answers += [error, *(at.error for at in partitions or ())]

    def close(self) -> None:
        """Leave the group."""
        with _translated():
            self._consumer.close()

    # -- called within `poll` ------------------------------------------------------------------

    def _on_assign(self, consumer: Consumer, assigned: list[TopicPartition]) -> None:
        # With an offset, or the client would look for the group's.
        consumer.incremental_assign([TopicPartition(at.topic, at.partition, 0) for at in assigned])
        consumer.pause(assigned)
        self._has_nothing = self._is_static and not self._has_joined and not assigned
        self._has_joined = True
        self._listener.assigned({at.partition for at in assigned})

    def _on_revoke(self, consumer: Consumer, revoked: list[TopicPartition]) -> None:
        self._listener.revoked({at.partition for at in revoked})
        consumer.incremental_unassign(revoked)

    def _on_lost(self, consumer: Consumer, lost: list[TopicPartition]) -> None:
        self._has_joined = False
        self._was_lost = True
        self._listener.lost({at.partition for at in lost})
        consumer.incremental_unassign(lost)
