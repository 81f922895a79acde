"""Secrets in the settings: given in place or in a file of their own, and never in an address."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr

from service.settings.file import FieldError, SettingsError

NO_CREDENTIALS = "without user and password, which would end up in logs"


def check_either(section: BaseModel, name: str, *, is_needed: bool = False) -> bool:
    """Whether a section has the secret `name` or its file `<name>_file`.

    Raises
    ------
    FieldError
        If it has both; or neither, and it is needed.
    """
    given = [getattr(section, field) is not None for field in (name, f"{name}_file")]
    if all(given) or (is_needed and not any(given)):
        got, field = ("both", f"{name}_file") if all(given) else ("none", name)
        raise FieldError((field,), f"expected either {name} or {name}_file, got {got}")
    return any(given)


def web_address(value: str) -> str:
    """Return an http or https URL that names a host and no login.

    Raises
    ------
    ValueError
        If it is none; the URL is not shown, because it may hold a password.
    """
    try:
        parts = urlsplit(value)
        host, user = parts.hostname, parts.username
    except ValueError:
        parts, host, user = urlsplit(""), None, None
    if parts.scheme not in {"https", "http"} or not host or user is not None:
        raise ValueError(f"expected https:// or http:// and a host, {NO_CREDENTIALS}")
    return value


def read_secret(name: str, value: SecretStr | None, file: Path | None) -> str | None:
    """Return a secret, from its file if it has one; None if there is neither.

    Parameters
    ----------
    name
        The setting that names the file, for the error.
    value, file
        The secret itself, or the file that holds it.

    Raises
    ------
    SettingsError
        If the file cannot be read or is empty.
    """
    if file is None:
        return None if value is None else value.get_secret_value()
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "expected UTF-8"
        raise SettingsError([f"{name}: {file} cannot be read: {reason}"]) from None
    if not text:
        raise SettingsError([f"{name}: {file} is empty"])
    return text
