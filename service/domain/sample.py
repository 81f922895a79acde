"""An observation that is kept for training."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ContentKind(StrEnum):
    """How the content of a stored sample is to be read."""

    IMAGE = "image"
    """PNG or JPEG."""
    FEATURES = "features"
    """The features as a JSON object in UTF-8."""


@dataclass(frozen=True, slots=True)
class StoredSample:
    """An observation kept for training.

    Attributes
    ----------
    index
        The observation's index in its stream.
    id
        The observation's id.
    time
        ISO-8601 time of the observation, or an empty string.
    content
        The image or the features.
    kind
        How to read `content`.
    label
        Ground truth, once it is known.
    """

    index: int
    id: str
    time: str
    content: bytes
    kind: ContentKind
    label: str | None = None
