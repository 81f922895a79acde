from __future__ import annotations

import doctest
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy.ndimage import gaussian_filter

from models import quality
from models.quality import PROPERTIES, image_properties

Pixels = npt.NDArray[np.float64]

COLUMN = {name: j for j, name in enumerate(PROPERTIES)}


def scenes(n: int, seed: int, side: int = 32) -> Pixels:
    """Smooth colourful noise from 0 to 1 with edges, shape (n, side, side, 3)."""
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.normal(size=(n, side, side, 3)), (0, 3, 3, 0))
    smooth /= smooth.std()
    squares = np.kron(rng.random((n, 4, 4, 1)), np.ones((1, side // 4, side // 4, 1)))
    return np.asarray(np.clip(0.25 + 0.3 * squares + 0.08 * smooth, 0, 1))


def as_bytes(pixels: Pixels) -> npt.NDArray[np.uint8]:
    return np.clip(np.rint(255 * pixels), 0, 255).astype(np.uint8)


FAULTS: dict[str, tuple[str, Callable[[Pixels], Pixels], int]] = {
    "blurred": ("sharpness", lambda x: gaussian_filter(x, (0, 0.8, 0.8, 0)), -1),
    "dark": ("brightness", lambda x: 0.5 * x, -1),
    "tinted": ("colour_cast", lambda x: x * [1.2, 1.0, 0.7], +1),
    "grey": ("saturation", lambda x: x.mean(axis=3, keepdims=True).repeat(3, axis=3), -1),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("seed", [100, 101, 102])
def test_a_fault_moves_the_property_that_is_called_so_more_than_any_other(
    fault: str, seed: int
) -> None:
    expected, spoil, direction = FAULTS[fault]
    images = scenes(100, seed)
    before, after = image_properties(as_bytes(images)), image_properties(as_bytes(spoil(images)))
    moved = (after.mean(axis=0) - before.mean(axis=0)) / before.std(axis=0)
    assert PROPERTIES[np.abs(moved).argmax()] == expected
    assert direction * moved[COLUMN[expected]] > 1


def test_fog_takes_contrast_and_saturation_and_leaves_sharpness() -> None:
    images = scenes(100, 100)
    before = image_properties(as_bytes(images))
    after = image_properties(as_bytes(0.5 * images + 0.5 * images.mean()))
    moved = (after.mean(axis=0) - before.mean(axis=0)) / before.std(axis=0)
    assert moved[COLUMN["contrast"]] < -1
    assert moved[COLUMN["saturation"]] < -1
    assert abs(moved[COLUMN["sharpness"]]) < 0.1


def test_values_of_images_that_can_be_worked_out_by_hand() -> None:
    white = np.full((8, 8, 3), 255, np.uint8)
    black = np.zeros((8, 8, 3), np.uint8)
    red = black + np.array([255, 0, 0], np.uint8)
    halves = black.copy()
    halves[:, 4:] = 255
    found = image_properties(np.stack([white, black, red, halves]))
    flat = np.log(1e-6)
    np.testing.assert_allclose(found[0], [1, 0, flat, 0, 0], atol=1e-5)
    np.testing.assert_allclose(found[1], [0, 0, flat, 0, 0], atol=1e-5)
    np.testing.assert_allclose(found[2, :3], [0.299, 0, flat], atol=1e-5)
    assert found[2, COLUMN["colour_cast"]] == pytest.approx(np.sqrt(6), rel=0.02)
    # Half black, half white: a mean of 1/2 and a spread of 1/2; the edge is 2 of 6 columns, +-1.
    np.testing.assert_allclose(found[3], [0.5, 1, np.log((1 / 3) / 0.25), 0, 0], atol=1e-3)


def test_white_noise_has_the_sharpness_that_the_documentation_gives() -> None:
    grey = np.random.default_rng(100).random((20, 64, 64, 1)).repeat(3, axis=3)
    sharpness = image_properties(grey)[:, COLUMN["sharpness"]]
    assert sharpness.mean() == pytest.approx(np.log(20), abs=0.05)


def test_grey_images_under_coloured_light_have_a_cast_and_no_saturation() -> None:
    grey = scenes(20, 100).mean(axis=3, keepdims=True) * np.array([1.0, 0.8, 0.6])
    found = image_properties(as_bytes(grey))
    assert (found[:, COLUMN["colour_cast"]] > 0.3).all()
    np.testing.assert_array_equal(found[:, COLUMN["saturation"]], 0)


def test_bytes_and_floats_of_the_same_pixels_have_the_same_properties() -> None:
    images = as_bytes(scenes(5, 100))
    np.testing.assert_allclose(
        image_properties(images), image_properties(images / 255), rtol=1e-4, atol=1e-6
    )


def test_an_image_has_the_same_properties_to_the_last_bit_in_any_company() -> None:
    images = as_bytes(scenes(12, 100))
    together = image_properties(images)
    for rows in (slice(7, 8), slice(3, 10)):
        np.testing.assert_array_equal(image_properties(images[rows]), together[rows])


def test_no_image_gives_no_row() -> None:
    assert image_properties(np.empty((0, 8, 8, 3), np.uint8)).shape == (0, len(PROPERTIES))


def test_errors_name_the_value_and_its_place() -> None:
    with pytest.raises(ValueError, match=r"shape \(n, height, width, 3\).*got \(8, 8, 3\)"):
        image_properties(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"sides of at least 3, got \(1, 2, 8, 3\)"):
        image_properties(np.zeros((1, 2, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="uint8 or floats, got int64"):
        image_properties(np.zeros((1, 8, 8, 3), np.int64))
    pixels = np.zeros((2, 8, 8, 3))
    for wrong in (1.5, -0.1, np.nan):
        pixels[1, 2, 3, 0] = wrong
        with pytest.raises(ValueError, match=r"pixels\[1, 2, 3, 0\]: expected 0 to 1.*got"):
            image_properties(pixels)


def test_the_example_in_the_documentation_holds() -> None:
    assert doctest.testmod(quality).failed == 0
