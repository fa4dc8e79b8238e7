"""What a picture claims to be, before anything is decoded."""

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shared.image_headers import ImageHeader, read_image_header


def encoded(size: tuple[int, int], format_: str, mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, 7).save(buffer, format_, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("size", [(1, 1), (3, 700), (640, 5)])
@pytest.mark.parametrize(
    ("format_", "mode", "options"),
    [
        ("PNG", "RGB", {}),
        ("PNG", "RGBA", {}),
        ("JPEG", "RGB", {}),
        ("JPEG", "L", {"progressive": True}),
        ("JPEG", "RGB", {"exif": b"Exif\0\0" + bytes(300), "comment": b"c" * 999}),
        ("WEBP", "RGB", {}),
        ("WEBP", "RGB", {"lossless": True}),
        ("WEBP", "RGBA", {"lossless": True, "exif": b"Exif\0\0" + bytes(30)}),
    ],
)
def test_format_and_size(
    size: tuple[int, int], format_: str, mode: str, options: dict[str, Any]
) -> None:
    data = encoded(size, format_, mode, **options)
    assert read_image_header(data) == ImageHeader(format_, *size, 8)


def test_the_depth_of_sixteen_bits_is_seen() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((2, 2), np.uint16)).save(buffer, "PNG")
    header = read_image_header(buffer.getvalue())
    assert header is not None
    assert header.bit_depth == 16


def test_fill_bytes_between_jpeg_segments_are_skipped() -> None:
    data = encoded((9, 8), "JPEG")
    assert read_image_header(data[:2] + b"\xff" * 5 + data[2:]) == ImageHeader("JPEG", 9, 8, 8)


@pytest.mark.parametrize("data", [b"", b"GIF89a" + bytes(40), b"RIFF0000WAVE" + bytes(40)])
def test_other_files_have_no_header(data: bytes) -> None:
    assert read_image_header(data) is None


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP"])
def test_a_cut_header_is_no_header(format_: str) -> None:
    data = encoded((9, 8), format_)
    headers = {read_image_header(data[:length]) for length in range(len(data) + 1)}
    assert headers == {None, ImageHeader(format_, 9, 8, 8)}


STARTS = st.sampled_from(
    [b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"\xff\xd8", b"\xff\xd8\xff\xc0",
     b"RIFF\0\0\0\0WEBPVP8 ", b"RIFF\0\0\0\0WEBPVP8L", b"RIFF\0\0\0\0WEBPVP8X"]
)  # fmt: skip


@given(STARTS, st.binary(max_size=40))
def test_noise_gives_a_header_or_none(start: bytes, noise: bytes) -> None:
    header = read_image_header(start + noise)
    assert header is None or (header.width >= 0 and header.height >= 0)
