"""A store that is away, full, or whose answer is lost: waited for, with the same incidents."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from models.registry import Registry
from service.domain.incident import Incident
from service.pipeline.pipeline import Pipeline
from service.repair.jobs import Jobs
from service.settings.service import Settings
from service.sources.listed import ListSource
from service.store.errors import StoreError
from service.store.store import Store
from service.store.transaction import Transaction
from tests.service.pipeline.test_pipeline import CHANGE
from tests.service.runs import incidents_of, open_store, pipeline_of, settings_of
from tests.service.streams import x_to_y_records

N = 1300
MOST_STEPS = 5000


class Outage(Store):
    """A store that is away for some transactions in a row.

    `first` is the number of the first that fails, from 0; `is_written` tells whether they are
    written all the same, so that only the answer is lost.
    """

    def __init__(self, url: str, first: int, n: int, *, is_written: bool = False) -> None:
        super().__init__(url, lambda: 0.0)
        self._first = first
        self._end = first + n
        self._is_written = is_written
        self.n = 0

    @contextmanager
    def transaction(self, *args: Any, **kwargs: Any) -> Iterator[Transaction]:
        number, self.n = self.n, self.n + 1
        fails = self._first <= number < self._end
        if fails and not self._is_written:
            raise StoreError("away")
        with super().transaction(*args, **kwargs) as tx:
            yield tx
        if fails:
            raise StoreError("the answer is lost")


def run(
    folder: Path,
    store_of: Callable[[str], Store],
    watch: Callable[[Pipeline, Store], None] = lambda pipeline, store: None,
    jobs_of: Callable[[Settings, Store], Jobs | None] = lambda settings, store: None,
) -> tuple[list[Incident], dict[str, Any]]:
    """The incidents and everything else that a run leaves in its store."""
    records = x_to_y_records(N, shift="covariate", at=CHANGE, seed=5, delay=20)
    # In place of a label, so that the letters are written in the middle of the run.
    records[1600] = dataclasses.replace(records[1600], value=b"not json")
    settings = settings_of(folder)
    with closing(store_of(settings.store.url)) as store:
        ticks = itertools.count()
        pipeline = pipeline_of(
            settings,
            ListSource(records),
            store,
            monotonic=lambda: float(next(ticks)),  # every wait is over at once
            jobs=jobs_of(settings, store),
        )
        for _ in range(MOST_STEPS):
            if not pipeline.step(timeout_s=0):
                break
            watch(pipeline, store)
        else:
            pytest.fail("it does not come to an end")
        pipeline.write()
        found = incidents_of(store)
        left = {
            "actions": [(a.id, a.payload) for a in store.actions()],
            "dead letters": store.dead_letters(),
            "offsets": store.offsets(),
            "states": store.states(0),
        }
    return found, left


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Incident], dict[str, Any]]:
    found = run(tmp_path_factory.mktemp("whole"), open_store)
    assert [i.confirmed_at is not None for i in found[0]] == [True]
    return found


@pytest.mark.parametrize("is_written", [False, True])
@pytest.mark.parametrize("first", [0, 1, 2, 3])
def test_a_store_that_is_away_is_waited_for(
    first: int,
    is_written: bool,
    whole: tuple[list[Incident], dict[str, Any]],
    tmp_path: Path,
) -> None:
    taken: list[int] = []

    def watch(pipeline: Pipeline, store: Store) -> None:
        if pipeline.waits_for:
            taken.append(pipeline.n_records)

    found = run(tmp_path, lambda url: Outage(url, first, 4, is_written=is_written), watch)
    assert found == whole
    assert len(taken) >= 3, "it was never away"
    assert len(set(taken)) == 1, "records were taken that could not be written"


def test_a_full_disk_is_waited_for_and_nothing_is_torn(
    whole: tuple[list[Incident], dict[str, Any]], tmp_path: Path
) -> None:
    pages = {"most": 1 << 30}

    def limited(url: str) -> Store:
        store = Store(url, lambda: 0.0)

        def limit(connection: Any, *_: object) -> None:
            connection.execute(f"PRAGMA max_page_count = {pages['most']}")

        sa.event.listen(store._engine, "checkout", limit)
        return store

    reasons: list[str] = []

    def watch(pipeline: Pipeline, store: Store) -> None:
        if pipeline.n_records == 1000:
            pages["most"] = 1  # SQLite takes the size that the file has
        if pipeline.waits_for:
            reasons.append(pipeline.waits_for)
            assert store.offsets() == {("events", 0): 1000}
            if len(reasons) == 5:
                pages["most"] = 1 << 30

    found = run(tmp_path, limited, watch)
    assert found == whole
    assert len(reasons) >= 5
    assert all("the disk is full" in reason for reason in reasons)
    engine = sa.create_engine(f"sqlite:///{tmp_path}/s.db")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    engine.dispose()


def test_a_full_disk_of_the_dead_letters_is_waited_for(
    whole: tuple[list[Incident], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # /dev/full answers every write as a full disk does.
    letters = tmp_path / "dead.jsonl"
    letters.symlink_to("/dev/full")
    n = 0

    def watch(pipeline: Pipeline, store: Store) -> None:
        nonlocal n
        if pipeline.waits_for:
            assert "No space left" in pipeline.waits_for
            n += 1
            if n == 3:
                letters.unlink()

    found = run(tmp_path, open_store, watch)
    assert found == whole
    assert n >= 3
    assert letters.read_text().count("not_json") == 1


class JobsAway(Jobs):
    """Jobs whose store is away at the first attempts to start one."""

    n = 0

    def start_next(self, lanes: Collection[int]) -> None:
        self.n += 1
        if self.n < 3:
            raise StoreError("away")
        super().start_next(lanes)


def test_a_store_that_is_away_when_a_training_is_to_start_is_waited_for(
    whole: tuple[list[Incident], dict[str, Any]], tmp_path: Path
) -> None:
    def jobs_of(settings: Settings, store: Store) -> Jobs:
        registry = Registry(settings.registry.path)
        return JobsAway(store, registry, settings, tmp_path / "jobs")

    found = run(tmp_path, open_store, jobs_of=jobs_of)
    assert found == whole
