"""Named arrays through a pipe: eight bytes of length, then an ``.npz`` without pickles."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

Arrays = Mapping[str, npt.NDArray[Any]]

MAX_FRAME_BYTES = 2**31
"""A length beyond this is not a frame but text that ended up in the pipe."""

_LENGTH = struct.Struct("<Q")


def write_frame(stream: BinaryIO, arrays: Arrays) -> None:
    """Write arrays as one frame and flush."""
    buffer = io.BytesIO()
    named: dict[str, Any] = dict(arrays)
    np.savez(buffer, **named)
    content = buffer.getbuffer()
    stream.write(_LENGTH.pack(len(content)))
    stream.write(content)
    stream.flush()


def read_frame(read: Callable[[int], bytes]) -> dict[str, npt.NDArray[Any]] | None:
    """Read one frame.

    Parameters
    ----------
    read
        Returns exactly as many bytes as asked for, or fewer at the end of the stream.

    Returns
    -------
    dict of ndarray, or None at the end of the stream

    Raises
    ------
    EOFError
        If the stream ends inside a frame.
    ValueError
        If the bytes are no frame.
    """
    head = read(_LENGTH.size)
    if not head:
        return None
    if len(head) < _LENGTH.size:
        raise EOFError(f"frame: ended after {len(head)} bytes of its length")
    (length,) = _LENGTH.unpack(head)
    if length > MAX_FRAME_BYTES:
        raise ValueError(f"frame: at most {MAX_FRAME_BYTES} bytes, got a length of {length}")
    content = read(length)
    if len(content) < length:
        raise EOFError(f"frame: ended after {len(content)} of {length} bytes")
    with np.load(io.BytesIO(content), allow_pickle=False) as data:
        return {name: data[name] for name in data.files}
