"""Events over HTTP: every answer is true, and what was answered 202 is on disk."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.api.app import App, open_app, serving
from service.api.wiring import open_source
from service.records.record import MAX_RECORD_BYTES
from service.settings.service import Settings
from service.sources.spool.source import SpoolSource
from tests.service.streams import x_to_y_records

TOKEN = "a-token-for-tests"
PATH = "/api/v1/events"
LINES = {"content-type": "application/x-ndjson"}
JSON = {"content-type": "application/json"}


def settings(folder: Path, **source: Any) -> Settings:
    return Settings.model_validate(
        {
            "store": {"url": f"sqlite:///{folder}/s.db"},
            "registry": {"path": folder / "models"},
            "dead_letters": {"path": folder / "dead.jsonl"},
            "http": {"port": 0, "token": TOKEN},
            "source": {"kind": "http", "path": folder / "spool", **source},
            "streams": [{"name": "s", "problem": "x_to_y"}],
        }
    )


class Service:
    """A service that serves; its loop turns only when it is told to."""

    def __init__(self, app: App, client: httpx.Client) -> None:
        self.app = app
        self.client = client
        assert isinstance(app.pipeline.source, SpoolSource)
        self.source = app.pipeline.source

    def post(self, body: Any, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(PATH, content=content, headers={**JSON, **named})

    def metric(self, name: str) -> float:
        text = self.client.get("/metrics").text
        (value,) = re.findall(rf"^shiftwatch_{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(value)

    def step(self, n: int) -> None:
        while self.app.pipeline.n_records < n:
            self.app.pipeline.step(timeout_s=0.0)
        self.app.pipeline.write()


@contextmanager
def running(folder: Path, **source: Any) -> Iterator[Service]:
    checked = settings(folder, **source)
    with (
        open_app(checked, open_source(checked.source)) as app,
        serving(app) as server,
        httpx.Client(
            base_url=f"http://127.0.0.1:{server.port if server else 0}",
            headers={"authorization": f"Bearer {TOKEN}"},
            trust_env=False,
            timeout=60,
            verify=False,
        ) as client,
    ):
        yield Service(app, client)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running(tmp_path, max_request_bytes=20_000, max_request_records=50) as service:
        yield service


def event(n: int, **more: Any) -> dict[str, Any]:
    return {"stream": "s", "id": f"e{n}", "features": {"a": n}, **more}


def accepted(n: int, first: int = 0) -> dict[str, int]:
    return {"accepted": n, "first_offset": first, "last_offset": first + n - 1}


# -- what is taken -----------------------------------------------------------------------------


def test_events_are_taken_in_every_form_and_processed_in_order(service: Service) -> None:
    events = [event(n) for n in range(6)]
    text = b"\n".join(json.dumps(e).encode() for e in events[3:])
    answers = [
        service.post(events[0]),
        service.post(events[1:3], content_type="application/json; charset=utf-8"),
        service.post(gzip.compress(text), **LINES, content_encoding="gzip"),
    ]
    assert [(a.status_code, a.json()) for a in answers] == [
        (202, accepted(1)),
        (202, accepted(2, 1)),
        (202, accepted(3, 3)),
    ]
    service.step(6)
    assert service.app.store.offsets() == {("http", 0): 6}
    assert service.metric('records_consumed_total{topic="http"}') == 6
    assert service.metric('ingest_requests_total{code="202"}') == 3


def test_what_is_taken_is_there_for_the_next_process(tmp_path: Path) -> None:
    with running(tmp_path) as service:
        assert service.post([event(0), event(1)]).status_code == 202
        assert service.metric("ingest_spool_bytes") > 100
    with running(tmp_path) as service:
        service.step(2)
        assert service.metric("ingest_spool_bytes") == 0
        assert service.post(event(2)).json() == accepted(1, 2)


def test_posts_at_the_same_time_are_all_taken_once(service: Service) -> None:
    answers: list[httpx.Response] = []

    def send(who: int) -> None:
        for n in range(1000 * who, 1000 * who + 30, 2):
            answers.append(service.post([event(n), event(n + 1)]))  # noqa: PERF401  (one by one)

    threads = [threading.Thread(target=send, args=(who,)) for who in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {a.status_code for a in answers} == {202}
    offsets = sorted(a.json()["first_offset"] for a in answers)
    assert offsets == list(range(0, 240, 2))
    service.step(240)
    assert service.app.streams()[0]["observations"] == 240
    assert service.metric('ingest_requests_total{code="202"}') == 120


def test_a_repeat_with_its_key_gets_the_first_answer(service: Service) -> None:
    first = service.post([event(0), event(1)], idempotency_key="k-1")
    again = service.post([event(0), event(1)], idempotency_key="k-1")
    zipped = gzip.compress(json.dumps([event(0), event(1)]).encode())
    packed = service.post(zipped, idempotency_key="k-1", content_encoding="gzip")
    assert first.json() == again.json() == packed.json() == accepted(2)
    assert [("idempotency-replayed" in a.headers) for a in (first, again, packed)] == [0, 1, 1]
    other = service.post([event(0)], idempotency_key="k-1")
    assert other.status_code == 422
    assert "'k-1' came before with other records" in other.json()["detail"]
    assert service.source.lag() == 2
    for key in ("", "two words", "x" * 256):
        assert service.post(event(0), idempotency_key=key).status_code == 400
    assert service.source.lag() == 2


# -- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "headers", "status", "says"),
    [
        (b"nope", {}, 400, "body: expected a JSON object, got 'nope'"),
        ([event(0), 3], {}, 400, "events[1]: expected an object, got 3"),
        (b"{}\nnope", LINES, 400, "events[1]: expected a JSON object, got b'nope'"),
        (b"{}\n[]", LINES, 400, "events[1]: expected a JSON object, got an array of 0"),
        (b"{}", {"content_encoding": "gzip"}, 400, "body: expected gzip"),
        (b"x" * 20_001, {}, 413, "body: expected at most 20000 bytes"),
        (gzip.compress(b" " * 20_001), {"content_encoding": "gzip"}, 413, "when decompressed"),
        ([event(n) for n in range(51)], {}, 413, "body: expected at most 50 events"),
        (event(0), {"content_type": "text/plain"}, 415, "content-type: expected application/json"),
        (event(0), {"content_type": ""}, 415, "or application/x-ndjson, got none"),
        (event(0), {"content_encoding": "br"}, 415, "expected gzip or none, got br"),
        (event(0), {"authorization": "Bearer wrong"}, 401, "a bearer token is needed"),
    ],
)
def test_what_is_no_batch_is_refused_and_nothing_is_written(
    service: Service, body: Any, headers: dict[str, str], status: int, says: str
) -> None:
    headers = {name.replace("-", "_"): value for name, value in headers.items()}
    answer = service.post(body, **headers)
    assert (answer.status_code, says in answer.json()["detail"]) == (status, True), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert service.source.lag() == 0
    assert service.metric(f'ingest_requests_total{{code="{status}"}}') == 1


def test_events_that_cannot_be_used_are_named_and_none_is_taken(service: Service) -> None:
    answer = service.post(
        [
            event(0),
            event(1, time="yesterday"),
            {"stream": "s", "id": "e2"},
            event(3, stream="other"),
            event(4, features={"a": [1]}),
        ]
    )
    assert answer.status_code == 422
    found = answer.json()
    assert found["detail"] == "4 of 5 events cannot be used, so none was taken"
    assert found["refused"] == 4
    assert [(e["index"], e["reason"]) for e in found["errors"]] == [
        (1, "bad_time"),
        (2, "missing_field"),
        (3, "unknown_stream"),
        (4, "wrong_type"),
    ]
    assert found["errors"][3]["detail"].startswith("features.a: expected a number, text")
    assert found["errors"][2]["detail"] == "stream: 'other' is not configured"
    assert service.source.lag() == 0


def test_what_json_has_not_or_has_twice_is_refused_too(service: Service) -> None:
    answer = service.post(b'[{"stream":"s","id":1,"features":[NaN]},{"id":1,"id":2}]')
    assert [e["reason"] for e in answer.json()["errors"]] == ["not_finite", "duplicate_key"]


def test_a_hundred_refusals_are_shown_and_all_are_counted(tmp_path: Path) -> None:
    with running(tmp_path) as service:
        found = service.post([{"x": n} for n in range(250)]).json()
        assert (found["refused"], len(found["errors"])) == (250, 100)
        body = {"stream": "s", "id": "e", "features": [1], "more": "x" * MAX_RECORD_BYTES}
        answer = service.post([event(0), body])
        assert answer.status_code == 422
        assert [(e["index"], e["reason"]) for e in answer.json()["errors"]] == [(1, "too_large")]


def test_a_body_without_a_length_is_read_no_further_than_the_limit(service: Service) -> None:
    sent = 0

    def parts() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(100_000):
            sent += 1
            yield b"x" * 1000

    try:
        answer = service.client.post(PATH, content=parts(), headers=JSON)
        assert answer.status_code == 413
    except (httpx.ReadError, httpx.WriteError):
        pass  # the connection may be closed under the hands of who still sends
    assert sent < 100_000
    assert service.source.lag() == 0


def test_a_sender_that_goes_away_leaves_nothing(service: Service) -> None:
    with socket.create_connection(
        ("127.0.0.1", service.client.base_url.port or 0), timeout=60
    ) as sender:
        sender.sendall(
            f"POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n"
            "content-type: application/json\r\ncontent-length: 100\r\n\r\n[".encode()
        )
    assert service.post(event(0)).json() == accepted(1)
    while not service.metric('ingest_requests_total{code="400"}'):
        threading.Event().wait(0.01)
    assert service.source.lag() == 1
    assert service.app.ingest is not None
    assert service.app.ingest._held == 0


# -- not now -----------------------------------------------------------------------------------


def test_a_full_spool_says_when_to_come_again(tmp_path: Path) -> None:
    with running(tmp_path, max_backlog_bytes=65_536, max_request_bytes=20_000) as service:
        n = 0
        while (answer := service.post([event(n, note="x" * 9000)])).status_code == 202:
            n += 1
        assert n == 7
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "5"  # nothing is measured yet
        assert re.fullmatch(
            r"6\d+ bytes wait to be processed; at most 65536 may", answer.json()["detail"]
        )
        assert service.metric("ingest_spool_bytes") > 60_000
        service.step(n)
        assert service.post([event(n, note="x" * 9000)]).json() == accepted(1, n)
        assert service.metric('ingest_requests_total{code="429"}') == 1


def test_a_full_spool_refuses_before_it_reads_and_answers_repeats(tmp_path: Path) -> None:
    with running(tmp_path, max_backlog_bytes=65_536, max_request_bytes=65_536) as service:
        big = [event(n, note="x" * 9000) for n in range(7)]
        assert service.post(big, idempotency_key="k").status_code == 202
        while service.post(event(9, note="x" * 500)).status_code == 202:
            pass
        connection = http.client.HTTPConnection("127.0.0.1", service.client.base_url.port)
        connection.putrequest("POST", PATH)
        for name, value in ({**JSON, "authorization": f"Bearer {TOKEN}"}).items():
            connection.putheader(name, value)
        connection.putheader("content-length", "2000")
        connection.endheaders()
        connection.send(b"[")
        first = service.source.spool.is_full()
        if first is not None:  # otherwise a few bytes are left, and the body has to be known
            assert connection.getresponse().status == 429
        connection.close()
        again = service.post(big, idempotency_key="k")
        assert (again.status_code, again.json()) == (202, accepted(7))


def test_a_disk_that_takes_no_more_is_said_and_goes_on_later(service: Service) -> None:
    n = 0
    while service.source.spool.backlog_bytes < 1_000_000:  # more than any other file here has
        assert service.post([event(n, note="x" * 15_000)]).status_code == 202
        n += 1
    size = service.source.spool.segments[-1].size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 200, before[1]))
    try:
        answers = [service.post(event(n, note="x" * 500), idempotency_key="k") for _ in range(2)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    for answer in answers:
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
        assert answer.json()["detail"].endswith("cannot be written: File too large")
    again = service.post(event(n, note="x" * 500), idempotency_key="k")
    assert again.json() == accepted(1, n)
    service.step(n + 1)
    assert service.app.store.offsets() == {("http", 0): n + 1}


def test_a_service_that_stops_takes_nothing_more(service: Service) -> None:
    stop = threading.Event()
    stop.set()
    assert service.post(event(0)).status_code == 202
    service.app.run(stop)
    answer = service.post(event(1))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json()["detail"] == "the service stops"


def test_where_the_source_is_another_one_the_route_says_so(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"".join(r.value + b"\n" for r in x_to_y_records(3)))
    checked = settings(tmp_path).model_copy(
        update={
            "source": Settings.model_validate(
                {"streams": [{"name": "s", "problem": "x_to_y"}], "source": {"path": path}}
            ).source
        }
    )
    with open_app(checked, open_source(checked.source)) as app, serving(app) as server:
        assert server is not None
        answer = httpx.post(
            f"http://127.0.0.1:{server.port}{PATH}",
            json=event(0),
            headers={"authorization": f"Bearer {TOKEN}"},
            trust_env=False,
            verify=False,
        )
    assert answer.status_code == 409
    assert answer.json()["detail"] == "events are taken over HTTP only where source.kind is http"
