"""The settings: one YAML file, with environment variables over it.

Everything that is checked is checked when the service starts, and a problem names the file's line.
Paths are relative to the working directory. Secrets have a type of their own that no `repr` shows.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    Field,
    SecretStr,
    TypeAdapter,
    field_validator,
    model_validator,
)

from service.settings import file as config_file
from service.settings.file import FieldError, SettingsError
from service.settings.secret import NO_CREDENTIALS, check_either, read_secret, web_address
from service.settings.section import Section
from service.settings.source import SourceSettings
from service.settings.stream import StreamSettings

__all__ = ["Settings", "SettingsError", "StreamSettings", "load", "loads"]

ENVIRONMENT_PREFIX = "SHIFTWATCH_"
_DURATION = TypeAdapter(timedelta)


class StoreSettings(Section):
    """The database."""

    url: str = Field(
        default="sqlite:///var/shiftwatch.db",
        repr=False,
        description="Where states, offsets, incidents and actions are kept: sqlite:///FILE or "
        "postgresql+psycopg://HOST/NAME. One with a password belongs in the environment.",
    )

    @field_validator("url")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value.partition("://")[0] not in {"sqlite", "postgresql", "postgresql+psycopg"}:
            raise ValueError("expected sqlite:///FILE or postgresql+psycopg://HOST/NAME")
        return value


class RegistrySettings(Section):
    """The models' versions."""

    path: Path = Field(default=Path("var/models"), description="Folder of the models' versions.")
    serving: Path | None = Field(
        default=None,
        description="Folder in which a server of models finds each stream's champion, in "
        "TensorFlow Serving's layout; for streams with model.saved_model. None for nowhere.",
    )


class DeadLetterSettings(Section):
    """Records that could not be used."""

    path: Path = Field(
        default=Path("var/dead-letters.jsonl"),
        description="File that they are appended to, with reason and coordinates.",
    )


class HttpSettings(Section):
    """The HTTP interface."""

    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address to listen on; any but this machine's own needs a token.",
    )
    port: Annotated[int, Field(ge=0, le=65535)] | None = Field(
        default=8321, description="Port; 0 for any that is free, none for no HTTP."
    )
    token: SecretStr | None = Field(
        default=None,
        min_length=1,
        description="Bearer token that everything which changes state needs; without one nothing "
        "can be changed over HTTP.",
    )
    token_file: Path | None = Field(default=None, description="File that holds the token instead.")

    @model_validator(mode="after")
    def _guarded(self) -> HttpSettings:
        guarded = check_either(self, "token")
        if self.port is not None and not guarded and not _is_loopback(self.host):
            raise FieldError(
                ("host",), f"{self.host} can be reached from other machines: set a token"
            )
        return self

    def read_token(self) -> str | None:
        """Return the token, from its file if it has one; None if there is none.

        Raises
        ------
        SettingsError
            If the file cannot be read or is empty.
        """
        return read_secret("http.token_file", self.token, self.token_file)


