"""Small images and networks; TensorFlow is imported only by the tests that ask for a network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from models.child import configure_tensorflow
from models.spec import Preprocessing
from models.vgg16 import Vgg16

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

CLASSES = ("left", "right")
SHAPE = (32, 32, 3)


def halves(n: int, seed: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Noise that is brighter on the left (0) or on the right (1)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    images = rng.integers(0, 120, (n, *SHAPE))
    for image, label in zip(images, labels, strict=True):
        image[:, 16 * label : 16 * (label + 1)] += 120
    return images.astype(np.uint8), labels


@pytest.fixture(scope="session", autouse=True)
def keras() -> Any:
    """TensorFlow is set before its first operation, whichever test of a worker has it."""
    configure_tensorflow(2, training=True)
    import keras

    return keras


@pytest.fixture(scope="session")
def network() -> Vgg16:
    return Vgg16(
        CLASSES,
        SHAPE,
        Preprocessing("scale", (90.0,) * 3, (60.0,) * 3),
        dense_units=16,
        dropout=0.3,
    )


@pytest.fixture(scope="session")
def model(keras: Any, network: Vgg16) -> Any:
    """An untrained network; tests must not change it."""
    return network.build(seed=3)


@pytest.fixture(scope="session")
def version_dir(model: Any, network: Vgg16, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The untrained network as the files of a version; tests must not change them."""
    folder = tmp_path_factory.mktemp("version")
    network.save(model, folder)
    return folder
