"""The files of a directory, one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from service.records.block import Block
from service.records.record import MAX_RECORD_BYTES
from service.sources.files import FileSource
from service.sources.source import OneLane, Partition, SourceError, wait_for_records


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

    def poll(self, max_records: int = 500, timeout_s: float = 1.0) -> Block:
        """Return the next records; a batch never spans two files."""
        longest_s = timeout_s if self.follow else 0.0
        return wait_for_records(lambda: self._read(max_records), longest_s, self._sleep)

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

    def _read(self, max_records: int) -> Block:
        for name in self._waiting() if max_records else ():
            if self._file is None or self._file.topic != name:
                self.close()
                self._file = FileSource(self.path / name, max_record_bytes=self._max_bytes)
                self._file.seek({(name, 0): self._next.get(name, 0)})
            found = self._file.poll(max_records)
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
                self._next[name] = found.offsets[-1] + 1
                return found
        return Block.of([])
