"""A YAML file with its line numbers, and errors that name them."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo

Location = tuple[str | int, ...]
"""Keys and positions from the top of the file to a value."""

_M = TypeVar("_M", bound=BaseModel)

_MAX_NODES = 100_000
"""Aliases may multiply: a file of ten lines can stand for billions of values."""
_SHOWN_CHARS = 80


class SettingsError(ValueError):
    """Settings that cannot be used; lists every problem with its place.

    Attributes
    ----------
    problems
        One line each: `file:line: field: what is allowed, got what`.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class FieldError(ValueError):
    """What a validator of several fields raises to point at one of them.

    Parameters
    ----------
    location
        From the model that is validated to the field.
    message
        What is allowed, and what was given.
    """

    def __init__(self, location: Location, message: str) -> None:
        super().__init__(message)
        self.location = location


@dataclass(slots=True)
class Document:
    """What a file says, and where it says it.

    Attributes
    ----------
    name
        The file, as errors name it.
    data
        Its content: dictionaries, lists and scalars.
    places
        Where each value stands: `file:line`, or the environment variable that set it.
    """

    name: str
    data: dict[str, Any]
    places: dict[Location, str] = field(default_factory=dict)

    def place(self, location: Location) -> str:
        """Where a value stands, or the closest thing around it that is there."""
        while location and location not in self.places:
            location = location[:-1]
        return self.places.get(location, self.name)


def parse(text: str, name: str) -> Document:
    """Parse YAML.

    Raises
    ------
    SettingsError
        If it is not YAML, not a mapping, or a key is given twice.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = name if mark is None else f"{name}:{mark.line + 1}"
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise SettingsError([f"{place}: expected YAML: {reason}"]) from None
    except RecursionError:
        raise SettingsError([f"{name}: nested too deeply"]) from None
    if root is None:
        raise SettingsError([f"{name}: expected settings, the file is empty"])
    reader = _Reader(name)
    try:
        data = reader.read(root, ())
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2026-13-45
        raise SettingsError([f"{name}: {' '.join(str(error).split())}"]) from None
    except RecursionError:
        raise SettingsError([f"{name}: an alias contains itself, or nested too deeply"]) from None
    if reader.problems:
        raise SettingsError(reader.problems)
    if not isinstance(data, dict):
        raise SettingsError([f"{name}:1: expected a mapping such as 'streams: [...]'"])
    return Document(name, data, reader.places)


def overlay(
    document: Document, model: type[BaseModel], prefix: str, environ: Mapping[str, str]
) -> None:
    """Set what environment variables say: `<PREFIX><SECTION>__<FIELD>=value`.

    A value is read as YAML, except for text, which is taken as it is. Variables with the prefix
    that have no `__` and name no field at the top are not settings.

    Raises
    ------
    SettingsError
        If a variable names no field.
    """
    problems = []
    for variable in sorted(environ):
        if not variable.startswith(prefix):
            continue
        location = tuple(variable.removeprefix(prefix).lower().split("__"))
        if len(location) == 1 and location[0] not in model.model_fields:
            continue
        found, known = _field(model, location)
        if found is None:
            problems.append(
                f"environment {variable}: {'.'.join(location)}: unknown field"
                f"{did_you_mean(location[-1], known)}"
            )
            continue
        value: Any = environ[variable]
        if not _is_text(found):
            try:
                value = _plain(yaml.safe_load(value))
            except yaml.YAMLError:
                problems.append(f"environment {variable}: expected a YAML value")
                continue
        target = document.data
        for key in location[:-1]:
            if not isinstance(target.get(key), dict):
                target[key] = {}
            target = target[key]
        target[location[-1]] = value
        stale = [at for at in document.places if at[: len(location)] == location]
        for at in stale:
            del document.places[at]
        document.places[location] = f"environment {variable}"
    if problems:
        raise SettingsError(problems)


def validate(document: Document, model: type[_M]) -> _M:
    """Turn a document into a model.

    Raises
    ------
    SettingsError
        With every problem that the model finds.
    """
    try:
        # As JSON, because there strictness means what a reader of YAML expects: "5" and true are
        # no numbers, while paths, tuples and enumerations are written as text and lists.
        return model.model_validate_json(json.dumps(document.data, default=str), strict=True)
    except ValidationError as error:
        raise SettingsError(list(_problems(error, document, model))) from None


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Suggest the closest known name, or list a few."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known are {', '.join(sorted(known))}" if known else ""


def dotted(location: Location) -> str:
    """Write a location as `streams[0].confirm.alpha`."""
    text = ""
    for key in location:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
    return text


_COLLECTION_TAGS = {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}


class _Reader:
    """Turns nodes into values and notes where they stand."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.places: dict[Location, str] = {}
        self.problems: list[str] = []
        self._n = 0
        self._constructor = yaml.SafeLoader("")

    def read(self, node: yaml.Node, location: Location) -> Any:
        self._n += 1
        if self._n > _MAX_NODES:
            raise yaml.YAMLError(f"more than {_MAX_NODES} values (do aliases multiply?)")
        self.places.setdefault(location, self._place(node))
        if isinstance(node, yaml.CollectionNode) and node.tag not in _COLLECTION_TAGS:
            self._complain(node, location, f"expected no tag, got {node.tag!r}")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, location)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(item, (*location, n)) for n, item in enumerate(node.value)]
        return self._constructor.construct_object(node, deep=True)

    def _mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
        first: dict[str, str] = {}
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            name = self._key(key, location)
            if name in first:
                self._complain(key, (*location, name), f"given twice, first at {first[name]}")
            first[name] = self._place(key)
        # Merged entries ("<<") come first, so that the mapping's own ones replace them. The node
        # keeps the result, because an alias may come back to it.
        self._constructor.flatten_mapping(node)
        merged = {self._key(key, location): (key, value) for key, value in node.value}
        node.value = list(merged.values())
        found: dict[str, Any] = {}
        for name, (key, value) in merged.items():
            self.places[(*location, name)] = self._place(key)
            found[name] = self.read(value, (*location, name))
        return found

    def _key(self, node: yaml.Node, location: Location) -> str:
        key = self._constructor.construct_object(node, deep=True)
        if isinstance(key, str) or type(key) is int:
            return str(key)
        # YAML 1.1 reads no, yes, on and off as booleans.
        self._complain(node, location, f"expected text as a key, got {node.value!r}: quote it")
        return str(node.value)

    def _complain(self, node: yaml.Node, location: Location, message: str) -> None:
        problem = f"{self._place(node)}: {dotted(location) or 'top'}: {message}"
        if problem not in self.problems:
            self.problems.append(problem)

    def _place(self, node: yaml.Node) -> str:
        return f"{self.name}:{node.start_mark.line + 1}"


