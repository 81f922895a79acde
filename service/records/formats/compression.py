"""Values that are compressed by themselves; what Kafka compresses, its client unpacks."""

from __future__ import annotations

import zlib

from service.records.record import MAX_RECORD_BYTES, DecodeError
from service.records.shown import short

MAGIC = b"\x1f\x8b"
_GZIP = 16 + zlib.MAX_WBITS


def unpacked(value: bytes, encoding: bytes | None) -> bytes:
    """Return the value without its compression.

    Parameters
    ----------
    value
        As it arrived. One that begins as gzip does is unpacked also where no header says so.
    encoding
        The header `content-encoding`, or None.

    Raises
    ------
    DecodeError
        `unknown_format` for another compression, `bad_gzip` for damaged data, `too_large` if it
        unpacks to more than a record may have; then no more than that is unpacked.
    """
    named = (encoding or b"").strip().lower()
    if named not in {b"", b"identity", b"gzip", b"x-gzip"}:
        raise DecodeError("unknown_format", f"content-encoding: expected gzip, got {short(named)}")
    if named.endswith(b"gzip") or value.startswith(MAGIC):
        return gunzip(value, MAX_RECORD_BYTES)
    return value


def gunzip(value: bytes, most: int) -> bytes:
    """Unpack gzip, of one member or several.

    Raises
    ------
    DecodeError
        `bad_gzip`, or `too_large` if there is more than `most` bytes in it.
    """
    found = bytearray()
    left = value
    while left:
        member = zlib.decompressobj(_GZIP)
        try:
            # One byte more tells that there is more.
            found += member.decompress(left, most + 1 - len(found))
        except zlib.error as error:
            raise DecodeError("bad_gzip", f"expected gzip, got {short(value)} ({error})") from None
        if len(found) > most:
            raise DecodeError("too_large", f"gzip: expected at most {most} bytes, got more")
        if not member.eof:
            raise DecodeError("bad_gzip", f"gzip: ends too early, after {len(found)} bytes")
        left = member.unused_data
    return bytes(found)
