"""What a source may be told, and what is refused before anything is read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.settings.file import SettingsError
from service.settings.service import loads
from service.settings.source import SourceSettings

STREAMS = "streams: [{name: s, problem: x_to_y}]\n"
KAFKA = "kind: kafka, bootstrap_servers: 'a:9092, b:9092', topics: {features: events}"
TLS = f"{KAFKA}, security_protocol: SSL"


def source(text: str, environ: dict[str, str] | None = None) -> SourceSettings:
    return loads(f"{STREAMS}source: {{{text}}}\n", "a.yaml", environ).source


def problem(text: str, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        source(text, environ)
    [found] = caught.value.problems
    return found


def test_servers_and_a_topic_are_enough() -> None:
    found = source(KAFKA)
    assert found.bootstrap_servers == ("a:9092", "b:9092")
    assert found.topics is not None
    assert found.topics.names == ("events",)
    assert (found.group_id, found.auto_offset_reset) == ("shiftwatch", "earliest")
    assert (found.max_poll_records, found.merge_wait_ms) == (500, 500)
    assert found.read_sasl_password() is None


def test_topics_that_are_written_are_not_read() -> None:
    topics = "{features: e, labels: l, dead_letters: d, incidents: i}"
    found = source(f"kind: kafka, bootstrap_servers: a:1, topics: {topics}").topics
    assert found is not None
    assert found.names == ("e", "l")
    assert (found.dead_letters, found.incidents) == ("d", "i")


def test_servers_are_a_list_too_also_in_the_environment() -> None:
    text = "kind: kafka, bootstrap_servers: [a:1, b:2], topics: {features: e, labels: l}"
    assert source(text).bootstrap_servers == ("a:1", "b:2")
    environ = {"SHIFTWATCH_SOURCE__BOOTSTRAP_SERVERS": "c:3,d:4"}
    assert source(text, environ).bootstrap_servers == ("c:3", "d:4")


def test_the_password_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    login = "security_protocol: SASL_SSL, sasl_mechanism: SCRAM-SHA-512, sasl_username: me"
    environ = {"SHIFTWATCH_SOURCE__SASL_PASSWORD": "pa55"}
    found = source(f"{KAFKA}, {login}", environ)
    assert found.read_sasl_password() == "pa55"
    assert "pa55" not in repr(found)
    (tmp_path / "password").write_text("fr0m-file\n")
    found = source(f"{KAFKA}, {login}, sasl_password_file: '{tmp_path}/password'")
    assert found.read_sasl_password() == "fr0m-file"
    found = source(f"{KAFKA}, {login}, sasl_password_file: '{tmp_path}/none'")
    with pytest.raises(SettingsError, match=r"source\.sasl_password_file: .*/none cannot be read"):
        found.read_sasl_password()


def test_the_login_of_a_schema_registry_comes_from_the_environment_or_a_file(
    tmp_path: Path,
) -> None:
    registry = "schema_registry: {url: 'https://r/', username: me"
    environ = {"SHIFTWATCH_SOURCE__SCHEMA_REGISTRY__PASSWORD": "pa55"}
    found = source(f"{KAFKA}, {registry}}}", environ).schema_registry
    assert found is not None
    assert (found.url, found.read_password()) == ("https://r", "pa55")
    assert "pa55" not in repr(found)
    (tmp_path / "password").write_text("fr0m-file\n")
    found = source(f"{KAFKA}, {registry}, password_file: '{tmp_path}/password'}}").schema_registry
    assert found is not None
    assert found.read_password() == "fr0m-file"


def test_events_over_http_need_a_port_and_a_token() -> None:
    environ = {"SHIFTWATCH_HTTP__TOKEN": "t"}
    found = source("kind: http", environ)
    assert (found.path, found.max_backlog_bytes) == (Path("var/spool"), 1 << 30)
    assert source("kind: http, path: other", environ).path == Path("other")
    assert "source.kind http needs one" in problem("kind: http")
    assert "http.token: " in problem("kind: http")
    none = {**environ, "SHIFTWATCH_HTTP__PORT": "null"}
    assert "http.port: source.kind http needs a port, got none" in problem("kind: http", none)
    assert source("kind: stdin").path == Path("var/events.jsonl")


def test_the_keys_password_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    key = f"{TLS}, ssl_certfile: a.pem, ssl_keyfile: a.key"
    assert source(key).read_ssl_key_password() is None
    found = source(key, {"SHIFTWATCH_SOURCE__SSL_KEY_PASSWORD": "pa55"})
    assert found.read_ssl_key_password() == "pa55"
    assert "pa55" not in repr(found)
    (tmp_path / "password").write_text("fr0m-file\n")
    found = source(f"{key}, ssl_key_password_file: '{tmp_path}/password'")
    assert found.read_ssl_key_password() == "fr0m-file"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kind: kafka, topics: {features: e}", "source.bootstrap_servers: expected at least one"),
        ("kind: kafka, bootstrap_servers: a:1", "source.topics: expected topics.features"),
        (f"{KAFKA}, path: x.jsonl", "source.path: has no meaning where kind is kafka"),
        ("kind: file, group_id: g", "source.group_id: has no meaning where kind is file"),
        ("merge_wait_ms: 5", "source.merge_wait_ms: has no meaning where kind is file"),
        (
            f"{KAFKA}, schema_registry: {{url: 'ftp://a'}}",
            "source.schema_registry.url: expected https:// or http://",
        ),
        (
            f"{KAFKA}, schema_registry: {{url: 'http://me:pw@a'}}",
            "source.schema_registry.url: .* without user and password",
        ),
        (
            f"{KAFKA}, schema_registry: {{url: 'http://a', username: me}}",
            "source.schema_registry.password: expected username and password, or neither",
        ),
        (
            f"{KAFKA}, schema_registry: {{url: 'http://a', username: me, password: a, "
            "password_file: b}",
            "source.schema_registry.password_file: expected either",
        ),
        ("schema_registry: {url: 'http://a'}", "source.schema_registry: has no meaning where"),
        ("kind: http, follow: true", "source.follow: has no meaning where kind is http"),
        ("kind: stdin, path: x", "source.path: has no meaning where kind is stdin"),
        ("max_backlog_bytes: 100000", "source.max_backlog_bytes: has no meaning .* is file"),
        (f"{KAFKA}, idempotency_keys: 5", "source.idempotency_keys: has no meaning .* is kafka"),
        (
            "kind: http, max_backlog_bytes: 100000",
            "source.max_request_bytes: expected at most max_backlog_bytes, which is 100000",
        ),
        (f"{KAFKA}, auto_offset_reset: newest", "source.auto_offset_reset: "),
        (f"{KAFKA}, group_instance_id: 'a b'", "source.group_instance_id: "),
        (f"{KAFKA}, security_protocol: SASL_SSL", "source.sasl_mechanism: .* SASL_SSL needs it"),
        (f"{KAFKA}, sasl_username: me", "source.sasl_username: .* PLAINTEXT does not log in"),
        (
            "kind: kafka, bootstrap_servers: a:1, topics: {features: e, labels: e}",
            "source.topics.labels: expected another topic than features, 'e'",
        ),
        (
            "kind: kafka, bootstrap_servers: a:1, topics: {features: e, labels: l, incidents: l}",
            "source.topics.incidents: expected another topic than labels, 'l'",
        ),
        (
            f"{KAFKA}, security_protocol: SASL_SSL, sasl_mechanism: PLAIN, sasl_username: me, "
            "sasl_password: a, sasl_password_file: b",
            "source.sasl_password_file: expected either",
        ),
        (f"{KAFKA}, client: librdkafka", "source.client: "),
        ("client: confluent", "source.client: has no meaning where kind is file"),
        (f"{KAFKA}, ssl_cafile: ca.pem", "source.ssl_cafile: .* PLAINTEXT has no certificates"),
        (f"{TLS}, ssl_certfile: a.pem", "source.ssl_keyfile: expected both"),
        (f"{TLS}, ssl_keyfile: a.key", "source.ssl_certfile: expected both"),
        (f"{TLS}, ssl_key_password: a", "source.ssl_keyfile: expected the key"),
        (
            f"{TLS}, ssl_key_password: a, ssl_key_password_file: b",
            "source.ssl_key_password_file: expected either",
        ),
    ],
)
def test_what_does_not_fit_names_its_field(text: str, says: str) -> None:
    assert re.search(f"a.yaml:2: {says}", problem(text)), problem(text)
