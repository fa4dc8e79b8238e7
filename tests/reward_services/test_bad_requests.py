"""Every way to send a request or a picture wrong, and what is said about it."""

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
from shared.schema import DEADLINE, IDEMPOTENCY_KEY, REQUEST_ID, SAFETENSORS, ScoreResponse

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
PIXELS = {"dtype": "U8", "shape": [1, 2, 2, 3], "data_offsets": [0, 12]}
BAD_REQUESTS: dict[str, tuple[Callable[[Any], dict[str, Any]], int, str, str]] = {
    "no content type": (lambda _: {"content": b"x"}, 415, "unsupported_media_type", "(none)"),
    "pickle": (
        lambda to: to.raw(b"x", "application/pickle"),
        415,
        "unsupported_media_type",
        "pickle",
    ),
    "a bare image": (
        lambda to: to.raw(PNG, "image/png"),
        415,
        "unsupported_media_type",
        "image/png",
    ),
    "compressed": (
        lambda _: {
            "content": b"{}",
            "headers": {"content-type": "application/json", "content-encoding": "gzip"},
        },
        415,
        "unsupported_media_type",
        "gzip",
    ),
    "broken json": (
        lambda to: to.raw(b'{"images": [', "application/json"),
        400,
        "malformed_request",
        "JSON",
    ),
    "json without images": (lambda _: {"json": {"prompts": []}}, 422, "invalid_request", "images"),
    "unknown json field": (lambda to: to.json([GOOD], x=1), 422, "invalid_request", "x"),
    "json images are no list": (
        lambda to: to.json(GOOD, prompts="p"),
        422,
        "invalid_request",
        "array",
    ),
    "json prompts of a wrong type": (
        lambda to: to.json([GOOD], prompts=[1]),
        422,
        "invalid_request",
        "str",
    ),
    "json metadata of a wrong type": (
        lambda to: to.json([GOOD], prompts="p", metadata=[1]),
        422,
        "invalid_request",
        "object",
    ),
    "empty json batch": (
        lambda to: to.json([], prompts=[]),
        422,
        "invalid_request",
        "at least one",
    ),
    "json prompts ≠ images": (
        lambda to: to.json([GOOD], prompts=["a", "b"]),
        422,
        "invalid_request",
        "1 pictures but 2 prompts",
    ),
    "json metadata ≠ images": (
        lambda to: to.json([GOOD], prompts="p", metadata=[{}, {}]),
        422,
        "invalid_request",
        "1 pictures but 2 metadata",
    ),
    "no prompts": (lambda to: to.json([GOOD]), 422, "invalid_request", "needs `prompts`"),
    "form without pictures": (lambda to: to.form(), 422, "invalid_request", "at least one"),
    "form prompts ≠ images": (
        lambda to: to.form(PNG, PNG, prompts=["a", "b", "c"]),
        422,
        "invalid_request",
        "2 pictures but 3 prompts",
    ),
    "unknown form field": (lambda to: to.form(PNG, imgae="x"), 422, "invalid_request", "imgae"),
    "form metadata is no JSON": (
        lambda to: to.form(PNG, metadata="{"),
        422,
        "invalid_request",
        "metadata",
    ),
    "form without boundary": (
        lambda to: to.raw(b"x", "multipart/form-data"),
        400,
        "malformed_request",
        "boundary",
    ),
    "form that is none": (
        lambda to: to.raw(b"hello", "multipart/form-data; boundary=b"),
        400,
        "malformed_request",
        "form",
    ),
    "form that breaks off": (
        lambda to: to.raw(
            b'--b\r\nContent-Disposition: form-data; name="images"\r\n\r\nPNG',
            "multipart/form-data; boundary=b",
        ),
        400,
        "malformed_request",
        "breaks off",
    ),
    "no safetensors": (lambda to: to.raw(b"x", SAFETENSORS), 400, "malformed_request", "too few"),
    "wrong dtype": (
        lambda to: to.tensors(
            {"images": {"dtype": "F32", "shape": [1, 1, 1, 3], "data_offsets": [0, 12]}},
            {"prompts": '["p"]'},
            b"\0" * 12,
        ),
        422,
        "invalid_request",
        "F32",
    ),
    "channels first": (
        lambda to: to.tensors(
            {"images": {"dtype": "U8", "shape": [1, 3, 2, 2], "data_offsets": [0, 12]}},
            {"prompts": '["p"]'},
            b"\0" * 12,
        ),
        422,
        "invalid_request",
        "channels last",
    ),
    "three dimensions": (
        lambda to: to.tensors(
            {"images": {"dtype": "U8", "shape": [2, 2, 3], "data_offsets": [0, 12]}},
            {"prompts": '["p"]'},
            b"\0" * 12,
        ),
        422,
        "invalid_request",
        "[N,H,W,3]",
    ),
    "truncated pixels": (
        lambda to: to.tensors({"images": PIXELS}, {"prompts": '["p"]'}, b"\0" * 11),
        400,
        "malformed_request",
        "11",
    ),
    "empty safetensors batch": (
        lambda to: to.tensors({}, {"prompts": "[]"}, b""),
        422,
        "invalid_request",
        "empty",
    ),
    "safetensors prompts ≠ images": (
        lambda to: to.tensors({"images": PIXELS}, {"prompts": '["a", "b"]'}, b"\0" * 12),
        422,
        "invalid_request",
        "1 pictures but 2 prompts",
    ),
    "too many in json": (lambda to: to.json([GOOD] * 9, prompts="p"), 413, "too_many_items", "9"),
    "too many in a form": (lambda to: to.form(*[PNG] * 9), 413, "too_many_items", "9"),
    "too many fields in a form": (
        lambda to: to.form(PNG, prompts=["p"] * 30),
        413,
        "too_many_items",
        "fields",
    ),
    "too many in safetensors": (
        lambda to: to.safetensors(np.zeros((9, 1, 1, 3), np.uint8), ["p"] * 9),
        413,
        "too_many_items",
        "9",
    ),
    "too many bytes": (
        lambda to: to.raw(b"x" * 20_001, SAFETENSORS),
        413,
        "body_too_large",
        "20001",
    ),
    "deadline that is none": (
        lambda to: to.json([GOOD], prompts="p") | {"headers": {DEADLINE: "soon"}},
        422,
        "invalid_request",
        DEADLINE,
    ),
    "deadline in the past": (
        lambda to: to.json([GOOD], prompts="p") | {"headers": {DEADLINE: "-1"}},
        422,
        "invalid_request",
        DEADLINE,
    ),
    "empty idempotency key": (
        lambda to: to.json([GOOD], prompts="p") | {"headers": {IDEMPOTENCY_KEY: ""}},
        422,
        "invalid_request",
        IDEMPOTENCY_KEY,
    ),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
async def test_a_bad_request_is_told_what_to_change(
    stack: Running, requests: Any, name: str
) -> None:
    build, status, code, hint = BAD_REQUESTS[name]
    async with stack(max_items=8, max_body_bytes=20_000) as service:
        answer = await service.http.post("/score", **build(requests))
        assert answer.status_code == status, answer.text
        body = answer.json()
        assert body["code"] == code
        assert hint in body["message"]
        assert "\n" not in body["message"]
        assert body["retryable"] is False
        assert body["request_id"] == answer.headers[REQUEST_ID]
        assert (await service.queue.stats()).reserved_items == 0
        # The service goes on, and nothing of the request is left behind.
        assert scored(await service.http.post("/score", **requests.form(PNG))) == [0]


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


async def test_raw_pixels_have_a_limit_too(stack: Running, requests: Any, grey: Grey) -> None:
    async with stack(max_pixels=64) as service:
        request = requests.safetensors([grey(1, 8), grey(2, 9)], ["", ""])
        assert codes(await service.http.post("/score", **request)) == [None, "image_too_large"]


async def test_small_files_cannot_hold_more_than_a_body_may(
    stack: Running, requests: Any, grey: Grey
) -> None:
    """Each picture is allowed, and all of them together would be far more than was sent."""
    png = encode_png(grey(5, 64))
    async with stack(max_body_bytes=3 * 64 * 64 * 2, max_batch_items=4) as service:
        answer = await service.http.post("/score", **requests.form(*[png] * 4))
        assert codes(answer) == [None, None, "image_too_large", "image_too_large"]
