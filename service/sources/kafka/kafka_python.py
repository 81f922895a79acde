"""The client kafka-python behind the contracts of `service.sources.kafka.client`."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka import errors as kafka_errors
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.base import MemberState

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
"""Longest pause between two attempts to reach a broker; 30 s, the client's own, would add as much
to every outage."""
_BOOTSTRAP_MS = 10_000
"""How long to try to reach the first broker."""
_ASK_MS = 5000
"""How long to wait for the answer to a question."""
_ALL = 1_000_000_000
"""Everything that the client has fetched is taken at once: what kafka-python 3.0.12 keeps of a
batch while its partition is paused, it does not hand out again (`Fetcher.fetched_records`)."""
_PASSING = (
    kafka_errors.RetriableError,
    kafka_errors.BrokerNotAvailableError,
    kafka_errors.CommitFailedError,
    kafka_errors.IllegalGenerationError,
    kafka_errors.RebalanceInProgressError,
    kafka_errors.UnknownBrokerIdError,
    kafka_errors.UnknownMemberIdError,
)
"""Errors that pass: the broker is away, or the group is being formed again."""


@contextmanager
def _translated() -> Iterator[None]:
    """Turn the client's errors into those of the contract."""
    try:
        yield
    except kafka_errors.OffsetOutOfRangeError as error:
        raise OffsetsGoneError({tuple(at): n for at, n in error.args[0].items()}) from error
    except kafka_errors.LogTruncationError as error:
        raise OffsetsGoneError({tuple(at): -1 for at in error.divergent_offsets}) from error
    except kafka_errors.FencedInstanceIdError as error:
        raise FencedMemberError(str(error)) from error
    except _PASSING as error:
        raise AwayError(str(error) or type(error).__name__) from error
    except (kafka_errors.KafkaError, OSError, ValueError) as error:
        raise ClientError(str(error) or type(error).__name__) from error


def connection_config(settings: SourceSettings) -> dict[str, Any]:
    """How to reach the brokers, in the client's own names.

    Raises
    ------
    SettingsError
        If a password cannot be read.
    """
    return {
        "bootstrap_servers": list(settings.bootstrap_servers),
        "client_id": "shiftwatch",
        "reconnect_backoff_max_ms": _RECONNECT_MS,
        "metadata_max_age_ms": settings.metadata_max_age_ms,
        "metrics_enabled": False,
        "security_protocol": settings.security_protocol,
        "ssl_cafile": settings.ssl_cafile,
        "ssl_certfile": settings.ssl_certfile,
        "ssl_keyfile": settings.ssl_keyfile,
        "ssl_password": settings.read_ssl_key_password(),
        "sasl_mechanism": settings.sasl_mechanism,
        "sasl_plain_username": settings.sasl_username,
        "sasl_plain_password": settings.read_sasl_password(),
    }


class _Overheard(logging.Handler):
    """The error that the client logs; what it raises is only that it had no success."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.reason = ""
        self._is_login = False

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the last error's text, and not the error, which holds a socket."""
        for part in record.args or ():
            if not isinstance(part, Exception) or isinstance(part, kafka_errors.KafkaTimeoutError):
                continue
            # After a refused login the broker now and then only hangs up.
            is_login = isinstance(part, kafka_errors.SaslAuthenticationFailedError)
            if is_login or not self._is_login:
                self.reason, self._is_login = str(part), is_login


@contextmanager
def _overheard(login: str | None) -> Iterator[None]:
    """Say why no broker was reached; `login` is how to log in."""
    logger, heard = logging.getLogger("kafka.net"), _Overheard()
    logger.addHandler(heard)
    try:
        yield
    except AwayError as error:
        if not heard.reason:
            raise
        # Over TLS kafka-python 3.0.12 may see that the broker hangs up before it sees why.
        if login is not None and "disconnected" in heard.reason:
            raise AwayError(f"{heard.reason}, perhaps for a refused login by {login}") from error
        raise AwayError(heard.reason) from error
    finally:
        logger.removeHandler(heard)


