"""Events that were taken over HTTP, on disk until they are processed.

What `append` has said to be written is synced to disk, and is delivered to the pipeline by
`service.sources.spool.source` as a broker would: with offsets that go on over restarts, from the
store's offset on. Requests that come together share one sync.

Files are only appended to. One that is full is followed by another one, and goes when all of its
records are processed. A write that a crash cut off is cut away at the next start.
"""

from __future__ import annotations

import fcntl
import hashlib
import math
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog

from service.sources.source import SourceError
from service.sources.spool.file import (
    DamageError,
    EntryReader,
    Key,
    entry_bytes,
    files_of,
    name_of,
    opening_bytes,
)

log = structlog.get_logger(__name__)

MAX_RETRY_S = 120
_IDLE_SHARE = 8
"""A file of which all is processed goes when it has an eighth of its full size."""
_RATE_OVER_S = 10.0
"""About how many seconds the measured rate looks back: some checkpoints of the default kind."""


@dataclass(frozen=True, slots=True)
class Appended:
    """Records that are on disk: the offset of the first one, and how many they are.

    `is_repeat` says that an earlier request with the same key wrote them.
    """

    first: int
    n: int
    is_repeat: bool = False


@dataclass(frozen=True, slots=True)
class NotNow:
    """Why nothing was written, and after how many seconds it is worth to try again."""

    cause: Literal["backlog", "disk", "closed"]
    detail: str
    after_s: int


class KeyReusedError(ValueError):
    """An idempotency key came with other records than the first time."""


