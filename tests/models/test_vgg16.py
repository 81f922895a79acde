from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
import pytest

from models import vgg16
from models.features import predict
from models.spec import CAFFE, Preprocessing
from models.vgg16 import Vgg16, WeightsUnavailableError, copy_weights, load_imagenet
from tests.models.conftest import CLASSES, SHAPE, halves

CONVOLUTIONS = [
    *("block1_conv1", "block1_conv2"),
    *("block2_conv1", "block2_conv2"),
    *("block3_conv1", "block3_conv2", "block3_conv3"),
    *("block4_conv1", "block4_conv2", "block4_conv3"),
    *("block5_conv1", "block5_conv2", "block5_conv3"),
]


def test_the_network_has_the_papers_layers_in_order(model: Any) -> None:
    names = [layer.name for layer in vgg16.weighted_layers(model)]
    assert names == [*CONVOLUTIONS, "fc1", "fc2", "predictions"]
    # The number that Keras documents for VGG-16 without its top.
    convolutions = sum(model.get_layer(name).count_params() for name in CONVOLUTIONS)
    assert convolutions == 14_714_688
    assert [layer.name for layer in model.layers if "pool" in layer.name] == [
        f"block{b}_pool" for b in range(1, 6)
    ]
    assert model.get_layer("block5_pool").output.shape == (None, 1, 1, 512)


def test_the_full_size_network_has_138_million_weights() -> None:
    network = Vgg16(tuple(map(str, range(1000))), (224, 224, 3), CAFFE)
    flat, units = 7 * 7 * 512, network.dense_units
    dense = (flat + 1) * units + (units + 1) * units + (units + 1) * 1000
    assert 14_714_688 + dense == 138_357_544


def test_weights_are_he_normal_and_differ_between_layers_of_one_shape(model: Any) -> None:
    kernels = [layer.get_weights()[0] for layer in vgg16.weighted_layers(model)][:13]
    for kernel in kernels[3:]:
        expected = np.sqrt(2 / np.prod(kernel.shape[:3]))
        assert kernel.std() == pytest.approx(expected, rel=0.05)
    assert not np.array_equal(kernels[-1], kernels[-2])


def test_the_seed_decides_the_weights(network: Vgg16, model: Any) -> None:
    again = network.build(seed=3).get_layer("block5_conv3").get_weights()[0]
    np.testing.assert_array_equal(again, model.get_layer("block5_conv3").get_weights()[0])


def test_scores_sum_to_one_and_start_undecided(model: Any) -> None:
    (scores,) = predict(model, halves(20, 0)[0], 32)
    assert scores.shape == (20, 2)
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-6)
    assert scores.max() < 0.99


def test_caffe_preprocessing_is_what_keras_applies(keras: Any) -> None:
    network = Vgg16(CLASSES, SHAPE, CAFFE, dense_units=8)
    inner = network.build(seed=0)
    first = keras.Model(inner.inputs, inner.get_layer("preprocess").output)
    images = halves(4, 1)[0]
    (ours,) = predict(first, images, 4)
    theirs: Any = keras.applications.vgg16.preprocess_input(images.astype(np.float32))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_saved_and_loaded_is_the_same_network_to_the_last_bit(
    network: Vgg16, model: Any, version_dir: Path
) -> None:
    found, loaded = Vgg16.load(version_dir)
    assert found == network
    images = halves(5, 2)[0]
    np.testing.assert_array_equal(predict(loaded, images, 32)[0], predict(model, images, 32)[0])


def test_no_optimiser_state_is_saved(version_dir: Path) -> None:
    weights = 4 * (14_714_688 + 16 * 513 + 16 * 17 + 2 * 17)
    assert (version_dir / vgg16.MODEL_FILE).stat().st_size < 1.02 * weights


def test_what_was_trained_in_bfloat16_is_saved_in_float32(
    keras: Any, network: Vgg16, tmp_path: Path
) -> None:
    trained = network.build(seed=3, precision="mixed_bfloat16")
    assert trained.get_layer("fc1").compute_dtype == "bfloat16"
    network.save(trained, tmp_path, saved_model=True)
    _, loaded = Vgg16.load(tmp_path)
    assert {layer.compute_dtype for layer in loaded.layers} == {"float32"}

    import tensorflow as tf

    served = tf.saved_model.load(str(tmp_path / "saved_model")).signatures["serving_default"]
    images = halves(3, 3)[0]
    (scores,) = served(tf.constant(images.astype(np.float32))).values()
    np.testing.assert_allclose(scores.numpy(), predict(loaded, images, 3)[0], atol=1e-6)


