"""Every way to send a request or a picture wrong, and what is said about it."""

import base64
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import numpy as np
import pytest

from shared.images import encode_png
from shared.schema import DEADLINE, IDEMPOTENCY_KEY, LANE, REQUEST_ID, SAFETENSORS, ScoreResponse

Grey = Callable[..., np.ndarray]
Running = Callable[..., AbstractAsyncContextManager[Any]]


def scored(answer: httpx.Response) -> list[float | None]:
    assert answer.status_code == 200, answer.text
    return [result.score for result in ScoreResponse.model_validate_json(answer.content).results]


PNG = encode_png(np.zeros((4, 4, 3), np.uint8))
GOOD = base64.b64encode(PNG).decode()
PIXELS = {"dtype": "U8", "shape": [1, 2, 2, 3], "data_offsets": [0, 12]}
INVALID = ("invalid_request",)
BROKEN = ("malformed_request", "JSON")
FORM = b'--b\r\nContent-Disposition: form-data; name="images"\r\n\r\n' + PNG + b"\r\n"
METADATA = b'--b\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n{}\r\n'


def words(prompts: str, metadata: str) -> dict[str, Any]:
    """One good picture, and texts as they stand there."""
    body = f'{{"images": ["{GOOD}"], "prompts": {prompts}, "metadata": {metadata}}}'
    return {"content": body.encode(), "headers": {"content-type": "application/json"}}


