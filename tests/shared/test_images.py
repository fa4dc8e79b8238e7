"""Rounding, lossless PNG, and the guarded decoder on everything that is not a plain picture."""

import io
import struct
import sys
import threading
import warnings
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from shared.errors import (
    ImageError,
    ImageTooLarge,
    ImageUnreadable,
    ImageUnsupported,
    InvalidRequest,
)
from shared.images import decode_image, encode_png, to_uint8

MANY = 10**6


def photo(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Smooth enough to survive a JPEG, with some grain."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 200, height * width * 3).reshape(height, width, 3)
    return (ramp + rng.integers(0, 40, ramp.shape)).astype(np.uint8)


def saved(image: Image.Image, format_: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def png_of(width: int, height: int, *, depth: int = 8, kind: int = 2, rows: bytes = b"") -> bytes:
    """A PNG written by hand, so that it can lie."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


# to_uint8


def test_rounding_by_hand() -> None:
    # 127.5 and 128.5 go to the even neighbour; below 0 and above 1 is clipped.
    values = [-0.3, 0.0, 0.5 / 255, 1.5 / 255, 127.5 / 255, 128.5 / 255, 0.999, 1.0, 1.7]
    pixels = np.repeat(np.array(values).reshape(1, -1, 1), 3, axis=2)
    assert to_uint8(pixels)[0, :, 0].tolist() == [0, 0, 0, 2, 128, 128, 255, 255, 255]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_byte_survives_as_a_float(dtype: type) -> None:
    pixels = np.arange(256 * 3, dtype=np.uint64).reshape(1, 256, 3) % 256
    floats: npt.NDArray[np.floating[Any]] = (pixels / 255).astype(dtype)
    result = to_uint8(floats)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, pixels)


def test_half_precision_is_rounded_once() -> None:
    every = np.arange(0x3C01, dtype=np.uint16).view(np.float16)  # all that lie in [0, 1]
    pixels = np.repeat(every.reshape(1, -1, 1), 3, axis=2)
    exact = (pixels.astype(np.float64) * 255).round()
    np.testing.assert_array_equal(to_uint8(pixels), exact)


@given(arrays(np.float32, (2, 2, 3), elements=st.floats(-2, 3, width=32)))
def test_rounding_is_the_formula_of_the_paper(pixels: npt.NDArray[np.float32]) -> None:
    before = pixels.copy()
    np.testing.assert_array_equal(to_uint8(pixels), (pixels * 255).round().clip(0, 255))
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_pixel_that_is_no_number_is_refused(bad: float) -> None:
    pixels = np.full((2, 4, 4, 3), 0.5, np.float32)
    pixels[1, 2, 3, 0] = bad
    with pytest.raises(InvalidRequest, match="1 of 96 pixel values are NaN or infinite"):
        to_uint8(pixels)


@pytest.mark.parametrize("shape", [(3, 4, 4), (2, 3, 4, 4), (4, 3)])
def test_channels_must_be_last(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidRequest, match="channels last"):
        to_uint8(np.zeros(shape, np.float32))


def test_bytes_are_not_rounded_twice() -> None:
    with pytest.raises(InvalidRequest, match="not uint8"):
        to_uint8(photo(2, 2))  # type: ignore[arg-type]


# encode_png


@given(arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6), st.just(3))))
def test_png_is_lossless(image: npt.NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(decode_image(encode_png(image), max_pixels=MANY), image)


def test_strided_pixels_are_encoded_in_reading_order() -> None:
    image = photo(5, 7)[::-1, ::2]
    np.testing.assert_array_equal(decode_image(encode_png(image), max_pixels=MANY), image)


@pytest.mark.parametrize(
    "image",
    [np.zeros((2, 2, 3)), np.zeros((2, 2, 4), np.uint8), np.zeros((0, 2, 3), np.uint8),
     np.zeros((2, 2), np.uint8)],
)  # fmt: skip
def test_only_pictures_are_encoded(image: Any) -> None:
    with pytest.raises(InvalidRequest, match="a picture is uint8"):
        encode_png(image)


# decode_image: what is taken


@pytest.mark.parametrize(
    ("format_", "options", "exact"),
    [
        ("PNG", {}, True),
        ("WEBP", {"lossless": True}, True),
        ("JPEG", {"quality": 95}, False),
        ("JPEG", {"quality": 95, "progressive": True}, False),
        ("WEBP", {"quality": 95}, False),
    ],
)
def test_formats(format_: str, options: dict[str, Any], exact: bool) -> None:
    image = photo(16, 24)
    pixels = decode_image(saved(Image.fromarray(image), format_, **options), max_pixels=16 * 24)
    assert pixels.shape == image.shape
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    difference = np.abs(pixels.astype(int) - image)
    assert difference.max() == 0 if exact else difference.mean() < 12


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_is_read(kind: type) -> None:
    image = photo(3, 4)
    np.testing.assert_array_equal(decode_image(kind(encode_png(image)), max_pixels=12), image)


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_grey_and_palette_become_rgb(mode: str) -> None:
    image = Image.fromarray(photo(8, 8)).convert(mode)
    pixels = decode_image(saved(image), max_pixels=64)
    np.testing.assert_array_equal(pixels, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("format_", ["PNG", "WEBP"])
def test_opaque_pixels_keep_their_value(format_: str) -> None:
    image = photo(8, 8)
    rgba = Image.fromarray(image).convert("RGBA")
    pixels = decode_image(saved(rgba, format_, lossless=True), max_pixels=64)
    np.testing.assert_array_equal(pixels, image)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_lie_on_white(mode: str) -> None:
    grey_and_alpha = Image.new("LA", (2, 1))
    grey_and_alpha.putdata([(0, 0), (0, 128)])
    pixels = decode_image(saved(grey_and_alpha.convert(mode)), max_pixels=2)
    assert pixels.tolist() == [[[255] * 3, [127] * 3]]  # 255 * (1 - 128/255)


@pytest.mark.parametrize(("mode", "color"), [("L", 9), ("RGB", (9, 9, 9))])
def test_a_transparent_colour_lies_on_white(mode: str, color: Any) -> None:
    image = Image.new(mode, (1, 1), color)
    pixels = decode_image(saved(image, transparency=color), max_pixels=1)
    assert pixels.tolist() == [[[255, 255, 255]]]


def test_a_transparent_entry_of_the_palette_lies_on_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    pixels = decode_image(saved(image, transparency=1), max_pixels=2)
    assert pixels.tolist() == [[[10, 20, 30], [255, 255, 255]]]


@pytest.mark.parametrize("format_", ["PNG", "WEBP"])
def test_of_an_animation_the_first_frame_counts(format_: str) -> None:
    frames = [Image.fromarray(photo(8, 8, seed)) for seed in range(3)]
    data = saved(frames[0], format_, save_all=True, append_images=frames[1:], lossless=True)
    np.testing.assert_array_equal(decode_image(data, max_pixels=64), photo(8, 8, 0))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["PNG", "WEBP"])
def test_a_turned_camera_is_turned_back(orientation: int, format_: str) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(photo(4, 6)), format_, lossless=True, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(decode_image(data, max_pixels=24), expected)


# decode_image: what is refused


def test_the_size_is_checked_before_anything_is_decoded() -> None:
    bomb = png_of(10_000, 10_000)
    with pytest.raises(ImageTooLarge, match="10000x10000 = 100000000 pixels, at most 1000000"):
        decode_image(bomb, max_pixels=MANY)


def test_one_pixel_too_many() -> None:
    data = encode_png(photo(3, 4))
    assert decode_image(data, max_pixels=12).shape == (3, 4, 3)
    with pytest.raises(ImageTooLarge, match="4x3 = 12 pixels, at most 11"):
        decode_image(data, max_pixels=11)


def test_a_second_size_in_the_file_does_not_get_past_the_check() -> None:
    small, large = (saved(Image.new("RGB", (size, size)), "JPEG") for size in (1, 500))
    at = small.index(b"\xff\xc0")
    header = small[at : at + 2 + int.from_bytes(small[at + 2 : at + 4])]
    with pytest.raises(ImageUnreadable, match="claims 1x1 pixels and holds 500x500"):
        decode_image(large[:2] + header + large[2:], max_pixels=1)


def test_a_size_without_pixels() -> None:
    with pytest.raises(ImageUnreadable, match="size 0x5"):
        decode_image(png_of(0, 5), max_pixels=MANY)


def test_an_empty_upload() -> None:
    with pytest.raises(ImageUnreadable, match="empty"):
        decode_image(b"", max_pixels=MANY)


def test_no_picture_at_all() -> None:
    with pytest.raises(ImageUnreadable, match="these 9 bytes are no whole PNG, JPEG, WEBP picture"):
        decode_image(b"not image", max_pixels=MANY)


@pytest.mark.parametrize("format_", ["GIF", "BMP", "TIFF", "PPM"])
def test_other_formats_are_not_even_tried(format_: str) -> None:
    with pytest.raises(ImageUnreadable, match="no whole PNG"):
        decode_image(saved(Image.new("RGB", (2, 2)), format_), max_pixels=MANY)


def test_a_format_outside_the_list_of_the_caller() -> None:
    data = saved(Image.new("RGB", (2, 2)), "JPEG")
    with pytest.raises(ImageUnsupported, match="JPEG pictures are not taken: send PNG"):
        decode_image(data, max_pixels=MANY, formats=("PNG",))


def test_sixteen_bits_are_refused_and_not_halved() -> None:
    grey = saved(Image.fromarray(np.full((2, 2), 40_000, np.uint16)))
    color = png_of(1, 1, depth=16, rows=bytes(7))
    for data in (grey, color):
        with pytest.raises(ImageUnsupported, match="16 bits per channel"):
            decode_image(data, max_pixels=MANY)


def test_cmyk_is_refused() -> None:
    with pytest.raises(ImageUnsupported, match="CMYK pixels"):
        decode_image(saved(Image.new("CMYK", (4, 4)), "JPEG"), max_pixels=MANY)


@pytest.mark.parametrize(
    ("format_", "options"),
    [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {}),
     ("WEBP", {"lossless": True})],
)  # fmt: skip
def test_no_truncation_gives_wrong_pixels(format_: str, options: dict[str, Any]) -> None:
    data = saved(Image.fromarray(photo(20, 20)), format_, **options)
    whole = decode_image(data, max_pixels=MANY)
    refused = 0
    for length in range(len(data)):
        try:
            pixels = decode_image(data[:length], max_pixels=MANY)
        except ImageUnreadable:
            refused += 1
        else:  # a JPEG may lack its end marker
            np.testing.assert_array_equal(pixels, whole)
    assert refused >= len(data) - (2 if format_ == "JPEG" else 0)


def test_one_flipped_bit_of_a_png_is_an_error() -> None:
    data = bytearray(encode_png(photo(20, 20)))
    for at in range(8, len(data), 37):
        data[at] ^= 1
        with pytest.raises(ImageUnreadable):
            decode_image(data, max_pixels=MANY)
        data[at] ^= 1


SAMPLES = [
    saved(Image.fromarray(photo(6, 5)), *spec) for spec in (("PNG",), ("JPEG",), ("WEBP",))
] + [saved(Image.fromarray(photo(6, 5)).convert("P"), "PNG")]


@given(
    st.sampled_from(SAMPLES),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=5),
    st.integers(0, 2000),
)
def test_damage_raises_only_item_errors(
    sample: bytes, flips: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(sample)
    for at, value in flips:
        data[at % len(data)] = value
    try:
        pixels = decode_image(data[: cut or None], max_pixels=10_000)
    except ImageError:
        return
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3


def test_warnings_of_the_decoder_stay_inside() -> None:
    """Pillow warns of broken EXIF and of of pictures above its own limit."""
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x09" + b"\x01\x12\0\x03\xff\xff\xff\xff" * 3
    broken = saved(Image.fromarray(photo(4, 4)), "JPEG", exif=exif)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Image.open(io.BytesIO(broken)) as image:
            image.getexif()
        assert caught, "the sample no longer makes Pillow warn"
        caught.clear()
        assert decode_image(broken, max_pixels=MANY).shape == (4, 4, 3)
    assert not caught


def test_threads_decode_side_by_side() -> None:
    images = [photo(4, 3, seed) for seed in range(8)]
    files = [encode_png(image) for image in images]
    filters = list(warnings.filters)
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(100):
            if not np.array_equal(decode_image(files[index], max_pixels=MANY), images[index]):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # as many chances to meet as there can be
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(interval)
    assert not wrong
    assert warnings.filters == filters
