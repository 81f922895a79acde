"""From a record in any format that is read to what it says.

A record is plain (docs/reference/records.md) or comes in an envelope. What it is wrapped in is told
by its headers, by its first bytes, and for a CloudEvent without headers by `specversion` in its
body. The outermost comes off first: gzip, then the CloudEvent, then what is in it. One record stays
one record, so coordinates mean the same in every format.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from service.records.decode import decode, decode_body, is_observation
from service.records.formats import cloudevents, kserve
from service.records.formats.avro import MAGIC as AVRO
from service.records.formats.compression import MAGIC as GZIP
from service.records.formats.compression import unpacked
from service.records.json_text import parse
from service.records.record import MAX_IMAGE_BYTES, DecodeError, LabelRecord, Observation, Record

_MARKS = frozenset({GZIP[:1], AVRO})
_SPECVERSION = b'"specversion"'


@dataclass(frozen=True, slots=True)
class Ignored:
    """A record that is what it should be and that nothing here needs; no dead letter.

    Attributes
    ----------
    reason
        Short and stable, for the counter: `inference_response`.
    """

    reason: str


class Reader(Protocol):
    """Reads values that are no JSON."""

    def read(self, value: bytes, /) -> dict[str, Any]:
        """Return the record's fields, as JSON has them.

        Raises
        ------
        DecodeError
            If it cannot be read, now or later.
        TemporaryError
            If that is not known yet.
        """
        ...

    def close(self) -> None:
        """Release what it holds."""


class Decoder:
    """Decodes the records of a source.

    Parameters
    ----------
    max_image_bytes
        As for `service.records.decode.decode`.
    avro
        Reads Avro; without one it is refused.
    """

    def __init__(
        self, *, max_image_bytes: int = MAX_IMAGE_BYTES, avro: Reader | None = None
    ) -> None:
        self._max_image_bytes = max_image_bytes
        self._avro = avro

    def decode(self, record: Record) -> Observation | LabelRecord | Ignored:
        """Decode one record; it is a function of the record, and for Avro of its schema.

        Raises
        ------
        DecodeError
            If the record cannot be used, with its coordinates.
        TemporaryError
            If the schema registry is away: the same record is to be decoded again.
        """
        # Nearly every record is plain, and pays for no more than this.
        if not record.headers and record.value[:1] not in _MARKS:
            try:
                return decode(record, max_image_bytes=self._max_image_bytes)
            except DecodeError:
                if _SPECVERSION not in record.value:
                    raise
        try:
            return self._unwrap(record)
        except DecodeError as error:
            raise error.at(record) from None

    def close(self) -> None:
        """Release what the readers hold."""
        if self._avro is not None:
            self._avro.close()

    def _unwrap(self, record: Record) -> Observation | LabelRecord | Ignored:
        if record.dropped_bytes:
            parse(record.value, record.dropped_bytes)  # says so
        headers = {name.lower(): content for name, content in record.headers}
        value = unpacked(record.value, headers.get("content-encoding"))
        if cloudevents.is_structured(headers):
            event = cloudevents.structured(parse(value))
        elif cloudevents.is_binary(headers):
            event = cloudevents.binary(headers, value)
        else:
            body = self._read(value)
            if "specversion" not in body or is_observation(body):
                return decode_body(body, record.key, self._max_image_bytes)
            event = cloudevents.structured(body)
        if event.type == kserve.RESPONSE:
            return Ignored("inference_response")
        body = kserve.body(event) if event.type == kserve.REQUEST else event.body(self._read)
        return decode_body(body, record.key, self._max_image_bytes)

    def _read(self, value: bytes) -> dict[str, Any]:
        if value[:1] != AVRO:
            return parse(value)
        if self._avro is None:
            raise DecodeError(
                "unknown_format",
                "the record is Avro with the id of its schema, and source.schema_registry is not "
                "set",
            )
        return self._avro.read(value)
