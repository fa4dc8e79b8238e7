"""`/jobs`: handed in now, asked for later."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import numpy as np
import pytest

from shared.images import encode_png
from shared.schema import DEADLINE, IDEMPOTENCY_KEY, JobStatus

RAISES = 250
Grey = Callable[..., np.ndarray]
Running = Callable[..., AbstractAsyncContextManager[Any]]


async def hand_in(service: Any, request: dict[str, Any], **headers: str) -> str:
    """Where the job is."""
    named = {**request.pop("headers", {}), **headers}
    answer = await service.http.post("/jobs", **request, headers=named)
    assert answer.status_code == 202, answer.text
    status = JobStatus.model_validate_json(answer.content)
    where: str = answer.headers["location"]
    assert where == f"/jobs/{status.id}"
    assert status.status == "waiting"
    return where


async def ended(service: Any, where: str) -> JobStatus:
    async with asyncio.timeout(30):
        while True:
            answer = await service.http.get(where)
            assert answer.status_code == 200, answer.text
            status = JobStatus.model_validate_json(answer.content)
            if status.status in ("finished", "failed"):
                return status
            await asyncio.sleep(0.005)


async def test_scores_are_fetched_later_and_more_than_once(
    stack: Running, requests: Any, grey: Grey
) -> None:
    pngs = [encode_png(grey(level)) for level in (1, RAISES, 3, 4, 5)]
    async with stack() as service:
        where = await hand_in(service, requests.form(*pngs, b"no picture"))
        first = await ended(service, where)
        assert await ended(service, where) == first
        # Counted by who follows the job, who may hear of its end after the caller.
        counted = 'reward_items_total{outcome="scored",service="mean_level"} 4.0'
        while counted not in (text := service.metrics.text().decode()):
            await asyncio.sleep(0.01)
    assert first.response is not None
    results = first.response.results
    assert [result.score for result in results] == [1, None, 3, 4, 5, None]
    codes = [result.error.code for result in results if result.error]
    assert codes == ["scorer_failed", "image_unreadable"]
    assert first.response.identity == service.info.identity
    assert 'route="/jobs/{id}"' in text


async def test_a_job_without_a_single_picture_to_score(stack: Running, requests: Any) -> None:
    async with stack() as service:
        status = await ended(service, await hand_in(service, requests.form(b"nothing")))
    assert status.response is not None
    assert status.response.results[0].error is not None


async def test_a_job_that_waits(stack: Running, requests: Any, grey: Grey) -> None:
    async with stack(work=False) as service:
        where = await hand_in(service, requests.form(encode_png(grey(1))))
        assert (await service.http.get(where)).json()["status"] == "waiting"
        (lease,) = await service.queue.lease("worker", 1, wait_s=1)
        await service.queue.load(lease)
        assert (await service.http.get(where)).json()["status"] == "running"


async def test_a_job_that_is_withdrawn_is_not_scored(
    stack: Running, requests: Any, grey: Grey
) -> None:
    async with stack(work=False) as service:
        where = await hand_in(service, requests.form(*[encode_png(grey(1))] * 9))
        assert (await service.queue.stats()).reserved_items == 9
        assert (await service.http.delete(where)).status_code == 204
        assert (await service.queue.stats()).reserved_items == 0
        for method in ("GET", "DELETE"):
            answer = await service.http.request(method, where)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("name", ["0" * 32, "x", "0" * 31 + "%2F", "a" * 500])
async def test_jobs_that_never_were(stack: Running, name: str) -> None:
    async with stack() as service:
        answer = await service.http.get(f"/jobs/{name}")
    assert answer.status_code == 404
    assert len(answer.text) < 300


async def test_a_job_that_no_worker_took_in_time_has_failed(
    stack: Running, requests: Any, grey: Grey
) -> None:
    async with stack(work=False) as service:
        request = requests.form(encode_png(grey(1)))
        where = await hand_in(service, request, **{DEADLINE: "0.2"})
        await asyncio.sleep(0.3)
        assert await service.queue.lease("worker", 1, wait_s=0) == []
        status = await ended(service, where)
    assert status.status == "failed"
    assert status.error is not None
    assert (status.error.code, status.error.retryable) == ("deadline_exceeded", True)


async def test_a_repeated_request_gets_the_same_job(
    stack: Running, requests: Any, grey: Grey, mean_level: Any
) -> None:
    def request(level: int) -> dict[str, Any]:
        return dict(requests.form(encode_png(grey(level)), prompts=[str(level)]))

    key = {IDEMPOTENCY_KEY: "once"}
    async with stack() as service:
        where = await hand_in(service, request(1), **key)
        await ended(service, where)
        assert await hand_in(service, request(1), **key) == where
        other = await service.http.post("/jobs", **request(2), headers=key)
        assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
        synchronous: httpx.Response = await service.http.post("/score", **request(2), headers=key)
        assert synchronous.status_code == 200, "a key of /score is not a key of /jobs"
    assert mean_level.batches == [["1"], ["2"]]


async def test_a_failed_job_is_tried_again_under_its_key(
    stack: Running, requests: Any, grey: Grey
) -> None:
    key = {IDEMPOTENCY_KEY: "again"}
    async with stack(work=False) as service:
        request = requests.form(encode_png(grey(4)))
        where = await hand_in(service, dict(request), **key, **{DEADLINE: "0.1"})
        await asyncio.sleep(0.2)
        await service.queue.lease("worker", 1, wait_s=0)
        assert (await ended(service, where)).status == "failed"
        working = asyncio.create_task(service.worker.run())
        assert await hand_in(service, dict(request), **key) == where
        assert (await ended(service, where)).status == "finished"
        service.worker.drain()
        await working


async def test_a_full_queue_takes_no_job(stack: Running, requests: Any, grey: Grey) -> None:
    async with stack(work=False, queue_items=2) as service:
        png = encode_png(grey(1))
        await hand_in(service, requests.form(png))
        answer = await service.http.post("/jobs", **requests.form(png, png))
        assert (answer.status_code, answer.json()["code"]) == (429, "queue_full")
        assert (await service.queue.stats()).reserved_items == 1


async def test_a_job_that_is_known_needs_no_room(stack: Running, requests: Any, grey: Grey) -> None:
    key = {IDEMPOTENCY_KEY: "once"}
    async with stack(work=False, queue_items=1) as service:
        request = requests.form(encode_png(grey(1)))
        where = await hand_in(service, dict(request), **key)
        assert await hand_in(service, dict(request), **key) == where
        assert (await service.queue.stats()).reserved_items == 1
