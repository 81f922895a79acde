"""A state as bytes and back, exactly, without pickle.

The container is a fixed head (magic, format version, checksum, length of the skeleton), the
state's skeleton as JSON, and the raw bytes of its arrays behind it. JSON carries Python's numbers
exactly, NaN and infinities included. Nothing is compressed: a state is written with every batch,
so speed counts for more than size.

A dictionary with the single key "$" stands for what JSON has no word for: `["array", dtype, shape,
start, size]`, `["scalar", ...]` for a NumPy number, `["bytes", start, size]`, `["tuple", items]`,
and `["dict", pairs]` for a dictionary that has such a key itself.
"""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

import numpy as np

from detectors.base import State

FORMAT = 6
"""Version of the container and of the states in it; a release reads what it writes and says so
otherwise."""
_MAGIC = b"SWCP"
_HEAD = struct.Struct("<4sHII")
_TAG = "$"
_AS_THEY_ARE = frozenset({bool, int, float, str, type(None)})
_KINDS = "biufcSU"
"""NumPy's kinds whose bytes are the whole value; objects are pointers, and need pickle."""


class CheckpointError(ValueError):
    """A state that cannot be written, or bytes that are no checkpoint of this version."""


class FormatError(CheckpointError):
    """A checkpoint of another release."""


def dumps(state: State) -> bytes:
    """Turn a state into bytes.

    Parameters
    ----------
    state
        Dictionaries with text keys, lists, tuples, text, bytes, booleans, numbers, None, and
        arrays and numbers of NumPy, nested at will. An enumeration's text is kept as text.

    Raises
    ------
    CheckpointError
        If it holds anything else; names where and what.
    """
    if not isinstance(state, dict):
        raise CheckpointError(f"state: expected a dictionary, got {type(state).__name__}")
    blobs = _Blobs()
    try:
        skeleton = json.dumps(_outward(state, blobs), separators=(",", ":")).encode("ascii")
    except _UnstorableError as error:
        raise CheckpointError(f"state{error.path}: {error}") from None
    except RecursionError:
        raise CheckpointError("state: nested too deeply, or contains itself") from None
    except ValueError as error:  # an integer of thousands of digits
        raise CheckpointError(f"state: {error}") from None
    size = len(skeleton)
    checksum = zlib.crc32(skeleton, size)
    for part in blobs.parts:
        checksum = zlib.crc32(part, checksum)
    # One copy of a state that has megabytes, and not one for each step.
    return b"".join([_HEAD.pack(_MAGIC, FORMAT, checksum, size), skeleton, *blobs.parts])


def loads(data: bytes) -> State:
    """Turn bytes back into the state; its arrays are new and writable.

    Raises
    ------
    FormatError
        If it is of another version.
    CheckpointError
        If the bytes are no checkpoint, or damaged.
    """
    if len(data) < _HEAD.size or data[:4] != _MAGIC:
        raise CheckpointError(f"checkpoint: expected it to start with {_MAGIC!r}, got {data[:8]!r}")
    _, version, checksum, size = _HEAD.unpack_from(data)
    if version != FORMAT:
        raise FormatError(
            f"checkpoint: has format {version}, this version of Shiftwatch knows {FORMAT}"
        )
    body = memoryview(data)[_HEAD.size :]
    if _checksum(body, size) != checksum:
        raise CheckpointError(f"checkpoint: damaged, the checksum of {len(data)} bytes differs")
    blobs = body[size:]
    state = json.loads(bytes(body[:size]), object_hook=lambda found: _inward(found, blobs))
    if not isinstance(state, dict):
        raise CheckpointError(f"checkpoint: expected a dictionary, got {type(state).__name__}")
    return state


def _checksum(body: bytes | memoryview, size: int) -> int:
    return zlib.crc32(body, size)


class _Blobs:
    """The raw bytes of the arrays, one after the other."""

    def __init__(self) -> None:
        self.parts: list[bytes | memoryview] = []
        self._end = 0

    def add(self, part: bytes | memoryview) -> tuple[int, int]:
        start, size = self._end, len(part)
        self.parts.append(part)
        self._end += size
        return start, size


class _UnstorableError(Exception):
    """Collects its path on the way out, so that the way in need not carry one."""

    path = ""


def _outward(value: Any, blobs: _Blobs) -> Any:
    kind = type(value)
    if kind in _AS_THEY_ARE:
        return value
    if kind is dict:
        return _outward_dict(value, blobs)
    if kind is list:
        if _AS_THEY_ARE.issuperset(map(type, value)):  # long lists of numbers or names
            return value
        return _outward_list(value, blobs)
    if kind is tuple:
        return {_TAG: ["tuple", _outward_list(value, blobs)]}
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.kind not in _KINDS:
            raise _UnstorableError(f"cannot be stored without pickle: dtype {value.dtype}")
        word = "array" if isinstance(value, np.ndarray) else "scalar"
        start, size = blobs.add(_bytes_of(value))
        return {_TAG: [word, value.dtype.str, list(value.shape), start, size]}
    if kind is bytes:
        return {_TAG: ["bytes", *blobs.add(value)]}
    if isinstance(value, str):
        return str.__str__(value)
    raise _UnstorableError(f"cannot be stored without pickle: {kind.__name__}")


def _bytes_of(value: np.ndarray | np.generic) -> bytes | memoryview:
    if value.dtype.kind in "biuf" and isinstance(value, np.ndarray) and value.flags.c_contiguous:
        return value.reshape(-1).view(np.uint8).data
    return value.tobytes()


def _outward_dict(value: dict[Any, Any], blobs: _Blobs) -> dict[str, Any]:
    found = {}
    for key, item in value.items():
        if not isinstance(key, str):
            # JSON would turn it into text without a word, and the restored state would differ.
            raise _UnstorableError(f"expected text as a key, got {key!r} ({type(key).__name__})")
        try:
            found[str.__str__(key)] = _outward(item, blobs)
        except _UnstorableError as error:
            error.path = f".{key}{error.path}"
            raise
    return {_TAG: ["dict", list(found.items())]} if _TAG in found else found


def _outward_list(values: list[Any] | tuple[Any, ...], blobs: _Blobs) -> list[Any]:
    found = []
    for n, item in enumerate(values):
        try:
            found.append(_outward(item, blobs))
        except _UnstorableError as error:
            error.path = f"[{n}]{error.path}"
            raise
    return found


def _inward(found: dict[str, Any], blobs: memoryview) -> Any:
    tagged = found.get(_TAG)
    if tagged is None:
        return found
    word, *rest = tagged
    if word == "tuple":
        return tuple(rest[0])
    if word == "dict":
        return dict(rest[0])
    if word == "bytes":
        start, size = rest
        return bytes(blobs[start : start + size])
    dtype, shape, start, size = rest
    raw = np.frombuffer(blobs[start : start + size], np.uint8).copy()
    array = raw.view(np.dtype(dtype)).reshape(shape) if size else np.empty(shape, np.dtype(dtype))
    return array[()] if word == "scalar" else array
