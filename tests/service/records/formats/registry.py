"""A schema registry on loopback that speaks the look-ups of Confluent's interface."""

from __future__ import annotations

import base64
import io
import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fastavro
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from service.api.http import HttpServer

KIND = "application/vnd.schemaregistry.v1+json"


class StubRegistry:
    """Schemas by id and by subject; `status` other than 200 stands for trouble."""

    def __init__(self) -> None:
        self.by_id: dict[int, dict[str, Any]] = {}
        self.by_version: dict[tuple[str, int], dict[str, Any]] = {}
        self.login: tuple[str, str] | None = None
        self.status = 200
        self.body: str | None = None
        self.asked: list[str] = []
        self.app = FastAPI()
        self.app.get("/schemas/ids/{id_}")(self.of_id)
        self.app.get("/subjects/{subject:path}/versions/{version}")(self.of_version)

    def add(self, id_: int, schema: object, **more: Any) -> None:
        self.by_id[id_] = {"schema": json.dumps(schema), **more}

    def of_id(self, id_: int, request: Request) -> Response:
        return self._answer(request, self.by_id.get(id_), 40403)

    def of_version(self, subject: str, version: int, request: Request) -> Response:
        return self._answer(request, self.by_version.get((subject, version)), 40402)

    def _answer(self, request: Request, found: dict[str, Any] | None, code: int) -> Response:
        self.asked.append(request.url.path)
        given = request.headers.get("authorization")
        if (
            self.login
            and given != f"Basic {base64.b64encode(':'.join(self.login).encode()).decode()}"
        ):
            return JSONResponse({"error_code": 40101, "message": "Unauthorized"}, 401)
        if self.body is not None or self.status != 200:
            return PlainTextResponse(self.body or "trouble", self.status)
        if found is None:
            return JSONResponse({"error_code": code, "message": "not found"}, 404, media_type=KIND)
        return JSONResponse(found, media_type=KIND)


@contextmanager
def serving(stub: StubRegistry, port: int = 0) -> Iterator[str]:
    """The stub's address while it answers."""
    server = HttpServer(stub.app, "127.0.0.1", port)
    server.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.stop()


def encoded(id_: int, schema: Any, datum: Any) -> bytes:
    """A value as Confluent's serializer writes it."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), datum)
    return struct.pack(">bI", 0, id_) + out.getvalue()
