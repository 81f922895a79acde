"""A store on SQLite and on PostgreSQL, with a clock that is set by hand."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.store.store import Store
from tests.service.store.values import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def url(any_database: str) -> str:
    return any_database


@pytest.fixture
def store(url: str, clock: Clock) -> Iterator[Store]:
    store = Store(url, clock)
    yield store
    store.close()


@pytest.fixture
def sqlite_store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'store.db'}", clock)
    yield store
    store.close()
