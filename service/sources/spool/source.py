"""The spool as a source: what was taken over HTTP, in order, from the store's offset on."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import accumulate

import structlog

from service.records.block import Block
from service.sources.source import MAX_POLL_BYTES, OneLane, Partition, SourceError
from service.sources.spool.file import DamageError, Entry, EntryReader
from service.sources.spool.spool import Segment, Spool

log = structlog.get_logger(__name__)

TOPIC = "http"


class SpoolSource(OneLane):
    """Records of a spool; topic `http`, partition 0, the offset is the number of the record.

    Parameters
    ----------
    spool
        Where they are; it belongs to this source from now on and is closed with it.

    Raises
    ------
    SourceError
        Later, if a file cannot be read or is damaged, or ends before an offset that the store has.
    """

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self._reader: EntryReader | None = None
        self._segment = spool.segments[0]
        self._at = self._segment.first
        self._lines: Sequence[bytes] = ()
        self._used = 0
        self._left_bytes = 0
        self._polled: deque[tuple[int, int]] = deque()

    def poll(self, max_records: int = 500, timeout_s: float = 1.0) -> Block:
        """Return the next records that are synced to disk."""
        with self.spool.grown:
            self.spool.grown.wait_for(self._has_more, timeout_s)
        first = self._at
        values: list[bytes] = []
        n_bytes = 0
        while len(values) < max_records and n_bytes < MAX_POLL_BYTES:
            if self._used == len(self._lines) and not self._load():
                break
            taken = self._take(max_records - len(values), MAX_POLL_BYTES - n_bytes)
            values += taken
            n_bytes += sum(map(len, taken))
        if values:
            self._polled.append((self._at, self._position()))
        return Block.of_partition(TOPIC, 0, range(first, self._at), values)

    def seek(self, offsets: Mapping[Partition, int]) -> None:
        """Go to the offset; where its record is not there any more, to the oldest one."""
        offset = offsets.get((TOPIC, 0))
        if offset is None:
            return
        if offset > self.spool.end:
            log.warning("spool is empty", path=str(self.spool.path), next_offset=offset)
            self.spool.start_at(offset)
        oldest = self.spool.segments[0].first
        if offset < oldest:
            log.warning(
                "offset out of range", path=str(self.spool.path), offset=offset, goes_on_at=oldest
            )
        self._go_to(max(offset, oldest))

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Delete the files whose records are all processed."""
        offset = offsets.get((TOPIC, 0))
        if offset is None:
            return
        at = None
        while self._polled and self._polled[0][0] <= offset:
            at = self._polled.popleft()
        if at is not None:
            self.spool.done(*at)
        self.spool.drop_before(offset)

    @property
    def exhausted(self) -> bool:
        """Never: another request may come."""
        return False

    def lag(self) -> int:
        """Records that are synced and not yet polled."""
        return self.spool.end - self._at

    def close(self) -> None:
        """Close the spool; requests are refused from now on."""
        self._close_reader()
        self.spool.close()

    def _has_more(self) -> bool:
        return self._at < self.spool.end or self.spool.is_closed

    def _position(self) -> int:
        """Bytes of the spool before the next record."""
        read = self._reader.at if self._reader is not None else 0
        return self._segment.base + read - self._left_bytes

    def _go_to(self, offset: int) -> None:
        self._close_reader()
        self._lines, self._used, self._left_bytes = (), 0, 0
        self._polled.clear()
        self._segment = next(s for s in reversed(self.spool.segments) if s.first <= offset)
        self._at = self._segment.first
        while self._at < offset:
            entry = self._next_entry(skip=True)
            if entry is None:
                raise SourceError(f"{self._segment.path}: has no record {offset}")
            if entry.first + entry.n > offset:
                assert self._reader is not None
                self._reader.at = entry.start
                self._load()
                self._take(offset - entry.first)
            else:
                self._at = entry.first + entry.n
        self.spool.done(self._at, self._position(), is_progress=False)

    def _take(self, max_records: int, max_bytes: float = math.inf) -> Sequence[bytes]:
        """The next records of the entry, up to the one with which they have so many bytes."""
        taken = self._lines[self._used : self._used + max_records]
        ends = list(accumulate(map(len, taken), initial=0))
        n = min(bisect_left(ends, max_bytes), len(taken))
        self._used += n
        self._at += n
        self._left_bytes -= ends[n] + n
        return taken[:n]

    def _load(self) -> bool:
        """Read the records of the next entry; False if there is none yet."""
        entry = self._next_entry()
        if entry is None:
            return False
        self._lines, self._used = entry.lines, 0
        self._left_bytes = sum(map(len, entry.lines)) + len(entry.lines)
        return True

    def _next_entry(self, *, skip: bool = False) -> Entry | None:
        """The next entry that has records, of this file or the one after it."""
        try:
            while True:
                if self._reader is None:
                    self._reader = EntryReader(self._segment.path)
                # Asked first: once another file follows, this one's size is final.
                following = self._following()
                entry = self._reader.next(self._segment.size, skip=skip)
                if entry is None:
                    if following is None:
                        return None
                    self._close_reader()
                    self._segment = following
                elif entry.n:
                    self._check(entry)
                    return entry
        except OSError as error:
            raise SourceError(f"{self._segment.path}: cannot be read: {error}") from error

    def _following(self) -> Segment | None:
        for segment in self.spool.segments:
            if segment.base > self._segment.base:
                return segment
        return None

    def _check(self, entry: Entry) -> None:
        if entry.first != self._at:
            why = f"begins with record {entry.first}, expected {self._at}"
            raise DamageError(self._segment.path, entry.start, why)

    def _close_reader(self) -> None:
        if self._reader is not None:
            with closing(self._reader):
                self._reader = None
