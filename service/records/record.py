"""Records, and what is read from them: observations, labels, and the errors of those that
cannot be used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple

import orjson

Scalar = float | str | bool | None
"""A feature's value: numeric, categorical, boolean or missing."""
MAX_IMAGE_BYTES = 5_000_000


@dataclass(frozen=True, slots=True)
class Record:
    """One message as it arrived.

    Attributes
    ----------
    topic, partition, offset
        Where it stands; the offset grows within its partition.
    key
        The stream's name in UTF-8, or None.
    value
        The JSON text in UTF-8.
    dropped_bytes
        Size of a message that was too large to be kept; then `value` holds only its beginning.
    headers
        What came beside the value, in its order; names may repeat.
    timestamp_ms
        The broker's time of the message in Unix milliseconds, or None; it decides nothing here.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    dropped_bytes: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp_ms: int | None = field(default=None, compare=False)


class Observation(NamedTuple):
    """What one event of a deployed model says.

    Attributes
    ----------
    stream, id
        The monitored model's stream, and the event's name within it.
    time
        When it happened, in UTC; None if the record does not say.
    features
        Values by name, in the record's order; numbers are finite floats, None is missing.
        An array on the wire has the names "0", "1", ...
    image, image_uri
        An undecoded PNG or JPEG, or where one lies; at most one of them.
    prediction, label
        Canonical class names (`3`, `3.0` and `"3"` are one class), or None.
    scores
        The model's probability by class, each in [0, 1], or None.
    segment
        Values by segment name.
    """

    stream: str
    id: str
    time: datetime | None
    features: Mapping[str, Scalar]
    image: bytes | None = None
    image_uri: str | None = None
    prediction: str | None = None
    scores: Mapping[str, float] | None = None
    label: str | None = None
    segment: Mapping[str, str] = MappingProxyType({})


class LabelRecord(NamedTuple):
    """Ground truth for an event that came earlier, or is still to come; joined by id."""

    stream: str
    id: str
    label: str
    time: datetime | None


class DecodeError(ValueError):
    """A record that cannot be used; it goes to the dead letters and its stream goes on.

    Parameters
    ----------
    reason
        Short and stable, for counters: `empty`, `not_json`, `duplicate_key`, `not_an_object`,
        `missing_field`, `unknown_field`, `conflict`, `wrong_type`, `not_finite`, `out_of_range`,
        `bad_time`, `bad_text`, `too_large`, `not_an_image`; from `service.records.formats`
        `unknown_format`, `bad_gzip`, `bad_envelope`, `batch`, `bad_avro`, `unknown_schema`; from
        later stages `unknown_stream`, `missing_feature`, `new_feature`.
    message
        What was wrong, with the value shortened.
    record
        The record whose coordinates the text starts with, where it is known.
    """

    def __init__(self, reason: str, message: str, record: Record | None = None) -> None:
        super().__init__(reason, message, record)
        self.reason = reason
        self.message = message
        self.record = record

    def at(self, record: Record) -> DecodeError:
        """Return the same error with the coordinates of its record."""
        return DecodeError(self.reason, self.message, record)

    def __str__(self) -> str:
        if self.record is None:
            return self.message
        return f"{coordinates(self.record)}: {self.message}"


class TemporaryError(RuntimeError):
    """Whether a record can be used is not known yet, because what tells it is away.

    The record is neither used nor refused: the same one is to be decoded again.
    """


def coordinates(record: Record) -> str:
    """Where a record stands, as `topic[partition]@offset`."""
    return f"{record.topic}[{record.partition}]@{record.offset}"


def iso(time: datetime) -> str:
    """The time of an observation or a label as `isoformat` writes it, in a quarter of its time."""
    return orjson.dumps(time)[1:-1].decode()


MAX_RECORD_BYTES = 8 * 1024 * 1024
"""Largest record kept in memory: an image of 5 MB in base64 fits."""
KEPT_BYTES = 256
"""What is kept of a larger one, so that a dead letter can be recognised."""
