import http.client
import re
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from service.api.correction import correct_scores
from service.api.http import MAX_SCORES_BYTES, HttpServer, ListenError, create_app
from service.store.errors import StoreError
from service.telemetry.metrics import Metrics

TOKEN = "a-token-for-tests"
EVIL = "<script>alert(1)</script>\"'&"


class FakeView:
    """What the service would show, set by the test."""

    def __init__(self) -> None:
        self.reason = ""
        self.is_healthy = True
        self.error: Exception | None = None
        self.shown_streams: list[dict[str, Any]] = [
            {"name": "digits", "phase": "watching", "observations": 900, "accuracy": 0.98765},
            {"name": "a b", "phase": "open", "open_incidents": ["inc-1"]},
        ]
        self.shown_incidents: list[dict[str, Any]] = [
            document("inc-2", "dismissed"),
            document("inc-1", "confirmed"),
        ]
        self.asked: list[tuple[Any, ...]] = []

    def streams(self) -> Sequence[Mapping[str, Any]]:
        if self.error is not None:
            raise self.error
        return self.shown_streams

    def stream(self, name: str) -> Mapping[str, Any] | None:
        return next((s for s in self.shown_streams if s["name"] == name), None)

    def incidents(
        self, stream: str | None, state: str | None, limit: int
    ) -> Sequence[Mapping[str, Any]]:
        self.asked.append((stream, state, limit))
        return self.shown_incidents[:limit]

    def incident(self, id_: str) -> Mapping[str, Any] | None:
        return next((i for i in self.shown_incidents if i["id"] == id_), None)

    def correct_scores(self, stream: str, scores: object) -> Mapping[str, Any]:
        self.asked.append(("scores", stream, scores))
        if stream not in {"digits", "unscored"}:
            raise LookupError(f"there is no stream {stream!r}")
        if stream == "unscored":
            raise ValueError("stream 'unscored' has no scores")
        return correct_scores(("a", "b"), None, scores)

    def ready(self) -> tuple[bool, str]:
        return not self.reason, self.reason

    def healthy(self) -> bool:
        return self.is_healthy

    # -- operator

    def close_incident(self, id_: str, reason: str) -> Mapping[str, Any]:
        self.asked.append(("close", id_, reason))
        if self.incident(id_) is None:
            raise LookupError(f"there is no incident {id_!r}")
        if id_ == "inc-2":
            raise ValueError("the incident is over already")
        return {"id": id_, "state": "resolved"}

    def rollback(self, stream: str, reason: str) -> Mapping[str, Any]:
        self.asked.append(("rollback", stream, reason))
        return {"stream": stream, "version": 1}

    def promote(self, stream: str, version: int, reason: str) -> Mapping[str, Any]:
        self.asked.append(("promote", stream, version, reason))
        return {"stream": stream, "version": version}


def document(id_: str, state: str, **changes: Any) -> dict[str, Any]:
    return {
        "id": id_,
        "stream": "digits",
        "state": state,
        "kind": "concept",
        "opened_at": {"index": 205, "time": "2026-11-23T10:00:00+00:00"},
        "detail": "P(Y|X) moved",
    } | changes


@pytest.fixture(scope="module")
def view() -> FakeView:
    return FakeView()


@pytest.fixture(scope="module")
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Metrics(registry).add_stream("digits")
    return registry


@pytest.fixture(scope="module")
def server(view: FakeView, registry: CollectorRegistry) -> Iterator[HttpServer]:
    server = HttpServer(create_app(view, registry, TOKEN, view), "127.0.0.1", 0)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def client(view: FakeView, server: HttpServer) -> Iterator[httpx.Client]:
    view.__init__()  # type: ignore[misc]  # the server is shared, what it shows is not
    with client_of(server) as client:
        yield client


def client_of(server: HttpServer) -> httpx.Client:
    # Reading the authorities' certificates, which nothing here needs, takes longer than a test.
    return httpx.Client(
        base_url=f"http://127.0.0.1:{server.port}", trust_env=False, timeout=10, verify=False
    )


# -- reading -----------------------------------------------------------------------------------


def test_metrics_are_served_in_the_format_that_is_asked_for(client: httpx.Client) -> None:
    plain = client.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=")
    assert 'shiftwatch_observations_total{stream="digits"} 0.0' in plain.text
    other = client.get(
        "/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"}
    )
    assert other.headers["content-type"].startswith("application/openmetrics-text")
    assert other.text.endswith("# EOF\n")


