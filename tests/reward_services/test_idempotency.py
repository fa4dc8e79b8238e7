"""Keys that make a repeated request harmless."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_services.idempotency import LONGEST_KEY, checked_key, checksum
from shared.errors import IdempotencyConflict, InvalidRequest
from shared.images import encode_png
from shared.schema import IDEMPOTENCY_KEY, ScoreResponse

Grey = Callable[..., np.ndarray]
Running = Callable[..., AbstractAsyncContextManager[Any]]


def scored(answer: httpx.Response) -> list[float | None]:
    assert answer.status_code == 200, answer.text
    return [result.score for result in ScoreResponse.model_validate_json(answer.content).results]


async def test_a_repeated_request_gets_the_stored_result(
    stack: Running, requests: Any, grey: Grey, mean_level: Any
) -> None:
    images = [grey(level) for level in range(6)]
    async with stack(mean_level) as service:
        request = requests.safetensors(images, [f"p{n}" for n in range(6)])
        request["headers"][IDEMPOTENCY_KEY] = "once"
        first = await service.http.post("/score", **request)
        again = await service.http.post("/score", **request)
    assert scored(first) == scored(again) == list(range(6))
    assert sum(len(batch) for batch in mean_level.batches) == 6


async def test_requests_with_one_key_at_the_same_time_are_scored_once(
    stack: Running, requests: Any, grey: Grey, mean_level: Any
) -> None:
    async with stack(mean_level) as service:
        request = requests.safetensors([grey(3)], ["p"])
        request["headers"][IDEMPOTENCY_KEY] = "once"
        answers = await asyncio.gather(*(service.http.post("/score", **request) for _ in range(8)))
    assert [scored(answer) for answer in answers] == [[3]] * 8
    assert mean_level.batches == [["p"]]


async def test_a_form_sent_again_has_another_boundary_and_is_the_same(
    stack: Running, requests: Any, grey: Grey, mean_level: Any
) -> None:
    async with stack(mean_level) as service:
        for _ in range(2):
            request = requests.form(encode_png(grey(3))) | {"headers": {IDEMPOTENCY_KEY: "once"}}
            assert scored(await service.http.post("/score", **request)) == [3]
    assert mean_level.batches == [["p"]]


async def test_a_key_with_another_body_is_a_conflict(
    stack: Running, requests: Any, grey: Grey
) -> None:
    async with stack() as service:
        for level, status in ((3, 200), (4, 409)):
            request = requests.safetensors([grey(level)], ["p"])
            request["headers"][IDEMPOTENCY_KEY] = "once"
            answer = await service.http.post("/score", **request)
            assert answer.status_code == status
        assert answer.json()["code"] == IdempotencyConflict.code


def test_callers_cannot_meet_each_others_keys() -> None:
    assert checked_key("k", "one") == checked_key("k", "one")
    assert checked_key("k", "one") != checked_key("k", "other")
    assert checked_key(None, "one") is None


@pytest.mark.parametrize("text", ["", "x" * (LONGEST_KEY + 1), "a\nb", "ä"])
def test_keys_that_cannot_be_logged_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="Idempotency-Key"):
        checked_key(text, "")


@given(st.binary(max_size=40), st.integers(0, 3), st.data())
def test_any_changed_byte_shows(tail: bytes, rows: int, data: st.DataObject) -> None:
    body = bytearray(np.arange(rows * 8192, dtype=np.uint8).tobytes() + tail)
    before = checksum(memoryview(body))
    assert checksum(memoryview(bytes(body))) == before
    if body:
        position = data.draw(st.integers(0, len(body) - 1))
        body[position] ^= data.draw(st.integers(1, 255))
        assert checksum(memoryview(body)) != before


def test_pictures_that_change_places_show() -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, 256, 65_536, np.uint8).tobytes() for _ in range(2))
    assert checksum(memoryview(first + second)) != checksum(memoryview(second + first))
    assert checksum(memoryview(b"\0" * 8192)) != checksum(memoryview(b"\0" * 16384))
