"""Where records come from: the contract, files, and the list that stands for a broker in tests.

A source delivers records in order and remembers nothing for the service: the store holds the
offsets, and `seek` goes back to them. Offsets are Kafka's: what is sought or committed is the
offset of the next record, not of the last one.
"""

from __future__ import annotations

import gzip
import os
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from service.records.record import Record
from service.records.table_row import record_from_row

Partition = tuple[str, int]
"""Topic and partition."""

MAX_RECORD_BYTES = 8 * 1024 * 1024
"""Largest record kept in memory: an image of 5 MB in base64 fits."""
KEPT_BYTES = 256
"""What is kept of a larger one, so that a dead letter can be recognised."""
_CHUNK_BYTES = 1 << 20
_WAIT_S = 0.05
_PARQUET_ROWS = 64
"""Rows decoded at once; few, because a row may carry an image of 5 MB."""


class SourceError(RuntimeError):
    """The source cannot go on; says which one, where and why."""


class NotNowError(SourceError):
    """The owner cannot take lanes over now; the source tries again, if it has a way to wait."""


class Owner(Protocol):
    """Who works on the lanes of a source.

    A lane is one partition number of all topics, such as `features[3]` and `labels[3]`. It is the
    unit that moves between processes: the records of a lane have one order, and their streams one
    state in the store.
    """

    def assigned(self, lanes: Collection[int], total: int) -> Mapping[Partition, int]:
        """Take lanes over.

        Parameters
        ----------
        lanes
            Their numbers.
        total
            How many lanes the source has.

        Returns
        -------
        dict
            The offsets from which their partitions go on, as far as the store has them.

        Raises
        ------
        NotNowError
            If that cannot be done now; then none of them is taken over.
        """
        ...

    def begun(
        self, offsets: Mapping[Partition, int], gone: Mapping[Partition, int] | None = None
    ) -> None:
        """Keep where partitions begin that the store had no usable offset of.

        Parameters
        ----------
        offsets
            Where they begin.
        gone
            The offsets that the store had and that are not there any more.
        """
        ...

    def revoked(self, lanes: Collection[int]) -> None:
        """Write what these lanes have done, and let go of them."""
        ...

    def lost(self, lanes: Collection[int]) -> None:
        """Forget these lanes; others have them already."""
        ...


class Source(Protocol):
    """A place that records come from, in order within each lane."""

    def start(self, owner: Owner) -> None:
        """Say which lanes there are, now and whenever that changes; called once, before `poll`."""
        ...

    def release(self, lane: int) -> None:
        """Deliver nothing more of a lane that its owner has lost, until it is assigned again."""
        ...

    def poll(self, max_records: int = 500, timeout_s: float = 1.0) -> Sequence[Record]:
        """Return the next records; waits up to `timeout_s` seconds for the first one.

        With `max_records` 0 it only keeps up with the other side.
        """
        ...

    def seek(self, offsets: Mapping[Partition, int]) -> None:
        """Go to these offsets; partitions that are not named stay where they are."""
        ...

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Tell others how far the records are processed; the store knows it already."""
        ...

    @property
    def exhausted(self) -> bool:
        """Whether no record will ever come again."""
        ...

    def lag(self) -> int | None:
        """Records that are there and not yet polled, estimated where counting means reading."""
        ...

    def lags(self) -> Mapping[Partition, int]:
        """The same by partition, where they are known."""
        ...

    def close(self) -> None:
        """Release what the source holds; a closed source is not used again."""
        ...


class OneLane(ABC):
    """What sources with a single lane have in common; they belong to one process."""

    def start(self, owner: Owner) -> None:
        """Assign the lane."""
        self.seek(owner.assigned([0], 1))

    def release(self, lane: int) -> None:
        """Stop: there is no other lane to go on with."""
        raise SourceError(f"lane {lane}: another process reads the source into the same store")

    @abstractmethod
    def seek(self, offsets: Mapping[Partition, int]) -> None:
        """Go to these offsets."""

    def lags(self) -> Mapping[Partition, int]:
        """Nothing by partition."""
        return {}


class Aborted(RuntimeError):  # noqa: N818  (named after what happened, as the fault is)
    """What an `Abort` in a `ListSource` raises."""


@dataclass(slots=True)
class Abort:
    """A crash in the list: polling up to here raises `Aborted`, once."""

    fired: bool = False


@dataclass(slots=True)
class Pause:
    """A silence in the list: one poll returns nothing, once."""

    fired: bool = False


class ListSource(OneLane):
    """A list as the broker; faults are items of the list.

    Parameters
    ----------
    items
        Records of any topics and partitions, in the order of arrival, and faults among them. A
        fault fires once, also when another source reads the same list after the crash.
    """

    def __init__(self, items: Iterable[Record | Abort | Pause]) -> None:
        self._items = list(items)
        self._at = 0
        self._next: dict[Partition, int] = {}
        self.committed: dict[Partition, int] = {}
        self._lanes = {i.partition for i in self._items if isinstance(i, Record)} or {0}

    def start(self, owner: Owner) -> None:
        """Assign all lanes; there is no other process."""
        self.seek(owner.assigned(sorted(self._lanes), len(self._lanes)))

    def release(self, lane: int) -> None:
        """Leave the records of the lane out."""
        self._lanes.discard(lane)

    def poll(self, max_records: int = 500, timeout_s: float = 1.0) -> Sequence[Record]:  # noqa: ARG002
        """Return the records up to the next fault."""
        found: list[Record] = []
        while self._at < len(self._items) and len(found) < max_records:
            item = self._items[self._at]
            if isinstance(item, Record):
                self._at += 1
                partition = (item.topic, item.partition)
                if item.offset >= self._next.get(partition, 0) and item.partition in self._lanes:
                    found.append(item)
                    self._next[partition] = item.offset + 1
            elif item.fired:
                self._at += 1
            elif found:
                break
            else:
                item.fired = True
                if isinstance(item, Abort):
                    raise Aborted(f"abort at item {self._at}")
                break
        return found

    def seek(self, offsets: Mapping[Partition, int]) -> None:
        """Go to these offsets, forwards or back."""
        self._next.update(offsets)
        self._at = 0

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Keep the offsets in `committed`."""
        self.committed.update(offsets)

    @property
    def exhausted(self) -> bool:
        """Whether the end of the list is reached."""
        return all(not isinstance(i, Record) and i.fired for i in self._items[self._at :])

    def lag(self) -> int:
        """Records not yet polled."""
        return sum(
            isinstance(i, Record) and i.offset >= self._next.get((i.topic, i.partition), 0)
            for i in self._items[self._at :]
        )

    def close(self) -> None:
        """Nothing is held."""


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


