"""How requests come in: which lane they wait in, and what is refused before it is read."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import numpy as np
import pytest

from shared.errors import BrokerUnavailable
from shared.schema import LANE

Grey = Callable[..., np.ndarray]
Running = Callable[..., AbstractAsyncContextManager[Any]]


@pytest.mark.parametrize(
    ("count", "header", "lane"),
    [
        (3, None, "interactive"),
        (4, None, "bulk"),
        (4, "interactive", "interactive"),
        (3, "bulk", "bulk"),
    ],
)
async def test_small_requests_are_interactive_unless_they_say_otherwise(
    stack: Running, requests: Any, grey: Grey, count: int, header: str | None, lane: str
) -> None:
    async with stack(work=False, interactive_items=3) as service:
        request = requests.safetensors([grey(1)] * count, ["p"] * count)
        if header is not None:
            request["headers"][LANE] = header
        asking = asyncio.create_task(service.http.post("/score", **request))
        async with asyncio.timeout(30):
            while not (stats := await service.queue.stats()).waiting_items:
                await asyncio.sleep(0.005)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    assert stats.waiting_by_lane == {"interactive": 0, "bulk": 0, lane: count}


async def test_an_unknown_lane_is_refused(stack: Running, requests: Any, grey: Grey) -> None:
    async with stack() as service:
        request = requests.safetensors([grey(1)], ["p"])
        request["headers"][LANE] = "fast"
        answer = await service.http.post("/score", **request)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert "interactive or bulk" in answer.json()["message"]


async def _unread() -> Any:
    yield pytest.fail("the body was read")


@pytest.mark.parametrize("path", ["/score", "/jobs"])
async def test_without_broker_or_workers_a_body_is_not_even_read(
    stack: Running, requests: Any, path: str
) -> None:
    async with stack() as service:
        request = requests.raw(_unread(), "application/json")
        service.announcements.outage.begin(BrokerUnavailable("the job queue is away"))
        answer = await service.http.post(path, **request)
        assert (answer.status_code, answer.json()["code"]) == (503, "broker_unavailable")
        assert int(answer.headers["retry-after"]) >= 1
        service.announcements.outage.end()
        service.announcements.info = None
        answer = await service.http.post(path, **request)
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
