"""Fixtures that every test may use."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from detectors.adapters.alibi import is_installed
from tests.postgres import NoServerError, Server, new_database

NAMED = "SHIFTWATCH_TEST_POSTGRES_URL"
WITH_ALIBI = "SHIFTWATCH_TEST_ALIBI"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    need_alibi = {item.path for item in items if item.get_closest_marker("alibi")}
    for item in items:
        # A module with tests that need alibi-detect is run as a whole where it has to be there.
        if item.path in need_alibi and os.environ.get(WITH_ALIBI):
            item.add_marker(pytest.mark.alibi)
        names = getattr(item, "fixturenames", ())
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        if "postgres" in names or parameters.get("any_database") == "postgresql":
            item.add_marker(pytest.mark.postgres)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("alibi") and not is_installed():
        if os.environ.get(WITH_ALIBI):
            pytest.fail(f"alibi-detect is not installed, and {WITH_ALIBI} is set", pytrace=False)
        pytest.skip("alibi-detect has an environment of its own: make test-alibi")


def pytest_make_parametrize_id(val: object) -> str | None:
    """Binary parameters are not spelt out.

    What is compressed holds the time, and processes that share the tests must name them alike.
    """
    if isinstance(val, bytes) and not (val.isascii() and val.decode().isprintable()):
        return "binary"
    return None


def _none(reason: object) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"no PostgreSQL to test with: {reason}")
    pytest.skip(f"no PostgreSQL to test with: {reason}")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server | None]:
    """A server that was started here; None where another one is named."""
    if os.environ.get(NAMED):
        yield None
        return
    server = None
    try:
        server = Server()
        server.start()
    except NoServerError as error:
        if server is not None:
            server.stop()
            server.remove()
        _none(error)
        return
    yield server
    server.stop()
    server.remove()


@pytest.fixture
def own_postgres(postgres_server: Server | None) -> Server:
    """A server that may be stopped; it must run again when the test ends."""
    if postgres_server is None:
        pytest.skip(f"the server that {NAMED} names is not stopped")
    return postgres_server


@pytest.fixture
def postgres(postgres_server: Server | None) -> Iterator[str]:
    """The URL of an empty database on PostgreSQL, which is dropped after the test."""
    if postgres_server is not None:
        server = postgres_server.url("postgres")
    else:
        server = os.environ[NAMED]
        try:
            sa.create_engine(server, poolclass=sa.NullPool).connect().close()
        except sa.exc.OperationalError as error:
            _none(error.orig)
    with new_database(server) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def any_database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of an empty database, on SQLite and on PostgreSQL in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path_factory.mktemp('store') / 'store.db'}"
    url: str = request.getfixturevalue("postgres")
    return url
