"""JSON text to one object, strictly: no key twice, finite numbers."""

from __future__ import annotations

import json
from typing import Any, NoReturn

import orjson

from service.records.record import DecodeError, Record
from service.records.shown import short

_CLASSES = frozenset({"prediction", "label", "segment"})


def _read_fast(record: Record) -> dict[str, Any] | None:
    """The record's object if it is plain that `parse` would return the same, else None.

    orjson takes a fifth of the time, and differs in three ways. It refuses more: that is left to
    `parse`. Of a key that stands twice it keeps the last value: every key and every text has two
    quotes, so there are more quotes than the object accounts for. An integer beyond 64 bits becomes
    a float: features and scores are floats in the end, but a class keeps its digits.
    """
    if record.dropped_bytes:
        return None
    try:
        body = orjson.loads(record.value)
    except orjson.JSONDecodeError:
        return None
    if type(body) is not dict:
        return None
    n_texts = len(body)
    for name, item in body.items():
        kind = type(item)
        if kind is str:
            n_texts += 1
        elif kind is float:
            if name in _CLASSES:
                return None
        elif kind is dict or kind is list:
            items = item
            if kind is dict:
                n_texts += len(item)
                items = item.values()
            kinds = set(map(type, items))
            if dict in kinds or list in kinds or (float in kinds and name in _CLASSES):
                return None
            if str in kinds:
                n_texts += sum(type(text) is str for text in items)
    return body if record.value.count(b'"') == 2 * n_texts else None


def parse(value: bytes, dropped_bytes: int = 0) -> dict[str, Any]:
    """Read one JSON object, strictly: no key twice, finite numbers.

    Parameters
    ----------
    value, dropped_bytes
        As in `Record`.

    Raises
    ------
    DecodeError
        If it is anything else; without coordinates.
    """
    if dropped_bytes:
        raise DecodeError(
            "too_large",
            f"the record has {dropped_bytes} bytes, more than the source's limit; "
            f"it starts with {short(value)}",
        )
    if not value.strip():
        raise DecodeError("empty", f"expected a JSON object, got {short(value)}")
    try:
        body = _DECODER.decode(value.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DecodeError(
            "not_json", f"expected UTF-8, got {short(value)} (byte {error.start})"
        ) from None
    except json.JSONDecodeError as error:
        raise DecodeError(
            "not_json",
            f"expected a JSON object, got {short(value)} ({error.msg} at {error.pos})",
        ) from None
    except RecursionError:
        raise DecodeError("not_json", f"nested too deeply, starts with {short(value)}") from None
    except DecodeError:
        raise
    except ValueError as error:  # int() refuses thousands of digits
        raise DecodeError("out_of_range", f"a number is too large ({error})") from None
    if not isinstance(body, dict):
        raise DecodeError("not_an_object", f"expected a JSON object, got {short(body)}")
    return body


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise DecodeError("duplicate_key", f"key {short(name)} stands twice in one object")
            seen.add(name)
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise DecodeError("not_finite", f"expected finite numbers, got {name}")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)
