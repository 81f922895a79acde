"""The quick way reads what the careful way reads, to the last bit, and leaves the rest to it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.records.block import Block
from service.records.columns import Columns
from service.records.decode import decode
from service.records.gather import Placed, gather
from service.records.plain import PlainReader
from service.records.record import DecodeError, Record
from service.records.schema import FeatureSchema

NUMBERS = FeatureSchema.declared({"a": "numeric", "b": "numeric"})
MIXED = FeatureSchema.declared({"a": "numeric", "flag": "boolean", "c d": "categorical"})
ARRAYS = FeatureSchema.declared({"0": "numeric", "1": "boolean"})
SCHEMAS = {"numbers": NUMBERS, "mixed": MIXED, "arrays": ARRAYS}
CLASSES = ("0", "1")

Read = tuple[Columns, list[tuple[int, str, str]]]


def careful(block: Block, positions: Sequence[int], schema: FeatureSchema) -> Read:
    """What comes of records one after the other."""
    bodies: list[Placed] = []
    refused: list[tuple[int, str, str]] = []
    for n in positions:
        try:
            body = decode(block[n])
        except DecodeError as error:
            refused.append((n, error.reason, str(error)))
            continue
        if body.stream == "s":
            bodies.append((n, body))
        else:
            refused.append((n, "stream", body.stream))
    columns, wrong = gather(block, bodies, schema, CLASSES)
    return columns, sorted([*refused, *((n, e.reason, str(e)) for n, e in wrong)])


def quick(block: Block, reader: PlainReader, cuts: Sequence[int]) -> Read:
    """The same with the quick way first, cut into pieces."""
    parts: list[Columns] = []
    refused: list[tuple[int, str, str]] = []
    bounds = sorted({0, len(block), *(c % (len(block) + 1) for c in cuts)})
    for start, stop in pairwise(bounds):
        plain, left = reader.read(block, range(start, stop))
        rest, wrong = careful(block, left, reader.schema)
        parts.append(Columns.interleaved([plain, rest]))
        refused += wrong
    whole = Columns.interleaved(parts) if parts else careful(block, [], reader.schema)[0]
    return whole, sorted(refused)


def assert_same(one: Read, other: Read) -> None:
    a, b = one[0], other[0]
    assert one[1] == other[1]
    for name in ("ids", "times", "labels", "predictions", "segments"):
        assert getattr(a, name) == getattr(b, name), name
    assert a.features.levels == b.features.levels
    for name in ("positions", "kinds", "seconds", "scores"):
        same_bits(getattr(a, name), getattr(b, name), name)
    same_bits(a.features.numbers, b.features.numbers, "numbers")


def same_bits(a: Any, b: Any, name: str) -> None:
    assert (a is None) == (b is None), name
    if a is not None:
        assert (a.shape, a.dtype) == (b.shape, b.dtype), name
        assert np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes(), name


# -- records, good and bad -----------------------------------------------------------------------

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.one_of(
    FLOATS.map(repr),
    st.integers(-(2**70), 2**70).map(str),
    st.sampled_from(
        ["0", "-0", "-0.0", "1", "1.0", "true", "false", "null", "1e400", "NaN", "1e-400"]
    ),
    st.sampled_from(["", "x", "3", "3.0", "é", 'a"b', "\\", "\x00", "\n", "l" * 300]).map(
        json.dumps
    ),
    st.sampled_from(["[1]", "{}", '{"k": 1}', '"\\ud800"', '"\\u0041"', "01", "+1", ".5"]),
)
TEXTS = st.one_of(
    st.sampled_from(["s", "t", "e-1", "", "é", "x" * 257, 'q"q', "\x00", "3", "0", "1"]).map(
        json.dumps
    ),
    SCALARS,
)
TIMES = st.sampled_from(
    [
        '"2026-11-23T10:00:00Z"',
        '"2026-11-23T10:00:00.123456+02:00"',
        '"9999-12-31T23:59:59-12:00"',
        '"2026-11-23T10:00:00"',
        '"2026-11-23"',
        '"x"',
        "17",
        "null",
    ]
)


def objects(names: Sequence[str], values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """JSON objects with some of these names, now and then one of them twice."""
    pairs = st.lists(st.tuples(st.sampled_from(list(names)), values), max_size=len(names) + 1)
    return pairs.map(lambda given: "{" + ", ".join(f"{json.dumps(n)}:{v}" for n, v in given) + "}")


def features(schema: FeatureSchema) -> st.SearchStrategy[str]:
    usual = {"numeric": FLOATS.map(repr), "boolean": st.sampled_from(["true", "false", "0", "1.0"])}
    texts = st.sampled_from(['"GB"', '"fr"', "3", "null", '""'])
    by_name = [usual.get(str(kind), texts) | st.just("null") for kind in schema.kinds.values()]
    good = st.tuples(*by_name)
    named = good.map(
        lambda row: (
            "{"
            + ",".join(f"{json.dumps(n)}:{v}" for n, v in zip(schema.names, row, strict=True))
            + "}"
        )
    )
    listed = good.map(lambda row: "[" + ",".join(row) + "]")
    odd = objects([*schema.names, "new"], SCALARS) | SCALARS
    return st.one_of(named, named, named, listed, odd)


def bodies(schema: FeatureSchema) -> st.SearchStrategy[bytes]:
    fields = {
        "stream": st.just('"s"') | TEXTS,
        "id": st.integers(0, 99).map(lambda n: f'"e-{n}"') | TEXTS,
        "time": TIMES,
        "label": TEXTS,
        "prediction": TEXTS,
        "scores": objects(["0", "1", "2"], st.sampled_from(["0.25", "1", "0", "-1", "2", '"x"'])),
        "segment": objects(["camera", "site"], TEXTS),
        "features": features(schema),
        "trace": TEXTS | objects(["k", "l"], SCALARS),
        "image": st.just("null"),
        "specversion": st.just('"1.0"'),
    }
    usual = ["stream", "id", "features"]

    def text(names: Sequence[str]) -> st.SearchStrategy[str]:
        given = st.tuples(*(fields[name] for name in names))
        return given.map(
            lambda row: "{" + ",".join(f'"{n}":{v}' for n, v in zip(names, row, strict=True)) + "}"
        )

    some = st.lists(st.sampled_from(list(fields)), max_size=6)
    with_more = st.lists(
        st.sampled_from(["time", "label", "prediction", "scores", "segment", "trace"]),
        unique=True,
        max_size=4,
    ).map(lambda more: [*usual, *more])
    label = st.just(["stream", "id", "label", "time"])
    whole = st.one_of(with_more, with_more, with_more, label, some).flatmap(text)
    encoded = whole.map(lambda s: s.encode("utf-8", "surrogatepass"))
    cut = st.tuples(encoded, st.integers(0, 200)).map(lambda t: t[0][: t[1]])
    raw = st.sampled_from([b"", b"[]", b"null", b"\xff", b'{"a":"\xff"}', b" ", b'"s"', b"{}"])
    return st.one_of(encoded, encoded, encoded, encoded, cut, raw)


@pytest.mark.parametrize("name", SCHEMAS)
@given(data=st.data(), cuts=st.lists(st.integers(0, 50), max_size=3))
@settings(max_examples=300, deadline=None)
def test_both_ways_make_the_same_of_good_and_bad_records(
    name: str, data: st.DataObject, cuts: list[int]
) -> None:
    schema = SCHEMAS[name]
    values = data.draw(st.lists(bodies(schema), max_size=12))
    keys = data.draw(st.sampled_from([None, b"s", b"t"]))
    block = Block.of(Record("t", 0, 7 + n, keys, value) for n, value in enumerate(values))
    reader = PlainReader("s", schema, CLASSES)
    for _ in range(2):  # the second time fields that producers add are known
        assert_same(quick(block, reader, cuts), careful(block, range(len(block)), schema))


@given(row=st.lists(FLOATS | st.integers(-(2**80), 2**80), min_size=2, max_size=2))
@example(row=[-0.0, 5e-324])
@example(row=[1.7976931348623157e308, 2**64])
def test_every_number_is_read_to_the_last_bit(row: list[float]) -> None:
    body = {"stream": "s", "id": "1", "features": dict(zip("ab", row, strict=True))}
    block = Block.of([Record("t", 0, 0, None, json.dumps(body).encode())])
    columns, left = PlainReader("s", NUMBERS).read(block, [0])
    assert not left
    assert columns.features.numbers.tolist() == [[float(x) + 0.0 for x in row]]


def plain(**more: Any) -> dict[str, Any]:
    return {"stream": "s", "id": "e", "features": {"a": 1.5, "b": None}, **more}


def left_of(*bodies: Any, reader: PlainReader | None = None) -> list[int]:
    texts = [b if isinstance(b, bytes) else json.dumps(b).encode() for b in bodies]
    block = Block.of(Record("t", 0, n, None, text) for n, text in enumerate(texts))
    return (reader or PlainReader("s", NUMBERS, CLASSES)).read(block, range(len(block)))[1]


def test_what_is_usual_is_plain() -> None:
    assert not left_of(
        plain(),
        plain(label="1", prediction=0, time="2026-11-23T10:00:00Z"),
        plain(scores={"0": 0.25, "1": 0.75}, segment={"camera": 7, "site": None}),
        {"stream": "s", "id": 17, "label": "é", "time": "2026-11-23T10:00:00+01:00"},
        b' {"stream" : "s", "id":"x", "features": {"b": 2, "a": -1e-3}} ',
    )


def test_what_is_not_plain_costs_the_others_nothing() -> None:
    twice = b'{"stream":"s","id":"e","features":{"a":1,"b":2},"id":"f"}'
    other = plain(stream="t")
    assert left_of(plain(), twice, plain(), other, plain(id="x" * 257)) == [1, 3, 4]


def test_fields_that_producers_add_become_plain() -> None:
    reader = PlainReader("s", NUMBERS)
    body = plain(trace="abc", meta={"region": "eu", "hops": [1, 2]})
    assert left_of(body, plain(), reader=reader) == [0]
    assert not left_of(body, plain(), reader=reader)
    nested_twice = json.dumps(body).replace('"hops"', '"region"').encode()
    assert left_of(nested_twice, reader=reader) == [0]


def test_a_feature_with_a_name_that_has_no_quick_way_says_so() -> None:
    with pytest.raises(ValueError, match="must not contain"):
        PlainReader("s", FeatureSchema.declared({'a"b': "numeric"}))
    with pytest.raises(ValueError, match="expected a schema with features"):
        PlainReader("s", FeatureSchema.empty())
