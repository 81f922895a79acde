"""Records from standard input, a JSON object a line: what a pipe brings, once."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Mapping

from service.records.block import Block
from service.records.record import MAX_RECORD_BYTES
from service.sources.lines import Lines
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

    seeks_back = False

    def __init__(self, fd: int = 0, *, max_record_bytes: int = MAX_RECORD_BYTES) -> None:
        self._fd = fd
        self._lines = Lines(TOPIC, max_record_bytes)
        self._at_end = False

    def poll(self, max_records: int = 500, timeout_s: float = 1.0) -> Block:
        """Return the next lines that are not blank."""
        until = time.monotonic() + timeout_s
        while not self._at_end and not self._lines.has_enough(max_records):
            left = until - time.monotonic()
            if not self._is_ready(0.0 if self._lines else max(left, 0.0)):
                break
            self._read()
            if left <= 0:
                break
        return self._lines.take(max_records)

    def seek(self, offsets: Mapping[Partition, int]) -> None:
        """Count from this offset on; nothing is skipped and nothing comes again."""
        offset = offsets.get((TOPIC, 0))
        if offset is not None:
            self._lines.count_from(offset)

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
            raise self._unreadable(error) from error

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            raise self._unreadable(error) from error
        if data:
            self._lines.add(data)
        else:
            self._at_end = True
            self._lines.end()

    def _unreadable(self, error: Exception) -> SourceError:
        return SourceError(f"standard input: cannot be read at {self._lines.n_read}: {error}")