def test_health_and_readiness_are_two_things(client: httpx.Client, view: FakeView) -> None:
    assert client.get("/healthz").json() == client.get("/readyz").json() == {"status": "ok"}
    view.reason = "starting"
    assert client.get("/healthz").status_code == 200
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["detail"]) == (503, "starting")
    view.is_healthy = False
    assert client.get("/healthz").status_code == 503


def test_streams_and_incidents_are_shown_as_they_are(client: httpx.Client, view: FakeView) -> None:
    assert client.get("/api/v1/streams").json() == {"streams": view.shown_streams}
    assert client.get("/api/v1/streams/digits").json() == view.shown_streams[0]
    assert client.get("/api/v1/streams/a%20b").json() == view.shown_streams[1]
    assert client.get("/api/v1/incidents").json() == {"incidents": view.shown_incidents}
    assert client.get("/api/v1/incidents/inc-1").json() == view.shown_incidents[1]


def test_incidents_are_filtered(client: httpx.Client, view: FakeView) -> None:
    client.get("/api/v1/incidents", params={"stream": "digits", "state": "confirmed", "limit": 1})
    client.get("/api/v1/incidents")
    assert view.asked == [("digits", "confirmed", 1), (None, None, 100)]


@pytest.mark.parametrize(
    ("path", "status", "detail"),
    [
        ("/api/v1/streams/unknown", 404, "there is no stream 'unknown'"),
        ("/api/v1/incidents/unknown", 404, "there is no incident 'unknown'"),
        ("/nothing", 404, "Not Found"),
        ("/docs", 404, "Not Found"),
        ("/api/v1/incidents?limit=0", 422, "query.limit: Input should be greater"),
        ("/api/v1/incidents?limit=100000", 422, "query.limit: Input should be less"),
        ("/api/v1/incidents?state=odd", 422, "query.state: Input should be 'suspected'"),
    ],
)
def test_what_is_not_there_or_not_understood_is_a_problem_document(
    client: httpx.Client, path: str, status: int, detail: str
) -> None:
    answer = client.get(path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["detail"].startswith(detail)


def test_an_error_inside_shows_nothing_of_the_inside(client: httpx.Client, view: FakeView) -> None:
    view.error = StoreError("sqlite:////secret/place: locked")
    answer = client.get("/api/v1/streams")
    assert (answer.status_code, answer.json()["title"]) == (503, "Service Unavailable")
    assert "secret" not in answer.text
    view.error = RuntimeError("secret")
    answer = client.get("/api/v1/streams")
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "secret" not in answer.text
    view.error = None
    assert client.get("/api/v1/streams").status_code == 200


# -- changing ----------------------------------------------------------------------------------

CHANGES = [
    ("/api/v1/incidents/inc-1/close", {"reason": "planned"}, ("close", "inc-1", "planned")),
    ("/api/v1/streams/digits/rollback", {"reason": "worse"}, ("rollback", "digits", "worse")),
    ("/api/v1/streams/digits/promote", {"version": 3}, ("promote", "digits", 3, "")),
]


@pytest.mark.parametrize(("path", "body", "asked"), CHANGES)
def test_a_change_with_the_token_is_carried_out(
    client: httpx.Client, view: FakeView, path: str, body: dict[str, Any], asked: tuple[Any, ...]
) -> None:
    answer = client.post(path, json=body, headers={"authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 200
    assert view.asked == [asked]


def test_a_reason_is_optional(client: httpx.Client, view: FakeView) -> None:
    headers = {"authorization": f"Bearer {TOKEN}"}
    assert client.post("/api/v1/incidents/inc-1/close", headers=headers).status_code == 200
    assert view.asked == [("close", "inc-1", "")]


@pytest.mark.parametrize("path", [path for path, _, _ in CHANGES] + ["/", "/not/a/route"])
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer töken",
    ],
)
def test_nothing_changes_without_the_token(
    client: httpx.Client, view: FakeView, path: str, authorization: str | None
) -> None:
    headers: dict[bytes, bytes] = {}
    if authorization is not None:
        headers[b"authorization"] = authorization.encode("latin-1")
    answer = client.post(path, json={"version": 1}, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert view.asked == []
    assert TOKEN not in answer.text


@pytest.mark.parametrize("token", [None, ""])
def test_without_a_configured_token_nothing_can_be_changed_at_all(
    view: FakeView, token: str | None
) -> None:
    view.asked.clear()
    server = HttpServer(create_app(view, CollectorRegistry(), token, view), "127.0.0.1", 0)
    server.start()
    try:
        with client_of(server) as client:
            for method in ("POST", "PUT", "PATCH", "DELETE"):
                for given in ("Bearer", "Bearer None", f"Bearer {TOKEN}"):
                    answer = client.request(
                        method,
                        "/api/v1/incidents/inc-1/close",
                        headers={"authorization": given},
                    )
                    assert answer.status_code == 403
    finally:
        server.stop()
    assert view.asked == []


def test_a_large_body_is_not_read_without_the_token(server: HttpServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.putrequest("POST", "/api/v1/incidents/inc-1/close")
    connection.putheader("content-length", str(10**12))
    connection.endheaders()
    connection.send(b"x" * 1000)
    assert connection.getresponse().status == 401
    connection.close()


@pytest.mark.parametrize(
    ("path", "body", "status", "detail"),
    [
        ("/api/v1/incidents/unknown/close", {}, 404, "there is no incident 'unknown'"),
        ("/api/v1/incidents/inc-2/close", {}, 409, "the incident is over already"),
        ("/api/v1/incidents/inc-1/close", {"resaon": ""}, 422, "body.resaon"),
        ("/api/v1/incidents/inc-1/close", {"reason": "x" * 501}, 422, "body.reason"),
        ("/api/v1/streams/digits/promote", {"version": 0}, 422, "body.version"),
    ],
)
def test_a_change_that_cannot_be_made_says_why(
    client: httpx.Client, path: str, body: dict[str, Any], status: int, detail: str
) -> None:
    answer = client.post(path, json=body, headers={"authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == status
    assert answer.json()["detail"].startswith(detail)


def test_a_process_that_only_shows_says_so(view: FakeView) -> None:
    server = HttpServer(create_app(view, CollectorRegistry(), TOKEN), "127.0.0.1", 0)
    server.start()
    try:
        with client_of(server) as client:
            answer = client.post(
                "/api/v1/streams/digits/rollback", headers={"authorization": f"Bearer {TOKEN}"}
            )
    finally:
        server.stop()
    assert answer.status_code == 501


# -- the page ----------------------------------------------------------------------------------


class Tags(HTMLParser):
    """Collects tags, and checks that each is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.urls: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.urls += [value or "" for name, value in attrs if name in {"href", "src"}]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_shows_streams_and_incidents_and_refreshes_itself(client: httpx.Client) -> None:
    page = client.get("/").text
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert '<meta http-equiv="refresh"' in page
    for text in ("digits", "watching", "900", "0.9877", "inc-1", "P(Y|X) moved", "ready"):
        assert text in page
    assert page.index("inc-1</a>") < page.index("Recent incidents") < page.index("inc-2</a>")


def test_the_page_loads_nothing_and_runs_nothing(client: httpx.Client) -> None:
    answer = client.get("/")
    tags = Tags()
    tags.feed(answer.text)
    assert not {"script", "link", "img", "iframe"} & set(tags.seen)
    assert all(url.startswith("/") for url in tags.urls)
    assert not re.search(r"url\(|@import", answer.text)
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_whatever_comes_from_the_data_is_escaped(client: httpx.Client, view: FakeView) -> None:
    view.reason = EVIL
    view.shown_streams = [
        {
            "name": EVIL,
            "phase": EVIL,
            "observations": EVIL,
            "labels": EVIL,
            "accuracy": EVIL,
            "champion": EVIL,
            "open_incidents": [EVIL],
        }
    ]
    view.shown_incidents = [
        document(
            EVIL, EVIL, stream=EVIL, kind=EVIL, detail=EVIL, opened_at={"time": EVIL, "index": EVIL}
        ),
        document(EVIL, "confirmed", opened_at=EVIL),
    ]
    page = client.get("/").text
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 14


def test_an_empty_service_has_a_page_too(client: httpx.Client, view: FakeView) -> None:
    view.shown_streams, view.shown_incidents = [], []
    page = client.get("/").text
    assert "No stream is configured." in page
    assert "No incident is open." in page


# -- the server --------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_named(server: HttpServer, view: FakeView) -> None:
    second = HttpServer(create_app(view, CollectorRegistry()), "127.0.0.1", server.port)
    with pytest.raises(ListenError, match=rf"127\.0\.0\.1:{server.port}: Address already in use"):
        second.start()
    second.stop()


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.name.invalid"])
def test_an_address_that_is_not_ours_is_named(view: FakeView, host: str) -> None:
    with pytest.raises(ListenError, match=f"{host}:0: "):
        HttpServer(create_app(view, CollectorRegistry()), host, 0).start()


def test_a_stopped_server_lets_go_of_its_port_and_thread(view: FakeView) -> None:
    server = HttpServer(create_app(view, CollectorRegistry()), "127.0.0.1", 0)
    server.start()
    own = [t for t in threading.enumerate() if t.name == f"http-{server.port}"]
    with client_of(server) as client:
        assert client.get("/healthz").status_code == 200
    server.stop()
    server.stop()
    # Not the number of all threads: another test's may end, or a library begin one, meanwhile.
    assert len(own) == 1
    assert not own[0].is_alive()
    with socket.create_server(("127.0.0.1", server.port)):
        pass


def test_signals_stay_with_the_main_thread(view: FakeView) -> None:
    # Compared and not named: started in the background, a process ignores SIGINT from the start.
    before = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
    server = HttpServer(create_app(view, CollectorRegistry()), "127.0.0.1", 0)
    server.start()
    assert [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)] == before
    server.stop()


# -- corrected scores --------------------------------------------------------------------------


def test_scores_are_answered_without_the_token_as_nothing_is_changed(client: httpx.Client) -> None:
    answer = client.post("/api/v1/streams/digits/scores", json={"scores": [[0.25, 0.75]]})
    assert answer.status_code == 200
    assert answer.json() == {"scores": [[0.25, 0.75]], "predictions": ["b"], "since_index": None}
    by_class = client.post("/api/v1/streams/digits/scores", json={"scores": {"a": 1}})
    assert by_class.json()["scores"] == {"a": 1.0, "b": 0.0}


@pytest.mark.parametrize("path", ["scores/../rollback", "rollback/scores", "%2e%2e/scores/x"])
def test_no_path_that_looks_like_scores_changes_anything_without_the_token(
    server: HttpServer, view: FakeView, path: str
) -> None:
    view.asked.clear()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("POST", f"/api/v1/streams/digits/{path}", body=b"{}")
    assert connection.getresponse().status == 401
    assert view.asked == []
    connection.close()


@pytest.mark.parametrize(
    ("stream", "body", "status", "detail"),
    [
        ("none", '{"scores": []}', 404, "there is no stream 'none'"),
        ("unscored", '{"scores": []}', 409, "stream 'unscored' has no scores"),
        ("digits", '{"scores": [[0.5, -1]]}', 422, "scores[0][1]: expected a number in [0, 1]"),
        ("digits", '{"scores": [[0.5, NaN]]}', 422, "scores[0][1]: expected a number in [0, 1]"),
        ("digits", '{"scores": [[1]]}', 422, "scores[0]: expected 2 numbers"),
        ("digits", '{"scores": {"c": 1}}', 422, "scores.'c': expected one of a, b"),
        ("digits", '{"scores": [], "x": 1}', 422, 'the one field "scores"'),
        ("digits", "[]", 422, 'the one field "scores"'),
        ("digits", "", 422, "body: expected JSON"),
        ("digits", "[" * 100_000, 422, "body: expected JSON"),
        ("digits", "\xff", 422, "body: expected JSON"),
    ],
)
def test_scores_that_cannot_be_corrected_are_refused_by_what_which_and_where(
    client: httpx.Client, stream: str, body: str, status: int, detail: str
) -> None:
    answer = client.post(f"/api/v1/streams/{stream}/scores", content=body.encode("latin-1"))
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert detail in answer.json()["detail"]


def test_a_body_of_scores_is_read_no_further_than_its_limit(client: httpx.Client) -> None:
    def endless() -> Iterator[bytes]:  # without a length in the header
        for _ in range(MAX_SCORES_BYTES // 1000 + 2):
            yield b" " * 1000

    answer = client.post("/api/v1/streams/digits/scores", content=endless())
    assert answer.status_code == 413
    assert str(MAX_SCORES_BYTES) in answer.json()["detail"]
