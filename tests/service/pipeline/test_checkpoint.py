"""The five steps, in their order, each seen from outside."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from service.domain.decision import Means
from service.pipeline import checkpoint
from service.pipeline.stream import Batch, Stream
from service.records.block import Block
from service.records.reading import Given
from service.records.record import Record
from service.sources.listed import ListSource
from service.store.store import Store
from service.store.transaction import Transaction
from tests.service.runs import open_store, pipeline_of, settings_of
from tests.service.streams import as_records, x_to_y_records

ROOT = Path(__file__).parents[3]


class Diary:
    """What happened, in order; repeats in a row count once."""

    def __init__(self) -> None:
        self.entries: list[str] = []

    def note(self, entry: str) -> None:
        if self.entries[-1:] != [entry]:
            self.entries.append(entry)


class NotedSource(ListSource):
    def __init__(self, records: Sequence[Record], diary: Diary) -> None:
        super().__init__(records)
        self._diary = diary

    def poll(self, max_records: int = 500, timeout_s: float = 1.0) -> Block:
        found = super().poll(max_records, timeout_s)
        if found:
            self._diary.note("poll")
        return found

    def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        self._diary.note("commit")
        super().commit(offsets)


class NotedStore(Store):
    def __init__(self, url: str, diary: Diary) -> None:
        super().__init__(url, lambda: 0.0)
        self._diary = diary

    @contextmanager
    def transaction(self, epochs: Mapping[int, int] | None = None) -> Iterator[Transaction]:
        assert epochs == {0: 1}, "it is not fenced"
        self._diary.note("transaction begins")
        with super().transaction(epochs) as tx:
            yield tx
        self._diary.note("transaction is there")


def test_the_five_steps_come_in_their_order(tmp_path: Path) -> None:
    diary = Diary()

    class NotedStream(Stream):
        def take(self, given: Given, means: Means) -> Batch:
            diary.note("update")
            return super().take(given, means)

    settings = settings_of(tmp_path)
    with closing(NotedStore(settings.store.url, diary)) as store:
        source = NotedSource(x_to_y_records(300), diary)
        pipeline = pipeline_of(settings, source, store, stream_of=NotedStream)
        pipeline.on_written = lambda: diary.note("act")
        pipeline.step(timeout_s=0)
    steps = ["poll", "update", "transaction begins", "transaction is there", "commit", "act"]
    assert diary.entries == steps


def test_the_docstring_and_the_decision_have_the_same_list() -> None:
    """Whoever changes one has to change the other."""
    decision = (ROOT / "docs/adr/0002-delivery-guarantee.md").read_text()
    lists = []
    for text in (checkpoint.__doc__ or "", decision):
        steps = re.findall(r"^(\d)\. ((?:.+\n)(?:   .+\n)*)", text, re.MULTILINE)
        lists.append([(n, " ".join(words.split())) for n, words in steps])
    in_code, in_decision = lists
    assert [n for n, _ in in_code] == list("12345")
    assert in_code == in_decision


def test_letters_are_filed_before_the_transaction_that_passes_over_their_records(
    tmp_path: Path,
) -> None:
    settings = settings_of(tmp_path)
    letters = tmp_path / "dead.jsonl"
    letters.mkdir()  # nothing can be appended to it
    records = as_records([b"not json", *[r.value for r in x_to_y_records(300)]])
    with closing(open_store(settings.store.url)) as store:
        pipeline = pipeline_of(settings, ListSource(records), store)
        pipeline.step(timeout_s=0)
        assert "Is a directory" in pipeline.waits_for
        assert store.offsets() == {}
        assert store.dead_letters() == []
        letters.rmdir()
        assert pipeline.write()
        assert store.offsets() == {("events", 0): 301}
        assert len(store.dead_letters()) == len(letters.read_text().splitlines()) == 1


@pytest.mark.parametrize("n", [1, 3])
def test_records_that_were_polled_wait_in_their_lane(n: int, tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    with closing(open_store(settings.store.url)) as store:
        records = x_to_y_records(9)
        pipeline = pipeline_of(settings, ListSource(records), store)
        checkpoint.poll(pipeline.source, pipeline.lanes, n, 0.0)
        assert list(pipeline.lanes[0].polled) == records[:n]
        (taken,) = checkpoint.update(pipeline.lanes.values())
        assert list(taken.block) == records[:n]
        assert len(pipeline.lanes[0].polled) == 0
        assert list(checkpoint.update(pipeline.lanes.values())) == []