def test_copied_columns_keep_known_classes_and_leave_new_ones(network: Vgg16, model: Any) -> None:
    wider = network.with_classes(("up", "left", "right")).build(seed=8)
    fresh = wider.get_layer("predictions").get_weights()[0][:, 0].copy()
    copy_weights(model, wider, columns=([0, 1], [1, 2]))
    made = wider.get_layer("predictions").get_weights()[0]
    np.testing.assert_array_equal(made[:, 1:], model.get_layer("predictions").get_weights()[0])
    np.testing.assert_array_equal(made[:, 0], fresh)
    np.testing.assert_array_equal(
        wider.get_layer("fc1").get_weights()[0], model.get_layer("fc1").get_weights()[0]
    )


@pytest.fixture(scope="module")
def weights_file(keras: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in the layout of the published ImageNet weights, with other numbers."""
    base = keras.applications.VGG16(include_top=False, weights=None)
    path = tmp_path_factory.mktemp("weights") / vgg16.WEIGHTS_FILE
    with h5py.File(path, "w") as file:
        layers = [layer for layer in base.layers if layer.name != "input_layer"]
        file.attrs["layer_names"] = [layer.name.encode() for layer in layers]
        for layer in layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}_{v}_1:0" for v in "Wb"][: len(layer.weights)]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, value in zip(names, layer.get_weights(), strict=True):
                group.create_dataset(name, data=value + 1)
    return path


def test_pretrained_weights_fill_all_convolutions_and_no_dense_layer(
    network: Vgg16, weights_file: Path
) -> None:
    model = network.build(seed=0)
    fc1 = model.get_layer("fc1").get_weights()[0].copy()
    load_imagenet(model, weights_file)
    with h5py.File(weights_file) as file:
        for name in CONVOLUTIONS:
            kernel, bias = model.get_layer(name).get_weights()
            np.testing.assert_array_equal(kernel, file[name][f"{name}_W_1:0"])
            np.testing.assert_array_equal(bias, file[name][f"{name}_b_1:0"])
    np.testing.assert_array_equal(model.get_layer("fc1").get_weights()[0], fc1)


def test_the_published_weights_come_from_keras_cache_with_their_check_sum(
    keras: Any, model: Any, weights_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def get_file(name: str, origin: str, **options: Any) -> str:
        asked.update(name=name, origin=origin, **options)
        return str(weights_file)

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    with pytest.raises(WeightsUnavailableError, match=r"has MD5 .*, expected 6d6bbae1"):
        load_imagenet(model, "imagenet")
    assert asked["name"] == "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
    assert asked["file_hash"] == "6d6bbae143d832006294945121d1f1fc"
    assert asked["cache_subdir"] == "models"


def test_a_failed_download_says_what_to_do_and_changes_nothing(
    keras: Any, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get_file(*_: Any, **__: Any) -> str:
        raise OSError("URL fetch failure: no route to host")

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    before = model.get_layer("block1_conv1").get_weights()[0].copy()
    with pytest.raises(WeightsUnavailableError) as caught:
        load_imagenet(model, "imagenet")
    message = str(caught.value)
    for part in (
        "no route to host",
        "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "6d6bbae143d832006294945121d1f1fc",
        "~/.keras/models",
        "weights: source",
    ):
        assert part in message
    np.testing.assert_array_equal(model.get_layer("block1_conv1").get_weights()[0], before)


@pytest.mark.parametrize("content", [None, b"not HDF5"])
def test_a_path_without_weights_is_an_error(
    model: Any, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "weights.h5"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsUnavailableError, match=str(path)):
        load_imagenet(model, path)


@pytest.mark.parametrize(
    ("classes", "shape", "message"),
    [
        (("a",), (32, 32, 3), "two or more different"),
        (("a", "a"), (32, 32, 3), "two or more different"),
        (("a", "b"), (31, 32, 3), "at least 32 pixels"),
        (("a", "b"), (32, 32, 1), r"\(height, width, 3\)"),
    ],
)
def test_impossible_networks_are_named(classes: Any, shape: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Vgg16(classes, shape, Preprocessing("scale", (0.0,) * 3, (1.0,) * 3))
