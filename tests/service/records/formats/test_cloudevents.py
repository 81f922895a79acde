"""CloudEvents, in both modes of their Kafka binding."""

from __future__ import annotations

import base64
import gzip
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from service.records.formats.decoder import Decoder
from service.records.record import DecodeError, LabelRecord, Observation, Record

ATTRIBUTES = {
    "specversion": "1.0",
    "id": "ce-1",
    "source": "/shop",
    "type": "com.example.scored",
    "time": "2026-11-23T10:00:00.123456789Z",
}
DATA = {"features": {"amount": 12.5}, "prediction": "3"}
AT = datetime(2026, 11, 23, 10, 0, 0, 123456, tzinfo=UTC)
STRUCTURED = (("content-type", b"application/cloudevents+json; charset=UTF-8"),)

decode = Decoder().decode


def record(
    value: object, headers: tuple[tuple[str, bytes], ...] = (), key: bytes | None = b"key"
) -> Record:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Record("events", 3, 17, key, raw, headers=headers)


def structured(data: object = DATA, *, key: bytes | None = b"key", **changes: Any) -> Record:
    event = {**ATTRIBUTES, "data": data, **changes}
    return record({k: v for k, v in event.items() if v is not ...}, STRUCTURED, key)


def binary(data: object = DATA, *, key: bytes | None = b"key", **changes: Any) -> Record:
    attributes = {**ATTRIBUTES, **changes}
    kind = attributes.pop("datacontenttype", "application/json")
    headers = [(f"ce_{k}", v.encode()) for k, v in attributes.items() if v is not ...]
    return record(data, (("content-type", kind.encode()), *headers), key)


def refused(found: Record) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        decode(found)
    assert str(caught.value).startswith("events[3]@17: ")
    return caught.value


MODES = pytest.mark.parametrize("event", [structured, binary])


@MODES
def test_an_event_gives_its_data_what_the_data_leaves_out(event: Any) -> None:
    found = decode(event(subject="digits"))
    assert found == Observation("digits", "ce-1", AT, {"amount": 12.5}, prediction="3")


@MODES
def test_what_the_data_says_itself_counts(event: Any) -> None:
    data = {**DATA, "stream": "own", "id": 7, "time": "2020-01-01T00:00:00Z"}
    found = decode(event(data, subject="digits", stream="other"))
    assert found == Observation(
        "own", "7", datetime(2020, 1, 1, tzinfo=UTC), {"amount": 12.5}, prediction="3"
    )


@MODES
def test_the_stream_is_the_attribute_of_that_name_then_the_subject_then_the_key(event: Any) -> None:
    assert decode(event(stream="a", subject="b")).stream == "a"
    assert decode(event(subject="b")).stream == "b"
    assert decode(event()).stream == "key"
    assert refused(event(key=None)).reason == "missing_field"


@MODES
def test_a_label_in_an_event_names_its_observation_itself(event: Any) -> None:
    assert decode(event({"id": "e-1", "label": 8}, subject="s")) == LabelRecord("s", "e-1", "8", AT)
    found = refused(event({"label": 8}, subject="s"))
    assert (found.reason, found.message[:4]) == ("missing_field", "id: ")


@MODES
def test_an_event_that_tells_no_time_has_none(event: Any) -> None:
    assert decode(event(time=...)).time is None


@MODES
@pytest.mark.parametrize(
    ("changes", "reason", "says"),
    [
        ({"specversion": "0.3"}, "bad_envelope", "specversion: expected '1.0', got '0.3'"),
        ({"id": ...}, "bad_envelope", "id: expected it"),
        ({"source": ""}, "bad_envelope", "source: expected it"),
        ({"type": ...}, "bad_envelope", "type: expected it"),
        ({"time": "yesterday"}, "bad_time", "time: expected ISO 8601"),
        ({"subject": "x" * 300}, "out_of_range", "stream: expected 1 to 256"),
        ({"datacontenttype": "text/csv"}, "unknown_format", "got 'text/csv'"),
        ({"data": [1, 2]}, "not_an_object", "an array of 2|an object"),
    ],
)
def test_an_event_that_cannot_be_used_says_why(
    event: Any, changes: dict[str, Any], reason: str, says: str
) -> None:
    rest = dict(changes)
    data = rest.pop("data", DATA)
    found = refused(event(data, **rest))
    assert found.reason == reason
    assert any(one in found.message for one in says.split("|")), found.message


