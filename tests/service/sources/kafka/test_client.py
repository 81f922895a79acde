"""The choice of a client of Kafka, which needs no broker."""

from __future__ import annotations

import sys

import pytest

from service.records.record import KEPT_BYTES, MAX_RECORD_BYTES, Record
from service.settings.source import SourceSettings
from service.sources.kafka.client import to_record
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


def test_a_tombstone_is_empty_and_of_what_is_too_large_only_the_start_is_kept() -> None:
    assert to_record("t", 1, 2, b"k", None) == Record("t", 1, 2, b"k", b"")
    large = b"x" * (MAX_RECORD_BYTES + 1)
    found = to_record("t", 1, 2, None, large)
    assert found == Record("t", 1, 2, None, large[:KEPT_BYTES], MAX_RECORD_BYTES + 1)
    assert to_record("t", 1, 2, None, large[1:]).dropped_bytes == 0