class Drain:
    """How fast a backlog is worked off; a stretch in which nothing was counts as such.

    Parameters
    ----------
    clock
        Seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._rate: float | None = None
        self._since: float | None = None

    def begin(self) -> None:
        """There is something to work off."""
        if self._since is None:
            self._since = self._clock()

    def done(self, n_bytes: int, *, is_empty: bool) -> None:
        """So many bytes were worked off; `is_empty` if none is left."""
        if self._since is None:
            return
        now = self._clock()
        took = max(now - self._since, 1e-3)
        weight = 1.0 if self._rate is None else -math.expm1(-took / _RATE_OVER_S)
        before = self._rate or 0.0
        self._rate = before + weight * (n_bytes / took - before)
        self._since = None if is_empty else now

    def seconds(self, n_bytes: int) -> int:
        """About how long so many bytes take: 1 to 120 seconds, 5 where nothing is measured yet."""
        if self._rate is None:
            return 5
        idle = 0.0 if self._since is None else self._clock() - self._since
        rate = self._rate * math.exp(-idle / _RATE_OVER_S)
        return math.ceil(min(max(n_bytes / max(rate, 1e-9), 1.0), MAX_RETRY_S))


@dataclass(slots=True)
class Segment:
    """One file of the spool.

    Attributes
    ----------
    first
        Offset of its first record.
    base
        Bytes of all files before it.
    size
        Its bytes that are synced.
    """

    path: Path
    first: int
    base: int
    size: int


@dataclass(slots=True)
class _Waiter:
    """A request that waits for the sync of what it wrote."""

    is_done: bool = False
    error: OSError | None = None


class Spool:
    """Appends records to a folder; any number of threads may do so at once.

    Parameters
    ----------
    path
        The folder; made if it is not there. One process has it at a time.
    max_backlog_bytes
        More is not taken while so much is not processed.
    max_keys
        Idempotency keys that are remembered; the oldest leave first.
    segment_bytes
        Size from which a file is followed by another one; the keys at its start not counted.
    clock
        Seconds that never go back; only for how long to wait before another try.

    Raises
    ------
    SourceError
        If the folder cannot be used, is another process's, or holds something that is damaged
        before its end.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        max_backlog_bytes: int = 1 << 30,
        max_keys: int = 20_000,
        segment_bytes: int = 1 << 26,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = Path(path)
        self.max_backlog_bytes = max_backlog_bytes
        self._max_keys = max_keys
        self._segment_bytes = segment_bytes
        self._drain = Drain(clock)
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self.grown = threading.Condition(self._lock)
        """Notified when there is more to read, and when the spool is closed."""
        self._waiting: list[_Waiter] = []
        self._keys: OrderedDict[str, Key] = OrderedDict()
        self._is_dirty = False
        self.is_closed = False
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._guard = _locked(self.path)
        except OSError as error:
            raise SourceError(f"{self.path}: cannot be used as a spool: {error}") from error
        try:
            self._open()
        except BaseException as error:
            os.close(self._guard)
            if isinstance(error, OSError):
                raise SourceError(f"{self.path}: cannot be read: {error}") from error
            raise

    def _open(self) -> None:
        for left in self.path.glob("*.tmp"):
            left.unlink()
        files = files_of(self.path)
        if not files:
            path, _, fd = _create(self.path, 0, ())
            os.close(fd)
            files = [(0, path)]
        self.segments: list[Segment] = []
        base = 0
        for first, path in files:
            self.segments.append(Segment(path, first, base, path.stat().st_size))
            base += self.segments[-1].size
        newest = self.segments[-1]
        self._next, newest.size, self._opening_bytes = self._recover(newest)
        self._fd = os.open(newest.path, os.O_WRONLY)
        os.ftruncate(self._fd, newest.size)
        os.fsync(self._fd)
        self._size = newest.size
        self.end = self._next
        """Offset after the last record that is synced."""
        self._done_offset, self._done_at = self.segments[0].first, 0
        if self._done_offset < self.end:
            self._drain.begin()

    def _recover(self, newest: Segment) -> tuple[int, int, int]:
        """Read the newest file; the offset and byte after its last whole entry, and its first."""
        offset, opening = newest.first, 0
        reader = EntryReader(newest.path)
        try:
            while (entry := reader.next(newest.size)) is not None:
                _check_follows(newest.path, entry.start, entry.first, offset)
                offset += entry.n
                opening = opening or entry.end
                for name, key in entry.keys:
                    self._remember(name, key)
                if entry.key:
                    self._remember(entry.key, Key(entry.first, entry.n, entry.digest))
        except DamageError as error:
            # The first entry was synced before the file had its name.
            if not error.is_torn or reader.at == 0:
                raise
            cut = newest.size - reader.at
            log.warning("spool cut", reason=str(error), bytes=cut, next_offset=offset)
        finally:
            reader.close()
        return offset, reader.at, opening

    # -- writing -------------------------------------------------------------------------------

    def append(self, values: Sequence[bytes], key: str = "") -> Appended | NotNow:
        """Write records, all of them or none; return when they are synced.

        Parameters
        ----------
        values
            The records, without line ends; at least one.
        key
            Idempotency key: records that came with it before are not written again.

        Raises
        ------
        KeyReusedError
            If the key came with other records before.
        """
        digest = hashlib.sha256(b"\n".join(values)).hexdigest()[:32] if key else ""
        with self._lock:
            if self.is_closed:
                return NotNow("closed", "the service stops", 5)
            known = self._keys.get(key) if key else None
            if known is not None:
                if known.digest != digest:
                    raise KeyReusedError(
                        f"key {key!r} came before with other records: those from {known.first} on"
                    )
                appended = Appended(known.first, known.n, is_repeat=True)
                if known.first + known.n <= self.end:
                    return appended
            else:
                data = entry_bytes(self._next, values, key, digest)
                if (refusal := self._no_room(len(data))) is not None:
                    return refusal
                try:
                    self._write(data)
                except OSError as error:
                    return _no_disk(self.path, error)
                appended = Appended(self._next, len(values))
                self._next += len(values)
                self._drain.begin()
                if key:
                    self._remember(key, Key(appended.first, appended.n, digest))
            waiter = _Waiter()
            self._waiting.append(waiter)
        self._flush(waiter)
        return appended if waiter.error is None else _no_disk(self.path, waiter.error)

    def is_full(self) -> NotNow | None:
        """Whether nothing is taken at the moment, however little it is."""
        with self._lock:
            return self._no_room(1)

    @property
    def backlog_bytes(self) -> int:
        """Bytes of what is not processed yet."""
        with self._lock:
            return self._backlog()

    def _backlog(self) -> int:
        if self._done_offset == self._next:
            return 0
        return self.segments[-1].base + self._size - self._done_at

    def _no_room(self, n_bytes: int) -> NotNow | None:
        backlog = self._backlog()
        excess = backlog + n_bytes - self.max_backlog_bytes
        # One that is larger than the limit itself would otherwise never be taken.
        if excess <= 0 or not backlog:
            return None
        detail = f"{backlog} bytes wait to be processed; at most {self.max_backlog_bytes} may"
        return NotNow("backlog", detail, self._drain.seconds(excess))

    def _remember(self, name: str, key: Key) -> None:
        self._keys[name] = key
        if len(self._keys) > self._max_keys:
            self._keys.popitem(last=False)

    def _write(self, data: bytes) -> None:
        self._clean()
        self._is_dirty = True
        at = self._size
        try:
            left = memoryview(data)
            while left:
                n = os.pwrite(self._fd, left, at)
                left, at = left[n:], at + n
        except OSError:
            self._try_clean()
            raise
        self._size, self._is_dirty = at, False

    def _clean(self) -> None:
        """Cut away what a failed write has left behind the end."""
        if self._is_dirty:
            os.ftruncate(self._fd, self._size)
            self._is_dirty = False

    def _try_clean(self) -> None:
        try:
            self._clean()
        except OSError as error:
            # The next write begins with it, and does not happen without it.
            log.warning("spool not cut", path=str(self.path), reason=str(error))

    def _flush(self, waiter: _Waiter) -> None:
        """Sync what was written so far, unless another thread has done so meanwhile."""
        with self._flushing:
            if waiter.is_done:
                return
            with self._lock:
                taken, self._waiting = self._waiting, []
                size, end = self._size, self._next
            try:
                os.fsync(self._fd)
            except OSError as error:
                with self._lock:
                    self._undo([*taken, *self._waiting], error)
                return
            with self._lock:
                self._synced(taken, size, end)
                if size - self._opening_bytes >= self._segment_bytes:
                    self._rotate()
                self.grown.notify_all()

    def _synced(self, waiting: Iterable[_Waiter], size: int, end: int) -> None:
        self.segments[-1].size, self.end = size, end
        for one in waiting:
            one.is_done = True

    def _undo(self, waiting: Iterable[_Waiter], error: OSError) -> None:
        """Take back what could not be synced: nobody knows what of it is on the disk."""
        log.warning("spool not synced", path=str(self.path), reason=str(error))
        self._waiting = []
        for one in waiting:
            one.is_done, one.error = True, error
        self._next, self._size = self.end, self.segments[-1].size
        for name in reversed(list(self._keys)):
            if self._keys[name].first < self.end:
                break
            del self._keys[name]
        self._is_dirty = True
        self._try_clean()

    def _rotate(self) -> None:
        try:
            os.fsync(self._fd)  # what was written since the last sync
            self.segments[-1].size, self.end = self._size, self._next
            self._begin(self._next)
        except OSError as error:
            # The present file takes more; the next flush tries again.
            log.warning("spool file not followed", path=str(self.path), reason=str(error))

    def _begin(self, first: int) -> None:
        path, size, fd = _create(self.path, first, self._keys.items())
        os.close(self._fd)
        newest = self.segments[-1]
        self._fd, self._size, self._opening_bytes = fd, size, size
        self.segments.append(Segment(path, first, newest.base + newest.size, size))

    # -- what is processed ---------------------------------------------------------------------

    def start_at(self, offset: int) -> None:
        """Go on at an offset beyond the end; only for a spool that has no records.

        Raises
        ------
        SourceError
            If it has some: they are not those that the offset speaks of.
        """
        with self._flushing, self._lock:
            if self._next > self.segments[0].first:
                raise SourceError(
                    f"{self.path}: ends at {self._next}, but the next record to read is "
                    f"{offset}; is it another spool?"
                )
            old = self.segments[-1]
            try:
                self._begin(offset)
                old.path.unlink()
            except OSError as error:
                raise SourceError(f"{self.path}: cannot be written: {error}") from error
            self.segments = self.segments[-1:]
            self._next = self.end = offset

    def done(self, offset: int, at: int, *, is_progress: bool = True) -> None:
        """Note that the records before an offset, which ends at byte `at`, are processed.

        `is_progress` is False where the store says so at the start: nothing was measured then.
        """
        with self._lock:
            n_bytes = at - self._done_at
            self._done_offset, self._done_at = offset, at
            is_empty = offset == self._next
            if is_progress:
                self._drain.done(max(n_bytes, 0), is_empty=is_empty)
            elif not is_empty:
                self._drain.begin()

    def drop_before(self, offset: int) -> None:
        """Delete the files whose records all stand before an offset."""
        with self._flushing, self._lock:
            # What is processed should not be what fills a disk.
            is_worth_it = self._size - self._opening_bytes >= self._segment_bytes // _IDLE_SHARE
            if offset == self._next and is_worth_it and not self.is_closed:
                self._rotate()
            following = [s.first for s in self.segments[1:]]
            n = sum(first <= offset for first in following)
            gone, self.segments = self.segments[:n], self.segments[n:]
        for segment in gone:  # oldest first: what stays has no gap, whenever this ends
            try:
                segment.path.unlink(missing_ok=True)
            except OSError as error:
                log.warning("spool file not deleted", path=str(segment.path), reason=str(error))

    def close(self) -> None:
        """Take nothing more, and let another process have the folder."""
        with self._flushing, self._lock:
            if self.is_closed:
                return
            self.is_closed = True
            try:
                os.fsync(self._fd)
                self._synced(self._waiting, self._size, self._next)
            except OSError as error:
                self._undo(self._waiting, error)
            self.grown.notify_all()
            os.close(self._fd)
            os.close(self._guard)


def _check_follows(path: Path, at: int, first: int, expected: int) -> None:
    if first != expected:
        raise DamageError(path, at, f"begins with record {first}, expected {expected}")


def _no_disk(path: Path, error: OSError) -> NotNow:
    return NotNow("disk", f"the spool {path} cannot be written: {error.strerror}", 10)


def _locked(folder: Path) -> int:
    """Hold the folder's lock, as long as the descriptor is open and the process lives."""
    guard = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(guard)
        raise SourceError(f"{folder}: another process has this spool") from None
    except BaseException:
        os.close(guard)
        raise
    return guard


def _create(folder: Path, first: int, keys: Iterable[tuple[str, Key]]) -> tuple[Path, int, int]:
    """Make a file that is whole from the moment on that it has its name, and open it."""
    path = folder / name_of(first)
    data = opening_bytes(first, keys)
    draft = path.with_suffix(".tmp")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(fd, left) :]
        os.fsync(fd)
        draft.rename(path)
        _sync_folder(folder)
    except BaseException:
        # Left there it would claim offsets that the file before it may still use.
        os.close(fd)
        draft.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise
    return path, len(data), fd


def _sync_folder(folder: Path) -> None:
    inside = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(inside)
    finally:
        os.close(inside)
