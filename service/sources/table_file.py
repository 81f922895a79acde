"""A reader of Parquet rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from service.records.block import Block, Run
from service.records.table_row import RowTexts
from service.sources.queue import BlockQueue
from service.sources.source import MAX_POLL_BYTES, check_reached

_BATCH_BYTES = 1 << 20
_BATCH_ROWS = 1024
"""What a batch has at most, about."""
_LEVELS = 64
"""Different values that a column with a dictionary is taken to have, where nothing says how large
they are."""


class TableReader:
    """Reads the rows of a file, each a record; their blocks have the tables.

    Parameters
    ----------
    path
        A Parquet file.
    start
        The first row that is returned.
    max_bytes
        Of a record whose text is longer only the beginning is returned.

    Raises
    ------
    ValueError
        Later, if the file holds fewer rows than it says, or was closed.
    """

    def __init__(self, path: Path, start: int, max_bytes: int) -> None:
        from pyarrow.parquet import ParquetFile  # noqa: PLC0415  (50 MB that most sources do without)

        self._path = path
        self._max_bytes = max_bytes
        self._file: Any = ParquetFile(path)
        self._n_rows = int(self._file.metadata.num_rows)
        check_reached(path, self._n_rows, start)
        self.next = start
        self._batches = self._from_start()
        self._waiting = BlockQueue()

    @property
    def at_end(self) -> bool:
        """Whether every row was returned."""
        return self.next >= self._n_rows and not self._waiting

    def read(self, max_records: int) -> Block:
        """Return the records of the next rows."""
        n_bytes = 0
        while len(self._waiting) < max_records and n_bytes < MAX_POLL_BYTES:
            batch = next(self._batches, None)
            if batch is None:
                if self.next < self._n_rows:
                    raise ValueError(f"expected {self._n_rows} rows")
                break
            n_bytes += batch.nbytes
            texts = RowTexts(batch, self._max_bytes)
            offsets = range(self.next, self.next + len(texts))
            runs = [Run(self._path.name, 0, len(texts))]
            self._waiting.put(Block(runs, offsets, texts, dropped=texts.too_long()))
            self.next += len(texts)
        return self._waiting.take(max_records)

    def left(self) -> int:
        """Rows after those that were returned."""
        return self._n_rows - self.next + len(self._waiting)

    def close(self) -> None:
        """Close the file."""
        self._batches = iter(())
        self._file.close()

    def _from_start(self) -> Iterator[Any]:
        first = 0
        for group in range(self._file.num_row_groups):
            metadata = self._file.metadata.row_group(group)
            skip = max(self.next - first, 0)
            first += metadata.num_rows
            if first <= self.next:
                continue
            rows = _rows_at_once(metadata)
            for batch in self._file.iter_batches(rows, row_groups=[group], use_threads=False):
                if skip < batch.num_rows:
                    yield batch.slice(skip)
                skip = max(skip - batch.num_rows, 0)


def _rows_at_once(group: Any) -> int:
    """How many rows of a row group fit into a batch, by the sizes of its columns."""
    columns = [group.column(i) for i in range(group.num_columns)]
    n_bytes = sum(c.total_uncompressed_size / group.num_rows + _repeated_bytes(c) for c in columns)
    return int(min(max(_BATCH_BYTES / max(n_bytes, 1.0), 1), _BATCH_ROWS))


def _repeated_bytes(column: Any) -> float:
    """What a value may have that the file holds once and that comes in every row."""
    if column.physical_type != "BYTE_ARRAY" or column.dictionary_page_offset is None:
        return 0.0
    statistics = column.statistics
    if statistics is not None and statistics.has_min_max:
        return float(max(len(statistics.min), len(statistics.max)))
    # Large values have no statistics.
    return float(column.data_page_offset - column.dictionary_page_offset) / _LEVELS
