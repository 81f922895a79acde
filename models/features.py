"""Images to scores and codes, in batches of one fixed size."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

CODES_LAYER = "block5_pool"


def batch_size(input_shape: tuple[int, ...]) -> int:
    """The one batch size of a network: 8 at 32 x 32 pixels, 1 from 80 x 80.

    Libraries pick other kernels for other batch sizes, and their sums differ in the last bits; with
    one size, padded, an image's scores do not depend on what it was sent with. Eight small images
    keep two processor cores as busy as 32 do, and a lone image waits a quarter of the time.
    """
    height, width = input_shape[:2]
    return max(1, min(8, round(8 * 32 * 32 / (height * width))))


def bulk_size(input_shape: tuple[int, ...]) -> int:
    """Rows of a batch where many images come at once and nobody waits for the first: in training.

    oneDNN, which training computes with, lays out the weights anew for every batch.
    """
    return 4 * batch_size(input_shape)


def scorer(model: Any) -> Any:
    """A network with two outputs, scores and codes, from one forward pass.

    Parameters
    ----------
    model
        A VGG-16 of `models.vgg16`.

    Returns
    -------
    keras.Model
        Outputs: softmax scores (n, K); codes (n, 512), the mean of block 5's output over the image.
    """
    import keras  # noqa: PLC0415

    block5 = model.get_layer(CODES_LAYER).output
    codes = keras.layers.GlobalAveragePooling2D(dtype="float32", name="codes")(block5)
    return keras.Model(model.inputs, [model.outputs[0], codes])


def predict(model: Any, images: npt.NDArray[Any], size: int) -> list[Array]:
    """Run a network over images in batches of `size`, the last one padded with zeros.

    Parameters
    ----------
    model
        Any Keras model with one input.
    images
        `models.spec.Images`, or a lower layer's codes; shape (n, ...).
    size
        Rows of every batch.

    Returns
    -------
    list of ndarray of float32
        One per output, shapes (n, ...).
    """
    parts: list[list[Array]] = []
    # An empty request still runs one padded batch: only the network knows its output shapes.
    for start in range(0, max(len(images), 1), size):
        rows = images[start : start + size]
        batch = np.zeros((size, *images.shape[1:]), dtype=np.float32)
        batch[: len(rows)] = rows
        outputs = model.predict_on_batch(batch)
        outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
        parts.append([np.asarray(o, dtype=np.float32)[: len(rows)] for o in outputs])
    return [np.concatenate(output) for output in zip(*parts, strict=True)]
