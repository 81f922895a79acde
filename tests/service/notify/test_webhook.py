import contextlib
import json
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from service.domain.action import Action, ActionState
from service.notify.cloud_event import MAX_BODY_BYTES, cloud_event
from service.notify.outbox import Delivery
from service.notify.webhook import Webhook, message_id, resolve, retry_after
from service.settings.service import WebhookSettings
from service.telemetry.metrics import Metrics

SECRET = "whsec_" + "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"
OTHER_SECRET = "whsec_" + "b3RoZXItb3RoZXItb3RoZXItb3RoZXItb3RoZXI="
NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
INCIDENT = {"id": "inc-1", "stream": "digits", "state": "confirmed", "evidence": []}
ACTION = Action(
    "inc-1:confirmed:0",
    "digits",
    "inc-1",
    "webhook:0",
    {"event": "incident.confirmed", "data": INCIDENT},
    created_at=NOW.timestamp(),
)


def hook_settings(url: str, **changes: Any) -> WebhookSettings:
    values: dict[str, Any] = {"secret": SECRET, "allow_private": True, "timeout_s": 5.0}
    return WebhookSettings(url=url, **(values | changes))


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: bytes


class Receiver(HTTPServer):
    """A receiver on loopback that answers as told."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.status = 204
        self.headers: dict[str, str] = {}
        self.dribbles = threading.Event()
        self.names: list[str | None] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook?key=in-the-url"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {k.lower(): v for k, v in self.headers.items()}
        self.server.requests.append(Request(self.path, headers, body))
        if self.server.dribbles.is_set():
            # One byte now and then never lets a limit between two bytes strike.
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            for _ in range(50):
                self.wfile.write(b"x: y\r\n")
                self.wfile.flush()
                time.sleep(0.05)
            return
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # the sender gave up, as it should
            super().handle()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield receiver
    receiver.shutdown()
    receiver.server_close()
    thread.join(10)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def webhook(settings: WebhookSettings, registry: CollectorRegistry, **changes: Any) -> Webhook:
    return Webhook(
        settings,
        metrics=Metrics(registry),
        name="ops",
        source="/shiftwatch/test",
        clock=NOW.timestamp,
        **changes,
    )


def deliver(receiver: Receiver, registry: CollectorRegistry, **changes: Any) -> Delivery:
    return webhook(hook_settings(receiver.url), registry, **changes).deliver(ACTION)


def count(registry: CollectorRegistry, outcome: str) -> float | None:
    return registry.get_sample_value(
        "shiftwatch_webhook_deliveries_total", {"endpoint": "ops", "outcome": outcome}
    )


# -- what is sent ------------------------------------------------------------------------------


def test_the_body_is_a_cloud_event_with_the_incident(
    receiver: Receiver, registry: CollectorRegistry
) -> None:
    assert deliver(receiver, registry).state is ActionState.DONE
    (request,) = receiver.requests
    assert request.path == "/hook?key=in-the-url"
    assert request.headers["content-type"] == "application/cloudevents+json"
    assert json.loads(request.body) == {
        "specversion": "1.0",
        "id": "inc-1:confirmed:0",
        "source": "/shiftwatch/test",
        "type": "io.shiftwatch.incident.confirmed",
        "subject": "digits",
        "time": "2026-11-23T10:00:00+00:00",
        "datacontenttype": "application/json",
        "data": INCIDENT,
    }
    assert count(registry, "delivered") == 1


def verify(request: Request, secret: str) -> None:
    # The package compares with its own clock: sign afresh with the receiver's secret instead.
    moment = datetime.fromtimestamp(int(request.headers["webhook-timestamp"]), UTC)
    expected = Verifier(secret).sign(
        request.headers["webhook-id"], moment, request.body.decode("utf-8")
    )
    if expected not in request.headers["webhook-signature"].split():
        raise WebhookVerificationError("no signature matches")


def test_a_receiver_can_verify_the_signature(
    receiver: Receiver, registry: CollectorRegistry
) -> None:
    settings = hook_settings(receiver.url)
    # With the real time, so that the package's own check passes as a receiver would run it.
    Webhook(settings, metrics=Metrics(registry)).deliver(ACTION)
    (request,) = receiver.requests
    assert Verifier(SECRET).verify(request.body, request.headers)["subject"] == "digits"
    with pytest.raises(WebhookVerificationError):
        Verifier(OTHER_SECRET).verify(request.body, request.headers)
    with pytest.raises(WebhookVerificationError):
        Verifier(SECRET).verify(request.body + b" ", request.headers)


def test_every_secret_signs_while_one_is_rotated(
    receiver: Receiver, registry: CollectorRegistry
) -> None:
    settings = hook_settings(receiver.url, secret=f"{SECRET} {OTHER_SECRET}")
    webhook(settings, registry).deliver(ACTION)
    (request,) = receiver.requests
    verify(request, SECRET)
    verify(request, OTHER_SECRET)


def test_the_id_stays_and_the_time_moves_over_attempts(
    receiver: Receiver, registry: CollectorRegistry
) -> None:
    times = iter([1000.0, 2000.0])
    hook = Webhook(
        hook_settings(receiver.url), metrics=Metrics(registry), clock=lambda: next(times)
    )
    hook.deliver(ACTION)
    hook.deliver(ACTION)
    first, second = receiver.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    assert (first.headers["webhook-timestamp"], second.headers["webhook-timestamp"]) == (
        "1000",
        "2000",
    )


def test_ids_that_a_header_cannot_carry_are_hashed() -> None:
    assert message_id("inc-1:resolved:0") == "inc-1:resolved:0"
    odd = {message_id(id_) for id_ in ("a.b", "a b", "é", "x\r\ny", "z" * 200, "")}
    assert len(odd) == 6
    assert all(id_.isascii() and "." not in id_ and len(id_) == 36 for id_ in odd)


def test_unwanted_events_are_done_without_a_request(
    receiver: Receiver, registry: CollectorRegistry
) -> None:
    settings = hook_settings(receiver.url, events=("incident.resolved",))
    assert webhook(settings, registry).deliver(ACTION).state is ActionState.DONE
    assert receiver.requests == []
    assert count(registry, "delivered") == 0


@pytest.mark.parametrize(
    "large",
    [
        {"evidence": [{"test": "t" * 100, "n": n} for n in range(1000)]},
        {"contributions": {f"feature-{n}" * 10: n / 1000 for n in range(1000)}},
        {"actions": [{"detail": "d" * 3000}] * 30},
        {"detail": "d" * 50_000},
        {"detail": "é" * 15_000},
        {"unknown": ["x" * 50_000]},
    ],
)
def test_a_large_incident_is_trimmed_and_says_so(large: dict[str, Any]) -> None:
    text = cloud_event({"specversion": "1.0", "id": "x"}, INCIDENT | large)
    assert len(text.encode()) < MAX_BODY_BYTES
    data = json.loads(text)["data"]
    assert data["truncated"] is True
    assert (data["id"], data["state"]) == ("inc-1", "confirmed")


def test_trimming_keeps_the_newest_evidence_and_the_largest_contributions() -> None:
    evidence = [{"n": n, "text": "t" * 500} for n in range(100)]
    shares = {f"f{n}": n / 4950 for n in range(100)}
    data = json.loads(cloud_event({}, INCIDENT | {"evidence": evidence, "contributions": shares}))[
        "data"
    ]
    assert [e["n"] for e in data["evidence"]] == list(range(80, 100))
    assert next(iter(data["contributions"])) == "f99"


def test_what_fits_is_not_touched() -> None:
    assert json.loads(cloud_event({"id": "x"}, INCIDENT)) == {"id": "x", "data": INCIDENT}


# -- what the answer means ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (200, ActionState.DONE),
        (202, ActionState.DONE),
        (301, ActionState.PENDING),
        (304, ActionState.PENDING),
        (307, ActionState.PENDING),
        (400, ActionState.PENDING),
        (401, ActionState.PENDING),
        (404, ActionState.PENDING),
        (410, ActionState.FAILED),
        (429, ActionState.PENDING),
        (500, ActionState.PENDING),
        (503, ActionState.PENDING),
    ],
)
def test_only_2xx_succeeds_and_only_410_is_for_good(
    receiver: Receiver, registry: CollectorRegistry, status: int, state: ActionState
) -> None:
    receiver.status = status
    delivery = deliver(receiver, registry)
    assert delivery.state is state
    assert str(status) in delivery.detail


def test_a_redirect_is_never_followed(receiver: Receiver, registry: CollectorRegistry) -> None:
    receiver.status = 307
    receiver.headers = {"location": f"http://127.0.0.1:{receiver.server_port}/elsewhere"}
    assert "not followed" in deliver(receiver, registry).detail
    assert [r.path for r in receiver.requests] == ["/hook?key=in-the-url"]


def test_410_disables_the_endpoint(receiver: Receiver, registry: CollectorRegistry) -> None:
    hook = webhook(hook_settings(receiver.url), registry)
    receiver.status = 410
    assert hook.deliver(ACTION).state is ActionState.FAILED
    receiver.status = 200
    assert hook.deliver(ACTION).state is ActionState.FAILED
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(
    receiver: Receiver, registry: CollectorRegistry, status: int
) -> None:
    receiver.status = status
    receiver.headers = {"retry-after": "120"}
    assert deliver(receiver, registry).after_s == 120
    assert count(registry, "retried") == 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 0),
        ("0", 0),
        ("90", 90),
        ("Mon, 23 Nov 2026 10:02:00 GMT", 120),
        ("Mon, 23 Nov 2026 09:00:00 GMT", 0),
        ("Mon, 23 Nov 2026 10:02:00", 0),
        ("soon", 0),
        ("-5", 0),
        ("9" * 400, 0),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float) -> None:
    assert retry_after(value, NOW) == seconds


def test_a_receiver_that_dribbles_is_cut_off(
    receiver: Receiver, registry: CollectorRegistry
) -> None:
    receiver.dribbles.set()
    started = time.monotonic()
    delivery = webhook(hook_settings(receiver.url, timeout_s=0.3), registry).deliver(ACTION)
    assert delivery == Delivery.retry("ops: no answer within 0.3 s")
    assert time.monotonic() - started < 2


def test_a_receiver_that_is_not_there_is_tried_again(registry: CollectorRegistry) -> None:
    gone = Receiver()
    gone.server_close()
    assert deliver(gone, registry) == Delivery.retry("ops: ConnectError")


def test_a_name_that_does_not_resolve_is_tried_again(registry: CollectorRegistry) -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise OSError(-2, "Name or service not known")

    hook = webhook(hook_settings("https://hooks.example"), registry, resolver=unknown)
    assert hook.deliver(ACTION) == Delivery.retry("ops: Name or service not known")


# -- where requests go -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["93.184.216.34", "10.0.0.1"], ["::ffff:127.0.0.1"]]
)
def test_one_private_address_refuses_the_endpoint(
    receiver: Receiver, registry: CollectorRegistry, addresses: list[str]
) -> None:
    settings = hook_settings(f"http://hooks.example:{receiver.server_port}", allow_private=False)
    hook = webhook(settings, registry, resolver=lambda host, port: addresses)
    delivery = hook.deliver(ACTION)
    assert delivery.state is ActionState.FAILED
    assert f"leads to {addresses[-1]}" in delivery.detail
    assert receiver.requests == []


def test_an_address_in_the_url_is_checked_too(
    receiver: Receiver, registry: CollectorRegistry
) -> None:
    for host in ("127.0.0.1", "2130706433", "0x7f.1", "localhost"):
        settings = hook_settings(f"http://{host}:{receiver.server_port}/", allow_private=False)
        assert webhook(settings, CollectorRegistry()).deliver(ACTION).state is ActionState.FAILED
    assert receiver.requests == []


def test_the_name_is_resolved_once_and_the_checked_address_is_used(
    receiver: Receiver, registry: CollectorRegistry
) -> None:
    """A name that is public when checked and private when connected to gets no request."""
    answers = iter([["127.0.0.2"], ["127.0.0.1"]])
    checked: list[str] = []

    def is_public(address: str) -> bool:
        checked.append(address)
        return address == "127.0.0.2"

    settings = hook_settings(f"http://hooks.example:{receiver.server_port}", allow_private=False)
    hook = webhook(
        settings, registry, resolver=lambda host, port: next(answers), is_allowed=is_public
    )
    # Nothing listens on 127.0.0.2; the receiver is on 127.0.0.1, which a second look-up would give.
    assert hook.deliver(ACTION) == Delivery.retry("ops: ConnectError")
    assert checked == ["127.0.0.2"]
    assert receiver.requests == []


def test_the_next_address_is_tried_and_the_host_header_stays(
    receiver: Receiver, registry: CollectorRegistry
) -> None:
    settings = hook_settings(f"http://hooks.example:{receiver.server_port}/hook")
    hook = webhook(settings, registry, resolver=lambda host, port: ["127.0.0.2", "127.0.0.1"])
    assert hook.deliver(ACTION).state is ActionState.DONE
    assert receiver.requests[0].headers["host"] == f"hooks.example:{receiver.server_port}"


def test_proxies_of_the_environment_are_not_used(
    receiver: Receiver, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert deliver(receiver, registry).state is ActionState.DONE


def test_a_name_is_resolved_to_all_its_addresses() -> None:
    assert resolve("127.0.0.1", 80) == ["127.0.0.1"]
    assert set(resolve("localhost", 80)) <= {"127.0.0.1", "::1"}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_the_certificate_must_be_for_the_urls_name(
    receiver: Receiver, registry: CollectorRegistry, tmp_path: Path
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        f"-keyout {key} -out {certificate} -subj /CN=hooks.example "
        "-addext subjectAltName=DNS:hooks.example".split(),
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.sni_callback = lambda _, name, __: receiver.names.append(name)
    receiver.socket = context.wrap_socket(receiver.socket, server_side=True)
    trusting = ssl.create_default_context(cafile=certificate)

    def hook(host: str, context: ssl.SSLContext | None) -> Webhook:
        return Webhook(
            hook_settings(f"https://{host}:{receiver.server_port}/"),
            metrics=Metrics(CollectorRegistry()),
            name="ops",
            resolver=lambda host, port: ["127.0.0.1"],
            ssl_context=context,
        )

    assert hook("hooks.example", trusting).deliver(ACTION).state is ActionState.DONE
    wrong = hook("other.example", trusting).deliver(ACTION)
    assert wrong.state is ActionState.PENDING
    assert "certificate is not valid: Hostname mismatch" in wrong.detail
    assert "not valid" in hook("hooks.example", None).deliver(ACTION).detail
    assert receiver.names == ["hooks.example", "other.example", "hooks.example"]
    assert len(receiver.requests) == 1


# -- settings and secrets ----------------------------------------------------------------------


def test_a_url_that_cannot_be_read_is_refused_without_showing_it(
    registry: CollectorRegistry,
) -> None:
    with pytest.raises(ValueError, match="the URL cannot be read") as caught:
        webhook(hook_settings("https://example.com:port/hunter2"), registry)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "secret", [" ", "whsec_", "whsec_c2hvcnQ=", "whsec_!!!", SECRET[6:], "whsec_" + "A" * 100]
)
def test_a_weak_or_malformed_secret_is_refused_without_showing_it(
    registry: CollectorRegistry, secret: str
) -> None:
    with pytest.raises(ValueError, match="secret") as caught:
        webhook(hook_settings("https://example.com", secret=secret), registry)
    assert len(secret) < 7 or secret not in str(caught.value)


def test_neither_the_secret_nor_the_url_shows_anywhere(
    receiver: Receiver, registry: CollectorRegistry
) -> None:
    hook = webhook(hook_settings(receiver.url), registry)
    receiver.status = 500
    shown = repr(hook) + repr(hook.deliver(ACTION))
    gone = Receiver()
    gone.server_close()
    shown += repr(webhook(hook_settings(gone.url), CollectorRegistry()).deliver(ACTION))
    assert SECRET[6:] not in shown
    assert "in-the-url" not in shown


def test_the_default_name_is_the_host_and_nothing_more(registry: CollectorRegistry) -> None:
    settings = hook_settings("https://hooks.example/services/T0/B0/token")
    assert repr(Webhook(settings, metrics=Metrics(registry))) == "Webhook('hooks.example')"
