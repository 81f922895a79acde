"""Logging: an event and its fields, as JSON in production and readable on a terminal."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from enum import StrEnum
from typing import Any, TextIO

import structlog

REDACTED = "[redacted]"

_SECRET_NAME = re.compile(
    r"secret|token|passw|authorization|api_?key|credential|cookie|signature", re.IGNORECASE
)
_SECRET_TEXT = re.compile(
    r"whsec_[A-Za-z0-9+/=_-]+"  # signing secrets
    r"|(?<=bearer )\S+"
    r"|(?<=://)[^/\s@]+(?=@)",  # user and password of a URL
    re.IGNORECASE,
)
_MAX_DEPTH = 6


class Format(StrEnum):
    """How log lines look."""

    AUTO = "auto"
    """Readable on a terminal, JSON elsewhere."""
    JSON = "json"
    CONSOLE = "console"


def redact(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Take secrets out of a log line: by the field's name, and by how they look in a text.

    Examples
    --------
    >>> redact(None, "info", {"event": "sent", "token": "abc", "url": "https://me:pw@example.com"})
    {'event': 'sent', 'token': '[redacted]', 'url': 'https://[redacted]@example.com'}
    """
    for name, value in event.items():
        event[name] = _clean(name, value, 0)
    return event


def _clean(name: str, value: object, depth: int) -> object:
    if _SECRET_NAME.search(name) and value is not None and not isinstance(value, bool):
        return REDACTED
    if isinstance(value, str):
        return _SECRET_TEXT.sub(REDACTED, value)
    if depth < _MAX_DEPTH:
        if isinstance(value, Mapping):
            return {k: _clean(str(k), v, depth + 1) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [_clean("", v, depth + 1) for v in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return _SECRET_TEXT.sub(REDACTED, str(value))


def configure(
    format_: Format | str = Format.AUTO, level: str = "info", stream: TextIO | None = None
) -> None:
    """Set up structlog, and send what libraries log through the same processors.

    Parameters
    ----------
    format_
        JSON or console; auto looks whether the stream is a terminal.
    level
        debug, info, warning or error.
    stream
        Where lines go; standard error by default, so that standard output stays for results.

    Raises
    ------
    ValueError
        If the format or the level is unknown.
    """
    out = sys.stderr if stream is None else stream
    format_ = Format(format_)
    if format_ is Format.AUTO:
        format_ = Format.CONSOLE if out.isatty() else Format.JSON
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"level must be debug, info, warning or error, got {level!r}")

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # As text, before the redaction, because exceptions quote what they choked on.
        structlog.processors.format_exc_info,
        redact,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(default=str)
        if format_ is Format.JSON
        else structlog.dev.ConsoleRenderer(
            colors=out.isatty(),
            # Its own way shows the values of local variables, secrets among them.
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    # Their requests are the service's own doing, and say so at info for every one of them.
    for noisy in ("alembic", "httpx", "httpcore", "kafka", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(max(number, logging.WARNING))
