"""Fields of plain records, a list a field: what they hold, and which are to be read carefully."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import UNSET, UnsetType

from service.records.decode import MAX_NAME_CHARS, canonical, utc
from service.records.record import DecodeError

__all__ = [
    "MAX_LEVEL_CHARS",
    "classes_of",
    "doubtful_texts",
    "ids_of",
    "scores_given",
    "segments_of",
    "times_of",
]

MAX_LEVEL_CHARS = 2048
"""Longest level of a categorical feature."""


def ids_of(given: Sequence[Any]) -> tuple[list[str], npt.NDArray[np.bool_]]:
    """Ids as texts."""
    kinds = set(map(type, given))
    if kinds == {str}:
        ids: list[str] = list(given)
    else:
        # An integer of thousands of digits is refused by the careful way.
        ids = [str(i) if type(i) is int and i.bit_length() <= 64 else i for i in given]
        ids = [i if type(i) is str else "" for i in ids]
    return ids, doubtful_texts(ids)


def classes_of(given: Sequence[Any]) -> tuple[list[str | None] | None, npt.NDArray[np.bool_]]:
    """Classes in their one spelling; None if there is none."""
    kinds = set(map(type, given))
    if kinds <= {UnsetType, type(None)}:
        return None, np.zeros(len(given), np.bool_)
    found: list[str | None]
    found = list(given) if kinds == {str} else [_class(value) for value in given]
    return found, doubtful_texts(found)


def _class(value: Any) -> str | None:
    if value is None or value is UNSET:
        return None
    if type(value) is int and value.bit_length() > 64:
        return ""  # left for the careful way, as every empty class is
    return value if type(value) is str else canonical(value)


def doubtful_texts(
    texts: Sequence[str | None], *, least: int = 1, most: int = MAX_NAME_CHARS
) -> npt.NDArray[np.bool_]:
    """Texts that are too short or too long, or contain what no store can keep."""
    try:
        whole = "".join(texts)  # type: ignore[arg-type]
        sizes = list(map(len, texts))  # type: ignore[arg-type]
    except TypeError:
        known = [text for text in texts if text is not None]
        whole, sizes = "".join(known), list(map(len, known))
    good = not sizes or (min(sizes) >= least and max(sizes) <= most)
    if good and "\x00" not in whole:
        return np.zeros(len(texts), np.bool_)
    return np.array(
        [t is not None and not (least <= len(t) <= most and "\x00" not in t) for t in texts],
        np.bool_,
    )


def times_of(given: Sequence[Any]) -> tuple[list[datetime | None] | None, npt.NDArray[np.bool_]]:
    """Times in UTC; None if there is none."""
    wrong = np.zeros(len(given), np.bool_)
    if set(map(type, given)) <= {UnsetType, type(None)}:
        return None, wrong
    times: list[datetime | None] = []
    for n, text in enumerate(given):
        time = None
        if text is not None and text is not UNSET:
            try:
                time = utc(text)
            except DecodeError:
                wrong[n] = True
        times.append(time)
    return times, wrong


def segments_of(
    given: Sequence[Any],
) -> tuple[list[Mapping[str, str]] | None, npt.NDArray[np.bool_]]:
    """Segments with their values in their one spelling; None if there is none."""
    wrong = np.zeros(len(given), np.bool_)
    if set(map(type, given)) <= {UnsetType, type(None)}:
        return None, wrong
    segments: list[Mapping[str, str]] = []
    for n, values in enumerate(given):
        own: dict[str, str] = {}
        if values is not None and values is not UNSET:
            own = {name: _class(value) or "" for name, value in values.items() if value is not None}
            wrong[n] = doubtful_texts([*values, *own.values()]).any()
        segments.append(own)
    return (segments if any(segments) else None), wrong


def scores_given(given: Sequence[Any]) -> tuple[list[Any], npt.NDArray[np.bool_]]:
    """Scores as they were given."""
    wrong = np.zeros(len(given), np.bool_)
    found: list[Any] = [None if s is UNSET else s for s in given]
    for n, own in enumerate(found):
        if own is not None:
            is_good = own and all(0.0 <= score <= 1.0 for score in own.values())
            wrong[n] = not is_good or doubtful_texts(list(own)).any()
    return found, wrong
