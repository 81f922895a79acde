"""What a request's body holds, and what is said where it is no batch."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.records.request import BatchError, Limits, TooLargeError, gunzip, split

LIMITS = Limits(1000, 5)


def items(body: bytes) -> list[bytes]:
    return split(body, LIMITS, is_lines=False)


def lines(body: bytes) -> list[bytes]:
    return split(body, LIMITS, is_lines=True)


def test_an_object_an_array_and_lines_are_the_same_records() -> None:
    assert items(b'{"a": 1}') == items(b' [{"a": 1}]\n') == lines(b'\n{"a": 1}\r\n\n')
    assert items(b'[{"a": 1} ,\n{"b":[{}]}]') == lines(b'{"a": 1}\n{"b":[{}]}')
    assert items(b'\xef\xbb\xbf{"a": 1}') == lines(b'\xef\xbb\xbf{"a": 1}') == [b'{"a": 1}']


def test_a_record_stays_as_it_was_sent_but_stands_in_one_line() -> None:
    sent = '{"n": 1.10e3,\r\n "t": "a\\nb ü \\ud800",\n\t"n": -0}'
    assert items(sent.encode()) == [sent.replace("\r", " ").replace("\n", " ").encode()]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", r"body: expected a JSON object, got ''"),
        (b"[]", "body: expected at least one event, got none"),
        (b"nope", "body: expected a JSON object, got 'nope'"),
        (b"3", "body: expected an object, got 3"),
        (b'{"a":1} {"a":2}', r"body: expected its end at character 8, got '\{\"a\":2\}'"),
        (b'[{"a":1}', "body: expected ',' or '\\]' after events\\[0\\], at character 8, got ''"),
        (b'[{"a":1} {"a":1}]', r"after events\[0\], at character 9"),
        (b'[{"a":1},]', r"events\[1\]: expected a JSON object, got '\]' \(Expecting value at 9\)"),
        (b'[{"a":1},{"a":}]', r"events\[1\]: expected a JSON object, .*at 14\)"),
        (b'[{"a":1},null]', r"events\[1\]: expected an object, got null"),
        (b'[[{"a":1}]]', r"events\[0\]: expected an object, got an array of 1"),
        (b'{"a":"\xff"}', r"body: expected UTF-8 \(byte 6\)"),
        (b'[{"a":' + b"1" * 5000 + b"}]", r"events\[0\]: a number is too large"),
        (b"[" * 100_000, "events.0.: nested too deeply"),
    ],
)
def test_what_is_no_batch_says_which_item_and_why(body: bytes, says: str) -> None:
    with pytest.raises(BatchError, match=says) as caught:
        items(body)
    assert not isinstance(caught.value, TooLargeError)
    assert len(str(caught.value)) < 250


def test_lines_are_not_looked_at_here() -> None:
    assert lines(b"nope\n\xff") == [b"nope", b"\xff"]
    with pytest.raises(BatchError, match="at least one event"):
        lines(b"\n \r\n")


@pytest.mark.parametrize("is_lines", [False, True])
def test_more_records_than_allowed_are_too_large(is_lines: bool) -> None:
    def body(n: int) -> bytes:
        text = [b"{}"] * n
        return b"\n".join(text) if is_lines else b"[" + b",".join(text) + b"]"

    assert split(body(5), LIMITS, is_lines=is_lines) == [b"{}"] * 5
    with pytest.raises(TooLargeError, match="expected at most 5 events"):
        split(body(6), LIMITS, is_lines=is_lines)


documents = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


@given(st.lists(documents, min_size=1, max_size=5), st.sampled_from([None, 1]), st.booleans())
def test_every_array_of_objects_comes_apart(
    found: list[dict[str, object]], indent: int | None, ascii_: bool
) -> None:
    body = json.dumps(found, indent=indent, ensure_ascii=ascii_).encode("utf-8", "replace")
    parts = split(body, LIMITS, is_lines=False)
    assert [json.loads(part) for part in parts] == json.loads(body)
    assert not any(b"\n" in part for part in parts)
    assert split(b"\n".join(parts), LIMITS, is_lines=True) == parts


# -- gzip --------------------------------------------------------------------------------------


def test_gzip_is_taken_in_several_members_too() -> None:
    body = bytes(range(200))
    assert gunzip(gzip.compress(body), LIMITS) == body
    assert (
        gunzip(gzip.compress(body) + gzip.compress(b"") + gzip.compress(body), LIMITS) == 2 * body
    )


def test_a_body_is_decompressed_no_further_than_the_limit() -> None:
    assert len(gunzip(gzip.compress(b"x" * 1000), LIMITS)) == 1000
    for bomb in (gzip.compress(b"x" * 1001), gzip.compress(b"x" * 600) * 2):
        with pytest.raises(TooLargeError, match="at most 1000 bytes when decompressed"):
            gunzip(bomb, LIMITS)
    with pytest.raises(TooLargeError):
        gunzip(gzip.compress(bytes(50_000_000)), LIMITS)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{}", "expected gzip"),
        (zlib.compress(b"{}"), "expected gzip"),
        (gzip.compress(b"{}")[:-1], "end too early"),
        (gzip.compress(b"{}") + b"more", "expected gzip"),
        (gzip.compress(b"{}" * 40)[:-9] + bytes(9), "gzip|early"),
    ],
)
def test_what_is_no_gzip_says_so(body: bytes, says: str) -> None:
    with pytest.raises(BatchError, match=says):
        gunzip(body, LIMITS)
