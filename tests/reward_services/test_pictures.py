"""Pictures that cannot be scored: each its own item error, never the end of its request."""

import base64
import struct
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


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds hardly anything."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


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
    "100 megapixels": (png_header(10_000, 10_000), "image_too_large"),
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


async def test_small_files_cannot_hold_more_than_a_body_may(
    stack: Running, requests: Any, grey: Grey
) -> None:
    """Each picture is allowed, and all of them together would be far more than was sent."""
    png = encode_png(grey(5, 64))
    async with stack(max_body_bytes=3 * 64 * 64 * 2, max_batch_items=4) as service:
        answer = await service.http.post("/score", **requests.form(*[png] * 4))
        assert codes(answer) == [None, None, "image_too_large", "image_too_large"]