def nested(depth: int) -> list[Any]:
    """`[[…[]…]]`, of this many levels."""
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


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
    "nothing at all": (
        lambda to: to.raw(b"", "application/json"),
        400,
        "malformed_request",
        "JSON",
    ),
    "json that is no object": (
        lambda to: to.raw(b"[]", "application/json"),
        422,
        *INVALID,
        "object",
    ),
    "json in utf-16": (
        lambda to: to.raw('{"images": []}'.encode("utf-16"), "application/json"),
        400,
        "malformed_request",
        "JSON",
    ),
    "json and more": (
        lambda to: to.raw(b'{"images": []} x', "application/json"),
        400,
        "malformed_request",
        "trailing",
    ),
    "deep json": (lambda to: to.raw(b'{"images":' + b"[" * 9000, "application/json"), 400, *BROKEN),
    "deep metadata": (
        lambda _: words('"p"', '{"x":' + "[" * 64 + "]" * 64 + "}"),
        422,
        *INVALID,
        "64 levels deep",
    ),
    "very deep metadata": (
        lambda _: words('"p"', '{"x":' + "[" * 8000 + "]" * 8000 + "}"),
        400,
        *BROKEN,
    ),
    "deep metadata in a form": (
        lambda to: to.form(PNG, metadata='{"x":' + "[" * 64 + "]" * 64 + "}"),
        422,
        *INVALID,
        "64 levels deep",
    ),
    "deep metadata in safetensors": (
        lambda to: to.safetensors(np.zeros((1, 2, 2, 3), np.uint8), ["p"], [{"x": nested(64)}]),
        422,
        *INVALID,
        "64 levels deep",
    ),
    "NaN in json": (lambda _: words('"p"', '{"x": NaN}'), 400, *BROKEN),
    "infinity in json": (lambda _: words('"p"', '{"x": 1e999}'), 422, *INVALID, "out of range"),
    "NaN in a form": (
        lambda to: to.form(PNG, metadata='{"x": NaN}'),
        422,
        *INVALID,
        "metadata",
    ),
    "NaN in safetensors": (
        lambda to: to.tensors(
            {"images": PIXELS}, {"prompts": '["p"]', "metadata": '[{"x": NaN}]'}, b"\0" * 12
        ),
        400,
        "malformed_request",
        "NaN",
    ),
    "NaN as pixels": (
        lambda to: to.tensors(
            {"images": {"dtype": "F64", "shape": [1, 1, 1, 3], "data_offsets": [0, 24]}},
            {"prompts": '["p"]'},
            np.full(3, np.nan).tobytes(),
        ),
        422,
        *INVALID,
        "F64",
    ),
    "half a character": (lambda _: words('"\\ud800"', "{}"), 400, *BROKEN),
    "half a character in safetensors": (
        lambda to: to.tensors({"images": PIXELS}, {"prompts": '["\\ud800"]'}, b"\0" * 12),
        400,
        "malformed_request",
        "surrogates",
    ),
    "metadata twice": (
        lambda to: to.raw(FORM + 2 * METADATA + b"--b--", "multipart/form-data; boundary=b"),
        422,
        *INVALID,
        "once",
    ),
    "form field without a name": (
        lambda to: to.raw(b"--b\r\n\r\nx\r\n--b--", "multipart/form-data; boundary=b"),
        422,
        *INVALID,
        "''",
    ),
    "form with a boundary of 5000 letters": (
        lambda to: to.raw(b"x", f"multipart/form-data; boundary={'b' * 5000}"),
        400,
        "malformed_request",
        "Boundary length",
    ),
    "a header of more bytes than the body": (
        lambda to: to.raw((2**63).to_bytes(8, "little") + b"{}", SAFETENSORS),
        400,
        "malformed_request",
        "9223372036854775808",
    ),
    "tensors that overlap": (
        lambda to: to.tensors(
            {
                "images.0": {"dtype": "U8", "shape": [2, 2, 3], "data_offsets": [0, 12]},
                "images.1": {"dtype": "U8", "shape": [2, 2, 3], "data_offsets": [6, 18]},
            },
            {"prompts": '["p", "p"]'},
            b"\0" * 18,
        ),
        400,
        "malformed_request",
        "overlap",
    ),
    "a shape beyond all bounds": (
        lambda to: to.tensors(
            {"images": {"dtype": "U8", "shape": [2**40, 2**40, 2**40, 3], "data_offsets": [0, 12]}},
            {"prompts": '["p"]'},
            b"\0" * 12,
        ),
        400,
        "malformed_request",
        "offsets span 12",
    ),
    "a negative offset": (
        lambda to: to.tensors(
            {"images": {"dtype": "U8", "shape": [1, 2, 2, 3], "data_offsets": [-12, 0]}},
            {"prompts": '["p"]'},
            b"\0" * 12,
        ),
        400,
        "malformed_request",
        "integers",
    ),
    "no prompts in safetensors": (
        lambda to: to.tensors({"images": PIXELS}, {}, b"\0" * 12),
        422,
        *INVALID,
        "prompts is missing",
    ),
    "a boundary that breaks off": (
        lambda to: to.raw(b"x", 'multipart/form-data; boundary="'),
        400,
        "malformed_request",
        "",
    ),
    "deadline that is no number": (
        lambda to: to.json([GOOD], prompts="p") | {"headers": {DEADLINE: "nan"}},
        422,
        *INVALID,
        DEADLINE,
    ),
    "deadline in other digits": (
        lambda to: to.json([GOOD], prompts="p") | {"headers": {DEADLINE: "٣".encode()}},
        422,
        *INVALID,
        DEADLINE,
    ),
    "lane that is none": (
        lambda to: to.json([GOOD], prompts="p") | {"headers": {LANE: "fast"}},
        422,
        *INVALID,
        LANE,
    ),
    "idempotency key of 300 letters": (
        lambda to: to.json([GOOD], prompts="p") | {"headers": {IDEMPOTENCY_KEY: "k" * 300}},
        422,
        *INVALID,
        IDEMPOTENCY_KEY,
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
@pytest.mark.parametrize("route", ["/score", "/jobs"])
async def test_a_bad_request_is_told_what_to_change(
    stack: Running, requests: Any, name: str, route: str
) -> None:
    build, status, code, hint = BAD_REQUESTS[name]
    async with stack(max_items=8, max_body_bytes=20_000) as service:
        answer = await service.http.post(route, **build(requests))
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


async def test_metadata_may_be_deep_within_reason(stack: Running) -> None:
    async with stack() as service:
        answer = await service.http.post("/score", **words('"p"', f'{{"x": {"[" * 62}{"]" * 62}}}'))
    (result,) = answer.json()["results"]
    assert result["details"]["x"] == nested(62)
