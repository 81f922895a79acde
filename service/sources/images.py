"""Reads images that records only point to, from allowed places and no others."""

from __future__ import annotations

from collections.abc import Sequence

import fsspec

from service.records.record import DecodeError


def fetch(uri: str, allowed: Sequence[str], max_bytes: int) -> bytes:
    """Read the object behind an fsspec URI.

    Parameters
    ----------
    uri
        As in the record.
    allowed
        Prefixes, each ending in ``/``; the URI must begin with one of them.
    max_bytes
        Largest object that is read.

    Raises
    ------
    DecodeError
        `uri_not_allowed`, `too_large` or `unreachable`.
    """
    if not any(uri.startswith(prefix) for prefix in allowed) or ".." in uri.split("/"):
        raise DecodeError("uri_not_allowed", f"image_uri: {uri[:200]!r} is in no allowed place")
    try:
        with fsspec.open(uri, "rb") as file:
            data: bytes = file.read(max_bytes + 1)
    except (OSError, ValueError, ImportError) as error:
        raise DecodeError("unreachable", f"image_uri: {uri[:200]!r}: {error}") from error
    if len(data) > max_bytes:
        raise DecodeError("too_large", f"image_uri: {uri[:200]!r} is over {max_bytes} bytes")
    return data
