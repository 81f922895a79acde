"""Which way a record goes; what comes out of each is tested beside its format."""

from __future__ import annotations

import gzip
import json

import pytest

from service.records.decode import decode
from service.records.formats.decoder import Decoder
from service.records.record import DecodeError, Record

BODY = {"stream": "s", "id": "1", "features": {"a": 1.5}}
PLAIN = json.dumps(BODY).encode()


def record(value: bytes, *headers: tuple[str, bytes], dropped: int = 0) -> Record:
    return Record("t", 0, 4, b"s", value, dropped, headers)


@pytest.mark.parametrize(
    "found",
    [
        record(PLAIN),
        record(b" \n" + PLAIN),
        record(PLAIN, ("traceparent", b"00-1-2-01"), ("nothing", b"")),
        record(PLAIN, ("content-type", b"application/json")),
        record(PLAIN, ("content-type", b"application/octet-stream")),
        record(gzip.compress(PLAIN)),
        record(gzip.compress(PLAIN), ("Content-Encoding", b"gzip")),
    ],
)
def test_a_plain_record_is_the_same_whatever_stands_beside_it(found: Record) -> None:
    assert Decoder().decode(found) == decode(record(PLAIN))


@pytest.mark.parametrize("value", [b"", b"  ", b"\x1f", b"\x1f\x8b", b"\xff", b"[1]", b"{}"])
@pytest.mark.parametrize("headers", [(), (("x", b"1"),)])
def test_what_is_nothing_is_refused_with_its_place(
    value: bytes, headers: tuple[tuple[str, bytes], ...]
) -> None:
    with pytest.raises(DecodeError, match=r"^t\[0\]@4: "):
        Decoder().decode(record(value, *headers))


def test_the_beginning_of_a_record_that_was_too_large_is_not_unpacked() -> None:
    for headers in ((), (("content-encoding", b"gzip"),)):
        with pytest.raises(DecodeError, match="has 9000000 bytes") as caught:
            Decoder().decode(record(gzip.compress(PLAIN), *headers, dropped=9_000_000))
        assert caught.value.reason == "too_large"


def test_the_limit_of_images_counts_in_every_format() -> None:
    image = b'{"stream":"s","id":"1","image":"iVBORw0KGgpyZXN0"}'
    assert Decoder(max_image_bytes=12).decode(record(image)).image == b"\x89PNG\r\n\x1a\nrest"
    for value in (image, gzip.compress(image)):
        with pytest.raises(DecodeError, match="expected at most 8 bytes"):
            Decoder(max_image_bytes=8).decode(record(value))
