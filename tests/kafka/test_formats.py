"""Records in every format, through a real broker and the source that the service reads with."""

from __future__ import annotations

import gzip
import json
from contextlib import closing
from datetime import UTC, datetime

from kafka import KafkaProducer

from service.records.formats.decoder import Decoder, Ignored
from service.records.formats.kserve import REQUEST, RESPONSE
from service.records.record import Observation
from service.settings.source import SourceSettings
from service.sources.kafka.source import KafkaSource
from tests.kafka.broker import new_topic
from tests.kafka.test_source import Desk, collect

Headers = list[tuple[str, bytes]]

BODY = {"features": {"a": 1.5}, "prediction": "3"}
EVENT = {
    "specversion": "1.0",
    "id": "e-1",
    "source": "/shop",
    "type": "scored",
    "subject": "s",
    "time": "2026-11-23T10:00:00Z",
}
JSON = [("content-type", b"application/json")]


def binary(**changes: str) -> Headers:
    return JSON + [(f"ce_{name}", text.encode()) for name, text in {**EVENT, **changes}.items()]


def test_records_of_every_format_are_read_from_a_topic(servers: str) -> None:
    topic = new_topic(servers, "formats")
    plain = json.dumps({**BODY, "stream": "s", "id": "e-1", "time": EVENT["time"]}).encode()
    data = json.dumps(BODY).encode()
    whole = json.dumps({**EVENT, "data": BODY}).encode()
    instance = json.dumps({"instances": [{"a": 1.5}]}).encode()
    sent: list[tuple[bytes, Headers]] = [
        (plain, []),
        (plain, [("traceparent", b"00-1-2-01"), ("empty", b"")]),
        (gzip.compress(plain), [("content-encoding", b"gzip")]),
        (data, binary()),
        (whole, [("content-type", b"application/cloudevents+json")]),
        (whole, []),
        (instance, binary(type=REQUEST)),
        (instance, binary(type=RESPONSE)),
    ]
    with closing(KafkaProducer(bootstrap_servers=servers, acks="all")) as producer:
        for n, (value, headers) in enumerate(sent):
            producer.send(topic, value, b"k", headers, timestamp_ms=1000 + n).get(timeout=60)
    settings = SourceSettings.model_validate(
        {
            "kind": "kafka",
            "bootstrap_servers": servers,
            "topics": {"features": topic},
            "group_id": topic,
            "session_timeout_ms": 6000,
        }
    )
    source = KafkaSource(settings)
    source.start(Desk())
    try:
        records = collect(source, len(sent))
    finally:
        source.close()
    assert [list(record.headers) for record in records] == [headers for _, headers in sent]
    assert [record.timestamp_ms for record in records] == [1000 + n for n in range(len(sent))]
    decoder = Decoder()
    found = [decoder.decode(record) for record in records]
    at = datetime(2026, 11, 23, 10, tzinfo=UTC)
    expected = Observation("s", "e-1", at, {"a": 1.5}, prediction="3")
    assert found[:6] == [expected] * 6
    assert found[6:] == [
        Observation("s", "e-1", at, {"a": 1.5}),
        Ignored("inference_response"),
    ]
