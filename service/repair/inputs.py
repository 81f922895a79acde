"""The inputs that a model reads of stored samples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from models.images import decode as decode_image
from models.spec import Family, ModelVersion
from models.tabular import tabular_row
from service.domain.sample import StoredSample


def rows_of(
    samples: Sequence[StoredSample], champion: ModelVersion, max_pixels: int
) -> npt.NDArray[Any]:
    """The inputs that a model reads of stored samples, in their order."""
    if champion.family is Family.VGG16:
        height, width, _ = champion.input_shape
        return np.stack(
            [decode_image(s.content, (height, width), max_pixels=max_pixels) for s in samples]
        )
    return np.stack([tabular_row(json.loads(s.content)) for s in samples])
