"""`POST /score` in process: the three media types, and every way to send it wrong."""

import asyncio
import base64
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import numpy as np
import pytest

from reward_services import ScoreItem, Scorer
from shared.client import RewardClient
from shared.images import encode_png
from shared.schema import DEADLINE, REQUEST_ID, ScoreResponse

RAISES, REFUSED, NOT_A_NUMBER = 250, 251, 252

Grey = Callable[..., np.ndarray]
Running = Callable[..., AbstractAsyncContextManager[Any]]


def scored(answer: httpx.Response) -> list[float | None]:
    assert answer.status_code == 200, answer.text
    return [result.score for result in ScoreResponse.model_validate_json(answer.content).results]


def codes(answer: httpx.Response) -> list[str | None]:
    """Item error codes, None where there is a score."""
    assert answer.status_code == 200, answer.text
    response = ScoreResponse.model_validate_json(answer.content)
    return [result.error.code if result.error else None for result in response.results]


async def test_all_media_types_give_the_same_answer(
    stack: Running, requests: Any, grey: Grey
) -> None:
    images = [grey(level) for level in (1, 2, 3, 4, 5)]
    pngs = [encode_png(image) for image in images]
    prompts = ["a", "b", "ä", "d", "e"]
    metadata = [{"n": number} for number in range(5)]
    uris = ["data:image/png;base64," + base64.b64encode(png).decode() for png in pngs]
    bodies = [
        requests.form(*pngs, prompts=prompts, metadata=json.dumps(metadata)),
        requests.base64(*pngs, prompts=prompts, metadata=metadata),
        requests.json(uris, prompts=prompts, metadata=metadata),
        requests.safetensors(np.stack(images), prompts, metadata),
        requests.safetensors(images, prompts, metadata),
    ]
    async with stack() as service:
        for request in bodies:
            answer = await service.http.post("/score", **request)
            assert scored(answer) == [1, 2, 3, 4, 5]
            details = [result["details"] for result in answer.json()["results"]]
            expected = [{"prompt": p, **m} for p, m in zip(prompts, metadata, strict=True)]
            assert details == expected


async def test_the_answer_names_the_reward_and_where_the_time_went(
    stack: Running, requests: Any, grey: Grey
) -> None:
    async with stack() as service:
        answer = await service.http.post("/score", **requests.form(encode_png(grey(7))))
    body = answer.json()
    assert (body["reward"], body["version"], body["units"]) == ("mean_level", "1", "levels")
    assert body["direction"] == "maximize"
    assert set(body["durations"]) == {"queue_s", "batch_wait_s", "inference_s"}
    assert body["request_id"] == answer.headers[REQUEST_ID]
    stages = [entry.split(";")[0] for entry in answer.headers["server-timing"].split(", ")]
    assert stages == ["receive", "decode", "submit", "queue", "batch", "inference", "total"]


async def test_sizes_may_differ_within_a_request(stack: Running, requests: Any, grey: Grey) -> None:
    images = [grey(1, 4), grey(2, 9), grey(3, 16)]
    async with stack() as service:
        assert scored(
            await service.http.post("/score", **requests.safetensors(images, ["", "", ""]))
        ) == [
            1,
            2,
            3,
        ]


async def test_one_prompt_and_one_metadata_object_stand_for_all(
    stack: Running, requests: Any, grey: Grey
) -> None:
    pngs = [encode_png(grey(level)) for level in (1, 2)]
    bodies = [
        requests.form(*pngs, prompts=["all"], metadata='{"k": 1}'),
        requests.base64(*pngs, prompts="all", metadata={"k": 1}),
    ]
    async with stack() as service:
        for request in bodies:
            results = (await service.http.post("/score", **request)).json()["results"]
            assert [result["details"] for result in results] == [{"prompt": "all", "k": 1}] * 2


async def test_a_reward_that_needs_no_prompt_gets_none(
    stack: Running, requests: Any, grey: Grey, mean_level: Any
) -> None:
    mean_level.needs_prompt = False
    png = encode_png(grey(3))
    async with stack(mean_level) as service:
        for request in (requests.form(png, prompts=[]), requests.base64(png)):
            assert scored(await service.http.post("/score", **request)) == [3]


async def test_a_request_larger_than_a_batch_is_split(
    stack: Running, requests: Any, grey: Grey, mean_level: Any
) -> None:
    images = [grey(level) for level in range(11)]
    async with stack(mean_level) as service:
        answer = await service.http.post("/score", **requests.safetensors(images, ["p"] * 11))
    assert scored(answer) == list(range(11))
    assert max(len(batch) for batch in mean_level.batches) <= mean_level.max_batch_size


PNG = encode_png(np.zeros((4, 4, 3), np.uint8))


async def test_scorer_errors_stay_with_their_pictures(
    stack: Running, requests: Any, grey: Grey
) -> None:
    images = [grey(level) for level in (1, RAISES, REFUSED, NOT_A_NUMBER, 5)]
    async with stack() as service:
        answer = await service.http.post("/score", **requests.safetensors(images, ["p"] * 5))
    assert scored(answer) == [1, None, None, None, 5]
    assert codes(answer)[1:4] == ["scorer_failed", "not_scorable", "non_finite_score"]
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text


