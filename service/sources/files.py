"""One file of records: JSON lines, also gzipped, or Parquet."""

from __future__ import annotations

import gzip
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from service.records.record import KEPT_BYTES, MAX_RECORD_BYTES, Record
from service.records.table_row import record_from_row
from service.sources.source import _WAIT_S, OneLane, Partition, SourceError

_CHUNK_BYTES = 1 << 20
_PARQUET_ROWS = 64
"""Rows decoded at once; few, because a row may carry an image of 5 MB."""


class FileSource(OneLane):
    """One file of records: JSON lines, also gzipped, or Parquet.

    The topic is the file's name, the partition 0, and the offset the number of the line or row,
    from 0. Blank lines are counted and skipped, so an offset always finds its line in an editor.

    Parameters
    ----------
    path
        `*.parquet`, `*.gz`, or anything else as JSON lines.
    follow
        Wait for more at the end, as long as the service runs; the file may appear later. Only for
        plain JSON lines. An unfinished last line is left until its end is written.
    max_record_bytes
        A longer line is delivered as a record that `decode` refuses as `too_large`.
    sleep
        Waits the given seconds; replaced in tests.

    Raises
    ------
    SourceError
        If the file does not exist, or cannot be followed; later if it cannot be read, became
        shorter, was replaced, or ends before an offset that the store has.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        follow: bool = False,
        max_record_bytes: int = MAX_RECORD_BYTES,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.path = Path(path)
        if follow and self.path.suffix in {".gz", ".parquet"}:
            raise SourceError(f"{self.path}: cannot be followed, only plain JSON lines grow")
        if not follow and not self.path.is_file():
            raise SourceError(f"{self.path}: expected a file, there is none")
        self.topic = self.path.name
        self.follow = follow
        self._max_bytes = max_record_bytes
        self._sleep = sleep
        self._start = 0
        self._reader: _Lines | _Rows | None = None

    def poll(self, max_records: int = 500, timeout_s: float = 1.0) -> Sequence[Record]:
        """Return the next records of the file."""
        found = self._read(max_records)
        waited = 0.0
        while not found and self.follow and waited < timeout_s:
            pause = min(_WAIT_S, timeout_s - waited)
            self._sleep(pause)
            waited += pause
            found = self._read(max_records)
        return found

    def seek(self, offsets: Mapping[Partition, int]) -> None:
        """Go to the offset of this file; other topics and partitions are not its business."""
        start = offsets.get((self.topic, 0))
        if start is not None:
            self.close()
            self._start = start

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Nobody reads along with a file."""

    @property
    def exhausted(self) -> bool:
        """Whether the file was read to its end; never while it is followed."""
        return not self.follow and self._reader is not None and self._reader.at_end

    def lag(self) -> int | None:
        """Rows left; for lines an estimate from the length of those read so far."""
        return self._reader.left() if self._reader is not None else None

    def close(self) -> None:
        """Close the file."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _read(self, max_records: int) -> list[Record]:
        try:
            if self._reader is None:
                if self.follow and not self.path.exists():
                    return []
                self._reader = self._open()
            return self._reader.read(max_records)
        except SourceError:
            self._release()
            raise
        except (OSError, EOFError, zlib.error, ValueError) as error:
            where = self._reader.next if self._reader is not None else self._start
            self._release()
            raise SourceError(f"{self.path}: cannot be read at {where}: {error}") from error

    def _release(self) -> None:
        # The reader stays: without it the next poll would begin at the start again.
        if self._reader is not None:
            self._reader.close()

    def _open(self) -> _Lines | _Rows:
        if self.path.suffix == ".parquet":
            return _Rows(self.path, self._start, self._max_bytes)
        return _Lines(self.path, self._start, self._max_bytes, follow=self.follow)


@dataclass(slots=True)
class _Lines:
    """A reader of JSON lines, plain or gzipped."""

    path: Path
    start: int
    max_bytes: int
    follow: bool
    next: int = 0
    at_end: bool = False
    _raw: IO[bytes] = field(init=False)
    _file: IO[bytes] | gzip.GzipFile = field(init=False)

    def __post_init__(self) -> None:
        self._raw = self.path.open("rb")
        zipped = self.path.suffix == ".gz"
        self._file = gzip.GzipFile(fileobj=self._raw) if zipped else self._raw

    def read(self, max_records: int) -> list[Record]:
        """Return the next complete lines that are not blank."""
        found: list[Record] = []
        while len(found) < max_records and not self.at_end:
            begin = self._file.tell() if self.follow else 0
            line, size, complete = self._line()
            if not size or (self.follow and not complete):
                self._meet_end(begin)
                break
            self.next += 1
            if self.next <= self.start:
                continue
            if self.next == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            value = line.rstrip(b"\r\n")
            if value.strip() or size > len(line):
                n_bytes = size if size > len(line) else len(value)
                found.append(_record(self.path.name, self.next - 1, value, n_bytes, self.max_bytes))
        return found

    def left(self) -> int | None:
        """Estimate the lines left from the bytes of those read."""
        if self.at_end:
            return 0
        done = self._raw.tell()
        return (os.fstat(self._raw.fileno()).st_size - done) * self.next // done if done else None

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._raw.close()

    def _line(self) -> tuple[bytes, int, bool]:
        """Return a line, its size and whether it has an end; only the start of one too long."""
        limit = self.max_bytes + 2  # an end is \n or \r\n
        line = self._file.readline(limit)
        size = len(line)
        if size < limit or line.endswith(b"\n"):
            return line, size, line.endswith(b"\n")
        while rest := self._file.readline(_CHUNK_BYTES):
            size += len(rest)
            if rest.endswith(b"\n"):
                return line[:KEPT_BYTES], size, True
        return line[:KEPT_BYTES], size, False

    def _meet_end(self, begin: int) -> None:
        if self.follow:
            self._file.seek(begin)
            self._check_same(begin)
        else:
            self.at_end = True
            self.close()
        _check_reached(self.path, self.next, self.start)

    def _check_same(self, begin: int) -> None:
        opened = os.fstat(self._raw.fileno())
        try:
            there = self.path.stat()
        except FileNotFoundError:
            raise SourceError(f"{self.path}: was removed while it was followed") from None
        if (opened.st_dev, opened.st_ino) != (there.st_dev, there.st_ino):
            raise SourceError(f"{self.path}: was replaced while it was followed")
        if there.st_size < begin:
            raise SourceError(
                f"{self.path}: was truncated to {there.st_size} bytes after {begin} were read"
            )


@dataclass(slots=True)
class _Rows:
    """A reader of Parquet rows."""

    path: Path
    start: int
    max_bytes: int
    next: int = 0
    at_end: bool = False
    _file: Any = field(init=False)
    _rows: Iterator[Mapping[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        from pyarrow.parquet import ParquetFile  # noqa: PLC0415  (50 MB that most sources do without)

        self._file = ParquetFile(self.path)
        _check_reached(self.path, self._file.metadata.num_rows, self.start)
        self._rows = self._from_start()

    def read(self, max_records: int) -> list[Record]:
        """Return the records of the next rows."""
        found: list[Record] = []
        for row in self._rows:
            record = record_from_row(row, self.path.name, 0, self.next)
            value = record.value
            found.append(_record(record.topic, self.next, value, len(value), self.max_bytes))
            self.next += 1
            if len(found) == max_records:
                return found
        self.at_end = True
        return found

    def left(self) -> int:
        """Rows after this one."""
        return int(self._file.metadata.num_rows) - self.next

    def close(self) -> None:
        """Close the file."""
        self._rows = iter(())
        self._file.close()

    def _from_start(self) -> Iterator[Mapping[str, Any]]:
        sizes = [
            self._file.metadata.row_group(g).num_rows for g in range(self._file.num_row_groups)
        ]
        first = 0
        while first < len(sizes) and self.next + sizes[first] <= self.start:
            self.next += sizes[first]
            first += 1
        skip = self.start - self.next
        self.next = self.start
        groups = list(range(first, len(sizes)))
        for batch in self._file.iter_batches(_PARQUET_ROWS, row_groups=groups, use_threads=False):
            rows = batch.to_pylist()
            yield from rows[skip:]
            skip = max(skip - len(rows), 0)


def _record(topic: str, offset: int, value: bytes, n_bytes: int, max_bytes: int) -> Record:
    if n_bytes > max_bytes:
        return Record(topic, 0, offset, None, value[:KEPT_BYTES], n_bytes)
    return Record(topic, 0, offset, None, value)


def _check_reached(path: Path, n: int, start: int) -> None:
    if n < start:
        raise SourceError(
            f"{path}: ends after {n} lines or rows, but the next one to read is {start}; "
            "is it another file of the same name?"
        )
