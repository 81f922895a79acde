"""A record that cannot be used, with its coordinates and the reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that does not decode, with its coordinates and the reason.

    Attributes
    ----------
    topic, partition, offset
        Where the record stands.
    stream
        Whose record it is, or an empty string where that could not be read.
    reason
        Short slug, as counted by the metric.
    message
        What is wrong, which value, and where.
    value
        The record's bytes; the store keeps the first 64 KiB.
    key, headers, timestamp_ms
        As in the record; the store keeps none of them.
    """

    topic: str
    partition: int
    offset: int
    stream: str
    reason: str
    message: str
    value: bytes
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp_ms: int | None = None
