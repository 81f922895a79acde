from __future__ import annotations

import gzip
import tracemalloc

import pytest

from service.records.formats.compression import gunzip, unpacked
from service.records.record import DecodeError

TEXT = b'{"stream":"s","id":"1","label":"2"}'
ZIPPED = gzip.compress(TEXT)


@pytest.mark.parametrize("encoding", [None, b"gzip", b"GZip", b"x-gzip", b"identity", b""])
def test_gzip_is_unpacked_with_and_without_a_header(encoding: bytes | None) -> None:
    assert unpacked(ZIPPED, encoding) == TEXT


def test_what_is_not_compressed_stays_as_it_is() -> None:
    assert unpacked(TEXT, None) == TEXT
    assert unpacked(b"", None) == b""


def test_members_that_follow_each_other_are_one_value() -> None:
    assert gunzip(gzip.compress(TEXT[:9]) + gzip.compress(TEXT[9:]), 1000) == TEXT


@pytest.mark.parametrize(
    ("value", "encoding", "reason", "says"),
    [
        (TEXT, b"gzip", "bad_gzip", "expected gzip, got "),
        (ZIPPED[:-9], None, "bad_gzip", "ends too early"),
        (ZIPPED[:-1] + b"x", None, "bad_gzip", "incorrect length check"),
        (ZIPPED + b"more", None, "bad_gzip", "expected gzip, got "),
        (TEXT, b"br", "unknown_format", "content-encoding: expected gzip, got b'br'"),
    ],
)
def test_what_cannot_be_unpacked_says_why(
    value: bytes, encoding: bytes | None, reason: str, says: str
) -> None:
    with pytest.raises(DecodeError) as caught:
        unpacked(value, encoding)
    assert caught.value.reason == reason
    assert says in caught.value.message


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = gzip.compress(bytes(200_000_000), 9)
    tracemalloc.start()
    with pytest.raises(DecodeError, match="expected at most 8388608 bytes") as caught:
        unpacked(bomb, None)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.reason == "too_large"
    assert peak < 60_000_000


def test_the_limit_counts_over_all_members_and_itself_is_allowed() -> None:
    two = gzip.compress(b"a" * 60) + gzip.compress(b"b" * 40)
    assert len(gunzip(two, 100)) == 100
    with pytest.raises(DecodeError, match="at most 99 bytes"):
        gunzip(two, 99)
