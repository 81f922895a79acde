"""A block is its records, whichever way it was made, cut or joined."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.records.block import Block, Run
from service.records.record import Record
from service.records.table_row import RowTexts, row_text

RECORDS = st.lists(
    st.builds(
        Record,
        st.sampled_from(["events", "labels"]),
        st.integers(0, 2),
        st.integers(0, 2**40),
        st.none() | st.binary(max_size=3),
        st.binary(max_size=5),
        st.sampled_from([0, 0, 0, 9_000_000]),
        st.sampled_from([(), (), (("content-encoding", b"gzip"), ("a", b"1"))]),
        st.none() | st.integers(0, 2**40),
    ),
    max_size=12,
)


def same(block: Block, records: list[Record]) -> bool:
    # The broker's time takes no part in the equality of records.
    times = [r.timestamp_ms for r in records]
    return list(block) == records and [r.timestamp_ms for r in block] == times


@given(RECORDS)
def test_a_block_is_the_records_that_it_was_made_of(records: list[Record]) -> None:
    block = Block.of(records)
    assert same(block, records)
    assert len(block) == len(records)
    assert Block.of(block) is block


@given(RECORDS, st.integers(-14, 14), st.integers(-14, 14), st.sampled_from([1, 1, 2, -1]))
def test_a_slice_is_that_of_the_records(
    records: list[Record], start: int, stop: int, step: int
) -> None:
    assert same(Block.of(records)[start:stop:step], records[start:stop:step])


@given(st.lists(RECORDS, max_size=4))
def test_blocks_are_joined_in_their_order(parts: list[list[Record]]) -> None:
    whole = [record for part in parts for record in part]
    joined = Block.joined([Block.of(part) for part in parts])
    assert same(joined, whole)
    assert list(joined.runs) == list(Block.of(whole).runs)


@given(RECORDS)
def test_a_lane_has_the_records_of_its_number_in_their_order(records: list[Record]) -> None:
    lanes = Block.of(records).by_lane()
    assert set(lanes) == {r.partition for r in records}
    for lane, block in lanes.items():
        assert same(block, [r for r in records if r.partition == lane])


@given(RECORDS)
def test_next_is_the_offset_behind_the_last_of_each_partition(records: list[Record]) -> None:
    expected = {(r.topic, r.partition): r.offset + 1 for r in records}
    block = Block.of(records)
    assert block.next_offsets() == expected
    assert block.by_topic() == {
        topic: sum(r.topic == topic for r in records) for topic in {r.topic for r in records}
    }


@given(RECORDS)
def test_a_record_is_found_by_its_position_from_either_end(records: list[Record]) -> None:
    block = Block.of(records)
    for n, record in enumerate(records):
        assert (block[n], block[n - len(records)]) == (record, record)
        assert block.place(n) == (record.topic, record.partition)
    for n in (-1, len(records)):
        with pytest.raises(IndexError, match=f"{len(records)} records: .* {n}"):
            block.place(n)


@given(RECORDS, st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=4))
def test_pieces_are_gathered_in_their_order(
    records: list[Record], cuts: list[tuple[int, int]]
) -> None:
    block, n = Block.of(records), len(records)
    pieces = [(min(a, b, n), min(max(a, b), n)) for a, b in cuts]
    gathered = Block.gathered([(block, start, stop) for start, stop in pieces])
    assert same(gathered, [r for start, stop in pieces for r in records[start:stop]])


# -- rows of a table ---------------------------------------------------------------------------


def rows(first: int, n: int, **more: object) -> Block:
    table = pa.RecordBatch.from_pylist([{"id": k, **more} for k in range(first, first + n)])
    run = Run("t.parquet", 0, n)
    return Block([run], range(first, first + n), RowTexts(table, 1000))


def ids(block: Block) -> object:
    assert block.table is not None
    return block.table.column("id").to_pylist()


def test_a_block_of_rows_has_the_table_of_exactly_its_records() -> None:
    block = rows(0, 9)
    joined = Block.joined([block[2:5], block[7:]])
    for part, expected in [(block, [*range(9)]), (block[3:5], [3, 4]), (joined, [2, 3, 4, 7, 8])]:
        assert ids(part) == expected
        assert [r.offset for r in part] == expected
        assert [r.value for r in part] == [row_text({"id": n}) for n in expected]
    assert Block.of([Record("t", 0, 0, None, b"{}")]).table is None


def test_rows_that_have_not_one_table_are_joined_as_their_texts() -> None:
    lines = Block.of_partition("t.parquet", 0, [7], [b"{}"])
    for other in (lines, rows(7, 1, a="x")):
        joined = Block.joined([rows(0, 2), other])
        assert joined.table is None
        assert list(joined) == [*rows(0, 2), *other]
