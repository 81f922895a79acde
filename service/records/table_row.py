"""Rows of tables as records: the JSON text that a row stands for."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from service.records.decode import _RESERVED
from service.records.record import KEPT_BYTES

if TYPE_CHECKING:
    from pyarrow import RecordBatch

    from detectors.base import IntArray

_ROWS = 64
"""Rows that become Python objects at once; few, because a row may carry an image of 5 MB."""
_SCALAR_BYTES = 64
"""More than a number, a time or null has as text."""
_ESCAPED_BYTES = 6
r"""What a byte of text has at most, such as \u0001."""
_UNKNOWN_BYTES = 1 << 31
"""For types that are not known here: their texts are looked at."""


def row_text(row: Mapping[str, Any]) -> bytes:
    """The JSON text of the record that a row of a table stands for.

    Parameters
    ----------
    row
        Values by column. Either `features` is a struct (or list), or every column whose name is
        no field of a record is a feature. Images are bytes. Null and NaN are missing values,
        because tables cannot tell them apart reliably.

    Returns
    -------
    bytes
        The body that `decode` takes; that of a row that stands for no record fails there.
    """
    body = {name: row[name] for name in row if name in _RESERVED and not _is_missing(row[name])}
    columns = {name: value for name, value in row.items() if name not in _RESERVED}
    if "features" not in body and not all(map(_is_missing, columns.values())):
        body["features"] = columns
    features = body.get("features")
    if isinstance(features, Mapping):
        body["features"] = {k: None if _is_missing(v) else v for k, v in features.items()}
    for name in ("scores", "segment"):
        # A struct column has every field in every row: those that are null were not there. A map
        # column arrives as pairs.
        entries = body.get(name)
        if isinstance(entries, list) and all(isinstance(e, tuple) for e in entries):
            entries = dict(entries)
        if isinstance(entries, Mapping):
            body[name] = {k: v for k, v in entries.items() if not _is_missing(v)}
    value = json.dumps(body, ensure_ascii=False, separators=(",", ":"), default=_plain)
    return value.encode("utf-8", "surrogatepass")


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _plain(value: object) -> object:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return str(value)


class RowTexts(Sequence[bytes]):
    """The JSON texts of a table's rows, each made when it is asked for.

    Parameters
    ----------
    table
        The rows.
    max_bytes
        Of a longer text there is only the beginning.
    """

    __slots__ = ("max_bytes", "table")

    def __init__(self, table: RecordBatch, max_bytes: int) -> None:
        self.table = table
        self.max_bytes = max_bytes

    @classmethod
    def joined(cls, parts: Sequence[RowTexts]) -> RowTexts | None:
        """The rows one after the other; None if no one table can hold them."""
        from pyarrow import ArrowInvalid, Table  # noqa: PLC0415  (50 MB that most do without)

        first = parts[0]
        if any(
            part.table.schema != first.table.schema or part.max_bytes != first.max_bytes
            for part in parts
        ):
            return None
        try:
            whole = Table.from_batches([part.table for part in parts]).combine_chunks()
        except ArrowInvalid:  # more levels than the dictionary's type of index can number
            return None
        batches = whole.to_batches() or [first.table]
        # More than 2 GiB of text do not fit into one batch.
        return cls(batches[0], first.max_bytes) if len(batches) == 1 else None

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @overload
    def __getitem__(self, at: int, /) -> bytes: ...

    @overload
    def __getitem__(self, at: slice, /) -> RowTexts: ...

    def __getitem__(self, at: int | slice, /) -> bytes | RowTexts:
        if isinstance(at, slice):
            start, stop, step = at.indices(len(self))
            if step != 1:
                return RowTexts(self.table.take(np.arange(start, stop, step)), self.max_bytes)
            return RowTexts(self.table.slice(start, max(stop - start, 0)), self.max_bytes)
        n = range(len(self))[at]
        return self._kept(row_text(self.table.slice(n, 1).to_pylist()[0]))

    def __iter__(self) -> Iterator[bytes]:
        for first in range(0, len(self), _ROWS):
            for row in self.table.slice(first, _ROWS).to_pylist():
                yield self._kept(row_text(row))

    def too_long(self) -> dict[int, int]:
        """How many bytes the texts have that are longer than `max_bytes`, by their position."""
        most = _most_bytes_of_fields(self.table.schema.names, self.table.columns, len(self))
        found = {}
        for n in np.flatnonzero(most > self.max_bytes).tolist():
            size = len(row_text(self.table.slice(n, 1).to_pylist()[0]))
            if size > self.max_bytes:
                found[n] = size
        return found

    def _kept(self, text: bytes) -> bytes:
        return text if len(text) <= self.max_bytes else text[:KEPT_BYTES]


def _most_bytes(column: Any) -> IntArray | int:
    """What the text of each value of an Arrow array has at most: for all, or shape (n,)."""
    from pyarrow import compute, types  # noqa: PLC0415

    kind, n = column.type, len(column)
    if types.is_primitive(kind) or types.is_decimal(kind) or types.is_null(kind):
        return _SCALAR_BYTES
    if _is_text(kind):
        sizes = compute.fill_null(compute.binary_length(column), 0)
        return _SCALAR_BYTES + _ESCAPED_BYTES * np.asarray(sizes, np.int64)
    if types.is_dictionary(kind):
        return _most_bytes(column.dictionary_decode())
    if types.is_struct(kind):
        fields = [kind.field(i) for i in range(kind.num_fields)]
        columns = [column.field(i) for i in range(kind.num_fields)]
        return _most_bytes_of_fields([field.name for field in fields], columns, n)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_map(kind):
        each = np.broadcast_to(_most_bytes(column.values), len(column.values)) + 1
        ends = np.concatenate([[0], np.cumsum(each, dtype=np.int64)])
        offsets = np.asarray(column.offsets)
        most: IntArray = _SCALAR_BYTES + ends[offsets[1:]] - ends[offsets[:-1]]
        return most
    return _UNKNOWN_BYTES


def _most_bytes_of_fields(names: Sequence[str], columns: Sequence[Any], n: int) -> IntArray:
    names_bytes = sum(_ESCAPED_BYTES * len(name.encode()) for name in names)
    most = np.full(n, _SCALAR_BYTES + names_bytes + 4 * len(names), np.int64)
    for column in columns:
        most += _most_bytes(column)
    return most


def _is_text(kind: Any) -> bool:
    from pyarrow import types  # noqa: PLC0415

    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
    )
