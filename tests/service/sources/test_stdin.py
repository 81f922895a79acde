"""Lines of a pipe as records, without ever waiting longer than asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from service.records.decode import decode
from service.records.record import DecodeError, Record
from service.sources.files import FileSource
from service.sources.source import SourceError
from service.sources.stdin import StdinSource
from service.store.store import Store
from tests.service.streams import x_to_y_records

AT = ("stdin", 0)
ROOT = Path(__file__).parents[3]


class Pipe:
    """A pipe whose reading end is the source's."""

    def __init__(self, **options: Any) -> None:
        self._read, self._write = os.pipe()
        self.source = StdinSource(self._read, **options)

    def write(self, data: bytes) -> None:
        os.write(self._write, data)

    def end(self) -> None:
        if self._write >= 0:
            os.close(self._write)
            self._write = -1

    def close(self) -> None:
        self.end()
        os.close(self._read)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe(max_record_bytes=100)
    yield pipe
    pipe.close()


def drain(source: StdinSource, size: int = 3) -> list[Record]:
    found: list[Record] = []
    while not source.exhausted:
        batch = source.poll(size, 0.0)
        assert len(batch) <= size
        found += batch
    return found


def test_lines_come_with_blank_ones_counted_and_the_last_one_unfinished(pipe: Pipe) -> None:
    pipe.write(b'\xef\xbb\xbf{"n": 0}\n\n{"n": 2}\r\n   \n{"n": 4}')
    pipe.end()
    assert drain(pipe.source) == [Record("stdin", 0, n, None, b'{"n": %d}' % n) for n in (0, 2, 4)]
    assert (pipe.source.exhausted, pipe.source.lag()) == (True, 0)


def test_offsets_go_on_from_the_stores_and_nothing_is_skipped(pipe: Pipe) -> None:
    pipe.source.seek({AT: 40, ("other", 0): 3})
    pipe.write(b"a\nb\n")
    assert [(r.offset, r.value) for r in pipe.source.poll(9, 0.0)] == [(40, b"a"), (41, b"b")]
    pipe.source.commit({AT: 42})
    pipe.source.seek({})
    pipe.write(b"c\n")
    assert [r.offset for r in pipe.source.poll(9, 0.0)] == [42]


def test_an_unfinished_line_waits_for_its_end(pipe: Pipe) -> None:
    pipe.write(b'{"half":')
    assert not pipe.source.poll(9, 0.0)
    assert not pipe.source.exhausted
    pipe.write(b" 1}\nrest")
    assert [r.value for r in pipe.source.poll(9, 0.0)] == [b'{"half": 1}']
    pipe.end()
    assert [r.value for r in drain(pipe.source)] == [b"rest"]


def test_a_poll_ends_in_time_although_half_lines_keep_coming(pipe: Pipe) -> None:
    stop = threading.Event()
    until = time.monotonic() + 30.0

    def drip() -> None:
        while not stop.wait(0.001) and time.monotonic() < until:
            pipe.write(b".")

    writer = threading.Thread(target=drip)
    writer.start()
    try:
        assert not pipe.source.poll(9, 0.05)
        assert time.monotonic() < until
    finally:
        stop.set()
        writer.join()


def test_a_poll_returns_with_the_first_line(pipe: Pipe) -> None:
    late = threading.Timer(0.05, pipe.write, (b"a\n",))
    late.start()
    assert [r.value for r in pipe.source.poll(9, 60.0)] == [b"a"]
    late.join()


def test_a_line_that_is_too_long_is_refused_with_its_size(pipe: Pipe) -> None:
    for end in (b"\n", b"\r\n", b"\n"):
        pipe.write(b"x" * 100 + end)
    pipe.write(b"y" * 101 + b"\n" + b"z" * 5000 + b"\n" + b"k\n" + b"e" * 300)
    pipe.end()
    found = drain(pipe.source)
    assert [r.dropped_bytes for r in found] == [0, 0, 0, 101, 5000, 0, 300]
    assert {len(r.value) for r in found[:3]} == {100}
    with pytest.raises(DecodeError, match="5000 bytes, more than the source's limit"):
        decode(found[4])


@given(st.binary(max_size=60), st.lists(st.integers(1, 20), min_size=1, max_size=8))
def test_cuts_between_writes_change_nothing(data: bytes, cuts: list[int]) -> None:
    pipe = Pipe(max_record_bytes=10)
    found: list[Record] = []
    left, turn = data, 0
    while left:
        n = cuts[turn % len(cuts)]
        pipe.write(left[:n])
        left, turn = left[n:], turn + 1
        found += pipe.source.poll(2, 0.0)
    pipe.end()
    found += drain(pipe.source)
    pipe.close()
    whole = Pipe(max_record_bytes=10)
    whole.write(data)
    whole.end()
    assert found == drain(whole.source)
    whole.close()


def test_a_redirected_file_gives_the_records_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"".join(b'{"n": %d}\n\n' % n * (n % 3) for n in range(5000)))
    file = FileSource(path)
    expected: list[tuple[int, bytes]] = []
    while not file.exhausted:
        expected += [(r.offset, r.value) for r in file.poll(500)]
    with path.open("rb") as stdin:
        found = drain(StdinSource(stdin.fileno()), 500)
    assert [(r.offset, r.value) for r in found] == expected


def test_what_cannot_be_read_says_so() -> None:
    read, write = os.pipe()
    os.close(read)
    os.close(write)
    with pytest.raises(SourceError, match=r"standard input: cannot be read at 0: .*descriptor"):
        StdinSource(read).poll(1, 0.0)


def test_shiftwatch_run_takes_what_a_pipe_brings_and_ends_with_it(tmp_path: Path) -> None:
    settings = {
        "store": {"url": f"sqlite:///{tmp_path}/s.db"},
        "registry": {"path": f"{tmp_path}/models"},
        "dead_letters": {"path": f"{tmp_path}/dead.jsonl"},
        "http": {"port": None},
        "source": {"kind": "stdin"},
        "streams": [{"name": "s", "problem": "x_to_y"}],
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings))
    lines = [r.value for r in x_to_y_records(50)]
    for turn in range(2):
        done = subprocess.run(
            [sys.executable, "-c", "from service.cli import main; main()", "run", "c.yaml"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            input=b"\n".join([*lines, b"no record"]),
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        store = Store(settings["store"]["url"], time.time)  # type: ignore[index]
        assert store.offsets() == {AT: 51 * (turn + 1)}
        store.close()
    letters = [json.loads(line) for line in (tmp_path / "dead.jsonl").read_text().splitlines()]
    assert [(x["topic"], x["offset"], x["reason"]) for x in letters] == [
        ("stdin", 50, "not_json"),
        ("stdin", 101, "not_json"),
    ]
