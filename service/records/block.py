"""Records in their order, a column a field: what a source delivers at once."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain, groupby, pairwise, repeat
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple, TypeVar, overload

from service.records.record import Record
from service.records.table_row import RowTexts

if TYPE_CHECKING:
    from pyarrow import RecordBatch

Headers = tuple[tuple[str, bytes], ...]


class Run(NamedTuple):
    """Neighbours that stand in one partition.

    Attributes
    ----------
    topic, partition
        Where they stand.
    n
        How many.
    """

    topic: str
    partition: int
    n: int


class Block(Sequence[Record]):
    """Records in their order, as columns.

    It is a sequence of `Record`, each made when it is asked for: what goes well is read from the
    columns, and an object for every record would take longer than to parse it.

    Parameters
    ----------
    runs
        Where they stand, neighbours together; their lengths sum to the number of records.
    offsets, values
        A value a record, as in `Record`. The values of rows of a table are `RowTexts`, which makes
        them when they are asked for.
    keys
        The same; None where no record has one.
    headers
        Of the records that have any, by their position.
    times_ms
        As `Record.timestamp_ms`, but negative for a record without one; None where none has one.
    dropped
        `Record.dropped_bytes` of those that were too large, by their position.

    Examples
    --------
    >>> block = Block.of_partition("events", 3, [7, 8], [b"{}", b"[]"])
    >>> block[1].offset, block.next_offsets()
    (8, {('events', 3): 9})
    """

    __slots__ = ("_ends", "dropped", "headers", "keys", "offsets", "runs", "times_ms", "values")

    def __init__(
        self,
        runs: Sequence[Run],
        offsets: Sequence[int],
        values: Sequence[bytes],
        *,
        keys: Sequence[bytes | None] | None = None,
        headers: Mapping[int, Headers] | None = None,
        times_ms: Sequence[int] | None = None,
        dropped: Mapping[int, int] | None = None,
    ) -> None:
        self.runs = runs
        self.offsets = offsets
        self.values = values
        self.keys = keys
        self.headers: Mapping[int, Headers] = headers or {}
        self.times_ms = times_ms
        self.dropped: Mapping[int, int] = dropped or {}
        self._ends: list[int] | None = None

    @property
    def table(self) -> RecordBatch | None:
        """The rows whose texts the values are, one a record; None where they are of no table.

        Of those in `dropped` it holds the whole row.
        """
        return self.values.table if isinstance(self.values, RowTexts) else None

    @classmethod
    def of_partition(
        cls,
        topic: str,
        partition: int,
        offsets: Sequence[int],
        values: Sequence[bytes],
        dropped: Mapping[int, int] | None = None,
    ) -> Block:
        """Records of one partition, with neither keys nor headers nor times."""
        runs = [Run(topic, partition, len(values))] if values else []
        return cls(runs, offsets, values, dropped=dropped)

    @classmethod
    def of(cls, records: Iterable[Record]) -> Block:
        """The same records as columns; a block is its own."""
        if isinstance(records, Block):
            return records
        given = list(records)
        runs = [
            Run(topic, partition, sum(1 for _ in same))
            for (topic, partition), same in groupby(given, lambda r: (r.topic, r.partition))
        ]
        return cls(
            runs,
            [r.offset for r in given],
            [r.value for r in given],
            keys=[r.key for r in given] if any(r.key is not None for r in given) else None,
            headers={n: r.headers for n, r in enumerate(given) if r.headers},
            times_ms=(
                [-1 if r.timestamp_ms is None else r.timestamp_ms for r in given]
                if any(r.timestamp_ms is not None for r in given)
                else None
            ),
            dropped={n: r.dropped_bytes for n, r in enumerate(given) if r.dropped_bytes},
        )

    @classmethod
    def joined(cls, blocks: Sequence[Block]) -> Block:
        """Blocks one after the other."""
        return cls.gathered([(block, 0, len(block)) for block in blocks])

    @classmethod
    def gathered(cls, pieces: Sequence[Piece]) -> Block:
        """Pieces of blocks one after the other."""
        if len(pieces) == 1:
            block, start, stop = pieces[0]
            return block._piece(start, stop)
        runs: list[Run] = []
        headers: dict[int, Headers] = {}
        dropped: dict[int, int] = {}
        first = 0
        for block, start, stop in pieces:
            runs += block._runs(start, stop)
            if block.headers:
                own = _within(block.headers, start, stop)
                headers |= {first + n - start: given for n, given in own}
            if block.dropped:
                sizes = _within(block.dropped, start, stop)
                dropped |= {first + n - start: size for n, size in sizes}
            first += stop - start
        keys, times_ms = None, None
        if any(block.keys is not None for block, _, _ in pieces):
            keys = _column([(block.keys, start, stop) for block, start, stop in pieces], None)
        if any(block.times_ms is not None for block, _, _ in pieces):
            times_ms = _column([(block.times_ms, start, stop) for block, start, stop in pieces], -1)
        return cls(
            _longest(runs),
            _column([(block.offsets, start, stop) for block, start, stop in pieces], 0),
            _values([(block.values, start, stop) for block, start, stop in pieces]),
            keys=keys,
            headers=headers,
            times_ms=times_ms,
            dropped=dropped,
        )

    # -- as a sequence -------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.values)

    @overload
    def __getitem__(self, at: int, /) -> Record: ...

    @overload
    def __getitem__(self, at: slice, /) -> Block: ...

    def __getitem__(self, at: int | slice, /) -> Record | Block:
        if isinstance(at, slice):
            start, stop, step = at.indices(len(self))
            if step == 1:
                return self._piece(start, max(start, stop))
            return Block.of([self[n] for n in range(start, stop, step)])
        n = range(len(self))[at]
        return self._record(
            n,
            self.place(n),
            self.offsets[n],
            None if self.keys is None else self.keys[n],
            self.values[n],
            -1 if self.times_ms is None else self.times_ms[n],
        )

    def __iter__(self) -> Iterator[Record]:
        n = len(self)
        return map(
            self._record,
            range(n),
            chain.from_iterable(repeat(run[:2], run.n) for run in self.runs),
            self.offsets,
            repeat(None, n) if self.keys is None else self.keys,
            self.values,
            repeat(-1, n) if self.times_ms is None else self.times_ms,
        )

    def _record(
        self,
        n: int,
        place: tuple[str, int],
        offset: int,
        key: bytes | None,
        value: bytes,
        time_ms: int,
    ) -> Record:
        return Record(
            *place,
            offset,
            key,
            value,
            self.dropped.get(n, 0),
            self.headers.get(n, ()),
            time_ms if time_ms >= 0 else None,
        )

    def _piece(self, start: int, stop: int) -> Block:
        if start == 0 and stop == len(self):
            return self
        return Block(
            self._runs(start, stop),
            self.offsets[start:stop],
            self.values[start:stop],
            keys=None if self.keys is None else self.keys[start:stop],
            headers={n - start: h for n, h in _within(self.headers, start, stop)},
            times_ms=None if self.times_ms is None else self.times_ms[start:stop],
            dropped={n - start: size for n, size in _within(self.dropped, start, stop)},
        )

    def _runs(self, start: int, stop: int) -> list[Run]:
        if len(self.runs) == 1:
            only = self.runs[0]
            return [Run(only.topic, only.partition, stop - start)] if start < stop else []
        found: list[Run] = []
        at = self._run_of(start)
        while start < stop:
            n = min(self._run_ends()[at], stop) - start
            found.append(self.runs[at]._replace(n=n))
            start += n
            at += 1
        return found

    def _run_ends(self) -> list[int]:
        if self._ends is None:
            self._ends = list(accumulate(run.n for run in self.runs))
        return self._ends

    def _run_of(self, n: int) -> int:
        return bisect_right(self._run_ends(), n)

    # -- where they stand ----------------------------------------------------------------------

    def place(self, n: int) -> tuple[str, int]:
        """Topic and partition of the record at a position."""
        if not 0 <= n < len(self):
            raise IndexError(f"block of {len(self)} records: there is no record {n}")
        run = self.runs[self._run_of(n)]
        return run.topic, run.partition

    def by_lane(self) -> dict[int, Block]:
        """The records of each partition number, in their order; a lane is one of all topics."""
        lanes = {run.partition for run in self.runs}
        if len(lanes) <= 1:
            return dict.fromkeys(lanes, self)
        pieces: dict[int, list[Piece]] = {}
        first = 0
        for run in self.runs:
            pieces.setdefault(run.partition, []).append((self, first, first + run.n))
            first += run.n
        return {lane: Block.gathered(found) for lane, found in pieces.items()}

    def first_offsets(self) -> dict[tuple[str, int], int]:
        """The offset of the first record of each topic and partition."""
        found: dict[tuple[str, int], int] = {}
        at = 0
        for run in self.runs:
            found.setdefault((run.topic, run.partition), self.offsets[at])
            at += run.n
        return found

    def next_offsets(self) -> dict[tuple[str, int], int]:
        """The offset behind the last record of each topic and partition."""
        found: dict[tuple[str, int], int] = {}
        behind = 0
        for run in self.runs:
            behind += run.n
            found[run.topic, run.partition] = self.offsets[behind - 1] + 1
        return found

    def by_topic(self) -> Counter[str]:
        """How many records each topic has."""
        counted: Counter[str] = Counter()
        for run in self.runs:
            counted[run.topic] += run.n
        return counted


Piece = tuple[Block, int, int]
"""A block, and of the piece the position of the first record and the one behind the last."""

_T = TypeVar("_T")


def _within(by_position: Mapping[int, _T], start: int, stop: int) -> list[tuple[int, _T]]:
    """What positions of a piece have; few records have any, or the piece is the shorter one."""
    if stop - start < len(by_position):
        return [(n, by_position[n]) for n in range(start, stop) if n in by_position]
    return [(n, found) for n, found in by_position.items() if start <= n < stop]


def _longest(runs: list[Run]) -> list[Run]:
    """The same runs, with neighbours of one partition as one."""
    if not any(a.topic == b.topic and a.partition == b.partition for a, b in pairwise(runs)):
        return runs
    return [
        Run(topic, partition, sum(run.n for run in same))
        for (topic, partition), same in groupby(runs, itemgetter(0, 1))
    ]


def _column(pieces: Sequence[tuple[Sequence[_T] | None, int, int]], missing: _T) -> list[_T]:
    """Pieces of a column one after the other, with a value for those that have none."""
    return list(
        chain.from_iterable(
            repeat(missing, stop - start) if column is None else column[start:stop]
            for column, start, stop in pieces
        )
    )


def _values(pieces: Sequence[tuple[Sequence[bytes], int, int]]) -> Sequence[bytes]:
    if any(isinstance(values, RowTexts) for values, _, _ in pieces):
        cut = [values[start:stop] for values, start, stop in pieces]
        texts = [values for values in cut if isinstance(values, RowTexts)]
        joined = RowTexts.joined(texts) if len(texts) == len(cut) else None
        if joined is not None:
            return joined
    return _column(pieces, b"")
