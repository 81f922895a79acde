from pathlib import Path

import numpy as np
import pytest

from models.spec import Family, ModelVersion, Preprocessing, check_stream


@pytest.mark.parametrize("name", ["digits", "cam-1", "a", "Cam_1.left", "0", "x" * 128])
def test_ordinary_stream_names_are_folder_names(name: str) -> None:
    assert check_stream(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "a\\b", ".hidden", "-rf", "a\n", "é", "x" * 129, "a\0b"]
)
def test_names_that_leave_the_folder_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="stream: expected"):
        check_stream(name)


def test_scaling_gives_every_channel_zero_mean_and_unit_variance() -> None:
    images = np.random.default_rng(0).integers(0, [80, 160, 256], (20, 8, 8, 3)).astype(np.uint8)
    found = Preprocessing.of_images(images)
    scaled = (images - np.array(found.mean)) / np.array(found.std)
    np.testing.assert_allclose(scaled.mean(axis=(0, 1, 2)), 0, atol=1e-9)
    np.testing.assert_allclose(scaled.std(axis=(0, 1, 2)), 1, atol=1e-9)


def test_a_black_channel_does_not_divide_by_zero() -> None:
    assert Preprocessing.of_images(np.zeros((2, 4, 4, 3), np.uint8)).std == (1.0, 1.0, 1.0)


def test_json_and_back_is_the_same_version() -> None:
    pre = Preprocessing("scale", (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    version = ModelVersion(
        stream="digits",
        version=3,
        family=Family.VGG16,
        path=Path("/models/digits/3"),
        parent=2,
        classes=("0", "1"),
        input_shape=(32, 32, 3),
        preprocessing=pre.to_json(),
        strategy="all_layers",
        metrics={"holdout_accuracy": 0.9},
        trained_on={"labels": 600, "from": 100, "to": 900},
        created_at="2026-11-23T10:00:00+00:00",
        key="job-1",
        files={"model.keras": "00"},
    )
    again = ModelVersion.from_json(version.to_json(), version.path)
    assert again == version
    assert Preprocessing.from_json(again.preprocessing) == pre
