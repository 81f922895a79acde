"""Avro with the id of its schema in a registry, as Confluent's serializers write it.

A value is a zero byte, the id in four bytes (big endian), and the datum without its schema. The
datum is a row as of a table: fields named as those of a record are these, and without a field
`features` every other field is a feature.
"""

from __future__ import annotations

import importlib
import io
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from service.records.json_text import parse
from service.records.record import DecodeError
from service.records.shown import short
from service.records.table_row import row_text

MAGIC = b"\x00"
"""First byte of a value, with which no JSON begins."""
MAX_SCHEMAS = 256
"""Schemas kept; a topic has few, and more than these are only looked up again."""
_HEAD = struct.Struct(">bI")
_MAX_REFERENCES = 100
_DAMAGED = (EOFError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError)
"""What fastavro raises over bytes that do not follow the schema."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A schema that another one uses by name."""

    subject: str
    version: int


@dataclass(frozen=True, slots=True)
class RegisteredSchema:
    """A schema as the registry has it; it never changes under its id.

    Attributes
    ----------
    text
        In the language of its kind.
    kind
        `AVRO`, `JSON` or `PROTOBUF`.
    references
        What it uses.
    """

    text: str
    kind: str
    references: Sequence[Reference] = ()


class Registry(Protocol):
    """Where schemas are."""

    def schema(self, id_: int, /) -> RegisteredSchema:
        """The schema of an id.

        Raises
        ------
        DecodeError
            `unknown_schema` if there is none.
        TemporaryError
            If that is not known now.
        """
        ...

    def version(self, reference: Reference, /) -> RegisteredSchema:
        """The schema that another one refers to; errors as those of `schema`."""
        ...

    def close(self) -> None:
        """Release the connection."""
        ...


class Avro:
    """Reads values by schemas of a registry; each schema is looked up once.

    Parameters
    ----------
    registry
        Where the schemas are.

    Raises
    ------
    ImportError
        If the extra `avro` is not installed.
    """

    def __init__(self, registry: Registry) -> None:
        self._fastavro: Any = importlib.import_module("fastavro")
        self._registry = registry
        # What raises is not kept: it is looked up again.
        self._schema = lru_cache(MAX_SCHEMAS)(self._look_up)

    def read(self, value: bytes) -> dict[str, Any]:
        """Return the fields of a value, as JSON has them.

        Raises
        ------
        DecodeError
            `bad_avro` if the value does not follow its schema, `not_an_object` if that is no
            record, `unknown_schema` and `unknown_format` for schemas that there are not, or that
            are of another kind.
        TemporaryError
            If the registry does not answer.
        """
        if len(value) < _HEAD.size:
            raise DecodeError("bad_avro", f"expected the id of a schema, got {short(value)}")
        _, id_ = _HEAD.unpack_from(value)
        schema = self._schema(id_)
        stream = io.BytesIO(value)
        stream.seek(_HEAD.size)
        try:
            datum = self._fastavro.schemaless_reader(stream, schema, None)
        except _DAMAGED as error:
            raise DecodeError(
                "bad_avro", f"the value does not follow schema {id_}: {error or type(error)}"
            ) from None
        left = len(value) - stream.tell()
        if left:
            raise DecodeError("bad_avro", f"{left} bytes are left behind the datum of schema {id_}")
        if not isinstance(datum, Mapping):
            raise DecodeError(
                "not_an_object", f"expected a record of schema {id_}, got {short(datum)}"
            )
        return parse(row_text(datum))

    def close(self) -> None:
        """Close the connection to the registry."""
        self._registry.close()

    def _look_up(self, id_: int) -> Any:
        found = self._registry.schema(id_)
        named: dict[str, Any] = {}
        schema: Any = None
        for one in (*self._used(found, id_), found):
            schema = self._parsed(one, id_, named)
        return schema

    def _used(self, schema: RegisteredSchema, id_: int) -> list[RegisteredSchema]:
        """The schemas that one uses, each behind those that it uses itself."""
        found: dict[Any, RegisteredSchema] = {}
        n_asked = 0

        def visit(one: RegisteredSchema) -> None:
            nonlocal n_asked
            for reference in one.references:
                if reference in found:
                    continue
                n_asked += 1
                if n_asked > _MAX_REFERENCES:
                    raise DecodeError(
                        "unknown_schema", f"schema {id_} has over {_MAX_REFERENCES} references"
                    )
                used = self._registry.version(reference)
                visit(used)
                found[reference] = used

        visit(schema)
        return list(found.values())

    def _parsed(self, schema: RegisteredSchema, id_: int, named: dict[str, Any]) -> Any:
        if schema.kind != "AVRO":
            raise DecodeError(
                "unknown_format", f"schema {id_}: expected Avro, got {short(schema.kind)}"
            )
        try:
            return self._fastavro.parse_schema(json.loads(schema.text), named_schemas=named)
        except (*_DAMAGED, self._fastavro.schema.SchemaParseException) as error:
            raise DecodeError(
                "unknown_schema", f"schema {id_} is no schema of Avro: {error}"
            ) from None