class WebhookSettings(Section):
    """One endpoint that is told about incidents."""

    url: str = Field(
        repr=False,
        description="Where messages are posted to; https:// or http://, " + NO_CREDENTIALS + ".",
    )
    secret: SecretStr | None = Field(
        default=None,
        min_length=1,
        description="Signs the messages: whsec_ and the base64 of 24 to 64 bytes.",
    )
    secret_file: Path | None = Field(
        default=None, description="File that holds the secret instead."
    )
    events: tuple[
        Literal[
            "incident.suspected",
            "incident.confirmed",
            "incident.repairing",
            "incident.resolved",
            "incident.dismissed",
            "incident.folded",
        ],
        ...,
    ] = Field(
        default=(), description="Events to send; an empty list means all but `incident.folded`."
    )
    allow_private: bool = Field(
        default=False, description="Allow addresses that are not on the public internet."
    )
    timeout_s: float = Field(
        default=15.0, gt=0, le=60, description="Seconds after which an attempt has failed."
    )

    @field_validator("url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        return web_address(value)

    @model_validator(mode="after")
    def _one_secret(self) -> WebhookSettings:
        check_either(self, "secret", is_needed=True)
        return self

    def read_secret(self) -> str:
        """Return the secret, from its file if it has one.

        Raises
        ------
        SettingsError
            If the file cannot be read or is empty.
        """
        return read_secret("webhooks.secret_file", self.secret, self.secret_file) or ""


class ImageSettings(Section):
    """Limits of images, which come from outside."""

    max_bytes: int = Field(default=5_000_000, ge=1, description="Largest encoded image.")
    max_pixels: int = Field(default=20_000_000, ge=1, description="Largest decoded image.")
    uri_prefixes: tuple[str, ...] = Field(
        default=(),
        description="Where image_uri may point to, each ending in '/'; empty for nowhere.",
    )

    @field_validator("uri_prefixes")
    @classmethod
    def _end(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for prefix in value:
            # Without it s3://bucket/safe would allow s3://bucket/safe-not as well.
            if not prefix.endswith("/"):
                raise ValueError(f"expected prefixes that end in '/', got {prefix!r}")
        return value


class CheckpointSettings(Section):
    """How often states and offsets are written; whichever comes first."""

    every_records: int = Field(
        default=20_000,
        ge=1,
        description="Records between two checkpoints; what somebody waits for is written at once.",
    )
    every_s: float = Field(default=2.0, gt=0, description="Seconds between two checkpoints.")


class LogSettings(Section):
    """Log lines."""

    format: Literal["auto", "json", "console"] = Field(
        default="auto", description="auto is console on a terminal and JSON elsewhere."
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe lines that are written."
    )


class Settings(Section):
    """Everything that can be set."""

    streams: tuple[StreamSettings, ...] = Field(
        min_length=1, description="The monitored models' streams."
    )
    store: StoreSettings = Field(default_factory=StoreSettings, description="The database.")
    registry: RegistrySettings = Field(
        default_factory=RegistrySettings, description="The models' versions."
    )
    source: SourceSettings = Field(
        default_factory=SourceSettings, description="Where records come from."
    )
    dead_letters: DeadLetterSettings = Field(
        default_factory=DeadLetterSettings, description="Records that could not be used."
    )
    http: HttpSettings = Field(default_factory=HttpSettings, description="The HTTP interface.")
    webhooks: tuple[WebhookSettings, ...] = Field(
        default=(), description="Endpoints that are told about incidents."
    )
    images: ImageSettings = Field(default_factory=ImageSettings, description="Limits of images.")
    checkpoint: CheckpointSettings = Field(
        default_factory=CheckpointSettings, description="How often progress is written."
    )
    seed: int = Field(
        default=0,
        ge=0,
        description="Seeds calibration, tests and training; equal seeds, equal incidents.",
    )
    log: LogSettings = Field(default_factory=LogSettings, description="Log lines.")

    @model_validator(mode="after")
    def _reachable(self) -> Settings:
        if self.source.kind == "http":
            if self.http.port is None:
                raise FieldError(("http", "port"), "source.kind http needs a port, got none")
            if self.http.token is None and self.http.token_file is None:
                raise FieldError(
                    ("http", "token"),
                    "source.kind http needs one, which senders of events give",
                )
        return self

    @model_validator(mode="after")
    def _unique(self) -> Settings:
        first: dict[str, int] = {}
        for n, stream in enumerate(self.streams):
            # Folders of the registry are named after streams, and some file systems fold case.
            other = first.setdefault(stream.name.casefold(), n)
            if other != n:
                raise FieldError(
                    ("streams", n, "name"),
                    f"expected different names, got {stream.name!r} as in streams[{other}]",
                )
        return self

    def stream(self, name: str) -> StreamSettings:
        """Return the settings of a stream.

        Raises
        ------
        KeyError
            If there is no such stream; names those that are there.
        """
        for found in self.streams:
            if found.name == name:
                return found
        known = ", ".join(stream.name for stream in self.streams)
        raise KeyError(f"{name!r} is no configured stream; known are {known}")


def load(path: str | Path, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from a file.

    Parameters
    ----------
    path
        A YAML file.
    environ
        Variables `SHIFTWATCH_<SECTION>__<FIELD>` replace what the file says; by default those of
        the process.

    Raises
    ------
    SettingsError
        With every problem: `file:line: field: what is allowed, got what`.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SettingsError([f"{path}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise SettingsError([f"{path}: expected UTF-8 (byte {error.start})"]) from None
    return loads(text, str(path), os.environ if environ is None else environ)


def loads(text: str, name: str = "settings", environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from YAML text; the environment counts only where it is given."""
    document = config_file.parse(text, name)
    config_file.overlay(document, Settings, ENVIRONMENT_PREFIX, environ or {})
    return config_file.validate(document, Settings)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
