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
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

import orjson

Scalar = float | str | bool | None
"""A feature's value: numeric, categorical, boolean or missing."""

MAX_NAME_CHARS = 256
"""Longest id, stream, class and feature name: what an indexed text column takes everywhere."""
MAX_URI_CHARS = 2048
MAX_IMAGE_BYTES = 5_000_000
_SHOWN_CHARS = 60
_OBSERVATION_ONLY = ("features", "image", "image_uri")
_LABEL_FIELDS = frozenset({"stream", "id", "label", "time"})
_RESERVED = _LABEL_FIELDS | {*_OBSERVATION_ONLY, "prediction", "scores", "segment"}
_CLASSES = frozenset({"prediction", "label", "segment"})
_IMAGE_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")


@dataclass(frozen=True, slots=True)
class Record:
    """One message as it arrived.

    Attributes
    ----------
    topic, partition, offset
        Where it stands; the offset grows within its partition.
    key
        The stream's name in UTF-8, or None.
    value
        The JSON text in UTF-8.
    dropped_bytes
        Size of a message that was too large to be kept; then `value` holds only its beginning.
    headers
        What came beside the value, in its order; names may repeat.
    timestamp_ms
        The broker's time of the message in Unix milliseconds, or None; it decides nothing here.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    dropped_bytes: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp_ms: int | None = field(default=None, compare=False)


class Observation(NamedTuple):
    """What one event of a deployed model says.

    Attributes
    ----------
    stream, id
        The monitored model's stream, and the event's name within it.
    time
        When it happened, in UTC; None if the record does not say.
    features
        Values by name, in the record's order; numbers are finite floats, None is missing.
        An array on the wire has the names "0", "1", ...
    image, image_uri
        An undecoded PNG or JPEG, or where one lies; at most one of them.
    prediction, label
        Canonical class names (`3`, `3.0` and `"3"` are one class), or None.
    scores
        The model's probability by class, each in [0, 1], or None.
    segment
        Values by segment name.
    """

    stream: str
    id: str
    time: datetime | None
    features: Mapping[str, Scalar]
    image: bytes | None = None
    image_uri: str | None = None
    prediction: str | None = None
    scores: Mapping[str, float] | None = None
    label: str | None = None
    segment: Mapping[str, str] = MappingProxyType({})


class LabelRecord(NamedTuple):
    """Ground truth for an event that came earlier, or is still to come; joined by id."""

    stream: str
    id: str
    label: str
    time: datetime | None


class DecodeError(ValueError):
    """A record that cannot be used; it goes to the dead letters and its stream goes on.

    Parameters
    ----------
    reason
        Short and stable, for counters: `empty`, `not_json`, `duplicate_key`, `not_an_object`,
        `missing_field`, `unknown_field`, `conflict`, `wrong_type`, `not_finite`, `out_of_range`,
        `bad_time`, `bad_text`, `too_large`, `not_an_image`; from `service.formats`
        `unknown_format`, `bad_gzip`, `bad_envelope`, `batch`, `bad_avro`, `unknown_schema`; from
        later stages `unknown_stream`, `missing_feature`, `new_feature`.
    message
        What was wrong, with the value shortened.
    record
        The record whose coordinates the text starts with, where it is known.
    """

    def __init__(self, reason: str, message: str, record: Record | None = None) -> None:
        super().__init__(reason, message, record)
        self.reason = reason
        self.message = message
        self.record = record

    def at(self, record: Record) -> DecodeError:
        """Return the same error with the coordinates of its record."""
        return DecodeError(self.reason, self.message, record)

    def __str__(self) -> str:
        if self.record is None:
            return self.message
        return f"{coordinates(self.record)}: {self.message}"


class TemporaryError(RuntimeError):
    """Whether a record can be used is not known yet, because what tells it is away.

    The record is neither used nor refused: the same one is to be decoded again.

    Parameters
    ----------
    message
        What is away, and why.
    after_s
        Seconds to wait before the next attempt.
    """

    def __init__(self, message: str, after_s: float = 1.0) -> None:
        super().__init__(message)
        self.after_s = after_s


def coordinates(record: Record) -> str:
    """Where a record stands, as `topic[partition]@offset`."""
    return f"{record.topic}[{record.partition}]@{record.offset}"


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


def iso(time: datetime) -> str:
    """The time of an observation or a label as `isoformat` writes it, in a quarter of its time."""
    return orjson.dumps(time)[1:-1].decode()


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


def record_from_row(row: Mapping[str, Any], topic: str, partition: int, offset: int) -> Record:
    """Make the record that a row of a table stands for.

    Parameters
    ----------
    row
        Values by column. Either `features` is a struct (or list), or every column whose name is
        no field of a record is a feature. Images are bytes. Null and NaN are missing values,
        because tables cannot tell them apart reliably.
    topic, partition, offset
        The record's coordinates.

    Returns
    -------
    Record
        With the body that `decode` takes; a row that stands for no record fails there.
    """
    body = {name: row[name] for name in row if name in _RESERVED and not _is_missing(row[name])}
    columns = {name: value for name, value in row.items() if name not in _RESERVED}
    if "features" not in body and not all(map(_is_missing, columns.values())):
        body["features"] = columns
    features = body.get("features")
    if isinstance(features, Mapping):
        body["features"] = {k: None if _is_missing(v) else v for k, v in features.items()}
    for name in ("scores", "segment"):
        # A struct column has every field in every row: those that are null were not there. A map
        # column arrives as pairs.
        entries = body.get(name)
        if isinstance(entries, list) and all(isinstance(e, tuple) for e in entries):
            entries = dict(entries)
        if isinstance(entries, Mapping):
            body[name] = {k: v for k, v in entries.items() if not _is_missing(v)}
    value = json.dumps(body, ensure_ascii=False, separators=(",", ":"), default=_plain)
    return Record(topic, partition, offset, None, value.encode("utf-8", "surrogatepass"))


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
        _time(body.get("time")),
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
    return LabelRecord(stream, name, canonical(label, "label"), _time(body.get("time")))


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


def _time(value: object) -> datetime | None:
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


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _plain(value: object) -> object:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return str(value)