async def test_a_full_queue_answers_429_before_decoding(
    stack: Running, requests: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stack(queue_items=4) as service:
        await service.queue.reserve(3)
        monkeypatch.setattr(
            "reward_services.pictures.decode_image", lambda *_, **__: pytest.fail("decoded")
        )
        answer = await service.http.post("/score", **requests.form(PNG, PNG))
        assert answer.status_code == 429
        assert answer.json()["code"] == "queue_full"
        assert answer.json()["retryable"] is True
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert (await service.queue.stats()).reserved_items == 3


async def test_too_many_bytes_in_flight_answer_429(
    stack: Running, requests: Any, grey: Grey
) -> None:
    async with stack(max_inflight_bytes=400, work=False) as service:
        request = requests.safetensors([grey(1, 8)], ["p"])
        first = asyncio.create_task(service.http.post("/score", **request))
        await _admitted(service, 1)
        answer = await service.http.post("/score", **request)
        assert (answer.status_code, answer.json()["code"]) == (429, "queue_full")
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


async def _admitted(service: Any, items: int) -> None:
    async with asyncio.timeout(30):
        while (await service.queue.stats()).reserved_items != items:
            await asyncio.sleep(0.005)


async def test_a_deadline_is_answered_504_and_the_job_withdrawn(
    stack: Running, requests: Any, grey: Grey
) -> None:
    async with stack(work=False) as service:
        request = requests.safetensors([grey(1)], ["p"])
        request["headers"][DEADLINE] = "0.05"
        answer = await service.http.post("/score", **request)
        assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
        assert answer.json()["retryable"] is True
        assert (await service.queue.stats()).reserved_items == 0
        assert "reward_expired_total" in service.metrics.text().decode()


async def test_a_client_cannot_wait_longer_than_allowed(
    stack: Running, requests: Any, grey: Grey
) -> None:
    async with stack(work=False, deadline_s=0.05) as service:
        request = requests.safetensors([grey(1)], ["p"])
        request["headers"][DEADLINE] = "1e9"
        assert (await service.http.post("/score", **request)).status_code == 504


async def test_a_slow_upload_is_answered_408(stack: Running, requests: Any) -> None:
    async def slowly() -> Any:
        yield b"{"
        await asyncio.sleep(30)

    async with stack(deadline_s=0.05) as service:
        answer = await service.http.post("/score", **requests.raw(slowly(), "application/json"))
        assert (answer.status_code, answer.json()["code"]) == (408, "upload_timeout")


async def test_a_body_without_length_is_measured_on_the_way(stack: Running, requests: Any) -> None:
    async def endless() -> Any:
        while True:
            yield b"x" * 1000

    async with stack(max_body_bytes=5000) as service:
        answer = await service.http.post("/score", **requests.raw(endless(), "application/json"))
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


async def test_the_client_that_trainers_use(stack: Running, grey: Grey) -> None:
    images = np.stack([grey(level) for level in range(7)])
    async with (
        stack() as service,
        RewardClient("http://service", transport=service.transport) as client,
    ):
        response = await client.score(images, ["p"] * 7)
    assert [result.score for result in response.results] == list(range(7))
    assert response.identity == service.info.identity


async def test_scoring_is_off_before_and_after(stack: Running, requests: Any) -> None:
    from reward_services.readiness import Phase

    async with stack() as service:
        for phase, status, code in (
            (Phase.LOADING, 503, "not_ready"),
            (Phase.READY, 200, None),
            (Phase.DRAINING, 200, None),
            (Phase.CLOSED, 503, "draining"),
        ):
            service.readiness.phase = phase
            answer = await service.http.post("/score", **requests.form(PNG))
            assert answer.status_code == status
            assert answer.json().get("code") == code
            assert ("retry-after" in answer.headers) == (status == 503)


async def test_what_was_counted(stack: Running, requests: Any, grey: Grey) -> None:
    async with stack() as service:
        await service.http.post("/score", **requests.form(encode_png(grey(1)), b"nothing"))
        await service.http.post("/score", **requests.raw(b"{", "application/json"))
        text = service.metrics.text().decode()
    label = 'service="mean_level"'
    for line in (
        f'reward_items_total{{outcome="scored",{label}}} 1.0',
        f'reward_items_total{{outcome="error",{label}}} 1.0',
        f'reward_rejected_total{{reason="malformed_request",{label}}} 1.0',
        f'reward_requests_total{{code="200",codec="multipart",route="/score",{label}}} 1.0',
        f'reward_requests_total{{code="400",codec="json",route="/score",{label}}} 1.0',
        f"reward_inflight_bytes{{{label}}} 0.0",
        f'reward_decode_seconds_count{{codec="multipart",{label}}} 1.0',
    ):
        assert line in text.splitlines(), line


class Unhurried:
    """A scorer that takes its time, for a client that does not wait."""

    name = "unhurried"
    version = "1"
    max_batch_size = 1

    def score(self, items: Sequence[ScoreItem]) -> list[float]:
        return [1.0] * len(items)


async def test_the_batch_size_of_a_scorer_is_kept(
    stack: Running, requests: Any, grey: Grey
) -> None:
    scorer: Scorer = Unhurried()
    async with stack(scorer) as service:
        request = requests.safetensors([grey(1), grey(2), grey(3)], ["p"] * 3)
        assert scored(await service.http.post("/score", **request)) == [1, 1, 1]
        text = service.metrics.text().decode()
    assert 'reward_batch_items_count{service="unhurried"} 3.0' in text
