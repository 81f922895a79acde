"""Image properties that people have names for, so that a dirty lens is called one."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

PROPERTIES = ("brightness", "contrast", "sharpness", "colour_cast", "saturation")
"""Names of the columns of `image_properties`, in their order."""

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue in the luminance that JPEG files use (ITU-R BT.601)."""

STEP = 1.0 / 255.0
"""What 8 bits can tell apart; smaller differences are rounding."""

LEAST_RATIO = 1e-6
"""Below any image with an edge: where an image is flat, its sharpness is the log of this."""


def image_properties(pixels: npt.NDArray[Any]) -> Array:
    """Brightness, contrast, sharpness, colour cast and saturation of images.

    Each one is made free of what the ones before it say: contrast is relative to the brightness
    [1]_, sharpness to the contrast, saturation is what is left when the cast is taken out by the
    grey-world assumption [3]_. So less light moves the brightness alone, and a blurred, dark or
    tinted image differs from its original in one property and not in all five.

    Parameters
    ----------
    pixels
        Shape (n, height, width, 3), red, green and blue, height and width at least 3; uint8 from 0
        to 255, or floats from 0 to 1.

    Returns
    -------
    Array
        Shape (n, 5), columns as in `PROPERTIES`:

        - brightness: mean luminance, from 0 (black) to 1 (white);
        - contrast: standard deviation of the luminance over its mean, from 0 (flat), about 0.5 in
          photographs;
        - sharpness: natural logarithm of the variance of the luminance's Laplacian [2]_ over the
          variance of the luminance, from -13.8 (flat), 3.0 for white noise, at most 4.2; low is
          blurred;
        - colour_cast: distance of the mean colour, over its own mean, from grey (1, 1, 1): from 0
          to 2.4 for one pure colour;
        - saturation: mean difference of a pixel's largest and smallest channel over the mean of
          the largest, with each channel divided by its mean: from 0 (grey) to 1.

        An image's values do not depend on the other images.

    Raises
    ------
    ValueError
        If the shape does not fit, or a float is out of range or not finite; names it.

    References
    ----------
    .. [1] E. Peli (1990). Contrast in complex images. J. Optical Society of America A 7, 2032-2040.
    .. [2] J. L. Pech-Pacheco et al. (2000). Diatom autofocusing in brightfield microscopy: a
       comparative study. ICPR 15, vol. 3, 314-317.
    .. [3] G. Buchsbaum (1980). A spatial processor model for object colour perception. J. Franklin
       Institute 310, 1-26.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> sharp = rng.integers(100, 200, (1, 32, 32, 3)).astype(np.uint8)
    >>> dark = sharp // 2
    >>> before, after = image_properties(np.concatenate([sharp, dark])).round(2)
    >>> dict(zip(PROPERTIES, (after - before).tolist()))["brightness"]
    -0.29
    """
    if pixels.ndim != 4 or pixels.shape[3] != 3 or min(pixels.shape[1:3], default=0) < 3:
        raise ValueError(
            "pixels must have shape (n, height, width, 3) with sides of at least 3, "
            f"got {pixels.shape}"
        )
    if pixels.dtype == np.uint8:
        scale = STEP
    elif np.issubdtype(pixels.dtype, np.floating):
        _check_range(pixels)
        scale = 1.0
    else:
        raise ValueError(f"pixels must be uint8 or floats, got {pixels.dtype}")
    # One image at a time: memory stays small, and sums do not depend on how many images there are.
    found = [_of_one(image, scale) for image in pixels]
    return np.array(found, np.float64).reshape(-1, len(PROPERTIES))


def _check_range(pixels: npt.NDArray[Any]) -> None:
    wrong = np.argwhere(~((pixels >= 0) & (pixels <= 1)))
    if len(wrong):
        where = tuple(wrong[0].tolist())
        raise ValueError(f"pixels{list(where)}: expected 0 to 1 in floats, got {pixels[where]}")


def _of_one(image: npt.NDArray[Any], scale: float) -> tuple[float, ...]:
    # Channels first and in 32 bits: neighbours in memory, and half as much of it to ask for.
    channels = np.ascontiguousarray(np.moveaxis(image, 2, 0), np.float32) * np.float32(scale)
    luminance = np.tensordot(LUMA, channels, 1)
    brightness, variance = float(luminance.mean()), float(luminance.var())
    level = np.maximum(channels.mean(axis=(1, 2)), np.float32(STEP))
    return (
        brightness,
        float(np.sqrt(variance)) / max(brightness, STEP),
        _sharpness(luminance, variance),
        float(np.linalg.norm(level / level.mean() - 1.0)),
        _saturation(channels, level),
    )


def _sharpness(luminance: Floats, variance: float) -> float:
    laplacian = np.float32(-4.0) * luminance[1:-1, 1:-1]
    laplacian += luminance[:-2, 1:-1]
    laplacian += luminance[2:, 1:-1]
    laplacian += luminance[1:-1, :-2]
    laplacian += luminance[1:-1, 2:]
    return float(np.log(max(float(laplacian.var()) / (variance + STEP**2), LEAST_RATIO)))


def _saturation(channels: Floats, level: Floats) -> float:
    red, green, blue = channels / level[:, None, None]
    largest = np.maximum(np.maximum(red, green), blue)
    spread = largest - np.minimum(np.minimum(red, green), blue)
    # Rounding to 8 bits makes a grey image under coloured light a little colourful.
    spread = np.maximum(spread - np.float32(STEP) / level.min(), 0)
    return float(spread.mean() / max(largest.mean(), STEP))
