"""A reader of JSON lines, plain or gzipped."""

from __future__ import annotations

import gzip
import io
import os
from pathlib import Path

from service.records.block import Block
from service.sources.lines import Lines
from service.sources.source import SourceError, check_reached

_READ_BYTES = 1 << 18


class TextReader:
    """Reads the lines of a file, each a record.

    Parameters
    ----------
    path
        Gzipped if it ends in `.gz`.
    start
        The first line that is returned.
    max_bytes
        Of a longer line only the beginning is returned.
    follow
        Whether the file grows: then a line without an end is left until it has one.
    """

    def __init__(self, path: Path, start: int, max_bytes: int, *, follow: bool) -> None:
        self._path = path
        self._start = start
        self._follow = follow
        self._lines = Lines(path.name, max_bytes, start)
        self._raw = path.open("rb")
        self._file: io.BufferedReader | gzip.GzipFile = self._raw
        if path.suffix == ".gz":
            self._file = gzip.GzipFile(fileobj=self._raw)
        self._is_read = False

    @property
    def next(self) -> int:
        """The line that is read next."""
        return self._lines.n_read

    @property
    def at_end(self) -> bool:
        """Whether every line was returned."""
        return self._is_read and not self._lines

    def read(self, max_records: int) -> Block:
        """Return the next complete lines that are not blank."""
        while not self._is_read and not self._lines.has_enough(max_records):
            data = self._file.read1(_READ_BYTES)
            if not data:
                self._meet_end()
                break
            self._lines.add(data)
        return self._lines.take(max_records)

    def left(self) -> int | None:
        """Estimate the lines left from the bytes of those read."""
        waiting = len(self._lines)
        if self._is_read:
            return waiting
        done = self._raw.tell()
        unread = os.fstat(self._raw.fileno()).st_size - done
        return waiting + unread * self._lines.n_read // done if done else None

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._raw.close()

    def _meet_end(self) -> None:
        if self._follow:
            # What has no end yet is read again once it has.
            begin = self._file.tell() - self._lines.forget_unfinished()
            self._file.seek(begin)
            self._check_same(begin)
        else:
            self._lines.end()
            self._is_read = True
            self.close()
        check_reached(self._path, self._lines.n_read, self._start)

    def _check_same(self, begin: int) -> None:
        opened = os.fstat(self._raw.fileno())
        try:
            there = self._path.stat()
        except FileNotFoundError:
            raise SourceError(f"{self._path}: was removed while it was followed") from None
        if (opened.st_dev, opened.st_ino) != (there.st_dev, there.st_ino):
            raise SourceError(f"{self._path}: was replaced while it was followed")
        if there.st_size < begin:
            raise SourceError(
                f"{self._path}: was truncated to {there.st_size} bytes after {begin} were read"
            )
