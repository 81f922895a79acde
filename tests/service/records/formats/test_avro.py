"""Avro with a schema registry, which is a real HTTP server here."""

from __future__ import annotations

import gzip
import random
import struct
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from service.api.wiring import open_decoder
from service.records.formats.avro import Avro
from service.records.formats.decoder import Decoder
from service.records.record import DecodeError, LabelRecord, Observation, Record, TemporaryError
from service.settings.file import SettingsError
from service.settings.service import loads
from service.settings.source import SchemaRegistrySettings
from service.sources.kafka.schema_registry import SchemaRegistry
from tests.service.records.formats.registry import StubRegistry, encoded, serving

EVENT: dict[str, Any] = {
    "type": "record",
    "name": "Event",
    "namespace": "shop",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "prediction", "type": ["null", "string"], "default": None},
        {"name": "amount", "type": "double"},
        {
            "name": "price",
            "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
        },
        {"name": "land", "type": {"type": "enum", "name": "Land", "symbols": ["GB", "FR"]}},
        {"name": "age", "type": ["null", "int"]},
        {"name": "born", "type": {"type": "int", "logicalType": "date"}},
        {"name": "is_new", "type": "boolean"},
    ],
}
DATUM = {
    "id": "e-1",
    "time": datetime(2026, 11, 23, 10, 0, 0, 250_000, tzinfo=UTC),
    "prediction": "3",
    "amount": 12.5,
    "price": Decimal("3.25"),
    "land": "GB",
    "age": None,
    "born": date(2000, 2, 29),
    "is_new": True,
}
LABEL: dict[str, Any] = {
    "type": "record",
    "name": "Label",
    "fields": [
        {"name": "stream", "type": "string"},
        {"name": "id", "type": "long"},
        {"name": "label", "type": "int"},
    ],
}


@pytest.fixture
def stub() -> StubRegistry:
    return StubRegistry()


@pytest.fixture
def url(stub: StubRegistry) -> Iterator[str]:
    with serving(stub) as url:
        yield url


@pytest.fixture
def decoder(url: str) -> Iterator[Decoder]:
    made = decoder_at(url)
    yield made
    made.close()


def decoder_at(url: str) -> Decoder:
    return Decoder(avro=Avro(SchemaRegistry(SchemaRegistrySettings(url=url, timeout_s=5))))


def record(value: bytes, **headers: bytes) -> Record:
    return Record("events", 0, 7, b"shop", value, headers=tuple(headers.items()))


def refused(decoder: Decoder, value: bytes) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        decoder.decode(record(value))
    assert str(caught.value).startswith("events[0]@7: ")
    return caught.value


def test_a_datum_is_a_row_whose_other_fields_are_features(
    stub: StubRegistry, decoder: Decoder
) -> None:
    stub.add(7, EVENT)
    assert decoder.decode(record(encoded(7, EVENT, DATUM))) == Observation(
        "shop",
        "e-1",
        DATUM["time"],
        {
            "amount": 12.5,
            "price": 3.25,
            "land": "GB",
            "age": None,
            "born": "2000-02-29",
            "is_new": True,
        },
        prediction="3",
    )


def test_features_can_be_a_map_a_record_or_an_array_and_an_image_is_bytes(
    stub: StubRegistry, decoder: Decoder
) -> None:
    inner = {"type": "record", "name": "F", "fields": [{"name": "a", "type": "float"}]}
    png = b"\x89PNG\r\n\x1a\nrest"
    for id_, (field, kind, given) in enumerate(
        [
            ("features", {"type": "map", "values": ["null", "double"]}, {"a": 0.5, "b": None}),
            ("features", inner, {"a": 0.5}),
            ("features", {"type": "array", "items": "double"}, [0.5]),
            ("image", "bytes", png),
        ]
    ):
        schema = {
            "type": "record",
            "name": "E",
            "fields": [{"name": "id", "type": "int"}, {"name": field, "type": kind}],
        }
        stub.add(id_, schema)
        found = decoder.decode(record(encoded(id_, schema, {"id": 1, field: given})))
        assert isinstance(found, Observation)
        names = {0: {"a": 0.5, "b": None}, 1: {"a": 0.5}, 2: {"0": 0.5}, 3: {}}
        assert (found.features, found.image) == (names[id_], png if field == "image" else None)


def test_a_label_is_a_datum_too(stub: StubRegistry, decoder: Decoder) -> None:
    stub.add(1, LABEL)
    value = encoded(1, LABEL, {"stream": "s", "id": 17, "label": 8})
    assert decoder.decode(record(value)) == LabelRecord("s", "17", "8", None)
    assert decoder.decode(record(gzip.compress(value))) == LabelRecord("s", "17", "8", None)


