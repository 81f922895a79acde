"""Rows of tables are read as columns as their texts would be, to the last bit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.records.block import Block, Run
from service.records.plain import PlainReader
from service.records.reading import read
from service.records.rows import read_rows
from service.records.schema import FeatureSchema
from service.records.table_row import RowTexts
from tests.service.records.test_plain import assert_same, careful, quick

NUMBERS = FeatureSchema.declared({"a": "numeric", "b": "numeric"})
MIXED = FeatureSchema.declared({"a": "numeric", "flag": "boolean", "c d": "categorical"})
SCHEMAS = {"numbers": NUMBERS, "mixed": MIXED}

TEXT = st.sampled_from(["", "x", "3", "3.0", "é", 'a"b', "\\", "\x00", "\n", "l" * 300, "l" * 3000])
WHEN = st.sampled_from(
    [datetime(2026, 11, 23, 10, tzinfo=UTC), datetime(2026, 11, 23, 10, 0, 0, 123456, UTC)]
)


def holes(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(values, values, values, st.none())


NUMERIC_TYPES: dict[Any, st.SearchStrategy[Any]] = {
    pa.float64(): st.floats(),
    pa.float32(): st.floats(width=32),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint8(): st.integers(0, 255),
}
FLAG_TYPES: dict[Any, st.SearchStrategy[Any]] = {
    pa.bool_(): st.booleans(),
    pa.int8(): st.integers(0, 2),
    pa.float64(): st.sampled_from([0.0, 1.0, 0.5, float("nan")]),
}
TEXT_TYPES: dict[Any, st.SearchStrategy[Any]] = {
    pa.string(): TEXT,
    pa.large_string(): TEXT,
    pa.dictionary(pa.int32(), pa.string()): TEXT,
    pa.int64(): st.integers(-3, 3),
    pa.float64(): st.sampled_from([1.0, 0.5, float("nan"), float("inf"), 1e300]),
}
ODD_TYPES: dict[Any, st.SearchStrategy[Any]] = {
    pa.binary(): st.binary(max_size=3),
    pa.list_(pa.int64()): st.lists(st.integers(0, 3), max_size=2),
    pa.date32(): st.just(datetime(2026, 11, 23).date()),
    pa.timestamp("us"): st.just(datetime(2026, 11, 23)),
    pa.decimal128(5, 2): st.just(None),
    pa.null(): st.none(),
}
USUAL = {"numeric": NUMERIC_TYPES, "boolean": FLAG_TYPES, "categorical": TEXT_TYPES}
SCORES = pa.struct([("0", pa.float64()), ("1", pa.float64())])
CLASS_TYPES = {**TEXT_TYPES, pa.bool_(): st.booleans()}
OTHERS: dict[str, dict[Any, st.SearchStrategy[Any]]] = {
    "label": CLASS_TYPES,
    "prediction": CLASS_TYPES,
    "time": {
        pa.string(): st.sampled_from(["2026-11-23T10:00:00Z", "2026-11-23T10:00:00", "x"]),
        pa.timestamp("us", "UTC"): WHEN,
        pa.timestamp("ms", "Europe/Paris"): WHEN.map(lambda t: t.replace(microsecond=0)),
        **ODD_TYPES,
    },
    "scores": {SCORES: st.fixed_dictionaries({"0": st.floats(0, 1), "1": st.floats(0, 1)})},
    "segment": {pa.struct([("camera", pa.string())]): st.fixed_dictionaries({"camera": TEXT})},
    "image_uri": {pa.string(): st.sampled_from(["file:///a.png", ""])},
    "new": {**NUMERIC_TYPES, **ODD_TYPES},
}


@st.composite
def column(draw: Any, n: int, types: dict[Any, st.SearchStrategy[Any]]) -> Any:
    kind = draw(st.sampled_from(list(types)))
    values = draw(st.lists(holes(types[kind]), min_size=n, max_size=n))
    return pa.array(values, kind)


@st.composite
def tables(draw: Any, schema: FeatureSchema) -> Any:
    n = draw(st.integers(1, 8))
    columns: dict[str, Any] = {}
    ids: dict[Any, st.SearchStrategy[Any]] = {
        pa.string(): TEXT | st.sampled_from(["e-1", "e-2"]),
        pa.int64(): st.integers(-9, 2**60),
        pa.float64(): st.floats(),
    }
    columns["id"] = draw(column(n, ids))
    columns["stream"] = draw(
        column(n, {pa.string(): st.sampled_from(["s", "s", "s", "t", ""])})
        | st.just(pa.array(["s"] * n))
    )
    features = {}
    for name, kind in schema.kinds.items():
        types = USUAL[str(kind)]
        if draw(st.integers(0, 9)) == 0:
            types = {**types, **ODD_TYPES, **TEXT_TYPES, **FLAG_TYPES}
        features[name] = draw(column(n, types))
    if draw(st.integers(0, 9)) == 0:
        features.pop(draw(st.sampled_from(list(features))))
    layout = draw(st.sampled_from(["flat", "flat", "struct"]))
    if layout == "struct" and features:
        mask = pa.array(
            draw(st.lists(st.sampled_from([False] * 4 + [True]), min_size=n, max_size=n))
        )
        columns["features"] = pa.StructArray.from_arrays(
            list(features.values()), list(features), mask=mask
        )
    else:
        columns |= features
    for name in draw(st.lists(st.sampled_from(list(OTHERS)), max_size=3, unique=True)):
        columns[name] = draw(column(n, OTHERS[name]))
    return pa.RecordBatch.from_arrays(list(columns.values()), list(columns))


def block_of(table: Any) -> Block:
    n = table.num_rows
    return Block([Run("t.parquet", 0, n)], range(n), RowTexts(table, 1 << 20))


@pytest.mark.parametrize("name", SCHEMAS)
@settings(max_examples=300, deadline=None)
@given(data=st.data(), cuts=st.lists(st.integers(0, 20), max_size=3))
def test_both_ways_give_the_same(name: str, data: Any, cuts: list[int]) -> None:
    schema = SCHEMAS[name]
    block = block_of(data.draw(tables(schema)))
    assert_same(
        quick(block, PlainReader("s", schema, ("0", "1")), cuts),
        careful(block, range(len(block)), schema),
    )


def plain_table(n: int) -> Any:
    rng = np.random.default_rng(0)
    return pa.RecordBatch.from_pydict(
        {
            "stream": ["s"] * n,
            "id": [f"e-{k}" for k in range(n)],
            "a": rng.normal(size=n),
            "b": [None if k % 3 == 0 else float(k) for k in range(n)],
            "label": pa.array(["1" if k % 2 else None for k in range(n)]),
            "time": [datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=2)))] * n,
        }
    )


@pytest.mark.parametrize("places", [range(30), [0, 7, 29], []])
def test_usual_rows_are_all_plain(places: Any) -> None:
    columns, left = read_rows(block_of(plain_table(30)), places, "s", NUMBERS)
    assert left == []
    assert columns.positions.tolist() == list(places)
    assert columns.ids == [f"e-{k}" for k in places]


def test_rows_of_several_streams_are_told_apart_without_their_texts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = plain_table(30)
    streams = pa.array(["s" if k % 2 else "t" for k in range(30)])
    table = table.set_column(0, "stream", streams)
    readers = {name: PlainReader(name, NUMBERS) for name in ("s", "t")}

    def no_text(*_: object) -> bytes:
        raise AssertionError

    monkeypatch.setattr(RowTexts, "_kept", no_text)

    class Never:
        def decode(self, record: Any, /) -> Any:
            raise AssertionError(record)

    found = read(block_of(table), Never(), {"s", "t"}, readers)
    assert {name: len(g.plain or ()) for name, g in found.streams.items()} == {"s": 15, "t": 15}


def test_a_block_of_texts_is_refused() -> None:
    block = Block.of_partition("t", 0, [0], [b"{}"])
    with pytest.raises(ValueError, match="expected a block of a table's rows"):
        read_rows(block, [0], "s", NUMBERS)
