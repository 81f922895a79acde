"""Tells other systems about incidents: signed webhooks that carry CloudEvents.

Signing, headers and the meaning of answers follow the Standard Webhooks specification 1.0 [1]_,
the body is a CloudEvents 1.0 event in structured JSON [2]_.

References
----------
.. [1] https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
.. [2] https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import re
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache

import httpx
from standardwebhooks import Webhook as Signer

from service import __version__
from service.domain.action import Action, ActionState
from service.notify.addresses import is_public
from service.notify.cloud_event import CONTENT_TYPE, attributes_of, cloud_event
from service.notify.outbox import Delivery
from service.settings.service import WebhookSettings
from service.telemetry.metrics import Metrics

_PLAIN_ID = re.compile(r"[A-Za-z0-9_:-]{1,128}")
_OUTCOMES = {
    ActionState.DONE: "delivered",
    ActionState.PENDING: "retried",
    ActionState.FAILED: "failed",
}

Resolver = Callable[[str, int], Sequence[str]]


class RefusedAddressError(Exception):
    """The endpoint's name leads to an address that webhooks may not go to."""


def resolve(host: str, port: int) -> list[str]:
    """Return every address that a name leads to.

    Raises
    ------
    OSError
        If it cannot be resolved.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


class Webhook:
    """Delivers the actions of one endpoint; a handler for the outbox.

    An action's payload has `event`, such as `incident.confirmed`, and `data`, the incident's
    document.

    A name is resolved once for each attempt, ALL its addresses are checked, and the connection
    goes to one of the checked addresses: a second look-up could have another answer. The `Host`
    header and the certificate's name stay those of the URL. Redirects are never followed and
    proxies of the environment are not used, because both would lead past the check.

    Only 2xx succeeds. 410 disables the endpoint until the service starts again. Everything else
    can be the receiver's passing trouble, wrong credentials included, and is retried on the
    outbox's schedule; `Retry-After` is honoured. An address that is refused is not tried again.

    Parameters
    ----------
    settings
        Where to post to and how. The secret can be several, separated by spaces, while one is
        rotated: each signs.
    metrics
        Counts the deliveries.
    name
        What logs and metrics call the endpoint; by default the URL's host, because the rest of the
        URL may hold a secret.
    source
        Which service speaks: the `source` of the CloudEvents.
    clock
        Returns Unix seconds.
    resolver
        Returns a name's addresses.
    is_allowed
        Whether messages may go to an address, unless the settings allow all.
    ssl_context
        Checks certificates; by default against the usual authorities, or what `SSL_CERT_FILE`
        names.

    Raises
    ------
    ValueError
        If the URL or a secret is unusable; the secret is not shown.
    """

    def __init__(
        self,
        settings: WebhookSettings,
        *,
        metrics: Metrics,
        name: str | None = None,
        source: str = "shiftwatch",
        clock: Callable[[], float] = time.time,
        resolver: Resolver = resolve,
        is_allowed: Callable[[str], bool] = is_public,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._url = _checked_url(settings.url)
        self.name = name or self._url.host
        self._signers = [Signer(s) for s in _checked_secrets(settings.read_secret())]
        self._source = source
        self._clock = clock
        self._metrics = metrics
        self._events = frozenset(settings.events)
        self._allow_private = settings.allow_private
        self._timeout_s = settings.timeout_s
        self._resolver = resolver
        self._is_allowed = is_allowed
        self._ssl_context = ssl_context
        self._is_gone = False
        metrics.add_endpoint(self.name)

    def __repr__(self) -> str:
        return f"Webhook({self.name!r})"

    def deliver(self, action: Action) -> Delivery:
        """Try once."""
        event = str(action.payload["event"])
        if self._events and event not in self._events:
            return Delivery.done(f"{self.name} does not want {event}")
        if self._is_gone:
            return Delivery.failed(f"{self.name} is disabled: it answered 410 before")
        delivery = self._post(action)
        self._metrics.webhook_deliveries.labels(self.name, _OUTCOMES[delivery.state]).inc()
        return delivery

    def _post(self, action: Action) -> Delivery:
        id_ = message_id(action.id)
        body = cloud_event(
            attributes_of(action, id_=id_, source=self._source), action.payload["data"]
        )
        now = datetime.fromtimestamp(self._clock(), UTC)
        headers = {
            "content-type": CONTENT_TYPE,
            "user-agent": f"shiftwatch/{__version__}",
            "webhook-id": id_,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(s.sign(id_, now, body) for s in self._signers),
        }
        try:
            response = asyncio.run(self._send(headers, body.encode()))
        except TimeoutError:
            return Delivery.retry(f"{self.name}: no answer within {self._timeout_s:g} s")
        except RefusedAddressError as error:
            return Delivery.failed(f"{self.name}: {error}")
        except OSError as error:
            return Delivery.retry(f"{self.name}: {error.strerror or type(error).__name__}")
        except httpx.HTTPError as error:
            # Only the type: the text can quote the URL, or what the receiver wrote.
            return Delivery.retry(f"{self.name}: {_cause(error)}")
        return self._judge(response, now)

    async def _send(self, headers: Mapping[str, str], body: bytes) -> httpx.Response:
        # httpx limits the time between two bytes; a receiver that dribbles would hold the thread.
        async with asyncio.timeout(self._timeout_s):
            host, port = self._url.host, self._url.port or _default_port(self._url)
            addresses = await asyncio.to_thread(self._resolver, host, port)
            self._check(host, addresses)
            async with httpx.AsyncClient(
                verify=self._ssl_context or _authorities(),
                trust_env=False,
                follow_redirects=False,
                # Every address gets its turn, though the first ones may be dead.
                timeout=httpx.Timeout(
                    self._timeout_s, connect=self._timeout_s / max(1, len(addresses))
                ),
            ) as client:
                for n, address in enumerate(addresses, 1):
                    request = client.build_request(
                        "POST",
                        self._url.copy_with(host=address),
                        content=body,
                        headers={**headers, "host": self._url.netloc.decode("ascii")},
                        extensions={"sni_hostname": self._url.raw_host.decode("ascii")},
                    )
                    try:
                        # The body is not read: nobody needs it, and it can be without end.
                        response = await client.send(request, stream=True)
                        await response.aclose()
                    except (httpx.ConnectError, httpx.ConnectTimeout):
                        if n == len(addresses):
                            raise
                    else:
                        return response
        raise OSError("the name leads to no address")

    def _check(self, host: str, addresses: Sequence[str]) -> None:
        refused = [] if self._allow_private else [a for a in addresses if not self._is_allowed(a)]
        if refused:
            raise RefusedAddressError(
                f"{host} leads to {refused[0]}, which is not on the public internet; "
                "allow_private allows it"
            )

    def _judge(self, response: httpx.Response, now: datetime) -> Delivery:
        status = response.status_code
        detail = f"{self.name}: answered {status}"
        if response.is_success:
            return Delivery.done(detail)
        if status == httpx.codes.GONE:
            self._is_gone = True
            return Delivery.failed(f"{detail}: disabled until the service starts again")
        if response.is_redirect:
            detail += ", and redirects are not followed: configure the new URL"
        return Delivery.retry(detail, retry_after(response.headers.get("retry-after"), now))


def message_id(action_id: str) -> str:
    """Return the `webhook-id` of an action, the same for every attempt.

    The action's own id where a header can carry it; a dot cannot, because it separates what is
    signed.

    Examples
    --------
    >>> message_id("inc-49862ceb89d4fea8:confirmed:0")
    'inc-49862ceb89d4fea8:confirmed:0'
    >>> message_id("a.b")
    'msg-2e7336dc8eba87ef472df568c35482ab'
    """
    if _PLAIN_ID.fullmatch(action_id):
        return action_id
    return f"msg-{hashlib.sha256(action_id.encode()).hexdigest()[:32]}"


def retry_after(value: str | None, now: datetime) -> float:
    """Seconds that a `Retry-After` header asks for; 0 where there is none that can be read.

    Examples
    --------
    >>> retry_after("120", datetime(2026, 11, 23, tzinfo=UTC))
    120.0
    >>> retry_after("Mon, 23 Nov 2026 00:01:00 GMT", datetime(2026, 11, 23, tzinfo=UTC))
    60.0
    """
    if value is None:
        return 0.0
    if re.fullmatch(r"\d{1,9}", value):
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - now).total_seconds())
    except (ValueError, TypeError):
        return 0.0


def _checked_url(url: str) -> httpx.URL:
    try:
        return httpx.URL(url)
    except httpx.InvalidURL:
        raise ValueError("webhook: the URL cannot be read") from None


@cache
def _authorities() -> ssl.SSLContext:
    # Reading them takes longer than a delivery.
    return httpx.create_ssl_context()


def _checked_secrets(secret: str) -> list[str]:
    secrets = secret.split()
    if not secrets:
        raise ValueError("webhook: a secret is needed, because webhooks are signed")
    for one in secrets:
        try:
            encoded = one.removeprefix("whsec_")
            key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        except binascii.Error:
            key = b""
        if not one.startswith("whsec_") or not 24 <= len(key) <= 64:
            raise ValueError(
                "webhook: a secret is whsec_ and the base64 of 24 to 64 bytes; make one "
                "with: echo whsec_$(openssl rand -base64 32)"
            )
    return secrets


def _default_port(url: httpx.URL) -> int:
    return 443 if url.scheme == "https" else 80


def _cause(error: httpx.HTTPError) -> str:
    """What went wrong, in words that hold no data."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the certificate is not valid: {cause.verify_message}"
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__