def test_a_cloudevent_can_carry_it(stub: StubRegistry, decoder: Decoder) -> None:
    stub.add(7, EVENT)
    headers = {
        "ce_specversion": b"1.0",
        "ce_id": b"x",
        "ce_source": b"/",
        "ce_type": b"t",
        "ce_subject": b"s",
        "content-type": b"application/avro",
    }
    found = decoder.decode(record(encoded(7, EVENT, DATUM), **headers))
    assert isinstance(found, Observation)
    assert (found.stream, found.id) == ("s", "e-1")


def test_a_schema_is_asked_for_once(stub: StubRegistry, decoder: Decoder) -> None:
    stub.add(7, EVENT)
    for _ in range(5):
        decoder.decode(record(encoded(7, EVENT, DATUM)))
    assert stub.asked == ["/schemas/ids/7"]


def test_schemas_may_refer_to_others(stub: StubRegistry, decoder: Decoder) -> None:
    land = {"type": "enum", "name": "shop.Land", "symbols": ["GB", "FR"]}
    item = fields("shop.Item", {"amount": "double", "land": "shop.Land"})
    order = fields("shop.Order", {"id": "string", "features": "shop.Item"})
    stub.add(1, land)
    stub.by_version["land", 3] = stub.by_id[1]
    stub.add(2, item, references=[{"name": "shop.Land", "subject": "land", "version": 3}])
    stub.by_version["a/b item", 1] = stub.by_id[2]
    stub.add(9, order, references=[{"name": "shop.Item", "subject": "a/b item", "version": 1}])
    item_alone = fields("shop.Item", {"amount": "double", "land": land})
    alone = fields("shop.Order", {"id": "string", "features": item_alone})
    datum = {"id": "o", "features": {"amount": 1.5, "land": "FR"}}
    found = decoder.decode(record(encoded(9, alone, datum)))
    assert found == Observation("shop", "o", None, {"amount": 1.5, "land": "FR"})
    stub.add(10, order, references=[{"name": "shop.Item", "subject": "gone", "version": 1}])
    assert refused(decoder, encoded(10, alone, datum)).reason == "unknown_schema"


def test_references_without_end_are_refused(stub: StubRegistry, decoder: Decoder) -> None:
    for n in range(200):
        more = [{"name": f"n{n}", "subject": "chain", "version": n + 1}]
        stub.by_version["chain", n] = {"schema": "{}", "references": more}
    stub.add(1, EVENT, references=[{"name": "n", "subject": "chain", "version": 0}])
    assert "has over 100 references" in str(refused(decoder, encoded(1, EVENT, DATUM)))


def fields(name: str, kinds: dict[str, Any]) -> dict[str, Any]:
    """A schema of a record."""
    listed = [{"name": field, "type": kind} for field, kind in kinds.items()]
    return {"type": "record", "name": name, "fields": listed}


@pytest.mark.parametrize(
    ("value", "reason", "says"),
    [
        (b"\x00\x00\x00", "bad_avro", "expected the id of a schema"),
        (b"\x00\x00\x00\x00\x08", "unknown_schema", "the schema registry has no schema 8"),
        (encoded(7, EVENT, DATUM)[:-3], "bad_avro", "does not follow schema 7"),
        (encoded(7, EVENT, DATUM) + b"xy", "bad_avro", "2 bytes are left"),
        (b"\x00\x00\x00\x00\x07" + b"\xff" * 40, "bad_avro", "does not follow schema 7"),
        (b"\x00\x00\x00\x00\x05\x02a", "not_an_object", "expected a record of schema 5"),
        (b"\x00\x00\x00\x00\x03", "unknown_format", "schema 3: expected Avro, got 'PROTOBUF'"),
        (b"\x00\x00\x00\x00\x02", "unknown_schema", "schema 2 is no schema of Avro"),
        (b"\x00\x00\x00\x00\x04", "unknown_schema", "schema 4 is no schema of Avro"),
    ],
)
def test_what_cannot_be_read_says_why(
    value: bytes, reason: str, says: str, stub: StubRegistry, decoder: Decoder
) -> None:
    stub.add(7, EVENT)
    stub.add(5, "string")
    stub.by_id[3] = {"schema": "syntax = 'proto3';", "schemaType": "PROTOBUF"}
    stub.by_id[2] = {"schema": "{"}
    stub.add(4, {"type": "recorrd"})
    found = refused(decoder, value)
    assert found.reason == reason
    assert says in str(found)


def test_not_a_number_is_a_missing_value_as_in_tables(stub: StubRegistry, decoder: Decoder) -> None:
    stub.add(7, EVENT)
    found = decoder.decode(record(encoded(7, EVENT, {**DATUM, "amount": float("nan")})))
    assert isinstance(found, Observation)
    assert found.features["amount"] is None
    assert refused(decoder, encoded(7, EVENT, {**DATUM, "amount": float("inf")})).reason == (
        "not_finite"
    )


