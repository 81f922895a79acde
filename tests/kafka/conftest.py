"""The broker of the tests: the one that KAFKA_BOOTSTRAP_SERVERS names, or one of their own."""

from __future__ import annotations

import gc
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kafka.broker import Broker, NoBrokerError, wait_for_answer

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.kafka)


@pytest.fixture(autouse=True, scope="session")
def _quiet() -> Iterator[None]:
    """What kafka-python logs of a broker that is away keeps the lost sockets alive, because pytest
    keeps the log."""
    logger = logging.getLogger("kafka")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


@pytest.fixture(autouse=True)
def _sockets() -> Iterator[None]:
    """kafka-python leaves sockets of lost connections to the garbage collector: collect them here,
    or a later test fails with the warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "unclosed <(socket|ssl)", ResourceWarning)
        yield
        gc.collect()


def none(reason: NoBrokerError) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"no broker to test with: {reason}")
    pytest.skip(f"no broker to test with: {reason}")


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker | None]:
    """A broker that was started here; None where another one is named."""
    if os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield None
        return
    started = None
    try:
        started = Broker(tmp_path_factory.mktemp("kafka"))
        started.start()
    except NoBrokerError as error:
        if started is not None:
            started.stop()
        none(error)
        return
    yield started
    started.stop()


@pytest.fixture(scope="session")
def servers(broker: Broker | None) -> str:
    """HOST:PORT of a broker that answers."""
    if broker is not None:
        return broker.servers
    named = os.environ["KAFKA_BOOTSTRAP_SERVERS"]
    try:
        wait_for_answer(named.split(",")[0])
    except NoBrokerError as error:
        none(error)
    return named


@pytest.fixture
def own_broker(broker: Broker | None) -> Broker:
    """A broker that may be stopped."""
    if broker is None:
        pytest.skip("the broker that KAFKA_BOOTSTRAP_SERVERS names is not stopped")
    return broker


@pytest.fixture(params=["kafka-python", "confluent"])
def client(request: pytest.FixtureRequest) -> str:
    """Each of the two clients."""
    return str(request.param)
