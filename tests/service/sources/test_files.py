import gzip
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.records.decode import decode
from service.records.record import DecodeError, Record
from service.sources.directory import DirectorySource
from service.sources.files import FileSource
from service.sources.listed import Abort, Aborted, ListSource, Pause
from service.sources.source import Source, SourceError


def drain(source: Source, size: int = 3) -> list[Record]:
    found: list[Record] = []
    while not source.exhausted:
        batch = source.poll(size, 0.0)
        assert len(batch) <= size
        found += batch
    return found


@pytest.fixture
def follow():
    opened: list[FileSource] = []

    def open_source(path, **kwargs) -> FileSource:
        opened.append(FileSource(path, follow=True, **kwargs))
        return opened[-1]

    yield open_source
    for source in opened:
        source.close()


def items(n: int, topic: str = "t") -> list[Record]:
    return [Record(topic, 0, k, None, b"%d" % k) for k in range(n)]


def values(records) -> list[bytes]:
    return [r.value for r in records]


# -- the list ----------------------------------------------------------------------------------


def test_a_list_delivers_every_record_once_in_order():
    source = ListSource(items(7))
    assert source.lag() == 7
    assert drain(source) == items(7)
    assert (source.lag(), source.exhausted) == (0, True)


def test_a_list_goes_back_to_an_offset_and_leaves_other_partitions_alone():
    a, b = items(3, "a"), items(3, "b")
    source = ListSource([x for pair in zip(a, b, strict=True) for x in pair])
    source.poll(100)
    source.seek({("a", 0): 1})
    assert list(source.poll(100)) == a[1:]


def test_an_abort_fires_once_even_when_the_list_is_read_again():
    story = [*items(4)[:2], Abort(), *items(4)[2:]]
    source = ListSource(story)
    assert len(source.poll(100)) == 2
    with pytest.raises(Aborted):
        source.poll(100)
    again = ListSource(story)
    again.seek({("t", 0): 1})
    assert drain(again) == items(4)[1:]


def test_a_pause_is_one_empty_poll():
    source = ListSource([Pause(), *items(1), Pause()])
    assert not source.poll()
    assert list(source.poll()) == items(1)
    assert not source.exhausted
    assert not source.poll()
    assert source.exhausted


def test_a_list_keeps_what_was_committed():
    source = ListSource(items(1))
    source.commit({("t", 0): 1})
    assert source.committed == {("t", 0): 1}


# -- files -------------------------------------------------------------------------------------

TEXT = b'{"n": 0}\n\n{"n": 2}\r\n   \n{"n": 4}'


@pytest.mark.parametrize("name", ["events.jsonl", "events.jsonl.gz"])
def test_offsets_are_line_numbers_with_blank_lines_counted(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(gzip.compress(TEXT) if name.endswith("gz") else TEXT)
    found = drain(FileSource(path))
    assert found == [Record(name, 0, n, None, b'{"n": %d}' % n) for n in (0, 2, 4)]


@pytest.mark.parametrize("name", ["events.jsonl", "events.jsonl.gz", "events.parquet"])
@pytest.mark.parametrize("start", [0, 1, 63, 64, 150, 399, 400])
def test_a_file_goes_on_at_any_offset(tmp_path, name, start):
    path = tmp_path / name
    rows = [{"stream": "s", "id": str(n), "a": float(n)} for n in range(400)]
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=150)
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    source = FileSource(path)
    source.poll(10)
    source.seek({(name, 0): start, ("other", 0): 5})
    found = drain(source, 97)
    assert [r.offset for r in found] == list(range(start, 400))
    assert [decode_id(r) for r in found] == [str(n) for n in range(start, 400)]
    assert source.lag() == 0
    source.close()


def decode_id(record: Record) -> str:
    return json.loads(record.value)["id"]


