"""One file of records: JSON lines, also gzipped, or Parquet."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

from service.records.block import Block
from service.records.record import MAX_RECORD_BYTES
from service.sources.source import OneLane, Partition, SourceError, wait_for_records
from service.sources.table_file import TableReader
from service.sources.text_file import TextReader


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
        self._reader: TextReader | TableReader | None = None

    def poll(self, max_records: int = 500, timeout_s: float = 1.0) -> Block:
        """Return the next records of the file."""
        longest_s = timeout_s if self.follow else 0.0
        return wait_for_records(lambda: self._read(max_records), longest_s, self._sleep)

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

    def _read(self, max_records: int) -> Block:
        try:
            if self._reader is None:
                if self.follow and not self.path.exists():
                    return Block.of([])
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

    def _open(self) -> TextReader | TableReader:
        if self.path.suffix == ".parquet":
            return TableReader(self.path, self._start, self._max_bytes)
        return TextReader(self.path, self._start, self._max_bytes, follow=self.follow)
