"""A pipeline over a list of records, run to its end through crashes, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry

from models.registry import Registry
from service.domain.incident import Incident
from service.pipeline.pipeline import Pipeline
from service.records.block import Block
from service.records.record import Record
from service.settings.service import Settings
from service.sources.listed import Aborted, ListSource
from service.sources.source import Source
from service.store.store import Store
from service.store.transaction import Transaction
from service.telemetry.metrics import Metrics

T = TypeVar("T")

WARM_UP = 400


class KilledError(BaseException):
    """The process dies here; a BaseException, because no handler may survive a kill."""


class Fuse:
    """Kills at the n-th step, once."""

    def __init__(self, at: int | None) -> None:
        self.at = at
        self.steps = 0

    def step(self) -> None:
        self.steps += 1
        if self.steps == self.at:
            raise KilledError


class DyingSource(ListSource):
    """A list that kills where a process can die: before it is polled, and around its commit."""

    def __init__(self, records: Sequence[Record], fuse: Fuse, most: int) -> None:
        super().__init__(list(records))
        self._fuse = fuse
        self._most = most

    def poll(self, max_records: int = 500, timeout_s: float = 1.0) -> Block:
        self._fuse.step()
        return super().poll(min(max_records, self._most), timeout_s)

    def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        self._fuse.step()
        super().commit(offsets)
        self._fuse.step()


class DyingStore(Store):
    """A store that kills before a transaction, and at its end before it is there."""

    def __init__(self, url: str, fuse: Fuse) -> None:
        super().__init__(url, lambda: 0.0)
        self._fuse = fuse

    @contextmanager
    def transaction(self, *args: Any, **kwargs: Any) -> Iterator[Transaction]:
        self._fuse.step()
        with super().transaction(*args, **kwargs) as tx:
            yield tx
            self._fuse.step()


def settings_of(folder: Path, **stream: Any) -> Settings:
    """One stream `s`, written every 200 records."""
    return Settings.model_validate(
        {
            "store": {"url": f"sqlite:///{folder}/s.db"},
            "registry": {"path": folder / "models"},
            "dead_letters": {"path": folder / "dead.jsonl"},
            "checkpoint": {"every_records": 200, "every_s": 1e9},
            "webhooks": [{"url": "https://example.org/hook", "secret": "whsec_" + "A" * 32}],
            "streams": [
                {
                    "name": "s",
                    "problem": "x_to_y",
                    "reference": {"warm_up": WARM_UP},
                    "false_alarm_every": 50_000,
                    "confirm": {"looks": [100, 200, 300], "max_wait": 1000, "min_labels": 60},
                    **stream,
                }
            ],
        }
    )


def open_store(url: str) -> Store:
    """A store whose clock stands still."""
    return Store(url, lambda: 0.0)


def pipeline_of(
    settings: Settings,
    source: Source,
    store: Store,
    registry: CollectorRegistry | None = None,
    **collaborators: Any,
) -> Pipeline:
    """A pipeline whose clock stands still; its metrics are in `registry`."""
    return Pipeline(
        settings,
        source,
        store,
        Registry(settings.registry.path),
        Metrics(CollectorRegistry() if registry is None else registry),
        lambda: 0.0,
        **collaborators,
    )


def work_off(pipeline: Pipeline) -> None:
    """Have it take and write everything that its source has."""
    while pipeline.step(timeout_s=0) or not pipeline.write():
        pass


def run_to_end(
    settings: Settings,
    source_of: Callable[[], Source],
    result: Callable[[Pipeline, Store], T],
    *,
    store_of: Callable[[str], Store] = open_store,
    url: str | None = None,
    **pipeline: Any,
) -> T:
    """Run to the end, starting again after each kill; `result` looks at what is left."""
    while True:
        with closing(store_of(url or settings.store.url)) as store:
            try:
                running = pipeline_of(settings, source_of(), store, **pipeline)
                work_off(running)
            except (KilledError, Aborted):
                continue
            return result(running, store)


def incidents_of(store: Store) -> list[Incident]:
    """All incidents, oldest first."""
    return sorted(store.incidents(limit=None), key=lambda i: (i.lane, i.opened_at.index, i.id))


def confirmed(incidents: Sequence[Incident]) -> list[Incident]:
    return [i for i in incidents if i.confirmed_at is not None]
