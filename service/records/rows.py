"""Plain rows of tables to columns, without the texts that they stand for: the quick way of tables.

A row is plain if its columns are of usual types and it holds exactly the features of the schema.
Whatever is not plain, or might be wrong, is left for the careful way, which reads the row's text;
`tests/service/records/test_rows.py` holds the two together, as it is with plain JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import compress
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from detectors.base import Array
from service.records.block import Block
from service.records.columns import OBSERVATION, Columns, Features, Levels
from service.records.decode import _RESERVED
from service.records.gather import canonical_level, gather, seconds_of
from service.records.plain_values import (
    MAX_LEVEL_CHARS,
    classes_of,
    doubtful_texts,
    ids_of,
    times_of,
)
from service.records.schema import FeatureKind, FeatureSchema

if TYPE_CHECKING:
    from pyarrow import RecordBatch

_READ = frozenset({"stream", "id", "time", "label", "prediction", "features"})
_Flags = npt.NDArray[np.bool_]


def streams_of(table: RecordBatch) -> list[str | None]:
    """The names of the rows' streams, None where there is none."""
    if "stream" not in table.schema.names:
        return [None] * table.num_rows
    found = table.column("stream").to_pylist()
    return [value if isinstance(value, str) else None for value in found]


def read_rows(
    block: Block, positions: Sequence[int], stream: str, schema: FeatureSchema
) -> tuple[Columns, list[int]]:
    """Columns of the plain rows among those at some places of a block.

    Parameters
    ----------
    block
        Of a table's rows.
    positions
        The places of those to read, in order.
    stream
        The name of their stream.
    schema
        Of the observations' features; with at least one.

    Returns
    -------
    tuple
        The columns, and the places of the rows that are left.

    Raises
    ------
    ValueError
        If the block is of no table.
    """
    if block.table is None:
        raise ValueError("expected a block of a table's rows")
    table = block.table
    if len(positions) != len(block):
        table = table.take(np.asarray(positions, np.int64))
    found = _read(table, stream, schema)
    if found is None:
        return gather(block, [], schema)[0], list(positions)
    doubtful, ids, times, labels, predictions, features = found
    left: list[int] = []
    at = list(positions)
    if doubtful.any():
        good = ~doubtful
        left = list(compress(at, doubtful.tolist()))
        keep = good.tolist()
        at, ids = list(compress(at, keep)), list(compress(ids, keep))
        times, labels, predictions = (
            None if column is None else list(compress(column, keep))
            for column in (times, labels, predictions)
        )
        features = Features(
            features.numbers[good], tuple(list(compress(own, keep)) for own in features.levels)
        )
    has_times = times is not None and any(t is not None for t in times)
    columns = Columns(
        block,
        np.array(at, np.int64),
        np.full(len(at), OBSERVATION, np.int8),
        ids,
        seconds_of(times) if times is not None else np.full(len(at), np.nan),
        times if has_times else None,
        _given(labels),
        _given(predictions),
        None,
        features,
        None,
    )
    return columns, left


def _given(values: list[str | None] | None) -> list[str | None] | None:
    if values is None or all(value is None for value in values):
        return None
    return values


def _read(table: RecordBatch, stream: str, schema: FeatureSchema) -> tuple[Any, ...] | None:
    """What the rows hold, and which are doubtful; None where the table is not plain."""
    columns = dict(zip(table.schema.names, table.columns, strict=True))
    if len(columns) != len(table.schema.names) or not {"stream", "id"} <= columns.keys():
        return None
    n = table.num_rows
    doubtful = np.array([name != stream for name in streams_of(table)], np.bool_)
    for name in columns.keys() & _RESERVED - _READ:
        doubtful |= _known(columns[name])
    given = _features_of(columns, doubtful)
    if given is None or given.keys() != set(schema.names):
        return None
    features = _features(given, schema, n, doubtful, is_flat="features" not in columns)
    if features is None:
        return None
    texts: dict[str, list[Any]] = {}
    for name in ("id", "time", "label", "prediction"):
        values = _values(columns[name], doubtful) if name in columns else [None] * n
        if values is None:
            return None
        texts[name] = values
    ids, wrong = ids_of(texts["id"])
    doubtful |= wrong
    labels, wrong = classes_of(texts["label"])
    doubtful |= wrong
    predictions, wrong = classes_of(texts["prediction"])
    doubtful |= wrong
    times, wrong = times_of([_written(time) for time in texts["time"]])
    doubtful |= wrong
    return doubtful, ids, times, labels, predictions, features


