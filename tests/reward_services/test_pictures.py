"""Pictures that cannot be scored: each its own item error, never the end of its request."""

import base64
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import numpy as np
import pytest

from shared.images import encode_png
from shared.schema import ScoreResponse

Grey = Callable[..., np.ndarray]
Running = Callable[..., AbstractAsyncContextManager[Any]]


def chunk(kind: bytes, data: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum


def png(width: int, height: int, *extra: bytes, pixels: bytes = b"") -> bytes:
    """A PNG that claims a size and holds whatever is given."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    rest = chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + rest


# A hundredth of a percent of what comes out of it.
BOMB = zlib.compress(b"\0" * 100_000_000, 9)


def scored(answer: httpx.Response) -> list[float | None]:
    assert answer.status_code == 200, answer.text
    return [result.score for result in ScoreResponse.model_validate_json(answer.content).results]


def codes(answer: httpx.Response) -> list[str | None]:
    """Item error codes, None where there is a score."""
    assert answer.status_code == 200, answer.text
    response = ScoreResponse.model_validate_json(answer.content)
    return [result.error.code if result.error else None for result in response.results]


PNG = encode_png(np.zeros((4, 4, 3), np.uint8))
GOOD = base64.b64encode(PNG).decode()
BAD_PICTURES = {
    "no picture": (b"hello", "image_unreadable"),
    "empty": (b"", "image_unreadable"),
    "cut off": (PNG[:-20], "image_unreadable"),
    "damaged": (PNG[:50] + b"\0\0\0\0" + PNG[54:], "image_unreadable"),
    "100 megapixels": (png(10_000, 10_000), "image_too_large"),
    "more pixels than can be counted": (png(2**31 - 1, 2**31 - 1), "image_too_large"),
    "no pixels": (png(0, 4), "image_unreadable"),
    "fewer pixels than it claims": (png(4, 4, pixels=zlib.compress(b"\0" * 9)), "image_unreadable"),
    "two sizes": (png(4, 4, png(9, 9)[8:33]), "image_unreadable"),
    "a text that inflates": (png(4, 4, chunk(b"zTXt", b"a\0\0" + BOMB)), "image_unreadable"),
    "a profile that inflates": (png(4, 4, chunk(b"iCCP", b"a\0\0" + BOMB)), "image_unreadable"),
    "an SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "image_unreadable"),
    "a PDF": (b"%PDF-1.7", "image_unreadable"),
    "a GIF": (b"GIF89a\x01\0\x01\0\0\0\0;", "image_unreadable"),
}


@pytest.mark.parametrize("name", BAD_PICTURES)
async def test_a_bad_picture_is_an_error_of_its_own(
    stack: Running, requests: Any, grey: Grey, name: str
) -> None:
    picture, code = BAD_PICTURES[name]
    good = encode_png(grey(9))
    async with stack() as service:
        for request in (
            requests.form(good, picture, good),
            requests.base64(good, picture, good, prompts="p"),
        ):
            answer = await service.http.post("/score", **request)
            assert codes(answer) == [None, code, None]
            assert scored(answer) == [9, None, 9]
        assert codes(await service.http.post("/score", **requests.form(picture))) == [code]
        assert (await service.queue.stats()).reserved_items == 0


async def test_broken_base64_is_an_error_of_its_own(stack: Running, requests: Any) -> None:
    images = [GOOD, "no base64!", GOOD[:-3], "data:image/png," + GOOD, 7, None]
    async with stack() as service:
        answer = await service.http.post("/score", **requests.json(images, prompts="p"))
    assert codes(answer) == [None, *["image_unreadable"] * 5]


async def test_every_picture_has_a_limit(stack: Running, requests: Any, grey: Grey) -> None:
    images = [grey(1, 8), grey(2, 9)]
    async with stack(max_pixels=64) as service:
        for request in (
            requests.safetensors(images, ["", ""]),
            requests.form(*[encode_png(image) for image in images]),
        ):
            answer = await service.http.post("/score", **request)
            assert codes(answer) == [None, "image_too_large"]


async def test_pixels_that_inflate_beyond_their_picture_stay_packed(
    stack: Running, requests: Any
) -> None:
    """What the size calls for is read, and the rest of the stream is never unpacked."""
    tracemalloc.start()
    try:
        async with stack() as service:
            answer = await service.http.post("/score", **requests.form(png(4, 4, pixels=BOMB)))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert scored(answer) == [0]
    assert most < 20_000_000


async def test_small_files_cannot_hold_more_than_a_body_may(
    stack: Running, requests: Any, grey: Grey
) -> None:
    """Each picture is allowed, and all of them together would be far more than was sent."""
    png = encode_png(grey(5, 64))
    async with stack(max_body_bytes=3 * 64 * 64 * 2, max_batch_items=4) as service:
        answer = await service.http.post("/score", **requests.form(*[png] * 4))
        assert codes(answer) == [None, None, "image_too_large", "image_too_large"]
