"""VGG-16: the network of Simonyan and Zisserman, its weights and its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from models.spec import CAFFE, Preprocessing

NETWORK_FILE = "network.json"
MODEL_FILE = "model.keras"

WEIGHTS_FILE = "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
WEIGHTS_MD5 = "6d6bbae143d832006294945121d1f1fc"
WEIGHTS_URL = f"https://storage.googleapis.com/tensorflow/keras-applications/vgg16/{WEIGHTS_FILE}"

SMALLEST_INPUT = 32
"""Five poolings halve the image; below 32 pixels nothing would be left."""


class WeightsUnavailableError(RuntimeError):
    """Pre-trained weights are not there; training does not go on with random ones instead."""


@dataclass(frozen=True, slots=True)
class Vgg16:
    """All that makes the network but its weights.

    Attributes
    ----------
    classes
        Names, in the order of the outputs.
    input_shape
        (height, width, 3); height and width at least 32.
    preprocessing
        Applied by the network's first layers.
    dense_units
        Width of fc1 and fc2; 4096 in the paper, less for small images.
    dropout
        Share of units dropped after fc1 and fc2 in training; 0.5 in the paper.

    Raises
    ------
    ValueError
        If there are fewer than two classes, a class appears twice, or the input is too small.

    References
    ----------
    .. [1] K. Simonyan, A. Zisserman (2015). Very deep convolutional networks for large-scale image
       recognition. ICLR. Configuration D.
    """

    classes: tuple[str, ...]
    input_shape: tuple[int, int, int]
    preprocessing: Preprocessing
    dense_units: int = 4096
    dropout: float = 0.5

    def __post_init__(self) -> None:
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes: expected two or more different, got {list(self.classes)}")
        height, width, channels = self.input_shape
        if min(height, width) < SMALLEST_INPUT or channels != 3:
            raise ValueError(
                f"input_shape: expected (height, width, 3) of at least {SMALLEST_INPUT} pixels, "
                f"got {self.input_shape}"
            )

    def build(self, *, seed: int, precision: str = "float32") -> Any:
        """The network with He-normal weights [2]_: the default initialisation hardly starts.

        Parameters
        ----------
        seed
            Of the weights and of dropout.
        precision
            Keras dtype policy of the hidden layers; inputs and scores are float32 in any case.

        Returns
        -------
        keras.Model
            Images as in `models.spec.Images`, also as floats, to scores of shape (n, K).

        References
        ----------
        .. [2] K. He, X. Zhang, S. Ren, J. Sun (2015). Delving deep into rectifiers. ICCV.
        """
        import keras  # noqa: PLC0415

        # One seed a layer: layers of one shape would start with equal weights otherwise.
        seeds = iter(np.random.SeedSequence(seed).generate_state(32).tolist())

        def he() -> Any:
            return keras.initializers.HeNormal(seed=next(seeds))

        def conv(name: str, filters: int) -> Any:
            return keras.layers.Conv2D(
                filters,
                3,
                padding="same",
                activation="relu",
                kernel_initializer=he(),
                dtype=precision,
                name=name,
            )

        def pool(name: str) -> Any:
            return keras.layers.MaxPooling2D(2, dtype=precision, name=name)

        def dense(name: str) -> Any:
            return keras.layers.Dense(
                self.dense_units,
                activation="relu",
                kernel_initializer=he(),
                dtype=precision,
                name=name,
            )

        def dropout(name: str) -> Any:
            return keras.layers.Dropout(self.dropout, seed=next(seeds), dtype=precision, name=name)

        images = keras.Input(self.input_shape, name="images", dtype="float32")
        x = self._preprocess(images)

        x = conv("block1_conv1", 64)(x)
        x = conv("block1_conv2", 64)(x)
        x = pool("block1_pool")(x)

        x = conv("block2_conv1", 128)(x)
        x = conv("block2_conv2", 128)(x)
        x = pool("block2_pool")(x)

        x = conv("block3_conv1", 256)(x)
        x = conv("block3_conv2", 256)(x)
        x = conv("block3_conv3", 256)(x)
        x = pool("block3_pool")(x)

        x = conv("block4_conv1", 512)(x)
        x = conv("block4_conv2", 512)(x)
        x = conv("block4_conv3", 512)(x)
        x = pool("block4_pool")(x)

        x = conv("block5_conv1", 512)(x)
        x = conv("block5_conv2", 512)(x)
        x = conv("block5_conv3", 512)(x)
        x = pool("block5_pool")(x)

        x = keras.layers.Flatten(dtype=precision, name="flatten")(x)
        x = dense("fc1")(x)
        x = dropout("dropout1")(x)
        x = dense("fc2")(x)
        x = dropout("dropout2")(x)
        scores = keras.layers.Dense(
            len(self.classes),
            activation="softmax",
            kernel_initializer=he(),
            dtype="float32",  # a softmax of 8-bit mantissas would tie scores that differ
            name="predictions",
        )(x)
        return keras.Model(images, scores, name="vgg16")

    def _preprocess(self, images: Any) -> Any:
        import keras  # noqa: PLC0415

        x = images
        if self.preprocessing.reverse_channels:
            x = keras.ops.flip(x, axis=-1)
        mean, std = np.array(self.preprocessing.mean), np.array(self.preprocessing.std)
        return keras.layers.Rescaling(
            (1 / std).tolist(), (-mean / std).tolist(), dtype="float32", name="preprocess"
        )(x)

    def save(self, model: Any, folder: Path, *, saved_model: bool = False) -> None:
        """Write the network and its weights into an existing folder, without optimiser state.

        Parameters
        ----------
        model
            A network that `build` made.
        folder
            Gets ``network.json`` and ``model.keras``.
        saved_model
            Whether to add ``saved_model/``, which TensorFlow Serving loads.
        """
        plain = self.build(seed=0)  # float32 and not compiled, whatever it was trained in
        copy_weights(model, plain)
        plain.save(folder / MODEL_FILE)
        if saved_model:
            plain.export(str(folder / "saved_model"))
        description = {
            "classes": list(self.classes),
            "input_shape": list(self.input_shape),
            "preprocessing": self.preprocessing.to_json(),
            "dense_units": self.dense_units,
            "dropout": self.dropout,
        }
        (folder / NETWORK_FILE).write_text(json.dumps(description, indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Vgg16:
        """The network without its weights, from a folder that `save` wrote; needs no Keras."""
        data: Mapping[str, Any] = json.loads((folder / NETWORK_FILE).read_bytes())
        height, width, channels = data["input_shape"]
        return cls(
            classes=tuple(data["classes"]),
            input_shape=(height, width, channels),
            preprocessing=Preprocessing.from_json(data["preprocessing"]),
            dense_units=data["dense_units"],
            dropout=data["dropout"],
        )

    @classmethod
    def load(cls, folder: Path) -> tuple[Vgg16, Any]:
        """The network and its Keras model from a folder that `save` wrote."""
        network = cls.read(folder)
        import keras  # noqa: PLC0415

        return network, keras.models.load_model(folder / MODEL_FILE, compile=False, safe_mode=True)

    def with_classes(self, classes: tuple[str, ...]) -> Vgg16:
        """The same network for other classes."""
        return replace(self, classes=classes)


def weighted_layers(model: Any) -> Iterator[Any]:
    """The convolutions and dense layers, from the image to the scores."""
    return (layer for layer in model.layers if hasattr(layer, "kernel"))


def copy_weights(
    source: Any, target: Any, *, columns: tuple[list[int], list[int]] | None = None
) -> None:
    """Copy weights layer by layer, by name.

    Parameters
    ----------
    source, target
        Networks of one architecture; the target may have other classes when `columns` is given.
    columns
        Output columns of the source and where they go in the target; the target's other columns
        keep their weights. None copies all.

    Raises
    ------
    ValueError
        If shapes differ; names the layer.
    """
    for layer in weighted_layers(target):
        weights = source.get_layer(layer.name).get_weights()
        if layer.name == "predictions" and columns is not None:
            old, weights = weights, layer.get_weights()
            for made, kept in zip(weights, old, strict=True):
                made[..., columns[1]] = kept[..., columns[0]]
        layer.set_weights(weights)


def load_imagenet(model: Any, weights: str | Path = "imagenet") -> None:
    """Set the thirteen convolutions of a network to pre-trained weights.

    Parameters
    ----------
    model
        A network that was built with the preprocessing `CAFFE`.
    weights
        ``imagenet``: the file that Keras distributes, from Keras' cache or downloaded into it.
        A path: a file of VGG-16 weights without the top, in Keras' ``.h5`` layout or
        ``.weights.h5``.

    Raises
    ------
    WeightsUnavailableError
        If the file is missing, cannot be downloaded or does not fit; says what can be done.
    """
    import keras  # noqa: PLC0415

    path = _downloaded() if weights == "imagenet" else Path(weights)
    if not path.is_file():
        raise WeightsUnavailableError(f"weights: there is no file {path}; {_ADVICE}")
    try:
        base = keras.applications.VGG16(
            include_top=False, weights=str(path), input_shape=model.input_shape[1:]
        )
    except Exception as error:
        raise WeightsUnavailableError(
            f"weights: {path} does not hold VGG-16 without its top: {error}; {_ADVICE}"
        ) from error
    for layer in weighted_layers(base):
        model.get_layer(layer.name).set_weights(layer.get_weights())


def _downloaded() -> Path:
    import keras  # noqa: PLC0415

    try:
        path = Path(
            keras.utils.get_file(
                WEIGHTS_FILE, WEIGHTS_URL, cache_subdir="models", file_hash=WEIGHTS_MD5
            )
        )
    except Exception as error:
        raise WeightsUnavailableError(
            f"weights: cannot download the ImageNet weights: {error}; {_ADVICE}"
        ) from error
    found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    if found != WEIGHTS_MD5:
        raise WeightsUnavailableError(
            f"weights: {path} has MD5 {found}, expected {WEIGHTS_MD5}; {_ADVICE}"
        )
    return path


_ADVICE = (
    f"either put {WEIGHTS_FILE} (MD5 {WEIGHTS_MD5}, from {WEIGHTS_URL}) into ~/.keras/models, or "
    f"name its path as `weights`, or set `weights: source` to train the stream's first model "
    f"from its own source data"
)

__all__ = [
    "CAFFE",
    "Vgg16",
    "WeightsUnavailableError",
    "copy_weights",
    "load_imagenet",
    "weighted_layers",
]
