"""A request of several jobs, when not all of them end well."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from reward_services.job_queue import JobQueue, JobResult, Lease, QueueLimits, given_up
from reward_services.memory_queue import MemoryQueue
from reward_services.payload import Payload
from reward_services.score_request import Ticket, score
from shared.errors import DeadlineExceeded, ServiceUnavailable
from shared.schema import (
    Durations,
    Identity,
    ItemResult,
    Limits,
    ScoreResponse,
    ServiceInfo,
)

INFO = ServiceInfo(
    name="n",
    version="1",
    units="u",
    direction="maximize",
    range=(None, None),
    max_batch_size=2,
    limits=Limits(max_items=100, max_body_bytes=2**20, max_pixels=2**20),
)
End = Callable[[JobQueue, Lease, list[float]], Any]


def payload(count: int) -> Payload:
    """Pictures of level 0, 1, 2, …"""
    images = [np.full((2, 2, 3), level, np.uint8) for level in range(count)]
    return Payload(images, [""] * count, [{}] * count)


def outcome(levels: Sequence[float], version: str = "1", seconds: float = 1.0) -> JobResult:
    identity = Identity(name="n", version=version, units="u", direction="maximize")
    durations = Durations(queue_s=levels[0], batch_wait_s=levels[0], inference_s=seconds)
    return JobResult(identity, [ItemResult(score=level) for level in levels], durations)


async def run(
    end: End, count: int = 5, info: ServiceInfo = INFO, **ticket: Any
) -> tuple[ScoreResponse, MemoryQueue]:
    """Score `count` pictures; `end` finishes each job as it likes."""
    queue = MemoryQueue(QueueLimits(lease_s=60))
    asking = asyncio.create_task(score(queue, info, payload(count), Ticket("id", 60, **ticket)))
    left = count
    while left:
        for lease in await queue.lease("worker", 2, wait_s=30):
            loaded = await queue.load(lease)
            assert loaded is not None
            left -= lease.size
            levels = [float(item.image[0, 0, 0]) for item in loaded.items]
            await end(queue, lease, levels)
    try:
        return (await asking).response, queue
    finally:
        assert (await queue.stats()).reserved_items == 0


async def test_parts_are_put_together_in_order() -> None:
    async def end(queue: JobQueue, lease: Lease, levels: list[float]) -> None:
        await queue.done(lease, outcome(levels))

    response, _ = await run(end)
    assert [result.score for result in response.results] == [0, 1, 2, 3, 4]
    assert response.durations == Durations(queue_s=3, batch_wait_s=3, inference_s=3)
    assert response.request_id == "id"
    assert response.identity == INFO.identity


async def test_a_lost_job_costs_its_own_pictures_only() -> None:
    async def end(queue: JobQueue, lease: Lease, levels: list[float]) -> None:
        if 2 in levels:
            lost = [given_up(3)] * lease.size
            no_time = Durations(queue_s=0, batch_wait_s=0, inference_s=0)
            await queue.done(lease, JobResult(None, lost, no_time))
        else:
            await queue.done(lease, outcome(levels))

    response, _ = await run(end)
    codes = [result.error.code if result.error else None for result in response.results]
    assert codes == [None, "worker_lost", "worker_lost", None, None]
    assert [result.score for result in response.results] == [0, None, None, 3, 4]


async def test_a_failed_job_fails_the_request_and_withdraws_the_rest() -> None:
    async def end(queue: JobQueue, lease: Lease, levels: list[float]) -> None:
        if 0 in levels:
            await queue.fail(lease, DeadlineExceeded("too late"))
        else:
            await queue.done(lease, outcome(levels))

    with pytest.raises(DeadlineExceeded, match="too late"):
        await run(end)


async def test_scores_of_two_versions_are_not_mixed() -> None:
    async def end(queue: JobQueue, lease: Lease, levels: list[float]) -> None:
        await queue.done(lease, outcome(levels, version="1" if 0 in levels else "2"))

    with pytest.raises(ServiceUnavailable, match="two versions"):
        await run(end)


async def test_the_identity_is_that_of_the_worker() -> None:
    async def end(queue: JobQueue, lease: Lease, levels: list[float]) -> None:
        await queue.done(lease, outcome(levels, version="2"))

    response, _ = await run(end)
    assert response.identity.version == "2"


async def test_a_cancelled_request_withdraws_its_jobs() -> None:
    queue = MemoryQueue()
    asking = asyncio.create_task(score(queue, INFO, payload(5), Ticket("id", 60)))
    async with asyncio.timeout(30):
        while (await queue.stats()).waiting_items != 5:
            await asyncio.sleep(0.005)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert (await queue.stats()).reserved_items == 0
    assert await queue.lease("worker", 5, wait_s=0) == []


async def test_a_key_keeps_the_results_of_one_version_only() -> None:
    """A request half scored before an upgrade is scored anew after it, not mixed for ever."""
    ids = []

    async def end(queue: JobQueue, lease: Lease, levels: list[float]) -> None:
        ids.append(lease.job_id)
        await queue.done(lease, outcome(levels))

    for version in ("1", "1", "2"):
        await run(end, 2, info=INFO.model_copy(update={"version": version}), key="k")
    assert ids[0] == ids[1] != ids[2]


async def test_lane_and_trace_context_reach_the_worker() -> None:
    queue = MemoryQueue()
    ticket = Ticket("id", 60, lane="interactive", traceparent="00-ab-cd-01")
    asking = asyncio.create_task(score(queue, INFO, payload(1), ticket))
    (lease,) = await queue.lease("worker", 1, wait_s=30)
    loaded = await queue.load(lease)
    assert loaded is not None
    assert (loaded.traceparent, loaded.request_id) == ("00-ab-cd-01", "id")
    await queue.done(lease, outcome([1.0]))
    await asking


async def test_without_a_score_the_expected_reward_is_named() -> None:
    async def end(queue: JobQueue, lease: Lease, levels: list[float]) -> None:
        nobody = replace(outcome(levels), identity=None)
        await queue.done(lease, nobody)

    response, _ = await run(end, 1)
    assert response.identity == INFO.identity
