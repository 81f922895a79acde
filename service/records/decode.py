"""Records on the wire, and the strict way from their bytes to observations and labels.

One JSON object a record. What names features or an image is an observation; what names only
stream, id, label and time is a label. Anything else is a `DecodeError` that says what was wrong
and where, so that the record can go to the dead letters and its stream can go on.

Times come from the record alone, never from the wall clock: a record without one has the time
`None`, and a replay gives the same result.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from service.records.json_text import _read_fast, parse
from service.records.record import (
    MAX_IMAGE_BYTES,
    DecodeError,
    LabelRecord,
    Observation,
    Record,
    Scalar,
)
from service.records.shown import short

MAX_NAME_CHARS = 256
"""Longest id, stream, class and feature name: what an indexed text column takes everywhere."""
MAX_URI_CHARS = 2048
_OBSERVATION_ONLY = ("features", "image", "image_uri")
_LABEL_FIELDS = frozenset({"stream", "id", "label", "time"})
_RESERVED = _LABEL_FIELDS | {*_OBSERVATION_ONLY, "prediction", "scores", "segment"}
_IMAGE_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")


def decode(record: Record, *, max_image_bytes: int = MAX_IMAGE_BYTES) -> Observation | LabelRecord:
    """Decode one record, strictly.

    Parameters
    ----------
    record
        The message; its key names the stream where the body does not.
    max_image_bytes
        Limit of a decoded image; checked before anything is decoded.

    Returns
    -------
    Observation or LabelRecord
        An observation if the body names `features`, `image` or `image_uri`. Fields of an
        observation that are not known are ignored, so producers may add their own.

    Raises
    ------
    DecodeError
        For every record that is not exactly one of the two, with its coordinates.
    """
    body = _read_fast(record)
    if body is not None:
        try:
            return decode_body(body, record.key, max_image_bytes)
        except DecodeError:
            pass  # the strict reading says what is wrong, with numbers as they were written
    try:
        return decode_body(parse(record.value, record.dropped_bytes), record.key, max_image_bytes)
    except DecodeError as error:
        raise error.at(record) from None


def decode_body(
    body: dict[str, Any], key: bytes | None, max_image_bytes: int
) -> Observation | LabelRecord:
    """Decode the JSON object of a record, as `decode` does; it may be changed.

    Raises
    ------
    DecodeError
        Without coordinates.
    """
    if is_observation(body):
        return _observation(body, key, max_image_bytes)
    return _label_record(body, key)


def is_observation(body: Mapping[str, Any]) -> bool:
    """Whether the object names what only an observation has."""
    for name in _OBSERVATION_ONLY:  # noqa: SIM110 - an event's first name says so
        if body.get(name) is not None:
            return True
    return False


def canonical(value: object, what: str = "value") -> str:
    """Turn a class, level or segment value into its one spelling.

    Parameters
    ----------
    value
        Text, a boolean or a finite number: `3`, `3.0` and `"3"` are `"3"`, True is `"true"`.
    what
        The name that an error shows.

    Raises
    ------
    DecodeError
        If it is anything else, not finite, empty, or longer than 256 characters.
    """
    kind = type(value)
    if kind is str:
        return _text(value, what)
    if kind is bool:
        return "true" if value else "false"
    if kind is int:
        return _text(_int_text(value, what), what)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise DecodeError("not_finite", f"{what}: expected a finite number, got {value!r}")
        # Beyond 2**53 a float is no longer one integer, and its digits would go on for hundreds.
        is_whole = value.is_integer() and abs(value) < 2**53
        return str(int(value)) if is_whole else repr(float(value))
    raise DecodeError(
        "wrong_type", f"{what}: expected text, a number or a boolean, got {short(value)}"
    )


def _observation(body: dict[str, Any], key: bytes | None, max_image_bytes: int) -> Observation:
    stream, name = _stream(body, key), _id(body)
    image, uri = body.get("image"), body.get("image_uri")
    if image is not None and uri is not None:
        raise DecodeError("conflict", "image and image_uri are both given: give one of them")
    features = _features(body.get("features"))
    if not features and image is None and uri is None:
        raise DecodeError("missing_field", "features: expected at least one feature, got none")
    prediction, label = body.get("prediction"), body.get("label")
    scores, segment = body.get("scores"), body.get("segment")
    return Observation(
        stream,
        name,
        utc(body.get("time")),
        features,
        None if image is None else _image(image, max_image_bytes),
        None if uri is None else _text(uri, "image_uri", MAX_URI_CHARS),
        None if prediction is None else canonical(prediction, "prediction"),
        None if scores is None else _scores(scores),
        None if label is None else canonical(label, "label"),
        {} if segment is None else _segment(segment),
    )


def _label_record(body: dict[str, Any], key: bytes | None) -> LabelRecord:
    rest = [name for name, value in body.items() if name not in _LABEL_FIELDS and value is not None]
    if rest:
        known = [name for name in rest if name in _RESERVED]
        shown = ", ".join(short(name) for name in rest[:3])
        raise DecodeError(
            "missing_field" if known else "unknown_field",
            "expected features, image or image_uri (an observation), or only stream, id, label "
            f"and time (a label); got {shown} beside them",
        )
    stream, name = _stream(body, key), _id(body)
    label = body.get("label")
    if label is None:
        raise DecodeError(
            "missing_field",
            "expected features, image or image_uri (an observation) or label (a label), got "
            f"only {', '.join(sorted(body))}",
        )
    return LabelRecord(stream, name, canonical(label, "label"), utc(body.get("time")))


def _stream(body: dict[str, Any], key: bytes | None) -> str:
    stream = body.get("stream")
    if stream is None:
        if not key:
            raise DecodeError("missing_field", "stream: expected it in the body or as the key")
        try:
            stream = key.decode("utf-8")
        except UnicodeDecodeError:
            raise DecodeError(
                "bad_text", f"key: expected a stream in UTF-8, got {short(key)}"
            ) from None
    return _text(stream, "stream")


def _id(body: dict[str, Any]) -> str:
    value = body.get("id")
    if value is None:
        raise DecodeError("missing_field", "id: expected text or an integer, got none")
    if type(value) is int:
        return _text(_int_text(value, "id"), "id")
    return _text(value, "id", expected="text or an integer")


def _features(value: object) -> Mapping[str, Scalar]:
    if value is None:
        return {}
    if type(value) is list:
        items = dict(zip(_positions(len(value)), value, strict=True))
    elif type(value) is dict:
        items = value
        _check_names(tuple(items))
    else:
        raise DecodeError(
            "wrong_type", f"features: expected an object or an array, got {short(value)}"
        )
    # Once a sum is infinite or no number it stays so: this one tells that all of them are finite.
    if set(map(type, items.values())) == {float} and math.isfinite(sum(items.values())):
        return items
    for name, item in items.items():
        kind = type(item)
        if kind is float:
            if not math.isfinite(item):
                raise DecodeError(
                    "out_of_range", f"features.{name}: the number is too large for 64-bit floats"
                )
        elif kind is int:
            items[name] = _finite(item, f"features.{name}")
        elif kind is str:
            _text(item, f"features.{name}", MAX_URI_CHARS, least=0)
        elif item is not None and kind is not bool:
            raise DecodeError(
                "wrong_type",
                f"features.{name}: expected a number, text, a boolean or null, got {short(item)}",
            )
    return items


@lru_cache(maxsize=64)
def _check_names(names: tuple[str, ...]) -> None:
    # The same names come with every record; checking them each time took a fifth of decode.
    for name in names:
        _text(name, "features: a feature's name")


@lru_cache(maxsize=64)
def _positions(n: int) -> tuple[str, ...]:
    return tuple(map(str, range(n)))


def _scores(value: object) -> Mapping[str, float]:
    if type(value) is not dict or not value:
        raise DecodeError(
            "wrong_type", f"scores: expected an object of class to probability, got {short(value)}"
        )
    scores: dict[str, float] = {}
    for name, item in value.items():
        _text(name, "scores: a class")
        if type(item) is float and 0.0 <= item <= 1.0:
            scores[name] = item
            continue
        score = _finite(item, f"scores.{name}")
        if not 0.0 <= score <= 1.0:
            raise DecodeError(
                "out_of_range", f"scores.{name}: expected a number in [0, 1], got {short(item)}"
            )
        scores[name] = score
    return scores


def _segment(value: object) -> Mapping[str, str]:
    if type(value) is not dict:
        raise DecodeError("wrong_type", f"segment: expected an object, got {short(value)}")
    return {
        _text(name, "segment: a name"): canonical(item, f"segment.{name}")
        for name, item in value.items()
        if item is not None
    }


def _image(value: object, max_bytes: int) -> bytes:
    if type(value) is not str:
        raise DecodeError("wrong_type", f"image: expected base64 text, got {short(value)}")
    if len(value) > (max_bytes + 2) // 3 * 4:
        raise DecodeError(
            "too_large", f"image: expected at most {max_bytes} bytes, got {len(value)} of base64"
        )
    try:
        image = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise DecodeError("not_an_image", f"image: expected base64, got {short(value)}") from None
    if not image.startswith(_IMAGE_SIGNATURES):
        raise DecodeError(
            "not_an_image", f"image: expected a PNG or JPEG, got bytes {short(image[:8])}"
        )
    return image


def utc(value: object) -> datetime | None:
    """A time on the wire, in UTC; None if there is none.

    Raises
    ------
    DecodeError
        If it is no text in ISO 8601 with an offset from UTC.
    """
    if value is None:
        return None
    if type(value) is not str:
        raise DecodeError("bad_time", f"time: expected ISO 8601 text, got {short(value)}")
    try:
        time = datetime.fromisoformat(value)
        if time.tzinfo is not None:
            return time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise DecodeError(
            "bad_time",
            f"time: expected ISO 8601 such as 2026-11-23T10:00:00Z, got {short(value)}",
        ) from None
    raise DecodeError("bad_time", f"time: expected Z or an offset from UTC, got {short(value)}")


def _finite(value: object, what: str) -> float:
    if type(value) not in {int, float}:
        raise DecodeError("wrong_type", f"{what}: expected a number, got {short(value)}")
    try:
        number = float(value)  # type: ignore[arg-type]
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise DecodeError(
            "out_of_range", f"{what}: the number is too large for 64-bit floats ({short(value)})"
        )
    return number


def _int_text(value: Any, what: str) -> str:
    # str() of an integer takes quadratic time, and Python refuses beyond 4300 digits.
    if value.bit_length() > 1000:
        raise DecodeError("out_of_range", f"{what}: got {short(value)}")
    return str(value)


def _text(
    value: object,
    what: str,
    most: int = MAX_NAME_CHARS,
    *,
    least: int = 1,
    expected: str = "text",
) -> str:
    if not isinstance(value, str):
        raise DecodeError("wrong_type", f"{what}: expected {expected}, got {short(value)}")
    if not least <= len(value) <= most:
        raise DecodeError(
            "out_of_range", f"{what}: expected {least} to {most} characters, got {short(value)}"
        )
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:  # JSON can spell half a surrogate pair; no store can keep it
            raise DecodeError("bad_text", f"{what}: not valid Unicode, {short(value)}") from None
    if "\x00" in value:  # PostgreSQL's text takes every character but this one
        raise DecodeError("bad_text", f"{what}: contains a NUL character, {short(value)}")
    return value