class DirectorySource(OneLane):
    """The files of a directory, one after the other in the order of their names.

    Parameters
    ----------
    path
        Its files are those of `FileSource`; hidden ones and `*.tmp` are left alone. A file must be
        complete when it appears: write it under such a name and rename it.
    follow
        Wait for files to appear. They must sort after those that were read, because the order of
        the records decides the incidents.
    max_record_bytes, sleep
        As for `FileSource`.

    Raises
    ------
    SourceError
        If the directory does not exist; later if a file sorts before one that was read.
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
        if not self.path.is_dir():
            raise SourceError(f"{self.path}: expected a directory, there is none")
        self.follow = follow
        self._max_bytes = max_record_bytes
        self._sleep = sleep
        self._next: dict[str, int] = {}
        self._done: set[str] = set()
        self._file: FileSource | None = None

    def poll(self, max_records: int = 500, timeout_s: float = 1.0) -> Sequence[Record]:
        """Return the next records; a batch never spans two files."""
        found = self._read(max_records)
        waited = 0.0
        while not found and self.follow and waited < timeout_s:
            pause = min(_WAIT_S, timeout_s - waited)
            self._sleep(pause)
            waited += pause
            found = self._read(max_records)
        return found

    def seek(self, offsets: Mapping[Partition, int]) -> None:
        """Go to these offsets; files that are not named stay where they are."""
        self.close()
        self._done.clear()
        self._next.update({topic: start for (topic, _), start in offsets.items()})

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Nobody reads along with a directory."""

    @property
    def exhausted(self) -> bool:
        """Whether every file was read to its end; never while the directory is followed."""
        return not self.follow and not self._waiting()

    def lag(self) -> int | None:
        """Not known: the files would have to be read."""
        return 0 if not self._waiting() else None

    def close(self) -> None:
        """Close the file that is being read."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _waiting(self) -> list[str]:
        names = (p.name for p in self.path.iterdir() if p.is_file())
        return sorted(
            n
            for n in names
            if not n.startswith(".") and not n.endswith(".tmp") and n not in self._done
        )

    def _read(self, max_records: int) -> list[Record]:
        for name in self._waiting():
            if self._file is None or self._file.topic != name:
                self.close()
                self._file = FileSource(self.path / name, max_record_bytes=self._max_bytes)
                self._file.seek({(name, 0): self._next.get(name, 0)})
            found = list(self._file.poll(max_records))
            if self._file.exhausted:
                self._done.add(name)
                self.close()
            if found:
                newest = max((n for n, start in self._next.items() if start > 0), default="")
                if name < newest:
                    raise SourceError(
                        f"{self.path / name}: has records, but {newest} was read before; name new "
                        "files so that they sort last, and leave files that were read alone"
                    )
                self._next[name] = found[-1].offset + 1
                return found
        return []


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
