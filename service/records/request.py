"""The body of a request as records: a JSON object, an array of them, or one a line."""

from __future__ import annotations

import json
import zlib
from typing import NamedTuple

from service.records.shown import short

_WHITE = " \t\n\r"
_GZIP = 31
"""To zlib: the gzip format, with the largest window."""
_LINE_ENDS = bytes.maketrans(b"\r\n", b"  ")
_DECODER = json.JSONDecoder()


class BatchError(ValueError):
    """The body is not a batch of records; says which item, and why."""


class TooLargeError(BatchError):
    """The body has more bytes or records than are taken at once."""


class Limits(NamedTuple):
    """What one request may bring.

    Attributes
    ----------
    n_bytes
        After decompression.
    n_records
        Events in it.
    """

    n_bytes: int
    n_records: int


def gunzip(body: bytes, limits: Limits) -> bytes:
    """Decompress a body, no further than the limit.

    Raises
    ------
    BatchError
        If it is not gzip, or ends too early.
    TooLargeError
        If it has more bytes.
    """
    found = bytearray()
    while body:
        member = zlib.decompressobj(_GZIP)
        try:
            found += member.decompress(body, limits.n_bytes + 1 - len(found))
        except zlib.error as error:
            raise BatchError(f"body: expected gzip: {error}") from None
        if len(found) > limits.n_bytes:
            raise TooLargeError(f"body: expected at most {limits.n_bytes} bytes when decompressed")
        if not member.eof:
            raise BatchError("body: the gzip data end too early")
        body = member.unused_data
    return bytes(found)


def split(body: bytes, limits: Limits, *, is_lines: bool) -> list[bytes]:
    """Return the records of a body as they were sent, each in one line.

    Parameters
    ----------
    body
        JSON: an object or an array of objects; or JSON lines.
    limits
        `n_records` is checked.
    is_lines
        Whether it is JSON lines. Blank lines are skipped, and what stands in a line is not looked
        at: that is for `decode`.

    Raises
    ------
    BatchError
        If it is anything else.
    TooLargeError
        If it has more records.
    """
    if is_lines:
        values = [line.strip() for line in body.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
        values = [value for value in values if value]
        if len(values) > limits.n_records:
            raise _too_many(limits)
    else:
        values = _items(body, limits)
    if not values:
        raise BatchError("body: expected at least one event, got none")
    return values


def _items(body: bytes, limits: Limits) -> list[bytes]:
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BatchError(f"body: expected UTF-8 (byte {error.start})") from None
    at = _skip(text, 0)
    if text[at : at + 1] != "[":
        value, at = _item(text, at, "body")
        values = [value]
    else:
        values, at = _array(text, at + 1, limits)
    at = _skip(text, at)
    if at < len(text):
        raise BatchError(f"body: expected its end at character {at}, got {short(text[at:])}")
    return values


def _array(text: str, at: int, limits: Limits) -> tuple[list[bytes], int]:
    values: list[bytes] = []
    at = _skip(text, at)
    if text[at : at + 1] == "]":
        return values, at + 1
    while True:
        if len(values) == limits.n_records:
            raise _too_many(limits)
        value, at = _item(text, at, f"events[{len(values)}]")
        values.append(value)
        at = _skip(text, at)
        mark = text[at : at + 1]
        if mark == "]":
            return values, at + 1
        if mark != ",":
            what = f"body: expected ',' or ']' after events[{len(values) - 1}]"
            raise BatchError(f"{what}, at character {at}, got {short(text[at:])}")
        at = _skip(text, at + 1)


def _item(text: str, at: int, what: str) -> tuple[bytes, int]:
    try:
        value, end = _DECODER.raw_decode(text, at)
    except json.JSONDecodeError as error:
        raise BatchError(
            f"{what}: expected a JSON object, got {short(text[at:])} ({error.msg} at {error.pos})"
        ) from None
    except RecursionError:
        raise BatchError(f"{what}: nested too deeply") from None
    except ValueError as error:  # int() refuses thousands of digits
        raise BatchError(f"{what}: a number is too large ({error})") from None
    if not isinstance(value, dict):
        raise BatchError(f"{what}: expected an object, got {short(value)}")
    # Line ends stand between tokens only: within text they are escaped.
    return text[at:end].encode().translate(_LINE_ENDS), end


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _WHITE:
        at += 1
    return at


def _too_many(limits: Limits) -> TooLargeError:
    return TooLargeError(f"body: expected at most {limits.n_records} events")
