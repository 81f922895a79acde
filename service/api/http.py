"""What the service shows over HTTP, and the few things that can be asked of it."""

from __future__ import annotations

import hmac
import json
import re
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any, Protocol

import structlog
import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as StarletteHTTPException

from service import __version__
from service.api.answers import problem
from service.api.correction import ScoresError
from service.api.events import PATH as EVENTS_PATH
from service.api.events import Ingest, add_ingest
from service.api.page import CONTENT_SECURITY_POLICY, status_page
from service.domain.incident import IncidentState
from service.store.errors import StoreError

log = structlog.get_logger(__name__)

MAX_INCIDENTS = 500
MAX_SCORES_BYTES = 2_000_000
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_READING_BY_POST = re.compile(r"/api/v1/streams/[^/]+/scores")
"""What asks with a body and changes nothing; it limits the body itself. Who serves predictions
needs no token then, which could also promote models."""
START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 5


class Reader(Protocol):
    """What the pages show. Called from several threads; has to be quick."""

    def streams(self) -> Sequence[Mapping[str, Any]]:
        """Return a document for each stream.

        With `name`; the status page also shows `phase`, `reason`, `observations`, `labels`,
        `accuracy`, `champion` and `open_incidents` as far as they are there.
        """
        ...

    def stream(self, name: str) -> Mapping[str, Any] | None:
        """Return the document of one stream, or None if there is none of that name."""
        ...

    def incidents(
        self, stream: str | None, state: str | None, limit: int
    ) -> Sequence[Mapping[str, Any]]:
        """Return incidents, newest first; None stands for every stream or state."""
        ...

    def incident(self, id_: str) -> Mapping[str, Any] | None:
        """Return an incident, or None if there is none of that id."""
        ...

    def correct_scores(self, stream: str, scores: object) -> Mapping[str, Any]:
        """Return a stream's scores as the service corrects its own.

        Raises
        ------
        LookupError
            If there is no such stream.
        ScoresError
            If the scores do not fit the stream; says where.
        ValueError
            If the stream has no scores at all.
        """
        ...

    def ready(self) -> tuple[bool, str]:
        """Whether records are being worked on, and otherwise the reason."""
        ...

    def healthy(self) -> bool:
        """Whether the process can go on; if not, only a restart helps."""
        ...


class Operator(Protocol):
    """What can be asked of the service.

    Each returns a document that says what happened. It raises LookupError for what does not exist
    and ValueError for what cannot be done now; the text goes to the one who asked.
    """

    def close_incident(self, id_: str, reason: str) -> Mapping[str, Any]:
        """End an incident by hand."""
        ...

    def rollback(self, stream: str, reason: str) -> Mapping[str, Any]:
        """Make the champion's predecessor the champion again."""
        ...

    def promote(self, stream: str, version: int, reason: str) -> Mapping[str, Any]:
        """Make a version the champion that waits for approval."""
        ...


