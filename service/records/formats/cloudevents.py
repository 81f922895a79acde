"""CloudEvents 1.0 on Kafka: the attributes of an event, and the record of ours that is its data.

Structured events are one JSON object [1]_; binary ones have their attributes in headers `ce_NAME`
and their data as the value [2]_.

References
----------
.. [1] https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
.. [2] https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from service.records.decode import is_observation
from service.records.formats.avro import MAGIC as AVRO
from service.records.record import DecodeError
from service.records.shown import short

MEDIA_TYPE = "application/cloudevents"
_PREFIX = "ce_"
_REQUIRED = ("id", "source", "type")


@dataclass(frozen=True, slots=True)
class Event:
    """A CloudEvent.

    Attributes
    ----------
    attributes
        Those that are text and not empty, extension attributes too.
    data
        A JSON value, or bytes that are still to be read; None for none.
    content_type
        The media type of the data in lower case, without parameters; empty if it is not told.
    """

    attributes: Mapping[str, str]
    data: object
    content_type: str

    @property
    def type(self) -> str:
        """What kind of event it is."""
        return self.attributes["type"]

    def body(self, read: Callable[[bytes], dict[str, Any]]) -> dict[str, Any]:
        """The record that is the data, with what it leaves to the attributes.

        Parameters
        ----------
        read
            Turns bytes into an object.

        Raises
        ------
        DecodeError
            If the data is not there, no JSON, or no object.
        """
        data = self.data
        if data is None or data == b"":
            raise DecodeError("empty", "data: expected a record, got none")
        is_avro = isinstance(data, bytes) and data[:1] == AVRO
        if not (is_avro or is_json(self.content_type)):
            raise DecodeError(
                "unknown_format",
                f"datacontenttype: expected application/json, got {short(self.content_type)}",
            )
        if isinstance(data, bytes):
            data = read(data)
        if not isinstance(data, dict):
            raise DecodeError("not_an_object", f"data: expected a record, got {short(data)}")
        return self.filled(data, self.attributes.get("subject"))

    def filled(self, body: Mapping[str, Any], stream: str | None) -> dict[str, Any]:
        """The body with id, time and stream of the event where it has none.

        A label keeps its own id or has none: it is that of the observation, and the event that
        brings it has another one.
        """
        found = {
            "stream": self.attributes.get("stream", stream),
            "time": self.attributes.get("time"),
            "id": self.attributes["id"] if is_observation(body) else None,
        }
        given = {name: value for name, value in body.items() if value is not None}
        return {**{n: value for n, value in found.items() if value is not None}, **given}


def is_structured(headers: Mapping[str, bytes]) -> bool:
    """Whether the header `content-type` says that the value is a whole event.

    Raises
    ------
    DecodeError
        If it is a batch of them, or not in JSON.
    """
    kind = media_type(headers.get("content-type", b""))
    if not kind.startswith(MEDIA_TYPE):
        return False
    if kind == f"{MEDIA_TYPE}-batch+json":
        raise DecodeError(
            "batch", f"content-type: expected one event a record, got a batch ({kind})"
        )
    if kind != f"{MEDIA_TYPE}+json":
        raise DecodeError(
            "unknown_format", f"content-type: expected {MEDIA_TYPE}+json, got {short(kind)}"
        )
    return True


def is_binary(headers: Mapping[str, bytes]) -> bool:
    """Whether the headers are those of an event whose data is the value."""
    return f"{_PREFIX}specversion" in headers


def structured(body: Mapping[str, Any]) -> Event:
    """The event that is a JSON object.

    Raises
    ------
    DecodeError
        `bad_envelope` if an attribute is missing, the version is another one, or the data is there
        twice or no base64.
    """
    attributes = {k: v for k, v in body.items() if isinstance(v, str) and v}
    attributes.pop("data", None)
    coded = attributes.pop("data_base64", None)
    data: object = body.get("data")
    if body.get("data_base64") is not None:
        if data is not None:
            raise DecodeError("bad_envelope", "data and data_base64 are both given")
        try:
            data = base64.b64decode(coded or "", validate=True)
        except (binascii.Error, ValueError):
            raise DecodeError(
                "bad_envelope", f"data_base64: expected base64, got {short(coded)}"
            ) from None
    kind = attributes.get("datacontenttype", "")
    return Event(_checked(attributes), data, media_type(kind.encode("utf-8", "replace")))


def binary(headers: Mapping[str, bytes], value: bytes) -> Event:
    """The event whose attributes are headers.

    Raises
    ------
    DecodeError
        `bad_envelope` as for a structured one; `bad_text` if a header is no UTF-8.
    """
    attributes = {}
    for name, content in headers.items():
        if name.startswith(_PREFIX) and content:
            try:
                attributes[name.removeprefix(_PREFIX)] = content.decode("utf-8")
            except UnicodeDecodeError:
                raise DecodeError(
                    "bad_text", f"header {name}: expected UTF-8, got {short(content)}"
                ) from None
    return Event(_checked(attributes), value, media_type(headers.get("content-type", b"")))


def media_type(content_type: bytes) -> str:
    """The type alone, in lower case.

    Examples
    --------
    >>> media_type(b"Application/JSON; charset=utf-8")
    'application/json'
    """
    return content_type.partition(b";")[0].strip().lower().decode("utf-8", "replace")


def is_json(kind: str) -> bool:
    """Whether data of this type is JSON, which it is where nothing is said.

    Examples
    --------
    >>> [is_json(t) for t in ("", "application/json", "application/x+json", "text/plain")]
    [True, True, True, False]
    """
    return not kind or kind.rpartition("/")[2] == "json" or kind.endswith("+json")


def _checked(attributes: dict[str, str]) -> Mapping[str, str]:
    version = attributes.get("specversion")
    if version != "1.0":
        raise DecodeError("bad_envelope", f"specversion: expected '1.0', got {short(version)}")
    for name in _REQUIRED:
        if name not in attributes:
            raise DecodeError("bad_envelope", f"{name}: expected it as text in a CloudEvent")
    return attributes
