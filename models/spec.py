"""What a version of a model is: weights' place, preprocessing, classes, recipe and lineage."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]
"""Decoded images, shape (n, height, width, 3), RGB, 0 to 255."""

Floats = npt.NDArray[np.floating[Any]]

_STREAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Family(StrEnum):
    """The kinds of models that Shiftwatch trains itself."""

    VGG16 = "vgg16"
    TABULAR = "tabular"


def check_stream(stream: str) -> str:
    """Return the stream's name if it is safe as the name of a folder.

    Raises
    ------
    ValueError
        If the name has other characters than letters, digits, ``.``, ``_``, ``-``, does not begin
        with a letter or digit, or is longer than 128 characters.
    """
    if not _STREAM.fullmatch(stream):
        raise ValueError(
            f"stream: expected 1 to 128 letters, digits, '.', '_' or '-', not beginning with a "
            f"sign, got {stream[:200]!r}"
        )
    return stream


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What is done to a pixel before the first convolution: ``(pixel - mean) / std``.

    It is part of the network itself (first layers), so a version cannot be served with the wrong
    one; it is written into the manifest to be read.

    Attributes
    ----------
    kind
        ``scale`` (statistics of the source's own training images) or ``caffe`` (the published
        ImageNet weights: blue-green-red order, ImageNet's channel means, no scaling).
    mean, std
        Per channel, in the order that the network sees; std positive.
    reverse_channels
        Whether RGB is turned into BGR first.
    """

    kind: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    reverse_channels: bool = False

    @classmethod
    def of_images(cls, images: Images) -> Preprocessing:
        """Scaling to zero mean and unit variance over images, shape (n, h, w, 3), n at least 1."""
        # Counts of the 256 values: exact, and no copy of all images as floats.
        counts = np.zeros((3, 256))
        for image in images:
            for channel in range(3):
                counts[channel] += np.bincount(image[..., channel].ravel(), minlength=256)
        share, value = counts / counts.sum(axis=1, keepdims=True), np.arange(256)
        mean = share @ value
        # A constant channel would divide by zero; it carries nothing, so any scale will do.
        std = np.maximum(np.sqrt(np.maximum(share @ value**2 - mean**2, 0)), 1.0)
        return cls("scale", tuple(map(float, mean)), tuple(map(float, std)))

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "kind": self.kind,
            "mean": list(self.mean),
            "std": list(self.std),
            "reverse_channels": self.reverse_channels,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `to_json`."""
        return cls(
            str(data["kind"]),
            tuple(map(float, data["mean"])),
            tuple(map(float, data["std"])),
            bool(data["reverse_channels"]),
        )


CAFFE = Preprocessing("caffe", (103.939, 116.779, 123.68), (1.0, 1.0, 1.0), reverse_channels=True)
"""Preprocessing of the weights of Simonyan and Zisserman (2014), as Keras distributes them."""


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One immutable version of one stream's model.

    Attributes
    ----------
    stream
        The stream that it belongs to.
    version
        From 1, growing by one with every publication.
    family
        How it is built and loaded.
    path
        Folder of its files; set by the registry, not part of the manifest.
    parent
        The version that it was fine-tuned from; None for one trained from the source data.
    classes
        Names of the classes in the order of the model's outputs.
    input_shape
        (height, width, 3) of the images or (d,) features.
    preprocessing
        `Preprocessing.to_json` for images; empty for tabular models, which hold their own.
    strategy
        How it was trained: ``source`` or one of `models.strategy.Strategy`.
    metrics
        Measured on the hold-out rows of its own training job.
    trained_on
        Lineage: number of labels, offsets or indices they came from.
    created_at
        ISO-8601 time, given by the caller.
    key
        Idempotency key of the publication, for example the job's id; empty for none.
    files
        SHA-256 of every file, by relative path.
    """

    stream: str
    version: int
    family: Family
    path: Path
    parent: int | None
    classes: tuple[str, ...]
    input_shape: tuple[int, ...]
    preprocessing: Mapping[str, Any]
    strategy: str
    metrics: Mapping[str, Any]
    trained_on: Mapping[str, Any]
    created_at: str
    key: str = ""
    files: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The manifest: every field but `path`, as plain JSON types."""
        data = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "path"}
        return data | {
            "family": self.family.value,
            "classes": list(self.classes),
            "input_shape": list(self.input_shape),
            **{k: dict(data[k]) for k in ("preprocessing", "metrics", "trained_on", "files")},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], path: Path) -> ModelVersion:
        """The inverse of `to_json`; `path` is where the manifest was read."""
        return cls(
            stream=check_stream(data["stream"]),
            version=int(data["version"]),
            family=Family(data["family"]),
            path=path,
            parent=None if data["parent"] is None else int(data["parent"]),
            classes=tuple(data["classes"]),
            input_shape=tuple(data["input_shape"]),
            preprocessing=data["preprocessing"],
            strategy=data["strategy"],
            metrics=data["metrics"],
            trained_on=data["trained_on"],
            created_at=data["created_at"],
            key=data["key"],
            files=data["files"],
        )
