"""Bytes of an image to pixels, with limits that hold before anything is decompressed."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
from PIL import Image

MAX_BYTES = 8 * 2**20
MAX_PIXELS = 16_000_000
"""4000 x 4000: beyond any camera that a classifier of at most a few hundred pixels needs."""


class ImageError(ValueError):
    """The bytes are not an image that is accepted.

    Attributes
    ----------
    reason
        ``not_an_image`` or ``too_large``.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def decode(
    data: bytes,
    size: tuple[int, int],
    *,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
) -> npt.NDArray[np.uint8]:
    """Decode a PNG or JPEG, resized to a model's input.

    Parameters
    ----------
    data
        The encoded image. Of an animation the first frame counts; transparency is dropped.
    size
        (height, width) of the result, in pixels; other sizes are resized bilinearly, without
        keeping the aspect ratio.
    max_bytes, max_pixels
        Limits on the encoded bytes and on width x height as the header declares them; both are
        checked before pixels are decoded.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        Red, green, blue.

    Raises
    ------
    ImageError
        With `reason` ``too_large`` or ``not_an_image`` (other formats and truncated files too).
    """
    if len(data) > max_bytes:
        raise ImageError("too_large", f"image: at most {max_bytes} bytes, got {len(data)}")
    with _named_errors(max_pixels), Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise ImageError(
                "too_large", f"image: at most {max_pixels} pixels, got {width} x {height}"
            )
        image.load()
        rgb = _rgb(image)
    if rgb.size != size[::-1]:
        rgb = rgb.resize(size[::-1], Image.Resampling.BILINEAR)
    return np.array(rgb, dtype=np.uint8)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow clips 16-bit greys at 255 instead of scaling them, which would turn all to white.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P":
        # Palettes with transparency given in bytes convert only by way of RGBA.
        image = image.convert("RGBA")
    return image.convert("RGB")


@contextmanager
def _named_errors(max_pixels: int) -> Iterator[None]:
    try:
        yield
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError("too_large", f"image: at most {max_pixels} pixels") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error) as e:
        # What Pillow raises on broken files; UnidentifiedImageError is an OSError.
        raise ImageError("not_an_image", f"image: not a complete PNG or JPEG: {e}") from e