def _problems(error: ValidationError, document: Document, model: type[BaseModel]) -> Iterator[str]:
    problems = error.errors(include_url=False)
    locations = [problem["loc"] for problem in problems]
    for problem in problems:
        size = len(problem["loc"])
        if problem["type"] == "too_short" and any(
            len(at) > size and at[:size] == problem["loc"] for at in locations
        ):
            continue  # items that were refused do not count, and that is no second problem
        location: Location = tuple(key for key in problem["loc"] if key != "[key]")
        cause = problem.get("ctx", {}).get("error")
        if isinstance(cause, FieldError):
            location = (*location, *cause.location)
        found, known = _field(model, location)
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "missing":
            message = "required"
            if found is not None and found.description:
                message += f": {found.description}"
        elif problem["type"] == "extra_forbidden":
            message = f"unknown field{did_you_mean(str(location[-1]), known)}"
        elif cause is None:
            hidden = found is not None and _is_secret(found)
            got = "a secret that is not shown" if hidden else _shown(problem["input"])
            message = f"{message[0].lower()}{message[1:]}, got {got}"
        yield f"{document.place(location)}: {dotted(location) or 'settings'}: {message}"


def _field(model: type[BaseModel], location: Location) -> tuple[FieldInfo | None, Sequence[str]]:
    """Find a field by its location, and the names that are known where it should be."""
    found: FieldInfo | None = None
    known: Sequence[str] = ()
    inside: type[BaseModel] | None = model
    for key in location:
        if isinstance(key, int):
            continue
        if inside is None:  # below a plain mapping such as `features`
            return found, ()
        known = tuple(inside.model_fields)
        found = inside.model_fields.get(key)
        if found is None:
            return None, known
        inside = model_of(found.annotation)
    return found, known


def model_of(annotation: Any) -> type[BaseModel] | None:
    """Return the model inside an annotation such as `tuple[Model, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in get_args(annotation):
        if (found := model_of(inner)) is not None:
            return found
    return None


def _kinds(found: FieldInfo) -> tuple[Any, ...]:
    annotation = found.annotation
    is_union = get_origin(annotation) in {Union, UnionType}
    return get_args(annotation) if is_union else (annotation,)


def _is_text(found: FieldInfo) -> bool:
    kinds = _kinds(found)
    return any(isinstance(k, type) and issubclass(k, str | SecretStr | Path) for k in kinds)


def _is_secret(found: FieldInfo) -> bool:
    return SecretStr in _kinds(found) or not found.repr


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _shown(value: Any) -> str:
    if isinstance(value, dict):  # it may hold a secret
        return "a mapping"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = json.dumps(value, default=str)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."
