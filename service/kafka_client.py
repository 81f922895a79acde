"""The client of Kafka as this service uses it: its configuration, its group, its records."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka import errors as kafka_errors

from service.records import Record
from service.source import KEPT_BYTES, MAX_RECORD_BYTES, Partition
from service.source_settings import SourceSettings

_RECONNECT_MS = 2000
"""Longest pause between two attempts to reach a broker; 30 s, the client's own, would add as much
to every outage."""
PASSING = (
    kafka_errors.RetriableError,
    kafka_errors.BrokerNotAvailableError,
    kafka_errors.IllegalGenerationError,
    kafka_errors.RebalanceInProgressError,
    kafka_errors.UnknownBrokerIdError,
    kafka_errors.UnknownMemberIdError,
)
"""Errors that pass: the broker is away, or the group is being formed again."""


class Group:
    """What the group gives and takes; called on the client's own thread, within its `poll`."""

    def __init__(
        self,
        position: Callable[[Collection[TopicPartition]], None],
        keep_joining: Callable[[], None],
    ) -> None:
        self._position = position
        self._keep_joining = keep_joining
        self.partitions: Collection[TopicPartition] = ()
        self.has_changed = False
        self.was_assigned = False

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:  # noqa: ARG002
        """Nothing is its own until the next assignment."""
        self.partitions = ()
        self.has_changed = True
        self.was_assigned = False
        self._keep_joining()

    def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
        """As for revoked ones."""
        self.on_partitions_revoked(lost)

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Go to the store's offsets, before anything is fetched from the broker's."""
        self._position(assigned)
        self.partitions = sorted(assigned)
        self.has_changed = True
        self.was_assigned = True


ConsumerRebalanceListener.register(Group)


def open_consumer(settings: SourceSettings) -> Any:
    """Connect to the brokers; what goes wrong is the client's own errors.

    Raises
    ------
    SettingsError
        If the password cannot be read.
    """
    config = {
        **connection(settings),
        "group_id": settings.group_id,
        "group_instance_id": settings.group_instance_id,
        "enable_auto_commit": False,
        "auto_offset_reset": "none",  # this source applies the policy, and says so
        "allow_auto_create_topics": False,
        # Within a session a broker leaves out partitions that did not change; a source that formed
        # its group anew was seen to wait for the end of an empty one, which it may have left out.
        "enable_incremental_fetch_sessions": False,
        "session_timeout_ms": settings.session_timeout_ms,
        "heartbeat_interval_ms": min(3000, settings.session_timeout_ms // 3),
        "max_poll_records": settings.max_poll_records,
        "fetch_min_bytes": settings.fetch_min_bytes,
    }
    return KafkaConsumer(**config)


def connection(settings: SourceSettings) -> dict[str, Any]:
    """How every client of the brokers reaches them and logs in.

    Raises
    ------
    SettingsError
        If the password cannot be read.
    """
    return {
        "bootstrap_servers": list(settings.bootstrap_servers),
        "client_id": "shiftwatch",
        "reconnect_backoff_max_ms": _RECONNECT_MS,
        "metrics_enabled": False,
        "security_protocol": settings.security_protocol,
        "ssl_cafile": None if settings.ssl_cafile is None else str(settings.ssl_cafile),
        "sasl_mechanism": settings.sasl_mechanism,
        "sasl_plain_username": settings.sasl_username,
        "sasl_plain_password": settings.read_sasl_password(),
    }


def positions(offsets: Mapping[Partition, int]) -> dict[TopicPartition, OffsetAndMetadata]:
    """Offsets as the client commits them."""
    return {TopicPartition(*at): OffsetAndMetadata(n, "", -1) for at, n in offsets.items()}


def to_record(found: Any) -> Record:
    """What the client gives, as a record of the service."""
    # A record without a value, a tombstone, is refused by `decode` as empty.
    value: bytes = found.value or b""
    dropped = len(value) if len(value) > MAX_RECORD_BYTES else 0
    kept = value[:KEPT_BYTES] if dropped else value
    return Record(
        found.topic,
        found.partition,
        found.offset,
        found.key,
        kept,
        dropped,
        # A header may have no value.
        tuple((name, content or b"") for name, content in found.headers) if found.headers else (),
        found.timestamp if found.timestamp >= 0 else None,
    )
