"""A topic that the service writes to, and the client that does it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from kafka import KafkaProducer
from kafka import errors as kafka_errors

from service.records.record import MAX_RECORD_BYTES
from service.settings.source import SourceSettings
from service.sources.kafka.kafka_python import connection_config
from service.sources.source import SourceError

_CONNECT_MS = 5000
_DELIVERY_MS = 20_000
"""After this the client gives a message up, and the caller decides."""
_REQUEST_MS = 10_000
_MAX_REQUEST_BYTES = MAX_RECORD_BYTES + 1024 * 1024


@dataclass(frozen=True, slots=True)
class Message:
    """What is written to a topic."""

    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


Failed = tuple[Message, Exception]
"""A message that was not written, as far as is known, and why."""


class Publisher:
    """Writes to one topic, acknowledged by all replicas in sync; for one thread.

    The client repeats a message by itself without doubling it (an idempotent producer). After an
    error that it does not get over, the next attempt has a new client.

    Parameters
    ----------
    settings
        How to reach the brokers.
    topic
        Must exist.

    Raises
    ------
    SourceError
        If no broker can be reached, or the topic cannot be written to.
    """

    def __init__(self, settings: SourceSettings, topic: str) -> None:
        self._settings = settings
        self.topic = topic
        self._producer: Any = None
        self._where = f"{','.join(settings.bootstrap_servers)}: {topic}"
        try:
            self._connected().partitions_for(topic)
        except (kafka_errors.KafkaError, OSError, ValueError) as error:
            self.close()
            raise SourceError(
                f"{self._where}: cannot be written to; is there such a topic? ({error})"
            ) from error

    def send(self, messages: Sequence[Message]) -> list[Failed]:
        """Write messages, and wait until the brokers have them.

        Returns
        -------
        list of (Message, Exception)
            Those that were not written, in their order. One whose answer was lost is among them
            and may be in the topic all the same. If one was too large, others can have its error.
        """
        failed: dict[int, Exception] = {}
        futures: dict[int, Any] = {}
        for n, message in enumerate(messages):
            try:
                futures[n] = self._connected().send(
                    self.topic, message.value, key=message.key, headers=list(message.headers)
                )
            except (kafka_errors.KafkaError, OSError, ValueError) as error:
                # The others would each wait as long.
                failed |= dict.fromkeys(range(n, len(messages)), error)
                break
        for n, future in futures.items():
            try:
                future.get(timeout=2 * _DELIVERY_MS / 1000)
            except kafka_errors.KafkaError as error:
                failed[n] = error
        if failed:
            # Over a message that is too large, too: the idempotent producer of kafka-python 3.0.12
            # then fails everything else that it has, and all that comes, with the same error.
            self.close()
        return [(messages[n], failed[n]) for n in sorted(failed)]

    def close(self) -> None:
        """Close the connection; the next message opens another one."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(kafka_errors.KafkaError):
                producer.close(timeout=1)

    def _connected(self) -> Any:
        if self._producer is None:
            self._producer = KafkaProducer(
                **connection_config(self._settings),
                acks="all",
                enable_idempotence=True,
                allow_auto_create_topics=False,
                bootstrap_timeout_ms=_CONNECT_MS,
                max_block_ms=_CONNECT_MS,
                request_timeout_ms=_REQUEST_MS,
                delivery_timeout_ms=_DELIVERY_MS,
                max_request_size=_MAX_REQUEST_BYTES,
            )
        return self._producer


def is_too_large(error: Exception) -> bool:
    """Whether the message is larger than the topic takes, at every attempt."""
    return isinstance(
        error, kafka_errors.MessageSizeTooLargeError | kafka_errors.RecordListTooLargeError
    )