class Reason(BaseModel):
    """The body of a request that changes something."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(default="", max_length=500, description="Why, for the record.")


class Promotion(Reason):
    """The body of a promotion."""

    version: int = Field(ge=1)


def create_app(
    reader: Reader,
    metrics_registry: CollectorRegistry,
    token: str | None = None,
    operator: Operator | None = None,
    ingest: Ingest | None = None,
) -> FastAPI:
    """Make the web application.

    Parameters
    ----------
    reader
        What it shows.
    metrics_registry
        What `/metrics` shows.
    token
        Guards everything that changes state; without one, nothing can be changed.
    operator
        Carries out changes; without one, nothing can be changed.
    ingest
        Takes events; without one, they come from elsewhere.
    """
    # FastAPI's documentation pages load scripts from elsewhere; the OpenAPI document is enough.
    app = FastAPI(
        title="Shiftwatch",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
    )
    _add_errors(app)
    _add_pages(app, reader, metrics_registry)
    _add_api(app, reader)
    _add_operations(app, operator)
    add_ingest(app, ingest)
    _add_guard(app, token, ingest)
    return app


def _add_guard(app: FastAPI, token: str | None, ingest: Ingest | None) -> None:
    @app.middleware("http")
    async def guard(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        # By method and not by route, so that no route can be forgotten; and before the body is
        # read, so that nobody without the token can send a large one.
        refusal = None if _only_reads(request) else _refusal(request, token)
        try:
            response = await call_next(request) if refusal is None else refusal
        except Exception:
            # The asker learns nothing about the inside.
            log.exception("request failed", path=request.url.path)
            response = problem(500, "an error in the service; its log says more")
        if ingest is not None and (request.method, request.url.path) == ("POST", EVENTS_PATH):
            ingest.count(response.status_code)
        response.headers["x-content-type-options"] = "nosniff"
        response.headers["referrer-policy"] = "no-referrer"
        response.headers["cache-control"] = "no-store"
        response.headers["content-security-policy"] = CONTENT_SECURITY_POLICY
        return response


def _only_reads(request: Request) -> bool:
    by_post = request.method == "POST" and _READING_BY_POST.fullmatch(request.url.path)
    return request.method in _READING or bool(by_post)


def _refusal(request: Request, token: str | None) -> JSONResponse | None:
    if not token:
        return problem(403, "no token is configured, so nothing can be changed over HTTP")
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # Compared as a whole and in constant time: the time must not tell how much is right.
    is_right = hmac.compare_digest(given.strip().encode(), token.encode())
    if scheme.lower() != "bearer" or not is_right:
        return problem(401, "a bearer token is needed", {"www-authenticate": "Bearer"})
    return None


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(StarletteHTTPException)
    def refused(_: Request, error: StarletteHTTPException) -> JSONResponse:
        return problem(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return problem(422, f"{where}: {first['msg']}")

    @app.exception_handler(StoreError)
    def no_store(request: Request, error: StoreError) -> JSONResponse:
        log.warning("request failed", path=request.url.path, reason=str(error))
        return problem(503, "the store cannot be read at the moment")


def _add_pages(app: FastAPI, reader: Reader, metrics_registry: CollectorRegistry) -> None:
    @app.get("/", include_in_schema=False)
    def page() -> HTMLResponse:
        incidents = reader.incidents(None, None, 50)
        return HTMLResponse(status_page(__version__, reader.ready(), reader.streams(), incidents))

    @app.get("/metrics", include_in_schema=False)
    def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(metrics_registry), headers={"content-type": content_type})

    @app.get("/healthz")
    def healthz() -> JSONResponse:
        """Whether the process works; if not, restart it."""
        return _check(reader.healthy(), "the process cannot go on")

    @app.get("/readyz")
    def readyz() -> JSONResponse:
        """Whether records are being worked on."""
        return _check(*reader.ready())


def _check(is_good: bool, reason: str) -> JSONResponse:
    return JSONResponse({"status": "ok"}) if is_good else problem(503, reason)


def _add_api(app: FastAPI, reader: Reader) -> None:
    @app.get("/api/v1/streams")
    def streams() -> JSONResponse:
        return JSONResponse({"streams": [dict(s) for s in reader.streams()]})

    @app.get("/api/v1/streams/{name}")
    def stream(name: str) -> JSONResponse:
        found = reader.stream(name)
        if found is None:
            raise HTTPException(404, f"there is no stream {name!r}")
        return JSONResponse(dict(found))

    @app.post("/api/v1/streams/{name}/scores", openapi_extra={"requestBody": _SCORES_BODY})
    async def scores(name: str, request: Request) -> JSONResponse:
        """Correct scores for the stream's present class frequencies; changes nothing."""
        body = await _limited_body(request, MAX_SCORES_BYTES)
        # Beside the event loop, which has to go on answering whether the process is healthy.
        return JSONResponse(await run_in_threadpool(_corrected, reader, name, body))

    @app.get("/api/v1/incidents")
    def incidents(
        stream: str | None = None,
        state: IncidentState | None = None,
        limit: Annotated[int, Query(ge=1, le=MAX_INCIDENTS)] = 100,
    ) -> JSONResponse:
        found = reader.incidents(stream, None if state is None else state.value, limit)
        return JSONResponse({"incidents": [dict(i) for i in found]})

    @app.get("/api/v1/incidents/{id_}")
    def incident(id_: str) -> JSONResponse:
        found = reader.incident(id_)
        if found is None:
            raise HTTPException(404, f"there is no incident {id_!r}")
        return JSONResponse(dict(found))


