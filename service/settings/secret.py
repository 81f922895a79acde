"""A secret from the settings: given in place, or in a file of its own."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr

from service.settings.file import SettingsError


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