def test_while_the_registry_is_in_trouble_nothing_is_refused(
    stub: StubRegistry, url: str, decoder: Decoder
) -> None:
    stub.add(7, EVENT)
    value = record(encoded(7, EVENT, DATUM))
    for status, body, says in [
        (503, None, "schema 7: answered 503"),
        (404, "no such page", "schema 7: answered 404"),  # something else than the registry
        (302, None, "schema 7: answered 302"),
        (200, "<html>", "answered something else than a schema"),
        (200, "[]", "answered something else than a schema"),
        (200, " " * 4_200_000, "answered more than 4194304 bytes"),
    ]:
        stub.status, stub.body = status, body
        with pytest.raises(TemporaryError, match=says) as caught:
            decoder.decode(value)
        assert url in str(caught.value)
    stub.status, stub.body = 200, None
    assert decoder.decode(value).id == "e-1"
    stub.status = 503
    assert decoder.decode(value).id == "e-1"  # it is known by now


def test_a_registry_that_is_away_comes_back(stub: StubRegistry) -> None:
    stub.add(7, EVENT)
    value = record(encoded(7, EVENT, DATUM))
    with serving(stub) as url:
        port = int(url.rpartition(":")[2])
    decoder = decoder_at(url)
    with pytest.raises(TemporaryError, match=r"schema 7: .*refused"):
        decoder.decode(value)
    with serving(stub, port):
        assert decoder.decode(value).id == "e-1"
    decoder.close()


def test_a_schema_that_is_not_there_is_asked_for_again_after_a_while(
    stub: StubRegistry, url: str
) -> None:
    now = [0.0]
    registry = SchemaRegistry(SchemaRegistrySettings(url=url), monotonic=lambda: now[0])
    decoder = Decoder(avro=Avro(registry))
    value = encoded(7, EVENT, DATUM)
    for _ in range(3):
        assert refused(decoder, value).reason == "unknown_schema"
    assert len(stub.asked) == 1
    stub.add(7, EVENT)
    now[0] = 31.0
    assert decoder.decode(record(value)).id == "e-1"
    decoder.close()


def test_the_registry_can_ask_for_a_login(stub: StubRegistry, url: str) -> None:
    stub.login = ("me", "pa55")
    stub.add(7, EVENT)
    value = record(encoded(7, EVENT, DATUM))
    closed = decoder_at(url)
    with pytest.raises(TemporaryError, match="answered 401"):
        closed.decode(value)
    closed.close()
    text = f"{{url: '{url}/', username: me, password: pa55}}"
    opened = open_decoder(settings(text))
    assert opened.decode(value).id == "e-1"
    opened.close()


def settings(registry: str) -> Any:
    return loads(
        "streams: [{name: s, problem: x_to_y}]\n"
        "source: {kind: kafka, bootstrap_servers: a:1, topics: {features: e}, "
        f"schema_registry: {registry}}}\n"
    )


def test_without_the_extra_the_start_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastavro", None)
    with pytest.raises(SettingsError, match=r"schema_registry: .*shiftwatch\[avro\]"):
        open_decoder(settings("{url: 'http://127.0.0.1:1'}"))
    plain = loads("streams: [{name: s, problem: x_to_y}]\n")
    body = b'{"stream":"s","id":"1","label":"2"}'
    assert open_decoder(plain).decode(record(body)).id == "1"


def test_without_a_registry_avro_is_refused() -> None:
    found = refused(Decoder(), struct.pack(">bI", 0, 7))
    assert found.reason == "unknown_format"
    assert "source.schema_registry is not set" in str(found)


def test_certificates_that_cannot_be_read_are_an_error_at_the_start() -> None:
    found = settings("{url: 'https://127.0.0.1:1', ssl_cafile: /nowhere/ca.pem}")
    with pytest.raises(SettingsError, match=r"ssl_cafile: .*/nowhere/ca.pem cannot be read"):
        open_decoder(found)


def test_random_bytes_never_end_in_anything_but_a_refusal(
    stub: StubRegistry, decoder: Decoder
) -> None:

    stub.add(7, EVENT)
    whole = encoded(7, EVENT, DATUM)
    rng = random.Random(5)
    n_refused = 0
    for _ in range(2000):
        value = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            value[rng.randrange(5, len(value))] = rng.randrange(256)
        try:
            decoder.decode(record(bytes(value)))
        except DecodeError:
            n_refused += 1
    assert n_refused > 200


def test_base64_of_an_image_is_no_larger_than_allowed(stub: StubRegistry, url: str) -> None:
    registry = SchemaRegistry(SchemaRegistrySettings(url=url))
    decoder = Decoder(max_image_bytes=10, avro=Avro(registry))
    schema = {
        "type": "record",
        "name": "E",
        "fields": [{"name": "id", "type": "int"}, {"name": "image", "type": "bytes"}],
    }
    stub.add(1, schema)
    found = refused(decoder, encoded(1, schema, {"id": 1, "image": b"\x89PNG\r\n\x1a\nlarger"}))
    assert found.reason == "too_large"
    decoder.close()
