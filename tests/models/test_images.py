import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from models.images import ImageError, decode

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises any size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def test_a_png_of_the_right_size_comes_back_to_the_last_bit() -> None:
    decoded = decode(encoded(Image.fromarray(PIXELS)), (6, 9))
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, PIXELS)


def test_a_jpeg_comes_back_about_the_same() -> None:
    flat = np.full((16, 16, 3), (200, 30, 90), dtype=np.uint8)
    decoded = decode(encoded(Image.fromarray(flat), "JPEG", quality=95), (16, 16))
    np.testing.assert_allclose(decoded.astype(int), flat.astype(int), atol=6)


def test_other_sizes_are_resized_to_height_and_width_in_this_order() -> None:
    assert decode(encoded(Image.fromarray(PIXELS)), (32, 48)).shape == (32, 48, 3)


@pytest.mark.parametrize("mode", ["L", "1", "LA", "RGBA", "P", "I;16"])
def test_every_png_mode_becomes_rgb(mode: str) -> None:
    grey = np.tile(np.array([0, 255], dtype=np.uint8), (4, 2))
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(grey).convert(mode)
    decoded = decode(encoded(image), (4, 4))
    np.testing.assert_array_equal(decoded, np.repeat(grey[..., None], 3, axis=2))


def test_a_palette_with_transparent_entries_decodes() -> None:
    image = Image.fromarray(PIXELS).quantize(8)
    decoded = decode(encoded(image, transparency=bytes([0, 128, 255])), (6, 9))
    assert decoded.shape == (6, 9, 3)


def test_the_result_may_be_written_to() -> None:
    decode(encoded(Image.fromarray(PIXELS)), (6, 9))[0, 0] = 0


@pytest.mark.parametrize(
    ("width", "height"), [(4001, 4000), (50_000, 50_000), (2**31 - 1, 2**31 - 1)]
)
def test_a_decompression_bomb_is_refused_by_its_header(width: int, height: int) -> None:
    with pytest.raises(ImageError) as caught:
        decode(png_claiming(width, height), (32, 32))
    assert caught.value.reason == "too_large"


def test_limits_are_exact() -> None:
    data = encoded(Image.fromarray(PIXELS))
    decode(data, (6, 9), max_bytes=len(data), max_pixels=54)
    for limits in ({"max_bytes": len(data) - 1}, {"max_pixels": 53}):
        with pytest.raises(ImageError) as caught:
            decode(data, (6, 9), **limits)
        assert caught.value.reason == "too_large"


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_file_cut_anywhere_is_an_error_and_never_half_an_image(kind: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    for cut in range(0, len(data) - 30, 97):
        with pytest.raises(ImageError) as caught:
            decode(data[:cut], (32, 32))
        assert caught.value.reason == "not_an_image"


@pytest.mark.parametrize("seed", range(40))
def test_damaged_bytes_decode_or_name_their_reason(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kind = ("PNG", "JPEG")[seed % 2]
    data = bytearray(encoded(Image.fromarray(PIXELS), kind))
    for at in rng.integers(8, len(data), 6):
        data[at] = rng.integers(256)
    try:
        outcome = str(decode(bytes(data), (6, 9)).shape)
    except ImageError as error:
        outcome = error.reason
    assert outcome in {"(6, 9, 3)", "not_an_image", "too_large"}


def test_formats_that_nobody_asked_for_are_not_opened() -> None:
    for data in (encoded(Image.fromarray(PIXELS), "GIF"), b"", b"%!PS-Adobe-3.0 EPSF", b"\0" * 99):
        with pytest.raises(ImageError) as caught:
            decode(data, (6, 9))
        assert caught.value.reason == "not_an_image"
