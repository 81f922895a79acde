"""How fast JSON records become columns, by every way that was tried.

``python -m benchmarks.parsing``

All ways run in one process, by turns, on the records of `benchmarks.stream_worker` (about 1 kB, 32
features) in batches of 500; what counts are the ratios. Only the last two do all that the service
needs: ids, labels, times and the checks of a strict reading.
"""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.json as pa_json

from benchmarks.report import markdown_table
from benchmarks.stream_worker import events
from detectors.base import Array
from service.records.block import Block
from service.records.decode import decode
from service.records.gather import gather
from service.records.plain import PlainReader
from service.records.schema import FeatureSchema

N = 20_000
BATCH = 500
ROUNDS = 7
NAMES = [f"feature_{k:02d}" for k in range(32)]
SCHEMA = FeatureSchema.declared(dict.fromkeys(NAMES, "numeric"))

Batch = list[bytes]


def by_dict(loads: Callable[[bytes], Any]) -> Callable[[Batch], Array]:
    """Parse into dictionaries, and take the features out of them."""

    def run(values: Batch) -> Array:
        bodies = [loads(value) for value in values]
        rows = itertools.chain.from_iterable(body["features"].values() for body in bodies)
        return np.fromiter(rows, np.float64).reshape(len(values), -1)

    return run


def by_struct() -> Callable[[Batch], Array]:
    """Parse into a type that was made of the features' names."""
    features = msgspec.defstruct("Features", [(name, float | None) for name in NAMES])
    fields = [("stream", str), ("id", str), ("features", features), ("prediction", str | None)]
    body = msgspec.defstruct("Body", [*fields, ("label", str | None)])
    parse: Any = msgspec.json.Decoder(body).decode

    def run(values: Batch) -> Array:
        rows = [msgspec.structs.astuple(parse(value).features) for value in values]
        flat = itertools.chain.from_iterable(rows)
        return np.fromiter(flat, np.float64).reshape(len(values), -1)

    return run


def by_arrow() -> Callable[[Batch], Array]:
    """Arrow's reader of JSON lines, told the schema."""
    features = pa.struct([(name, pa.float64()) for name in NAMES])
    texts = [(name, pa.string()) for name in ("stream", "id", "prediction", "label")]
    parse = pa_json.ParseOptions(
        explicit_schema=pa.schema([*texts, ("features", features)]),
        unexpected_field_behavior="error",
    )
    read = pa_json.ReadOptions(use_threads=False, block_size=1 << 24)

    def run(values: Batch) -> Array:
        lines = pa.BufferReader(b"\n".join(values))
        table = pa_json.read_json(lines, read_options=read, parse_options=parse)
        column = table.column("features").combine_chunks()
        return np.column_stack([column.field(k).to_numpy() for k in range(len(NAMES))])

    return run


def careful(values: Batch) -> Array:
    """The service's own way for whatever is not plain, one record after the other."""
    block = Block.of_partition("t", 0, range(len(values)), values)
    bodies = [(at, decode(record)) for at, record in enumerate(block)]
    return gather(block, bodies, SCHEMA)[0].features.numbers


def plain() -> Callable[[Batch], Array]:
    """The service's own way for plain records."""
    reader = PlainReader("a", SCHEMA)

    def run(values: Batch) -> Array:
        block = Block.of_partition("t", 0, range(len(values)), values)
        columns, left = reader.read(block, range(len(values)))
        assert not left
        return columns.features.numbers

    return run


def main() -> None:
    """Measure, and print the table."""
    values = list(itertools.islice(events("a", N, seed=1, labelled=0.1), N))
    batches = [values[n : n + BATCH] for n in range(0, N, BATCH)]
    ways: dict[str, Callable[[Batch], Array]] = {
        "`json`, features only": by_dict(json.loads),
        "`orjson`, features only": by_dict(orjson.loads),
        "`msgspec` without a type, features only": by_dict(msgspec.json.decode),
        "`pyarrow.json` with the schema, features only": by_arrow(),
        "`msgspec` with a type of the schema, features only": by_struct(),
        "ours, carefully, everything": careful,
        "ours, plain records, everything": plain(),
    }
    expected = ways["`json`, features only"](values)
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for name, way in ways.items():
        assert np.array_equal(way(values), expected), name
    for _ in range(ROUNDS):
        for name, way in ways.items():
            started = time.process_time()
            for batch in batches:
                way(batch)
            spent[name].append((time.process_time() - started) / N * 1e6)
    base = statistics.median(spent["`json`, features only"])
    rows = [
        (name, f"{statistics.median(us):.1f}", f"{statistics.median(us) / base:.2f}")
        for name, us in spent.items()
    ]
    print(markdown_table(("way", "us of processor a record", "of `json`"), rows))


if __name__ == "__main__":
    main()
