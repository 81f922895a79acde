"""Bytes as lines, of which each is a record."""

from __future__ import annotations

from collections.abc import Sequence

from service.records.block import Block, Run
from service.records.record import KEPT_BYTES
from service.sources.queue import BlockQueue
from service.sources.source import MAX_POLL_BYTES

_MARK = b"\xef\xbb\xbf"


class Lines:
    r"""Cuts what was read into lines, however it comes in pieces; they wait until they are taken.

    The offset of a record is the number of its line. Lines that are blank are counted and are no
    records. They end with `\n` or `\r\n`; the first one may begin with a byte order mark, which is
    no part of it.

    Parameters
    ----------
    topic
        Of the records; their partition is 0.
    max_bytes
        Of a longer line only the beginning is kept, and its size without its end.
    start
        Lines before this one are counted and left out.
    """

    def __init__(self, topic: str, max_bytes: int, start: int = 0) -> None:
        self.n_read = 0
        """Lines that have ended, blank ones too."""
        self._topic = topic
        self._max_bytes = max_bytes
        self._start = start
        self._waiting = BlockQueue()
        self._waiting_bytes = 0
        self._next = start
        self._shift = 0
        self._parts: list[bytes] = []
        self._unfinished = 0
        self._ends_in_return = False

    def __len__(self) -> int:
        """How many records wait."""
        return len(self._waiting)

    def has_enough(self, max_records: int) -> bool:
        """Whether it is time to take so many records; fewer where they are large."""
        n = len(self._waiting)
        return n >= max_records or (n > 0 and self._waiting_bytes >= MAX_POLL_BYTES)

    def add(self, data: bytes) -> None:
        """Read on."""
        self._waiting_bytes += len(data)
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines:
            self._grow(lines[0])
            lines[0], size = self._ended()
            dropped = self._cut(lines) if len(data) > self._max_bytes else {}
            if size > self._max_bytes:
                dropped[0] = size
            if b"\r" in data:
                lines = [line.rstrip(b"\r") for line in lines]
            self._put(lines, dropped)
        self._grow(rest)

    def end(self) -> None:
        """Nothing more comes: what has no end is a line too."""
        if self._unfinished:
            line, size = self._ended()
            self._put([line], {0: size} if size > self._max_bytes else {})

    def forget_unfinished(self) -> int:
        """Forget the line that has no end yet, and return how many bytes of it were read."""
        size, self._unfinished = self._unfinished, 0
        self._ends_in_return = False
        self._parts.clear()
        return size

    def take(self, max_records: int) -> Block:
        """Return the next records, and forget them."""
        block = self._waiting.take(max_records)
        self._waiting_bytes = 0  # but for the rest of what was added last
        if block:
            self._next = block.offsets[-1] + 1
            if self._shift:
                offsets = _shifted(block.offsets, self._shift)
                block = Block(block.runs, offsets, block.values, dropped=block.dropped)
        return block

    def count_from(self, offset: int) -> None:
        """Give the line behind the last record that was taken this offset."""
        self._shift = offset - self._next

    def _grow(self, part: bytes) -> None:
        """Read on in the unfinished line; of one that is too long only the beginning is kept."""
        most = max(self._max_bytes, KEPT_BYTES) + len(_MARK) + len(b"\r")
        if part:
            self._ends_in_return = part.endswith(b"\r")
            if self._unfinished <= most:
                self._parts.append(part)
                if self._unfinished + len(part) > most:
                    self._parts = [b"".join(self._parts)[: KEPT_BYTES + len(_MARK)]]
            self._unfinished += len(part)

    def _ended(self) -> tuple[bytes, int]:
        """The unfinished line as it has ended, or its beginning; and its size without its end."""
        size = self._unfinished - self._ends_in_return
        line = b"".join(self._parts)
        self.forget_unfinished()
        if self.n_read == 0 and line.startswith(_MARK):
            line, size = line[len(_MARK) :], size - len(_MARK)
        if size > self._max_bytes:
            line = line[:KEPT_BYTES]
        return line.rstrip(b"\r"), size

    def _cut(self, lines: list[bytes]) -> dict[int, int]:
        """Leave of the lines that are too long their beginning; their sizes by their position."""
        sizes = {n: len(line) - line.endswith(b"\r") for n, line in enumerate(lines)}
        found = {n: size for n, size in sizes.items() if size > self._max_bytes}
        for n in found:
            lines[n] = lines[n][:KEPT_BYTES]
        return found

    def _put(self, lines: list[bytes], dropped: dict[int, int]) -> None:
        first = self.n_read
        self.n_read += len(lines)
        left_out = min(max(self._start - first, 0), len(lines))
        offsets: Sequence[int] = range(first, self.n_read)
        if left_out or not all(map(bytes.strip, lines)):
            kept = [n for n in range(left_out, len(lines)) if lines[n].strip() or n in dropped]
            lines = [lines[n] for n in kept]
            offsets = [first + n for n in kept]
            dropped = {to: dropped[n] for to, n in enumerate(kept) if n in dropped}
        runs = [Run(self._topic, 0, len(lines))]
        self._waiting.put(Block(runs, offsets, lines, dropped=dropped))


def _shifted(offsets: Sequence[int], by: int) -> Sequence[int]:
    if isinstance(offsets, range):
        return range(offsets.start + by, offsets.stop + by)
    return [offset + by for offset in offsets]
