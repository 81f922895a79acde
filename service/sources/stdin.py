"""Records from standard input, a JSON object a line: what a pipe brings, once."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Mapping, Sequence

from service.records.record import KEPT_BYTES, MAX_RECORD_BYTES, Record
from service.sources.source import OneLane, Partition, SourceError

TOPIC = "stdin"
_READ_BYTES = 1 << 16


class StdinSource(OneLane):
    """Lines of a pipe, a terminal or a redirected file; topic `stdin`, partition 0.

    What was read cannot be read again. Offsets go on from the store's, so those of a new process
    follow those of the one before; records that it had read and not yet written are lost.

    Parameters
    ----------
    fd
        What is read; not closed.
    max_record_bytes
        A longer line is delivered as a record that `decode` refuses as `too_large`.

    Raises
    ------
    SourceError
        Later, if it cannot be read.
    """

    def __init__(self, fd: int = 0, *, max_record_bytes: int = MAX_RECORD_BYTES) -> None:
        self._fd = fd
        self._max_bytes = max_record_bytes
        self._next = 0
        self._is_first = True
        self._at_end = False
        self._lines: list[tuple[bytes, int]] = []
        """Whole lines that are not polled yet, without their ends, and their sizes."""
        self._rest = bytearray()
        self._rest_size = 0

    def poll(self, max_records: int = 500, timeout_s: float = 1.0) -> Sequence[Record]:
        """Return the next lines that are not blank."""
        until = time.monotonic() + timeout_s
        while len(self._lines) < max_records and not self._at_end:
            left = until - time.monotonic()
            if not self._is_ready(0.0 if self._lines else max(left, 0.0)):
                break
            self._read()
            if left <= 0:
                break
        return self._take(max_records)

    def seek(self, offsets: Mapping[Partition, int]) -> None:
        """Count from this offset on; nothing is skipped and nothing comes again."""
        self._next = offsets.get((TOPIC, 0), self._next)

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Nobody reads along."""

    @property
    def exhausted(self) -> bool:
        """Whether the input has ended and every line was polled."""
        return self._at_end and not self._lines

    def lag(self) -> int | None:
        """Not known before the end: what the other side of a pipe holds cannot be seen."""
        return len(self._lines) if self._at_end else None

    def close(self) -> None:
        """Standard input is the process's."""

    def _is_ready(self, timeout_s: float) -> bool:
        try:
            return bool(select.select([self._fd], [], [], timeout_s)[0])
        except (OSError, ValueError) as error:
            raise SourceError(f"standard input: cannot be read at {self._next}: {error}") from error

    def _read(self) -> None:
        try:
            block = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            raise SourceError(f"standard input: cannot be read at {self._next}: {error}") from error
        if not block:
            self._at_end = True
            if self._rest_size:
                self._end_line()
            return
        *whole, rest = block.split(b"\n")
        for part in whole:
            self._grow(part)
            self._end_line()
        self._grow(rest)

    def _grow(self, part: bytes) -> None:
        # One more than a record may have: the end can be \r\n.
        room = self._max_bytes + 1 - len(self._rest)
        self._rest += part[: max(room, 0)]
        self._rest_size += len(part)

    def _end_line(self) -> None:
        value = bytes(self._rest)
        if self._is_first:
            value = value.removeprefix(b"\xef\xbb\xbf")
            self._is_first = False
        is_whole = self._rest_size == len(self._rest)
        value = value.rstrip(b"\r")
        size = len(value) if is_whole else self._rest_size
        self._lines.append((value if size <= self._max_bytes else value[:KEPT_BYTES], size))
        self._rest.clear()
        self._rest_size = 0

    def _take(self, max_records: int) -> list[Record]:
        taken, self._lines = self._lines[:max_records], self._lines[max_records:]
        found: list[Record] = []
        for value, size in taken:
            dropped = size if size > self._max_bytes else 0
            if value.strip() or dropped:
                found.append(Record(TOPIC, 0, self._next, None, value, dropped))
            self._next += 1
        return found
