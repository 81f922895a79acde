"""The choice of a client of Kafka, which needs no broker."""

from __future__ import annotations

import sys

import pytest

from service.records.block import Block
from service.records.record import KEPT_BYTES, MAX_RECORD_BYTES, Record
from service.settings.source import SourceSettings
from service.sources.kafka.client import to_block
from service.sources.kafka.source import KafkaSource
from service.sources.source import SourceError


def test_a_client_that_is_not_installed_is_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "service.sources.kafka.confluent", raising=False)
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    settings = SourceSettings.model_validate(
        {
            "kind": "kafka",
            "client": "confluent",
            "bootstrap_servers": "127.0.0.1:1",
            "topics": {"features": "events"},
        }
    )
    with pytest.raises(SourceError, match=r"confluent.*pip install 'shiftwatch\[confluent\]'"):
        KafkaSource(settings)


Given = tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]] | None, int]
"""Key, value, headers and time of a message, as a client gives them."""


def block_of(*messages: Given) -> Block:
    keys, values, headers, times = zip(*messages, strict=True)
    return to_block("t", 1, range(2, 2 + len(messages)), keys, values, headers, times)


def test_what_a_client_gives_is_a_block_of_its_records() -> None:
    block = block_of((b"k", b"{}", None, 1000), (None, b"[]", [("a", b"1"), ("a", None)], -1))
    assert list(block) == [
        Record("t", 1, 2, b"k", b"{}"),
        Record("t", 1, 3, None, b"[]", headers=(("a", b"1"), ("a", b""))),
    ]
    assert [r.timestamp_ms for r in block] == [1000, None]
    assert list(block_of((None, b"{}", [], 0))) == [Record("t", 1, 2, None, b"{}")]


def test_a_tombstone_is_empty_and_of_what_is_too_large_only_the_start_is_kept() -> None:
    large = b"x" * (MAX_RECORD_BYTES + 1)
    found = block_of((b"k", None, None, 0), (None, large, None, 0), (None, large[1:], None, 0))
    assert list(found) == [
        Record("t", 1, 2, b"k", b""),
        Record("t", 1, 3, None, large[:KEPT_BYTES], MAX_RECORD_BYTES + 1),
        Record("t", 1, 4, None, large[1:]),
    ]
