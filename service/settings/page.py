"""The reference page of the settings, made from their fields."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    SecretStr,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from service.settings.file import model_of
from service.settings.service import ENVIRONMENT_PREFIX, Settings


class Description(NamedTuple):
    """A line of the table of settings."""

    name: str
    type: str
    default: str
    help: str


def describe() -> list[Description]:
    """Describe every setting, in the order of the file."""
    return list(_describe(Settings, ""))


def reference_page() -> str:
    """Return `docs/reference/settings.md`."""
    lines = [
        "# Settings",
        "",
        "<!-- Written by `make docs` from service/settings/: change it there. -->",
        "",
        "One YAML file. The smallest one:",
        "",
        "```yaml",
        "streams:",
        "  - name: payments",
        "    problem: x_to_y",
        "```",
        "",
        f"An environment variable `{ENVIRONMENT_PREFIX}<SECTION>__<FIELD>` replaces what the file "
        f"says, such as `{ENVIRONMENT_PREFIX}HTTP__PORT=9000` or `{ENVIRONMENT_PREFIX}SEED=7`. "
        "Its value is read as YAML, except where the setting is text.",
        "",
        "Unknown fields and fields given twice are errors. Paths are relative to the working "
        "directory.",
        "",
        "| setting | type | default | what it does |",
        "| --- | --- | --- | --- |",
    ]
    for name, kind, default, text in describe():
        shown = f"`{default}`" if default not in {"", "required", "none"} else default
        cells = (f"`{name}`", kind, shown, text)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _describe(model: type[BaseModel], prefix: str) -> Iterator[Description]:
    for name, found in model.model_fields.items():
        inner = model_of(found.annotation)
        many = get_origin(found.annotation) is tuple and inner is not None
        full = f"{prefix}{name}[]" if many else f"{prefix}{name}"
        kind = _type_text(found.annotation, found.metadata)
        yield Description(full, kind, _default_text(found), found.description or "")
        if inner is not None:
            yield from _describe(inner, f"{full}.")


_TYPE_NAMES: dict[Any, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "text",
    SecretStr: "secret",
    Path: "path",
    timedelta: "duration",
}


def _type_text(annotation: Any, metadata: list[Any]) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        found: FieldInfo = inner[1]
        return _type_text(inner[0], found.metadata)
    if origin in {Union, UnionType}:
        kinds = [_type_text(kind, metadata) for kind in inner if kind is not NoneType]
        return _either(kinds)
    if origin is Literal:
        return _either([f"`{value}`" for value in inner])
    if origin is tuple:
        if inner[-1] is not ...:
            return "[" + ", ".join(_type_text(kind, []) for kind in inner) + "]"
        return "list of " + ("sections" if model_of(inner[0]) else _type_text(inner[0], []))
    if origin is dict:
        return f"mapping of name to {_type_text(inner[1], [])}"
    if issubclass(annotation, BaseModel):
        return "section"
    if issubclass(annotation, Enum):
        return _either([f"`{member.value}`" for member in annotation])
    return f"{_TYPE_NAMES[annotation]} {' and '.join(_limits(metadata))}".rstrip()


def _either(words: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _limits(metadata: list[Any]) -> Iterator[str]:
    for limit in metadata:
        for sign, name in ((">=", "ge"), (">", "gt"), ("<=", "le"), ("<", "lt")):
            if (value := getattr(limit, name, None)) is not None:
                yield f"{sign} {value}"


def _default_text(found: FieldInfo) -> str:
    if found.is_required():
        return "required"
    value = found.default
    if value is PydanticUndefined:  # a section, whose fields have their own
        return ""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return "[" + ", ".join(str(item) for item in value) + "]"
    return str(value)
