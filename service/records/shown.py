"""Values as errors show them."""

from __future__ import annotations

from collections.abc import Mapping

_SHOWN_CHARS = 60


def short(value: object) -> str:
    """Show a value in an error: cut, and containers by their size only."""
    if isinstance(value, str | bytes):
        shown = repr(value[:_SHOWN_CHARS])
        return shown if len(value) <= _SHOWN_CHARS else f"{shown}... ({len(value)} long)"
    if isinstance(value, Mapping):
        return f"an object of {len(value)}"
    if isinstance(value, list | tuple):
        return f"an array of {len(value)}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, int) and value.bit_length() > 200:
        return f"an integer of {value.bit_length()} bits"
    return repr(value)
