"""Lines are the same however the bytes come in pieces."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from service.records.record import KEPT_BYTES, Record
from service.sources.lines import Lines
from service.sources.source import MAX_POLL_BYTES

MAX_BYTES = 8


def plainly(data: bytes, start: int = 0, max_bytes: int = MAX_BYTES) -> list[Record]:
    """The records of a text, one line after the other."""
    found = []
    for n, line in enumerate(re.findall(rb"[^\n]*\n|[^\n]+$", data)):
        text = line.removeprefix(b"\xef\xbb\xbf") if n == 0 else line
        text = text.removesuffix(b"\n")
        size = len(text.removesuffix(b"\r"))
        dropped = size if size > max_bytes else 0
        value = (text[:KEPT_BYTES] if dropped else text).rstrip(b"\r")
        if n >= start and (value.strip() or dropped):
            found.append(Record("t", 0, n, None, value, dropped))
    return found


TEXT = st.lists(
    st.sampled_from([b"\n", b"\r", b"\r\n", b" ", b"a", b"b" * 7, b"c" * 300, b"\xef\xbb\xbf"]),
    max_size=30,
).map(b"".join)


@settings(deadline=None, max_examples=300)
@given(TEXT, st.lists(st.integers(1, 40), min_size=1), st.integers(0, 9), st.integers(1, 5))
def test_cuts_and_takes_between_them_change_nothing(
    data: bytes, cuts: list[int], start: int, size: int
) -> None:
    lines = Lines("t", MAX_BYTES, start)
    found: list[Record] = []
    left, turn = data, 0
    while left:
        n = cuts[turn % len(cuts)]
        lines.add(left[:n])
        left, turn = left[n:], turn + 1
        if turn % 2:
            taken = lines.take(size)
            assert len(taken) <= size
            found += taken
    lines.end()
    found += lines.take(1000)
    assert found == plainly(data, start)
    assert len(lines) == 0


@given(TEXT, TEXT)
def test_a_line_that_is_forgotten_is_read_again_as_if_for_the_first_time(
    head: bytes, tail: bytes
) -> None:
    lines = Lines("t", MAX_BYTES)
    lines.add(head)
    n = lines.forget_unfinished()
    lines.add(head[len(head) - n :] + tail)
    lines.end()
    assert list(lines.take(1000)) == plainly(head + tail)


def test_lines_are_counted_from_where_it_is_said() -> None:
    lines = Lines("t", MAX_BYTES)
    lines.count_from(40)
    lines.add(b"a\n\nb\nc\n")
    assert [r.offset for r in lines.take(2)] == [40, 42]
    lines.count_from(43)
    assert [r.offset for r in lines.take(2)] == [43]
    lines.add(b"d\ne\n")
    lines.count_from(7)
    assert [r.offset for r in lines.take(2)] == [7, 8]


def test_of_large_lines_fewer_are_enough() -> None:
    lines = Lines("t", MAX_POLL_BYTES)
    lines.add(b"x" * (MAX_POLL_BYTES - 2))
    assert not lines.has_enough(500)
    lines.add(b"\ny\n")
    assert lines.has_enough(500)
    assert len(lines.take(500)) == 2
    lines.add(b"z\n")
    assert not lines.has_enough(500)
    assert lines.has_enough(1)


def test_of_a_line_without_end_little_is_kept() -> None:
    lines = Lines("t", MAX_BYTES)
    for _ in range(1000):
        lines.add(b"x" * 1000)
    assert sum(map(len, lines._parts)) < 2000
    lines.add(b"\n")
    assert [(r.dropped_bytes, len(r.value)) for r in lines.take(1)] == [(1_000_000, KEPT_BYTES)]
