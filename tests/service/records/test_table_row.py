"""A row of a table is the record that its text says, and no text is made that nobody asks for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.records.decode import decode
from service.records.record import KEPT_BYTES, DecodeError, LabelRecord, Observation, Record
from service.records.table_row import RowTexts, row_text

PNG = b"\x89PNG\r\n\x1a\n" + b"rest"


def read(row: Mapping[str, Any]) -> Observation | LabelRecord:
    return decode(Record("t.parquet", 0, 5, None, row_text(row)))


def test_a_row_with_a_struct_of_features_is_the_record_of_the_same_object() -> None:
    features = {"amount": 12, "country": "GB", "is_new": True, "age": None}
    row = {"stream": "s", "id": "e-17", "features": features, "prediction": 3, "scores": {"3": 0.9}}
    time = datetime(2026, 11, 23, 10, tzinfo=UTC)
    text = json.dumps({**row, "time": time.isoformat()}).encode()
    same = decode(Record("t.parquet", 0, 5, None, text))
    assert read({**row, "time": time, "image": None, "label": None}) == same


def test_flat_columns_are_features_and_nan_is_missing() -> None:
    found = read(
        {"stream": "s", "id": 1, "label": 2, "a": 1.5, "b": float("nan"), "c": None, "d": True}
    )
    assert isinstance(found, Observation)
    assert (found.features, found.label) == ({"a": 1.5, "b": None, "c": None, "d": True}, "2")


def test_a_row_whose_features_are_all_missing_is_a_label() -> None:
    row = {"stream": "s", "id": 1, "label": 2, "a": None, "b": float("nan")}
    assert read(row) == LabelRecord("s", "1", "2", None)


def test_other_column_types_become_what_json_has() -> None:
    found = read(
        {
            "stream": "s",
            "id": 1,
            "image": PNG,
            "features": {"price": Decimal("1.5"), "day": date(2026, 1, 2)},
            "scores": [("a", 0.25), ("b", None)],
            "segment": {"site": "x", "camera": None},
        }
    )
    assert isinstance(found, Observation)
    assert found.image == PNG
    assert found.features == {"price": 1.5, "day": "2026-01-02"}
    assert (found.scores, found.segment) == ({"a": 0.25}, {"site": "x"})


def test_an_infinite_number_in_a_row_is_refused_like_any_other() -> None:
    with pytest.raises(DecodeError, match="Infinity"):
        read({"stream": "s", "id": 1, "a": float("inf")})


# -- the rows of a table -----------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.just("\x01" * 30)
COLUMNS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "id": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "stream": (pa.dictionary(pa.int8(), pa.string()), TEXT),
    "time": (
        pa.timestamp("us", "UTC"),
        st.datetimes(datetime(1970, 1, 1), timezones=st.just(UTC)),
    ),
    "image": (pa.binary(), st.binary(max_size=40)),
    "features": (
        pa.struct([("x", pa.float64()), ("ü" * 20, pa.bool_()), ("t", pa.large_string())]),
        st.fixed_dictionaries({"x": st.floats(), "ü" * 20: st.booleans(), "t": TEXT}),
    ),
    "scores": (pa.map_(pa.string(), pa.float32()), st.dictionaries(TEXT, st.floats(width=32))),
    "many": (pa.list_(pa.list_(pa.bool_())), st.lists(st.lists(st.booleans(), max_size=5))),
    "pair": (pa.list_(pa.int8(), 2), st.tuples(st.integers(0, 1), st.integers(0, 1))),
    "price": (pa.decimal128(38, 10), st.decimals(-(10**27), 10**27, places=10)),
    "none": (pa.null(), st.nothing()),
    "a" * 100: (pa.duration("s"), st.timedeltas()),
}


@st.composite
def tables(draw: st.DrawFn, n: int | None = None) -> pa.RecordBatch:
    names = draw(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, unique=True))
    n = draw(st.integers(0, 6)) if n is None else n
    arrays = []
    for name in names:
        kind, values = COLUMNS[name]
        column = draw(st.lists(st.none() | values, min_size=n, max_size=n))
        arrays.append(pa.array(column, kind))
    return pa.RecordBatch.from_arrays(arrays, names)


def texts_of(table: pa.RecordBatch) -> list[bytes]:
    return [row_text(row) for row in table.to_pylist()]


@settings(deadline=None)
@given(tables(), st.integers(0, 6), st.integers(0, 6))
def test_the_texts_are_those_of_the_rows_however_they_are_asked_for(
    table: pa.RecordBatch, start: int, stop: int
) -> None:
    expected = texts_of(table)
    texts = RowTexts(table, 1 << 20)
    assert list(texts) == expected
    assert [texts[n] for n in range(len(texts))] == expected
    assert list(texts[start:stop]) == expected[start:stop]
    assert list(texts[::-2]) == expected[::-2]
    joined = RowTexts.joined([texts[start:], texts[:stop]])
    assert joined is not None
    assert list(joined) == expected[start:] + expected[:stop]


@settings(deadline=None)
@given(tables(), st.integers(0, 3), st.integers(0, 600))
def test_every_text_that_is_too_long_is_found_and_only_its_beginning_given(
    table: pa.RecordBatch, start: int, max_bytes: int
) -> None:
    expected = texts_of(table)[start:]
    texts = RowTexts(table.slice(start), max_bytes)
    assert texts.too_long() == {n: len(t) for n, t in enumerate(expected) if len(t) > max_bytes}
    assert list(texts) == [t if len(t) <= max_bytes else t[:KEPT_BYTES] for t in expected]


def test_no_text_is_made_of_rows_that_cannot_be_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(row: Mapping[str, Any]) -> bytes:
        raise AssertionError(f"a text was made of {row}")

    monkeypatch.setattr("service.records.table_row.row_text", made)
    row = {"stream": "s", "id": 1, "features": {f"f{k}": 1e-300 for k in range(32)}}
    table = pa.RecordBatch.from_pylist([row] * 1000)
    assert RowTexts(table, 8 << 20).too_long() == {}


def test_rows_that_no_one_table_can_hold_are_not_joined() -> None:
    levels = [pa.array([f"{k}-{n}" for n in range(100)]) for k in range(2)]
    kind = pa.dictionary(pa.int8(), pa.string())
    full, other = (pa.RecordBatch.from_arrays([a.cast(kind)], ["a"]) for a in levels)
    assert RowTexts.joined([RowTexts(full, 100), RowTexts(other, 100)]) is None
    one, other = (pa.RecordBatch.from_pylist([{"a": value}]) for value in (1, "x"))
    assert RowTexts.joined([RowTexts(one, 100), RowTexts(other, 100)]) is None
    assert RowTexts.joined([RowTexts(one, 100), RowTexts(one, 90)]) is None
