"""Dead letters as lines of a file and as messages; the topic itself is in tests/kafka."""

from __future__ import annotations

import json
from pathlib import Path

from service.domain.dead_letter import DeadLetter
from service.notify.dead_letters import DeadLetterFile, cut, to_message

LETTER = DeadLetter(
    "events",
    1,
    17,
    "s",
    "wrong_type",
    "events[1]@17: time: no",
    b'{"id":1}',
    b"s",
    (("traceparent", b"00-1"),),
    1234,
)


def test_the_file_has_a_line_for_each_and_grows(tmp_path: Path) -> None:
    file = DeadLetterFile(tmp_path / "var" / "dead.jsonl")
    file.write([])
    assert not file.path.exists()
    file.write([LETTER])
    file.write([DeadLetter("events", 0, 3, "", "not_json", "no", b"\xff\x00")])
    lines = [json.loads(line) for line in file.path.read_text().splitlines()]
    place = {"topic": "events", "partition": 1, "offset": 17, "stream": "s"}
    said = {"reason": "wrong_type", "message": "events[1]@17: time: no"}
    assert lines[0] == {**place, **said, "value": '{"id":1}'}
    assert (lines[1]["stream"], lines[1]["value_base64"]) == (None, "/wA=")


def test_a_message_is_the_record_with_what_is_wrong_in_headers() -> None:
    message = to_message(LETTER)
    assert (message.key, message.value) == (b"s", b'{"id":1}')
    assert message.headers == (
        ("shiftwatch.reason", b"wrong_type"),
        ("shiftwatch.message", b"events[1]@17: time: no"),
        ("shiftwatch.stream", b"s"),
        ("shiftwatch.topic", b"events"),
        ("shiftwatch.partition", b"1"),
        ("shiftwatch.offset", b"17"),
        ("shiftwatch.timestamp", b"1234"),
        ("traceparent", b"00-1"),
    )


def test_a_record_that_comes_from_the_dead_letters_does_not_gather_headers() -> None:
    again = DeadLetter("e", 0, 0, "", "empty", "no", b"", None, to_message(LETTER).headers)
    names = [name for name, _ in to_message(again).headers]
    assert len(names) == len(set(names)) == 8
    assert dict(to_message(again).headers)["shiftwatch.offset"] == b"0"


def test_half_a_surrogate_pair_in_a_message_is_spelled_out() -> None:
    odd = DeadLetter("e", 0, 0, "", "bad_text", "\ud800", b"")
    assert dict(to_message(odd).headers)["shiftwatch.message"] == b"\\ud800"


def test_what_is_too_large_loses_its_end_and_then_what_is_not_about_it() -> None:
    large = to_message(
        DeadLetter("e", 0, 0, "", "empty", "no", bytes(100_000), b"k", (("h", b""),))
    )
    once = cut(large)
    assert (once.key, len(once.value), ("h", b"") in once.headers) == (b"k", 65_536, True)
    assert dict(once.headers)["shiftwatch.size"] == b"100000"
    twice = cut(once)
    assert (twice.key, len(twice.value), ("h", b"") in twice.headers) == (None, 256, False)
    assert dict(twice.headers)["shiftwatch.size"] == b"100000"
