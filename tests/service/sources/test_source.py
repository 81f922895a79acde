"""What every source promises, whatever it reads."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.records.block import Block
from service.records.record import Record
from service.sources.directory import DirectorySource
from service.sources.files import FileSource
from service.sources.listed import ListSource
from service.sources.source import Source, wait_for_records
from service.sources.spool.source import SpoolSource
from service.sources.spool.spool import Spool
from service.sources.stdin import StdinSource

N = 150
ROWS = [{"id": str(n), "stream": "s"} for n in range(N)]
LINES = [json.dumps(row, separators=(",", ":")).encode() for row in ROWS]
TEXT = b"".join(line + b"\n" for line in LINES)


def plain(folder: Path) -> Source:
    (folder / "e.jsonl").write_bytes(TEXT)
    return FileSource(folder / "e.jsonl")


def zipped(folder: Path) -> Source:
    (folder / "e.jsonl.gz").write_bytes(gzip.compress(TEXT))
    return FileSource(folder / "e.jsonl.gz")


def parquet(folder: Path) -> Source:
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "e.parquet", row_group_size=40)
    return FileSource(folder / "e.parquet")


def directory(folder: Path) -> Source:
    (folder / "files").mkdir()
    for n in range(3):
        text = b"".join(line + b"\n" for line in LINES[50 * n : 50 * (n + 1)])
        (folder / "files" / f"{n}.jsonl").write_bytes(text)
    return DirectorySource(folder / "files")


def stdin(folder: Path) -> Source:
    read, write = os.pipe()
    os.write(write, TEXT)
    os.close(write)
    return StdinSource(read)


def spool(folder: Path) -> Source:
    source = SpoolSource(Spool(folder / "spool"))
    for n in range(0, N, 30):
        source.spool.append(LINES[n : n + 30])
    return source


def listed(folder: Path) -> Source:
    return ListSource([Record("t", n % 2, n, None, line) for n, line in enumerate(LINES)])


@pytest.fixture(params=[plain, zipped, parquet, directory, stdin, spool, listed])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Source]:
    make: Callable[[Path], Source] = request.param
    with closing(make(tmp_path)) as opened:
        yield opened


def drain(source: Source, size: int) -> list[Record]:
    found: list[Record] = []
    while block := source.poll(size, 0.0):
        assert isinstance(block, Block)
        assert len(block) <= size
        found += block
    return found


@pytest.mark.parametrize("size", [1, 7, 64, 500])
def test_blocks_bring_every_record_once_in_its_order(source: Source, size: int) -> None:
    found = drain(source, size)
    assert [record.value for record in found] == LINES
    offsets: dict[tuple[str, int], list[int]] = {}
    for record in found:
        offsets.setdefault((record.topic, record.partition), []).append(record.offset)
    assert all(n == sorted(set(n)) for n in offsets.values())


def test_a_poll_for_no_record_brings_none_and_loses_none(source: Source) -> None:
    for _ in range(3):
        assert len(source.poll(0, 0.0)) == 0
    first = list(source.poll(10, 0.0))
    assert len(source.poll(0, 0.0)) == 0
    assert [record.value for record in [*first, *drain(source, 10)]] == LINES


@pytest.mark.parametrize(
    ("found_at", "timeout_s", "slept"),
    [(0, 1.0, []), (2, 1.0, [0.05, 0.05]), (9, 0.12, [0.05, 0.05, 0.02]), (9, 0.0, [])],
)
def test_a_source_is_read_again_until_there_is_a_record_or_the_time_is_over(
    found_at: int, timeout_s: float, slept: list[float]
) -> None:
    record = Block.of_partition("t", 0, [0], [b"{}"])
    reads = iter([*[Block.of([])] * found_at, record])
    pauses: list[float] = []
    found = wait_for_records(lambda: next(reads), timeout_s, pauses.append)
    assert pauses == pytest.approx(slept)
    assert len(found) == (len(slept) == found_at)