_SCORES_BODY: Mapping[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["scores"],
                "additionalProperties": False,
                "properties": {
                    "scores": {
                        "oneOf": [
                            {
                                "type": "array",
                                "items": {"type": "array", "items": {"type": "number"}},
                                "description": "Rows, each with a score for every class.",
                            },
                            {
                                "type": "object",
                                "additionalProperties": {"type": "number"},
                                "description": "One row, as scores by class.",
                            },
                        ]
                    }
                },
            }
        }
    },
}


async def _limited_body(request: Request, max_bytes: int) -> bytes:
    """The body, read no further than the limit whatever its header says."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > max_bytes:
            raise HTTPException(413, f"body: expected at most {max_bytes} bytes")
    return bytes(body)


def _corrected(reader: Reader, name: str, body: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        raise HTTPException(422, "body: expected JSON") from None
    if not isinstance(asked, dict) or asked.keys() != {"scores"}:
        raise HTTPException(422, 'body: expected an object with the one field "scores"')
    try:
        return dict(reader.correct_scores(name, asked["scores"]))
    except LookupError as error:
        raise HTTPException(404, str(error.args[0])) from error
    except ScoresError as error:
        raise HTTPException(422, str(error)) from error
    except ValueError as error:
        raise HTTPException(409, str(error)) from error


def _add_operations(app: FastAPI, operator: Operator | None) -> None:
    def answer(ask: Callable[[Operator], Mapping[str, Any]]) -> JSONResponse:
        if operator is None:
            raise HTTPException(501, "this process only shows; it cannot change anything")
        try:
            return JSONResponse(dict(ask(operator)))
        except LookupError as error:
            raise HTTPException(404, str(error.args[0] if error.args else error)) from error
        except ValueError as error:
            raise HTTPException(409, str(error)) from error

    @app.post("/api/v1/incidents/{id_}/close")
    def close(id_: str, body: Reason | None = None) -> JSONResponse:
        """End an incident by hand."""
        reason = body.reason if body else ""
        return answer(lambda operator: operator.close_incident(id_, reason))

    @app.post("/api/v1/streams/{name}/rollback")
    def rollback(name: str, body: Reason | None = None) -> JSONResponse:
        """Make the champion's predecessor the champion again."""
        reason = body.reason if body else ""
        return answer(lambda operator: operator.rollback(name, reason))

    @app.post("/api/v1/streams/{name}/promote")
    def promote(name: str, body: Promotion) -> JSONResponse:
        """Make a version the champion that waits for approval."""
        return answer(lambda operator: operator.promote(name, body.version, body.reason))


class ListenError(RuntimeError):
    """The server cannot listen where it should; names the address and the cause."""


class HttpServer:
    """An application served from a thread of its own.

    Parameters
    ----------
    app
        The application.
    host
        Address to listen on; loopback unless others are to reach it.
    port
        0 takes a free one; `port` tells which.
    """

    def __init__(self, app: FastAPI, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                timeout_graceful_shutdown=STOP_TIMEOUT_S,
            )
        )
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen; return when requests are answered.

        Raises
        ------
        ListenError
            If the port is taken, the address is not this machine's, or the server does not start.
        """
        listener = _listen(self.host, self.port)
        self.port = listener.getsockname()[1]
        # Signals belong to the main thread; uvicorn takes them over only when it runs there.
        self._thread = threading.Thread(
            target=self._server.run, args=([listener],), name=f"http-{self.port}", daemon=True
        )
        self._thread.start()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                self.stop()
                listener.close()
                raise ListenError(f"{self.host}:{self.port}: the server did not start")
            time.sleep(0.01)
        log.info("http server listens", host=self.host, port=self.port)

    def stop(self) -> None:
        """Stop after the requests that are under way."""
        if self._thread is not None:
            self._server.should_exit = True
            self._thread.join(2 * STOP_TIMEOUT_S)
            self._thread = None


def _listen(host: str, port: int) -> socket.socket:
    # Bound here and not by uvicorn, which ends the process when it cannot.
    try:
        family, type_, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, type_, protocol)
    except OSError as error:
        raise ListenError(f"{host}:{port}: {error.strerror}") from error
    try:
        # So that a restart need not wait for connections of the former process to fade.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise ListenError(f"{host}:{port}: {error.strerror}") from error
    return listener