def _written(time: Any) -> Any:
    return time.isoformat() if isinstance(time, datetime) else time


def _features_of(columns: dict[str, Any], doubtful: _Flags) -> dict[str, Any] | None:
    """The features' columns by name: the fields of `features`, or all that is no field."""
    from pyarrow import types  # noqa: PLC0415 - 50 MB that most sources do without

    if "features" not in columns:
        return {name: column for name, column in columns.items() if name not in _RESERVED}
    features = columns["features"]
    if not types.is_struct(features.type):
        return None
    doubtful |= ~_known(features)
    fields = [features.type.field(k).name for k in range(features.type.num_fields)]
    if len(set(fields)) != len(fields):
        return None
    return {name: features.field(k) for k, name in enumerate(fields)}


def _features(
    given: dict[str, Any], schema: FeatureSchema, n: int, doubtful: _Flags, *, is_flat: bool
) -> Features | None:
    """The features, and in `doubtful` which rows have some that are to be read carefully."""
    from pyarrow import types  # noqa: PLC0415

    numbers = np.empty((n, len(schema.numeric)))
    for k, name in enumerate(schema.numeric):
        is_flag = schema.kinds[name] is FeatureKind.BOOLEAN
        own = _numbers(given[name], may_be_flag=is_flag)
        if own is None:
            return None
        numbers[:, k] = own
        doubtful |= np.isinf(own)
        if is_flag:
            doubtful |= ~((own == 0) | (own == 1) | np.isnan(own))
    numbers += 0.0
    levels: list[Levels] = []
    for name in schema.categorical:
        kind = given[name].type
        if types.is_dictionary(kind):
            kind = kind.value_type
        if not (_is_text(kind) or _is_number(kind)):
            return None
        values = _values(given[name], doubtful)
        if values is None:
            return None
        levels.append([canonical_level(value) for value in values])
        doubtful |= doubtful_texts(levels[-1], least=0, most=MAX_LEVEL_CHARS)
    if is_flat:
        # Where all are missing the row has no features, and may be a label.
        missing = np.isnan(numbers).all(axis=1)
        for column in levels:
            missing &= np.array([value is None for value in column], np.bool_)
        doubtful |= missing
    return Features(numbers, tuple(levels))


def _numbers(column: Any, *, may_be_flag: bool) -> Array | None:
    """Values of a column of numbers, NaN where there is none; None if it is of another type."""
    from pyarrow import types  # noqa: PLC0415

    kind = column.type
    if types.is_null(kind):
        return np.full(len(column), np.nan)
    if types.is_boolean(kind) and may_be_flag:
        return np.array([np.nan if v is None else float(v) for v in column.to_pylist()])
    if not _is_number(kind):
        return None
    values: Array = column.to_numpy(zero_copy_only=False).astype(np.float64)
    return values


def _is_number(kind: Any) -> bool:
    from pyarrow import types  # noqa: PLC0415

    return bool(types.is_integer(kind) or types.is_float32(kind) or types.is_float64(kind))


def _is_text(kind: Any) -> bool:
    from pyarrow import types  # noqa: PLC0415

    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_null(kind))


def _known(column: Any) -> _Flags:
    flags: _Flags = column.is_valid().to_numpy(zero_copy_only=False)
    return flags


def _values(column: Any, doubtful: _Flags) -> list[Any] | None:
    """A column's values, None where they are missing; None if its type needs care.

    Of a float that is not finite and not missing, the row is doubtful.
    """
    from pyarrow import types  # noqa: PLC0415

    kind = column.type
    if types.is_dictionary(kind):
        kind = kind.value_type
    plain = _is_text(kind) or _is_number(kind) or types.is_boolean(kind) or types.is_timestamp(kind)
    if not plain:
        return None
    try:
        values = column.to_pylist()
    except (ValueError, UnicodeDecodeError):
        return None
    if types.is_floating(kind):
        known = np.array([np.nan if v is None else v for v in values], np.float64)
        doubtful |= np.isinf(known)
        values = [v if keep else None for v, keep in zip(values, np.isfinite(known), strict=True)]
    return list(values)
