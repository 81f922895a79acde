"""Records in their order, a column a field: what a source delivers at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple, overload

from service.records.record import Record

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
        A value a record, as in `Record`.
    keys
        The same; None where no record has one.
    headers
        Of the records that have any, by their position.
    times_ms
        As `Record.timestamp_ms`; None where no record has one.
    dropped
        `Record.dropped_bytes` of those that were too large, by their position.

    Examples
    --------
    >>> block = Block.of_partition("events", 3, [7, 8], [b"{}", b"[]"])
    >>> block[1].offset, block.next_offsets()
    (8, {('events', 3): 9})
    """

    __slots__ = ("dropped", "headers", "keys", "offsets", "runs", "times_ms", "values")

    def __init__(
        self,
        runs: Sequence[Run],
        offsets: Sequence[int],
        values: Sequence[bytes],
        *,
        keys: Sequence[bytes | None] | None = None,
        headers: Mapping[int, Headers] | None = None,
        times_ms: Sequence[int | None] | None = None,
        dropped: Mapping[int, int] | None = None,
    ) -> None:
        self.runs = runs
        self.offsets = offsets
        self.values = values
        self.keys = keys
        self.headers: Mapping[int, Headers] = headers or {}
        self.times_ms = times_ms
        self.dropped: Mapping[int, int] = dropped or {}

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
            times_ms=[r.timestamp_ms for r in given],
            dropped={n: r.dropped_bytes for n, r in enumerate(given) if r.dropped_bytes},
        )

    @classmethod
    def joined(cls, blocks: Sequence[Block]) -> Block:
        """Blocks one after the other."""
        if len(blocks) == 1:
            return blocks[0]
        runs: list[Run] = []
        offsets: list[int] = []
        values: list[bytes] = []
        keys: list[bytes | None] = []
        times: list[int | None] = []
        headers: dict[int, Headers] = {}
        dropped: dict[int, int] = {}
        for block in blocks:
            first = len(values)
            for run in block.runs:
                if runs and runs[-1][:2] == run[:2]:
                    runs[-1] = run._replace(n=runs[-1].n + run.n)
                else:
                    runs.append(run)
            offsets += block.offsets
            values += block.values
            keys += block.keys if block.keys is not None else [None] * len(block)
            times += block.times_ms if block.times_ms is not None else [None] * len(block)
            headers.update((first + n, found) for n, found in block.headers.items())
            dropped.update((first + n, size) for n, size in block.dropped.items())
        return cls(
            runs,
            offsets,
            values,
            keys=keys if any(block.keys is not None for block in blocks) else None,
            headers=headers,
            times_ms=times if any(block.times_ms is not None for block in blocks) else None,
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
            return self._slice(*at.indices(len(self)))
        n = range(len(self))[at]
        topic, partition = self.place(n)
        return Record(
            topic,
            partition,
            self.offsets[n],
            None if self.keys is None else self.keys[n],
            self.values[n],
            self.dropped.get(n, 0),
            self.headers.get(n, ()),
            None if self.times_ms is None else self.times_ms[n],
        )

    def __iter__(self) -> Iterator[Record]:
        return map(self.__getitem__, range(len(self)))

    def _slice(self, start: int, stop: int, step: int) -> Block:
        if step != 1:
            return Block.of([self[n] for n in range(start, stop, step)])
        runs: list[Run] = []
        first = 0
        for run in self.runs:
            n = min(first + run.n, stop) - max(first, start)
            if n > 0:
                runs.append(run._replace(n=n))
            first += run.n
        cut = slice(start, stop)
        return Block(
            runs,
            self.offsets[cut],
            self.values[cut],
            keys=None if self.keys is None else self.keys[cut],
            headers={n - start: h for n, h in self.headers.items() if start <= n < stop},
            times_ms=None if self.times_ms is None else self.times_ms[cut],
            dropped={n - start: size for n, size in self.dropped.items() if start <= n < stop},
        )

    # -- where they stand ----------------------------------------------------------------------

    def place(self, n: int) -> tuple[str, int]:
        """Topic and partition of the record at a position."""
        for run in self.runs:
            if n < run.n:
                return run.topic, run.partition
            n -= run.n
        raise IndexError(f"block of {len(self)} records: there is no record {n}")

    def by_lane(self) -> dict[int, Block]:
        """The records of each partition number, in their order; a lane is one of all topics."""
        lanes = {run.partition for run in self.runs}
        if len(lanes) <= 1:
            return dict.fromkeys(lanes, self)
        parts: dict[int, list[Block]] = {}
        first = 0
        for run in self.runs:
            parts.setdefault(run.partition, []).append(self[first : first + run.n])
            first += run.n
        return {lane: Block.joined(found) for lane, found in parts.items()}

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
