"""Certificates and logins on a real broker, with both clients."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition

from service.settings.source import SourceSettings
from service.sources.kafka import confluent as kafka_confluent
from service.sources.kafka import kafka_python
from service.sources.kafka.source import KafkaSource
from service.sources.source import SourceError
from tests.kafka.broker import PASSWORD, USER, Broker, NoBrokerError, new_topic, produce_values
from tests.kafka.certificates import KEY_PASSWORD, Certificates
from tests.kafka.conftest import none
from tests.kafka.test_source import Desk, collect, values

WRONG = "wrong-" + PASSWORD


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Reaching is given up soon; and what kafka-python logs is heard, but not kept by pytest."""
    monkeypatch.setattr(kafka_python, "_BOOTSTRAP_MS", 3000)
    monkeypatch.setattr(kafka_confluent, "_REACH_S", 3.0)
    logger = logging.getLogger("kafka.net")
    monkeypatch.setattr(logger, "propagate", False)
    logger.setLevel(logging.WARNING)
    yield
    logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def secured(
    certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Broker]:
    started = None
    try:
        started = Broker(tmp_path_factory.mktemp("secured"), certificates)
        started.start()
    except NoBrokerError as error:
        none(error)
    else:
        yield started
    finally:
        if started is not None:
            started.stop()


@pytest.fixture(scope="module")
def topic(secured: Broker) -> str:
    name = new_topic(secured.servers, "events")
    produce_values(secured.servers, name, values(5))
    return name


@pytest.fixture
def settings(secured: Broker, certificates: Certificates, topic: str, client: str) -> Any:
    def settings(listener: str, **more: Any) -> SourceSettings:
        return SourceSettings.model_validate(
            {
                "kind": "kafka",
                "client": client,
                "bootstrap_servers": secured.secure[listener],
                "topics": {"features": topic},
                "group_id": f"{topic}-{client}",
                "security_protocol": "SASL_SSL" if listener == "SASL_SSL" else "SSL",
                "ssl_cafile": certificates.ca,
                **more,
            }
        )

    return settings


def login(mechanism: str, password: str = PASSWORD) -> Mapping[str, str]:
    return {"sasl_mechanism": mechanism, "sasl_username": USER, "sasl_password": password}


def read(settings: SourceSettings) -> None:
    """Read and commit all: with the connection that reads and with the group's."""
    with closing(KafkaSource(settings)) as source:
        source.start(Desk())
        assert [r.value for r in collect(source, 5)] == values(5)
        source.commit({(settings.topics.names[0], 0): 5} if settings.topics else {})


def committed(broker: Broker, settings: SourceSettings) -> int | None:
    assert settings.topics is not None
    consumer = KafkaConsumer(bootstrap_servers=broker.servers, group_id=settings.group_id)
    with closing(consumer):
        found: int | None = consumer.committed(TopicPartition(settings.topics.features, 0))
        return found


def test_records_come_over_a_connection_with_a_certificate(secured: Broker, settings: Any) -> None:
    read(settings("SSL"))
    assert committed(secured, settings("SSL")) == 5


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
def test_records_come_after_a_login(settings: Any, mechanism: str) -> None:
    read(settings("SASL_SSL", **login(mechanism)))


def test_the_client_shows_a_certificate_too(
    settings: Any, certificates: Certificates, tmp_path: Path
) -> None:
    shown = {"ssl_certfile": certificates.client, "ssl_keyfile": certificates.client_key}
    read(settings("MUTUAL", **shown, ssl_key_password=KEY_PASSWORD))
    (tmp_path / "password").write_text(KEY_PASSWORD + "\n")
    read(settings("MUTUAL", **shown, ssl_key_password_file=tmp_path / "password"))


def refused(settings: SourceSettings, capfd: pytest.CaptureFixture[str]) -> str:
    """The error of a start that the broker or the client refuses; no secret is in what is said."""
    with pytest.raises(SourceError) as caught:
        KafkaSource(settings)
    said = str(caught.value)
    assert said.startswith(f"{settings.bootstrap_servers[0]}: ")
    output = capfd.readouterr()
    for secret in (PASSWORD, KEY_PASSWORD):
        assert secret not in said + output.out + output.err
    return said


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
def test_a_wrong_password_is_said(
    settings: Any, mechanism: str, capfd: pytest.CaptureFixture[str]
) -> None:
    said = refused(settings("SASL_SSL", **login(mechanism, WRONG)), capfd)
    assert "Authentication failed" in said or f"refused login by {mechanism}" in said


def test_a_certificate_that_nobody_vouches_for_is_said(
    settings: Any, certificates: Certificates, capfd: pytest.CaptureFixture[str]
) -> None:
    said = refused(settings("SSL", ssl_cafile=certificates.stranger), capfd)
    assert "certificate verify failed" in said


def test_a_client_without_a_certificate_is_refused_where_one_is_asked_for(
    settings: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    said = refused(settings("MUTUAL"), capfd)
    assert "certificate" in said


def test_a_wrong_password_of_the_key_is_said(
    settings: Any, certificates: Certificates, capfd: pytest.CaptureFixture[str]
) -> None:
    shown = {"ssl_certfile": certificates.client, "ssl_keyfile": certificates.client_key}
    said = refused(settings("MUTUAL", **shown, ssl_key_password="wrong"), capfd)
    assert f"ssl_certfile {certificates.client}, its key and the key's password" in said


def test_a_file_that_is_not_there_is_named(
    settings: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said = refused(settings("SSL", ssl_cafile=tmp_path / "none.pem"), capfd)
    assert f"source.ssl_cafile {tmp_path}/none.pem: No such file" in said