class KafkaPythonReader:
    """A consumer without a group.

    Raises
    ------
    AwayError, ClientError
        If no broker can be reached.
    """

    def __init__(self, settings: SourceSettings) -> None:
        config = connection_config(settings)
        with _overheard(settings.sasl_mechanism), _translated():
            self._consumer = KafkaConsumer(
                **config,
                bootstrap_timeout_ms=_BOOTSTRAP_MS,
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",
                allow_auto_create_topics=False,
                # Within a session a broker leaves out partitions that did not change; whether one
                # is at its end is then not heard.
                enable_incremental_fetch_sessions=False,
                fetch_min_bytes=settings.fetch_min_bytes,
            )
        self._positions: dict[Partition, int] = {}
        self._gone: dict[Partition, int] = {}

    def partitions(self, topic: str) -> Collection[int]:
        """The numbers of a topic's partitions."""
        with _translated():
            return self._consumer.partitions_for_topic(topic) or ()

    def bounds(self, partitions: Collection[Partition]) -> Mapping[Partition, Bounds]:
        """Ask the broker what there is to read."""
        asked = [TopicPartition(*at) for at in partitions]
        with _translated():
            first = self._consumer.beginning_offsets(asked, timeout_ms=_ASK_MS)
            end = self._consumer.end_offsets(asked, timeout_ms=_ASK_MS)
        return {tuple(at): Bounds(first[at], end[at]) for at in asked}

    def assign(self, offsets: Mapping[Partition, int]) -> None:
        """Read exactly these partitions, each from its offset."""
        self._positions = dict(offsets)
        self._gone = {}
        with _translated():
            self._consumer.assign([TopicPartition(*at) for at in offsets])
            for at, offset in offsets.items():
                self._consumer.seek(TopicPartition(*at), offset)
            self._consumer.resume(*self._consumer.paused())

    def poll(self, timeout_s: float) -> Mapping[Partition, Block]:
        """Return what has been fetched."""
        if self._gone:
            raise OffsetsGoneError(self._gone)
        try:
            with _translated():
                found = self._consumer.poll(int(timeout_s * 1000), max_records=_ALL)
        except OffsetsGoneError as error:
            # The client says it once, and of a log that lost its end not what was wanted of it.
            self._gone = {at: self._positions[at] for at in error.offsets}
            raise OffsetsGoneError(self._gone) from error
        self._positions |= {tuple(at): records[-1].offset + 1 for at, records in found.items()}
        return {
            tuple(at): to_block(
                at.topic,
                at.partition,
                [r.offset for r in records],
                [r.key for r in records],
                [r.value for r in records],
                [r.headers for r in records],
                [r.timestamp for r in records],
            )
            for at, records in found.items()
        }

    def hold(self, partitions: Collection[Partition]) -> None:
        """Fetch nothing of these partitions."""
        full = {TopicPartition(*at) for at in partitions}
        paused = self._consumer.paused()
        if full != paused:
            self._consumer.resume(*(paused - full))
            self._consumer.pause(*(full - paused))

    def is_at_end(self, partition: Partition) -> bool:
        """Whether all that the broker has was returned."""
        end = self.end(partition)
        try:
            position = self._consumer.position(TopicPartition(*partition), timeout_ms=0)
        except kafka_errors.KafkaError:
            return False  # `poll` meets the same error and says so
        return end is not None and position is not None and position >= end

    def end(self, partition: Partition) -> int | None:
        """The offset behind the last record, as last heard."""
        end: int | None = self._consumer.highwater(TopicPartition(*partition))
        return end

    def close(self) -> None:
        """Release the connection."""
        with _translated():
            self._consumer.close(timeout_ms=_ASK_MS)


class KafkaPythonMember:
    """A consumer that only belongs to the group: its partitions are paused from the beginning."""

    def __init__(self, settings: SourceSettings, topic: str, listener: GroupListener) -> None:
        self._topic = topic
        self._is_static = settings.group_instance_id is not None
        self._joined_with: frozenset[int] | None = None
        config = connection_config(settings)
        with _translated():
            self._consumer = KafkaConsumer(
                **config,
                bootstrap_timeout_ms=_BOOTSTRAP_MS,
                group_id=settings.group_id,
                group_instance_id=settings.group_instance_id,
                enable_auto_commit=False,
                auto_offset_reset="none",
                allow_auto_create_topics=False,
                session_timeout_ms=settings.session_timeout_ms,
                heartbeat_interval_ms=min(3000, settings.session_timeout_ms // 3),
                max_poll_interval_ms=settings.session_timeout_ms,
                partition_assignment_strategy=(CooperativeStickyAssignor,),
            )
            # What a leader does not know of its topic it gives to nobody.
            self._consumer.partitions_for_topic(topic)
            self._consumer.subscribe([topic], listener=_Listener(self._consumer, listener))

    def poll(self, timeout_s: float) -> None:
        """Take part in the group."""
        # Of an assignment that was just made there may be no offset yet; none is needed.
        with _translated(), suppress(kafka_errors.NoOffsetForPartitionError):
            self._consumer.poll(int(timeout_s * 1000))
        self._join_again_if_needed()

    def _join_again_if_needed(self) -> None:
        # kafka-python 3.0.12 forgets that it is joining when a poll ends between the answer to
        # JoinGroup and the one to SyncGroup: it would never have partitions.
        coordinator = self._consumer._coordinator
        if coordinator.need_rejoin():
            return
        if coordinator.rejoining:
            coordinator.request_rejoin()
        elif self._is_static and coordinator.state is MemberState.STABLE:
            # A static member that comes back is given what it had, which is nothing if it was
            # killed too early, and is not told that it leads: nobody watches for new partitions.
            known = frozenset(coordinator._metadata_snapshot.get(self._topic) or ())
            is_first = self._joined_with is None
            if known and known != self._joined_with:
                self._joined_with = known
                if not is_first or not self._consumer.assignment():
                    coordinator.request_rejoin()

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Write offsets to the broker."""
        with _translated():
            self._consumer.commit(
                {TopicPartition(*at): OffsetAndMetadata(n, "", -1) for at, n in offsets.items()},
                timeout_ms=_ASK_MS,
            )

    def close(self) -> None:
        """Leave the group."""
        with _translated():
            self._consumer.close(timeout_ms=_ASK_MS)


class _Listener:
    """Called on the client's event loop, within `poll`."""

    def __init__(self, consumer: Any, listener: GroupListener) -> None:
        self._consumer = consumer
        self._listener = listener

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        for at in assigned:
            self._consumer.seek(at, 0)  # or it would look for the group's offset
        self._consumer.pause(*assigned)
        self._listener.assigned({at.partition for at in assigned})

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        self._listener.revoked({at.partition for at in revoked})

    def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
        self._listener.lost({at.partition for at in lost})


ConsumerRebalanceListener.register(_Listener)
