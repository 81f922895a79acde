"""Events over HTTP: `POST /api/v1/events` answers 202 when they are on disk, and not before."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import structlog
from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from prometheus_client import Counter
from starlette.requests import ClientDisconnect

from service.api.answers import problem
from service.records.decode import decode
from service.records.record import MAX_RECORD_BYTES, DecodeError, Record
from service.records.request import BatchError, Limits, TooLargeError, gunzip, split
from service.sources.spool.spool import KeyReusedError, NotNow, Spool

log = structlog.get_logger(__name__)

PATH = "/api/v1/events"
MAX_SHOWN = 100
"""Most events that one answer names as refused."""
MAX_THREADS = 16
"""Requests that are checked and written at once; they share syncs."""
_HELD_REQUESTS = 8
_LINES = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl"})
_TYPES = frozenset({"application/json"}) | _LINES
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_NO_BATCH = frozenset({"empty", "not_json", "not_an_object"})
"""Reasons of `decode` that say that a line is not even an object of JSON."""
_STATUS = {"backlog": 429, "disk": 503, "closed": 503}


class Ingest:
    """Takes events over HTTP into a spool.

    Parameters
    ----------
    spool
        Where they are written.
    limits
        What one request may bring.
    streams
        The configured streams.
    max_image_bytes
        Largest image, as for `decode`.
    requests
        Counts the answers by code.
    """

    def __init__(
        self,
        spool: Spool,
        limits: Limits,
        streams: Collection[str],
        max_image_bytes: int,
        requests: Counter,
    ) -> None:
        self._spool = spool
        self._limits = limits
        self._streams = frozenset(streams)
        self._max_image_bytes = max_image_bytes
        self._requests = requests
        self._threads = CapacityLimiter(MAX_THREADS)
        self._held = 0
        self._is_stopping = False

    def stop(self) -> None:
        """Take nothing more; the service stops."""
        self._is_stopping = True

    def count(self, code: int) -> None:
        """Count an answer, also one that was given before the request came here."""
        self._requests.labels(str(code)).inc()

    async def answer(self, request: Request) -> JSONResponse:
        """Answer a request whose sender may write."""
        refusal = self._by_headers(request)
        if refusal is not None:
            return refusal
        body = bytearray()
        try:
            async for part in request.stream():
                body += part
                self._held += len(part)
                if len(body) > self._limits.n_bytes:
                    # It did not say its length, and may have no end.
                    return self._too_large({"connection": "close"})
                if self._held > _HELD_REQUESTS * self._limits.n_bytes:
                    return _not_now(NotNow("backlog", "too many requests are being read", 1))
            # Beside the event loop, which has to go on answering whether the process is healthy.
            return await to_thread.run_sync(
                self._take, request.headers, bytes(body), limiter=self._threads
            )
        except ClientDisconnect:
            return problem(400, "body: ended too early")
        finally:
            self._held -= len(body)

    def _by_headers(self, request: Request) -> JSONResponse | None:
        headers = request.headers
        if self._is_stopping:
            return _not_now(NotNow("closed", "the service stops", 5))
        kind = _media_type(headers)
        if kind not in _TYPES:
            expected = "expected application/json or application/x-ndjson"
            return problem(415, f"content-type: {expected}, got {kind or 'none'}")
        encoding = headers.get("content-encoding", "identity").lower()
        if encoding not in {"identity", "gzip"}:
            detail = f"content-encoding: expected gzip or none, got {encoding[:60]}"
            return problem(415, detail, {"accept-encoding": "gzip"})
        key = headers.get("idempotency-key")
        if key is not None and not _KEY.fullmatch(key):
            return problem(400, "idempotency-key: expected 1 to 255 visible ASCII characters")
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._limits.n_bytes:
            return self._too_large()
        # A repeat has its answer, whatever waits; whether it is one is known after it was read.
        full = self._spool.is_full() if key is None else None
        return None if full is None else _not_now(full)

    def _too_large(self, headers: Mapping[str, str] | None = None) -> JSONResponse:
        return problem(413, f"body: expected at most {self._limits.n_bytes} bytes", headers)

    def _take(self, headers: Mapping[str, str], body: bytes) -> JSONResponse:
        try:
            if headers.get("content-encoding", "identity").lower() == "gzip":
                body = gunzip(body, self._limits)
            values = split(body, self._limits, is_lines=_media_type(headers) in _LINES)
        except BatchError as error:
            return problem(413 if isinstance(error, TooLargeError) else 400, str(error))
        refused = self._refused(values)
        no_batch = [(n, why.message) for n, why in refused if why.reason in _NO_BATCH]
        if no_batch:
            return problem(400, "events[{}]: {}".format(*no_batch[0]))
        if refused:
            return _unusable(refused, len(values))
        try:
            done = self._spool.append(values, headers.get("idempotency-key", ""))
        except KeyReusedError as error:
            return problem(422, f"idempotency-key: {error}")
        if isinstance(done, NotNow):
            return _not_now(done)
        return JSONResponse(
            {
                "accepted": done.n,
                "first_offset": done.first,
                "last_offset": done.first + done.n - 1,
            },
            status_code=202,
            headers={"idempotency-replayed": "true"} if done.is_repeat else {},
        )

    def _refused(self, values: list[bytes]) -> list[tuple[int, DecodeError]]:
        found: list[tuple[int, DecodeError]] = []
        for n, value in enumerate(values):
            try:
                self._check(Record("http", 0, n, None, value))
            except DecodeError as error:
                found.append((n, error))
        return found

    def _check(self, record: Record) -> None:
        n_bytes = len(record.value)
        if n_bytes > MAX_RECORD_BYTES:
            what = f"the record has {n_bytes} bytes, more than {MAX_RECORD_BYTES}"
            raise DecodeError("too_large", what, record)
        body = decode(record, max_image_bytes=self._max_image_bytes)
        if body.stream not in self._streams:
            what = f"stream: {body.stream!r} is not configured"
            raise DecodeError("unknown_stream", what, record)


def add_ingest(app: FastAPI, ingest: Ingest | None) -> None:
    """Add the route; without an `Ingest` it says that events come from elsewhere."""

    @app.post(PATH, status_code=202, openapi_extra={"requestBody": _BODY}, responses=_RESPONSES)
    async def events(request: Request) -> JSONResponse:
        """Take a batch of events, all of them or none."""
        if ingest is None:
            return problem(409, "events are taken over HTTP only where source.kind is http")
        return await ingest.answer(request)


def _media_type(headers: Mapping[str, str]) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()[:60]


def _unusable(refused: list[tuple[int, DecodeError]], n: int) -> JSONResponse:
    errors = [
        {"index": index, "reason": error.reason, "detail": error.message}
        for index, error in refused[:MAX_SHOWN]
    ]
    detail = f"{len(refused)} of {n} events cannot be used, so none was taken"
    return problem(422, detail, errors=errors, refused=len(refused))


def _not_now(refusal: NotNow) -> JSONResponse:
    if refusal.cause == "disk":
        log.warning("events not taken", reason=refusal.detail)
    headers = {"retry-after": str(refusal.after_s)}
    return problem(_STATUS[refusal.cause], refusal.detail, headers)


_EVENT: Mapping[str, Any] = {
    "type": "object",
    "description": "An observation or a label, as docs/reference/records.md has them.",
}
_BODY: Mapping[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"oneOf": [{"type": "array", "items": _EVENT, "minItems": 1}, _EVENT]}
        },
        "application/x-ndjson": {"schema": {"type": "string"}},
    },
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    202: {"description": "All events are on disk: how many, and the first and last offset."},
    400: {"description": "Not a batch of JSON objects; says which item, and why."},
    409: {"description": "The service's source is another one."},
    413: {"description": "Too many bytes or events."},
    415: {"description": "Another type or encoding than JSON, JSON lines, gzip."},
    422: {"description": "Events that cannot be used, by index; or a key with other records."},
    429: {"description": "Too much waits to be processed; Retry-After says how long to wait."},
    503: {"description": "The service stops, or its disk takes no more; see Retry-After."},
}