def test_data_can_be_base64_of_json() -> None:
    coded = base64.b64encode(json.dumps(DATA).encode()).decode()
    assert decode(structured(..., data_base64=coded)).id == "ce-1"
    assert decode(structured(None, data_base64=coded)).id == "ce-1"
    assert refused(structured(DATA, data_base64=coded)).reason == "bad_envelope"
    assert refused(structured(..., data_base64="no!")).reason == "bad_envelope"
    assert refused(structured(..., data_base64=5)).reason == "empty"
    junk = base64.b64encode(b"\xff\xfe").decode()
    assert refused(structured(..., data_base64=junk)).reason == "not_json"


def test_an_event_without_data_is_empty() -> None:
    assert refused(structured(...)).reason == "empty"
    assert refused(structured(None)).reason == "empty"
    assert refused(binary(b"")).reason == "empty"


def test_data_is_as_strict_as_a_plain_record() -> None:
    twice = b'{"features":{"a":1,"a":2}}'
    assert refused(binary(twice)).reason == "duplicate_key"
    event = json.dumps({**ATTRIBUTES, "data": 0}).replace("0}", twice.decode() + "}").encode()
    assert refused(record(event, STRUCTURED)).reason == "duplicate_key"
    assert refused(binary(b'{"features":{"a":NaN}}')).reason == "not_finite"
    assert refused(binary(b'{"features":{"a":1e999}}')).reason == "out_of_range"


def test_an_event_needs_no_header() -> None:
    found = decode(record({**ATTRIBUTES, "subject": "s", "data": DATA}))
    assert (found.stream, found.id) == ("s", "ce-1")


def test_a_plain_record_may_have_fields_of_these_names() -> None:
    body = {"stream": "s", "id": "1", "features": [1], "specversion": "1.0", "data": {}}
    assert decode(record(body)).features == {"0": 1.0}
    assert decode(record(body, (("traceparent", b"00-1"),))).features == {"0": 1.0}
    broken = {**body, "features": "none"}
    assert refused(record(broken)).reason == "wrong_type"
    assert refused(record(b'{"specversion"')).reason == "not_json"


def test_what_is_no_single_event_in_json_is_refused_by_its_type() -> None:
    batch = (("Content-Type", b"application/cloudevents-batch+json"),)
    assert refused(record([], batch)).reason == "batch"
    avro = (("content-type", b"application/cloudevents+avro"),)
    assert refused(record(b"\x00", avro)).reason == "unknown_format"


def test_headers_of_both_modes_are_a_structured_event() -> None:
    event = {**ATTRIBUTES, "subject": "s", "data": DATA}
    headers = (*STRUCTURED, ("ce_specversion", b"1.0"), ("ce_id", b"other"))
    assert decode(record(event, headers)).id == "ce-1"


def test_names_of_headers_have_no_case_and_values_are_utf8() -> None:
    headers = tuple((k.upper(), v) for k, v in binary(subject="straße").headers)
    assert decode(record(DATA, headers)).stream == "straße"
    assert refused(record(DATA, (*headers, ("ce_subject", b"\xff")))).reason == "bad_text"


@MODES
def test_an_event_may_be_gzipped(event: Any) -> None:
    plain = event(subject="s")
    headers = (*plain.headers, ("content-encoding", b"gzip"))
    assert decode(record(gzip.compress(plain.value), headers)) == decode(plain)
