"""The files of a spool: entries that say themselves where they end and whether they are whole.

An entry is what one request brought: a header in a line of its own, then its records, a line each.

    2f1a90c4 {"at":17,"n":2,"bytes":96,"crc":1839482274,"key":"k-1","digest":"9f86..."}
    {"stream":"s","id":"e-17",...}
    {"stream":"s","id":"e-18",...}

The first eight characters are the CRC-32 of the header, which has the one of the records. The
first entry of a file has no records but the idempotency keys that are remembered, so that older
files can go. A file is named by the offset of its first record.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.sources.source import SourceError

VERSION = 1
SUFFIX = ".spool"
MAX_HEADER_BYTES = 2048
"""A key has at most 255 characters, of which each may be escaped."""
_BLOCK_BYTES = 1 << 18
_CRC_CHARS = 8
_NAME = re.compile(r"\d{20}" + re.escape(SUFFIX))


@dataclass(frozen=True, slots=True)
class Key:
    """What became of the request that had an idempotency key.

    Attributes
    ----------
    first, n
        Offset of its first record, and how many there were.
    digest
        Of its records.
    """

    first: int
    n: int
    digest: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as it stands in a file.

    Attributes
    ----------
    first, n
        Offset of its first record, and how many there are.
    start, end
        Its bytes in the file.
    lines
        Its records; empty where they were skipped.
    key, digest
        Idempotency key of the request, if it had one, and the digest of its records.
    keys
        What the first entry of a file remembers, oldest first.
    """

    first: int
    n: int
    start: int
    end: int
    lines: tuple[bytes, ...]
    key: str
    digest: str
    keys: tuple[tuple[str, Key], ...]


class DamageError(SourceError):
    """A file of the spool is not what was written; says which one, where and why.

    Attributes
    ----------
    at
        Byte at which the damaged entry begins.
    is_torn
        Whether it is the last thing in the file and ends too early: a write that was cut off by a
        crash, and that nobody was told was done.
    """

    def __init__(self, path: Path, at: int, why: str, *, is_torn: bool = False) -> None:
        super().__init__(f"{path}: damaged at byte {at}: {why}")
        self.at = at
        self.is_torn = is_torn


def name_of(first: int) -> str:
    """Name of the file whose first record has this offset."""
    return f"{first:020d}{SUFFIX}"


def files_of(folder: Path) -> list[tuple[int, Path]]:
    """First offsets and files of a spool, oldest first; what has another name is not its own."""
    found = sorted(p for p in folder.iterdir() if _NAME.fullmatch(p.name))
    return [(int(p.name.removesuffix(SUFFIX)), p) for p in found]


def entry_bytes(first: int, values: Sequence[bytes], key: str = "", digest: str = "") -> bytes:
    """Return an entry of records, which must not contain line ends."""
    named = {"key": key, "digest": digest} if key else {}
    return _bytes({"at": first, "n": len(values)}, values, named)


def opening_bytes(first: int, keys: Iterable[tuple[str, Key]]) -> bytes:
    """Return the first entry of a file, which remembers these keys."""
    lines = [json.dumps([name, k.first, k.n, k.digest]).encode() for name, k in keys]
    return _bytes({"spool": VERSION, "at": first, "n": 0}, lines, {})


def _bytes(head: Mapping[str, Any], lines: Sequence[bytes], tail: Mapping[str, Any]) -> bytes:
    payload = b"".join([line + b"\n" for line in lines])
    size = {"bytes": len(payload), "crc": zlib.crc32(payload)}
    header = json.dumps({**head, **size, **tail}, separators=(",", ":")).encode()
    return b"%08x %s\n%s" % (zlib.crc32(header), header, payload)


class EntryReader:
    """Reads the entries of one file, up to a byte that the caller knows to be written.

    Parameters
    ----------
    path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.at = 0
        self._fd = os.open(path, os.O_RDONLY)
        self._block = b""
        self._block_at = 0

    def next(self, end: int, *, skip: bool = False) -> Entry | None:
        """Return the next entry, or None at `end`.

        Parameters
        ----------
        end
            First byte that is not to be read.
        skip
            Do not read the records. Those of the first entry are always read.

        Raises
        ------
        DamageError
            If it is not whole.
        """
        if self.at >= end:
            return None
        line = self._line(end)
        header = self._header(line)
        start = self.at + len(line)
        stop = start + header["bytes"]
        if stop > end:
            why = f"expected {header['bytes']} bytes of records, the file ends {stop - end} earlier"
            raise DamageError(self.path, self.at, why, is_torn=True)
        is_opening = "spool" in header
        lines: list[bytes] = []
        if not skip or is_opening:
            payload = self._read(start, header["bytes"], end)
            if zlib.crc32(payload) != header["crc"]:
                why = "the records are not those that were written (checksum)"
                raise DamageError(self.path, self.at, why, is_torn=stop == end)
            lines = payload.split(b"\n")[:-1]
        entry = Entry(
            header["at"],
            header["n"],
            self.at,
            stop,
            () if is_opening else tuple(lines),
            header.get("key", ""),
            header.get("digest", ""),
            tuple((k, Key(*rest)) for k, *rest in map(json.loads, lines)) if is_opening else (),
        )
        self.at = stop
        return entry

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _line(self, end: int) -> bytes:
        head = self._read(self.at, min(MAX_HEADER_BYTES, end - self.at), end)
        length = head.find(b"\n") + 1
        if length:
            return head[:length]
        # A file system may have made room for what it then did not write.
        is_torn = self.at + len(head) == end or not any(self._read(self.at, end - self.at, end))
        raise DamageError(self.path, self.at, "expected a header in a line", is_torn=is_torn)

    def _header(self, line: bytes) -> dict[str, Any]:
        header = line[_CRC_CHARS + 1 : -1]
        if line != b"%08x %s\n" % (zlib.crc32(header), header):
            raise DamageError(self.path, self.at, "the header is not the one that was written")
        found: dict[str, Any] = json.loads(header)
        if self.at == 0 and found.get("spool") != VERSION:
            why = f"expected a spool of version {VERSION}, got {found.get('spool')}"
            raise DamageError(self.path, self.at, why)
        return found

    def _read(self, at: int, size: int, end: int) -> bytes:
        inside = at - self._block_at
        if inside < 0 or inside + size > len(self._block):
            # Never beyond `end`: what stands there may still change.
            wanted = min(max(size, _BLOCK_BYTES), end - at)
            self._block = os.pread(self._fd, wanted, at)
            while len(self._block) < size and (
                more := os.pread(self._fd, wanted - len(self._block), at + len(self._block))
            ):
                self._block += more
            self._block_at, inside = at, 0
        return self._block[inside : inside + size]