def test_parquet_rows_are_the_records_that_decode(tmp_path):
    path = tmp_path / "e.parquet"
    rows = [
        {"stream": "s", "id": 1, "features": {"a": 1.0, "b": "x"}, "scores": {"u": 0.5}},
        {"stream": "s", "id": 2, "features": {"a": None, "b": "y"}, "scores": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    one, two = (decode(r) for r in drain(FileSource(path)))
    assert (one.features, one.scores) == ({"a": 1.0, "b": "x"}, {"u": 0.5})
    assert (two.features, two.scores) == ({"a": None, "b": "y"}, None)


def test_a_byte_order_mark_is_not_part_of_the_first_record(tmp_path):
    path = tmp_path / "e.jsonl"
    path.write_bytes(b"\xef\xbb\xbf{}\n")
    assert values(drain(FileSource(path))) == [b"{}"]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
def test_a_huge_line_is_a_record_that_says_so_and_the_file_goes_on(tmp_path, end):
    path = tmp_path / "e.jsonl"
    huge = b"x" * 3_000_000
    lines = [b"a" * 1000, b"b" * 1001, huge, b"c"]
    if not end:
        path.write_bytes(b"\n".join([lines[0], lines[1], lines[3], lines[2]]))
    else:
        path.write_bytes(b"".join(line + end for line in lines))
    found = drain(FileSource(path, max_record_bytes=1000))
    assert [r.offset for r in found] == [0, 1, 2, 3]
    assert [bool(r.dropped_bytes) for r in found].count(True) == 2
    assert found[0].value == lines[0]
    assert 1001 <= found[1].dropped_bytes <= 1003
    large = next(r for r in found if r.value.startswith(b"x"))
    assert len(large.value) == 256
    with pytest.raises(DecodeError) as caught:
        decode(large)
    assert caught.value.reason == "too_large"


def test_a_huge_parquet_row_is_a_record_that_says_so(tmp_path):
    path = tmp_path / "e.parquet"
    rows = [{"stream": "s", "id": 1, "a": "x" * 5000}, {"stream": "s", "id": 2, "a": "y"}]
    pq.write_table(pa.Table.from_pylist(rows), path)
    found = drain(FileSource(path, max_record_bytes=1000))
    assert found[0].dropped_bytes > 5000
    assert decode(found[1]).id == "2"


def table_file(folder, table: pa.Table, **options):
    pq.write_table(table, folder / "e.parquet", **options)
    return FileSource(folder / "e.parquet")


def test_a_block_of_parquet_rows_has_their_table(tmp_path):
    table = pa.table({"id": range(3000), "a": [0.5] * 3000})
    source = table_file(tmp_path, table, row_group_size=1100)
    source.seek({("e.parquet", 0): 40})
    found = [source.poll(500), source.poll(500), source.poll(700)]
    assert [block.table.column("id").to_pylist() for block in found] == [
        list(range(40, 540)),
        list(range(540, 1040)),
        list(range(1040, 1740)),
    ]
    assert [list(block.offsets) for block in found] == [
        block.table.column("id").to_pylist() for block in found
    ]
    assert source.lag() == 3000 - 1740
    source.close()


def batch_sizes(source: FileSource) -> list[int]:
    """The numbers of rows that are in memory at once."""
    source.poll(0)
    return [batch.num_rows for batch in source._reader._batches]


def test_many_small_rows_are_read_at_once_and_few_large_ones(tmp_path):
    n = 1500
    narrow = {"id": range(n), "level": ["abc", "d", "e"] * (n // 3)}
    assert batch_sizes(table_file(tmp_path, pa.table(narrow))) == [1024, 476]
    images = [os.urandom(100_000) for _ in range(30)]
    sizes = batch_sizes(table_file(tmp_path, pa.table({"id": range(30), "image": images})))
    assert max(sizes) <= 12
    assert sum(sizes) == 30


def test_a_large_value_that_a_file_holds_once_for_many_rows_is_not_met_in_all_at_once(tmp_path):
    image = os.urandom(500_000)
    source = table_file(tmp_path, pa.table({"id": range(2000), "image": [image] * 2000}))
    assert (tmp_path / "e.parquet").stat().st_size < 1_000_000
    assert max(batch_sizes(source)) * len(image) < 100_000_000


def test_of_large_rows_fewer_are_polled(tmp_path, monkeypatch):
    monkeypatch.setattr("service.sources.table_file.MAX_POLL_BYTES", 3_000_000)
    monkeypatch.setattr("service.sources.lines.MAX_POLL_BYTES", 3_000_000)
    images = [os.urandom(1_000_000) for _ in range(8)]
    source = table_file(tmp_path, pa.table({"id": range(8), "image": images}))
    assert [len(source.poll(500)) for _ in range(4)] == [3, 3, 2, 0]
    path = tmp_path / "e.jsonl"
    path.write_bytes(b"\n".join([b"x" * 1_000_000] * 8))
    source = FileSource(path)
    polled = [len(source.poll(500)) for _ in range(4)]
    assert max(polled) <= 4
    assert sum(polled) == 8


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"none\.jsonl"):
        FileSource(tmp_path / "none.jsonl")


@pytest.mark.parametrize("name", ["e.jsonl.gz", "e.parquet"])
def test_a_damaged_file_is_named_with_the_place(tmp_path, name):
    path = tmp_path / name
    whole = gzip.compress(b'{"a": 1}\n' * 5000)
    path.write_bytes(whole[: len(whole) // 2] if name.endswith("gz") else b"PAR1 nothing")
    with pytest.raises(SourceError, match=name):
        drain(FileSource(path))


@pytest.mark.parametrize("name", ["e.jsonl.gz", "e.parquet"])
def test_what_could_not_be_read_is_not_taken_for_the_end(tmp_path, name):
    path = tmp_path / name
    if name.endswith("gz"):
        whole = gzip.compress(b"".join(b"%d\n" % n for n in range(50_000)))
        path.write_bytes(whole[: len(whole) // 2])
    else:
        table = pa.table({"id": range(3000)})
        pq.write_table(table, path, row_group_size=1000, use_dictionary=False)
        at = pq.read_metadata(path).row_group(2).column(0).data_page_offset
        with path.open("r+b") as file:
            file.seek(at)
            file.write(b"\xff" * 20)
    source = FileSource(path)
    assert [len(source.poll(500)) for _ in range(2)] == [500, 500]
    with pytest.raises(SourceError, match=r"cannot be read at \d{4,}: "):
        drain(source, 500)
    for _ in range(2):
        with pytest.raises(SourceError, match=name):
            source.poll(500)
    assert not source.exhausted


@pytest.mark.parametrize("name", ["e.jsonl", "e.parquet"])
def test_a_file_that_ends_before_the_stores_offset_is_another_file(tmp_path, name):
    path = tmp_path / name
    if name == "e.parquet":
        pq.write_table(pa.Table.from_pylist([{"id": 1}]), path)
    else:
        path.write_bytes(b"{}\n")
    source = FileSource(path)
    source.seek({(name, 0): 2})
    with pytest.raises(SourceError, match=r"ends after 1 .* 2"):
        source.poll()


def test_the_lag_of_lines_is_estimated_from_their_length(tmp_path):
    path = tmp_path / "e.jsonl"
    path.write_bytes(b'{"a": 1}\n' * 1000)
    source = FileSource(path)
    assert source.lag() is None
    source.poll(100)
    assert source.lag() == 900
    source.close()


# -- followed files ----------------------------------------------------------------------------


def test_only_complete_lines_of_a_growing_file_are_delivered(tmp_path, follow):
    path = tmp_path / "e.jsonl"
    source = follow(path)
    assert not source.poll(10, 0.0)
    with path.open("ab") as file:
        for part, expected in [
            (b"one\ntw", [b"one"]),
            (b"o", []),
            (b"\nthree\n", [b"two", b"three"]),
        ]:
            file.write(part)
            file.flush()
            assert values(source.poll(10, 0.0)) == expected
    assert not source.poll(10, 0.0)
    assert not source.exhausted


def test_a_huge_line_of_a_growing_file_waits_for_its_end(tmp_path, follow):
    path = tmp_path / "e.jsonl"
    path.write_bytes(b"x" * 5000)
    source = follow(path, max_record_bytes=1000)
    assert not source.poll(10, 0.0)
    with path.open("ab") as file:
        file.write(b"x\nnext\n")
    found = source.poll(10, 0.0)
    assert [(r.offset, r.dropped_bytes > 5000) for r in found] == [(0, True), (1, False)]


def test_waiting_ends_with_the_first_record_or_the_timeout(tmp_path, follow):
    path = tmp_path / "e.jsonl"
    path.touch()
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            path.write_bytes(b"a\n")

    source = follow(path, sleep=sleep)
    assert values(source.poll(10, 1.0)) == [b"a"]
    assert len(slept) == 3
    slept[:] = [0.0] * 10
    assert not source.poll(10, 0.12)
    assert sum(slept) == pytest.approx(0.12)


def test_a_truncated_replaced_or_removed_file_stops_the_source(tmp_path, follow):
    path = tmp_path / "e.jsonl"
    for harm, message in [
        (lambda: path.write_bytes(b"a\n"), "truncated to 2 bytes after 6"),
        (lambda: (tmp_path / "new").rename(path), "replaced"),
        (path.unlink, "removed"),
    ]:
        path.write_bytes(b"a\nb\nc\n")
        (tmp_path / "new").write_bytes(b"a\nb\nc\nd\n")
        source = follow(path)
        assert len(source.poll(10, 0.0)) == 3
        harm()
        with pytest.raises(SourceError, match=message):
            source.poll(10, 0.0)


def test_a_followed_file_that_became_shorter_while_the_service_was_down_is_noticed(
    tmp_path, follow
):
    path = tmp_path / "e.jsonl"
    path.write_bytes(b"a\n")
    source = follow(path)
    source.seek({("e.jsonl", 0): 3})
    with pytest.raises(SourceError, match="ends after 1"):
        source.poll(10, 0.0)


@pytest.mark.parametrize("name", ["e.jsonl.gz", "e.parquet"])
def test_only_plain_lines_can_be_followed(tmp_path, name):
    with pytest.raises(SourceError, match="followed"):
        FileSource(tmp_path / name, follow=True)


# -- directories -------------------------------------------------------------------------------


def fill(folder, **files: int) -> None:
    for name, n in files.items():
        (folder / f"{name}.jsonl").write_text("".join(f"{name}{k}\n" for k in range(n)))


def test_a_directory_is_read_file_after_file_in_the_order_of_names(tmp_path):
    fill(tmp_path, b=2, a=3, c=0, d=1)
    (tmp_path / ".hidden").write_text("x\n")
    (tmp_path / "new.tmp").write_text("x\n")
    source = DirectorySource(tmp_path)
    found = drain(source, 2)
    assert values(found) == [b"a0", b"a1", b"a2", b"b0", b"b1", b"d0"]
    assert [(r.topic, r.offset) for r in found][:4] == [
        ("a.jsonl", 0),
        ("a.jsonl", 1),
        ("a.jsonl", 2),
        ("b.jsonl", 0),
    ]


@pytest.mark.parametrize("cut", range(7))
def test_a_directory_goes_on_at_the_stores_offsets(tmp_path, cut):
    fill(tmp_path, a=3, b=0, c=2, d=1)
    whole = drain(DirectorySource(tmp_path))
    offsets = {(r.topic, 0): r.offset + 1 for r in whole[:cut]}
    source = DirectorySource(tmp_path)
    source.seek(offsets)
    assert drain(source, 2) == whole[cut:]


def test_a_followed_directory_takes_new_files_but_no_earlier_ones(tmp_path):
    fill(tmp_path, b=1)
    source = DirectorySource(tmp_path, follow=True)
    assert values(source.poll(10, 0.0)) == [b"b0"]
    assert not source.poll(10, 0.0)
    fill(tmp_path, c=1)
    assert values(source.poll(10, 0.0)) == [b"c0"]
    fill(tmp_path, a=1)
    with pytest.raises(SourceError, match=r"a\.jsonl: has records, but c\.jsonl was read before"):
        source.poll(10, 0.0)


def test_a_directory_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SourceError, match="nowhere"):
        DirectorySource(tmp_path / "nowhere")
