"""A client of a schema registry that speaks Confluent's interface; look-ups only."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx

from service.records.formats.avro import Reference, RegisteredSchema
from service.records.record import DecodeError, TemporaryError
from service.settings.file import SettingsError
from service.settings.source import SchemaRegistrySettings

ACCEPT = "application/vnd.schemaregistry.v1+json, application/json"
MAX_SCHEMA_BYTES = 4 * 1024 * 1024
UNKNOWN_S = 30.0
"""How long the word of the registry that it has no such schema is taken without asking again."""
_MAX_UNKNOWN = 1000
_NOT_FOUND = {40401, 40402, 40403}
"""No such subject, version or schema: the registry itself says so, and not something before it."""


class SchemaRegistry:
    """Looks schemas up, one request each; who asks keeps what it was told.

    Redirects are not followed and proxies of the environment are not used: the password goes to
    the address that is configured.

    Parameters
    ----------
    settings
        Where it is.
    monotonic
        Seconds by a clock that is never set; only decides when to ask again for what is not there.

    Raises
    ------
    SettingsError
        If the password or the certificates cannot be read.
    """

    def __init__(
        self,
        settings: SchemaRegistrySettings,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        password = settings.read_password()
        self._url = settings.url
        self._monotonic = monotonic
        self._unknown: dict[str, tuple[float, str]] = {}
        self._client = httpx.Client(
            auth=(settings.username or "", password) if password is not None else None,
            headers={"accept": ACCEPT},
            timeout=settings.timeout_s,
            trust_env=False,
            verify=_certificates(settings),
        )

    def schema(self, id_: int) -> RegisteredSchema:
        """The schema of an id.

        Raises
        ------
        DecodeError
            `unknown_schema` if the registry says that there is none.
        TemporaryError
            If it does not answer that.
        """
        return self._get(f"/schemas/ids/{id_}", f"schema {id_}")

    def version(self, reference: Reference) -> RegisteredSchema:
        """The schema that another one refers to; errors as those of `schema`."""
        subject = quote(reference.subject, safe="")
        return self._get(
            f"/subjects/{subject}/versions/{reference.version}",
            f"schema {reference.subject!r} version {reference.version}",
        )

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _get(self, path: str, what: str) -> RegisteredSchema:
        until, said = self._unknown.get(path, (0.0, ""))
        if self._monotonic() < until:
            raise DecodeError("unknown_schema", said)
        status, answer = self._ask(path, what)
        if status == httpx.codes.NOT_FOUND and answer.get("error_code") in _NOT_FOUND:
            said = f"the schema registry has no {what}"
            if len(self._unknown) >= _MAX_UNKNOWN:
                self._unknown.clear()
            self._unknown[path] = (self._monotonic() + UNKNOWN_S, said)
            raise DecodeError("unknown_schema", said)
        if status != httpx.codes.OK:
            raise TemporaryError(f"{self._url}: {what}: answered {status}")
        try:
            references = [
                Reference(str(r["subject"]), int(r["version"]))
                for r in answer.get("references") or ()
            ]
            return RegisteredSchema(
                str(answer["schema"]), str(answer.get("schemaType") or "AVRO"), references
            )
        except (KeyError, TypeError, ValueError):
            raise TemporaryError(
                f"{self._url}: {what}: answered something else than a schema"
            ) from None

    def _ask(self, path: str, what: str) -> tuple[int, dict[str, Any]]:
        """Status and JSON object of the answer, which is empty where it is something else."""
        found = bytearray()
        try:
            with self._client.stream("GET", self._url + path) as response:
                for chunk in response.iter_bytes():
                    found += chunk
                    if len(found) > MAX_SCHEMA_BYTES:
                        raise TemporaryError(
                            f"{self._url}: {what}: answered more than {MAX_SCHEMA_BYTES} bytes"
                        )
        except httpx.HTTPError as error:
            raise TemporaryError(
                f"{self._url}: {what}: {str(error) or type(error).__name__}"
            ) from error
        try:
            answer = json.loads(found)
        except ValueError:
            answer = None
        return response.status_code, answer if isinstance(answer, dict) else {}


def _certificates(settings: SchemaRegistrySettings) -> ssl.SSLContext | bool:
    if settings.ssl_cafile is None:
        return True
    try:
        return ssl.create_default_context(cafile=settings.ssl_cafile)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            [f"source.schema_registry.ssl_cafile: {settings.ssl_cafile} cannot be read: {error}"]
        ) from None
