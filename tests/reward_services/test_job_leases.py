"""The contract of every broker, run against each of them: leases, redelivery, deadlines."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from reward_services.job_queue import JobLost
from shared.errors import (
    DeadlineExceeded,
    Draining,
)

LEASE_S = 0.05

Opened = Callable[..., AbstractAsyncContextManager[Any]]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await condition():
            await asyncio.sleep(0.005)


async def test_a_lease_waits_for_a_job(opened: Opened) -> None:
    async with opened() as at:
        leasing = asyncio.create_task(at.queue.lease("worker", 1, wait_s=30))
        await asyncio.sleep(0.01)
        await at.put(at.job("late"))
        assert [lease.job_id for lease in await leasing] == ["late"]


async def test_a_lease_gives_up_after_its_wait(opened: Opened) -> None:
    async with opened() as at:
        assert await at.queue.lease("worker", 1, wait_s=0.01) == []


async def test_every_job_goes_to_one_worker_only(opened: Opened) -> None:
    async with opened(lease_s=30) as at:
        names = [f"job {number}" for number in range(40)]
        leasing = [
            asyncio.create_task(at.queue.lease(f"worker {number % 4}", 1, wait_s=30))
            for number in range(40)
        ]
        await at.put(*(at.job(name) for name in names))
        taken = [lease.job_id for leases in await asyncio.gather(*leasing) for lease in leases]
        rest = [lease.job_id for lease in await at.queue.lease("worker", 64, wait_s=0)]
        assert sorted(taken + rest) == sorted(names)


async def test_a_cancelled_job_is_not_given_out(opened: Opened) -> None:
    async with opened() as at:
        await at.put(at.job("a"), at.job("b"))
        await at.queue.cancel("a")
        assert [lease.job_id for lease in await at.take()] == ["b"]


async def test_a_job_cancelled_after_its_lease_is_not_loaded(opened: Opened) -> None:
    async with opened() as at:
        await at.put(at.job("a"))
        (lease,) = await at.take()
        await at.queue.cancel("a")
        assert await at.queue.load(lease) is None
        await at.queue.done(lease, at.result())
        assert await at.reserved() == 0


async def test_cancelling_a_loaded_job_lets_it_end(opened: Opened) -> None:
    async with opened(lease_s=30) as at:
        await at.put(at.job("a"))
        (lease,) = await at.take()
        await at.queue.load(lease)
        await at.queue.cancel("a")
        assert await at.reserved() == 1
        await at.queue.done(lease, at.result())
        assert await at.reserved() == 0


async def test_a_silent_workers_job_comes_again(opened: Opened) -> None:
    async with opened() as at:
        await at.put(at.job("a"), at.job("b"))
        lost = await at.take()
        again = [lease for _ in lost for lease in await at.queue.lease("other", 1, wait_s=30)]
        assert [lease.job_id for lease in again] == ["a", "b"]
        assert [lease.deliveries for lease in again] == [2, 2]
        assert (await at.queue.stats()).redelivered == 2
        assert await at.queue.load(lost[0]) is None, "the first lease is over"


async def test_the_late_result_of_a_silent_worker_counts_once(opened: Opened) -> None:
    async with opened() as at:
        await at.put(at.job("a"))
        (late,) = await at.take()
        (again,) = await at.queue.lease("other", 1, wait_s=30)
        await at.queue.done(late, at.result(score=1.0))
        await at.queue.done(again, at.result(score=1.0))
        assert (await at.queue.result("a")).results[0].score == 1.0
        assert await at.reserved() == 0


async def test_renewing_keeps_a_lease(opened: Opened) -> None:
    async with opened(lease_s=0.4) as at:
        await at.put(at.job("a"))
        leases = await at.take()
        for _ in range(6):
            await asyncio.sleep(0.1)
            await at.queue.renew(leases)
        assert await at.queue.lease("other", 1, wait_s=0) == []
        assert await at.queue.load(leases[0]) is not None


async def test_a_job_that_kills_its_workers_is_given_up(opened: Opened) -> None:
    async with opened(max_deliveries=2, lease_s=0.02) as at:
        await at.put(at.job("poison"))
        waiting = asyncio.create_task(at.queue.result("poison"))
        deliveries: list[int] = []

        async def given_up() -> bool:
            deliveries.extend(
                lease.deliveries for lease in await at.queue.lease("w", 1, wait_s=0.05)
            )
            return bool((await at.queue.stats()).dead == 1)

        await until(given_up)
        assert deliveries == [1, 2]
        with pytest.raises(JobLost, match="2 workers went silent"):
            await waiting
        assert await at.reserved() == 0


async def test_a_released_job_comes_first_and_counts_no_delivery(opened: Opened) -> None:
    async with opened(lease_s=30) as at:
        await at.put(*(at.job(name) for name in "abc"))
        leases = await at.take(2)
        await at.queue.release(leases)
        again = await at.take()
        assert [lease.job_id for lease in again] == ["a", "b", "c"]
        assert [lease.deliveries for lease in again] == [1, 1, 1]


async def test_a_job_past_its_deadline_is_not_given_out(opened: Opened) -> None:
    async with opened() as at:
        await at.put(at.job("a", timeout_s=0.01), at.job("b"))
        waiting = asyncio.create_task(at.queue.result("a"))
        await asyncio.sleep(0.02)
        assert [lease.job_id for lease in await at.take()] == ["b"]
        with pytest.raises(DeadlineExceeded):
            await waiting


async def test_a_job_past_its_deadline_is_not_loaded(opened: Opened) -> None:
    async with opened(lease_s=30) as at:
        await at.put(at.job("a", timeout_s=0.3))
        (lease,) = await at.take()
        await asyncio.sleep(0.35)
        assert await at.queue.load(lease) is None
        with pytest.raises(DeadlineExceeded):
            await at.queue.result("a")


async def test_closing_ends_every_wait(opened: Opened) -> None:
    async with opened() as at:
        await at.put(at.job("a"))
        waiting = asyncio.create_task(at.queue.result("a"))
        await asyncio.sleep(0.01)
        await at.queue.close()
        with pytest.raises(Draining):
            await waiting
        with pytest.raises(Draining):
            await at.queue.reserve(1)
        assert await at.queue.lease("worker", 1, wait_s=30) == []
