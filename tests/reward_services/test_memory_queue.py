"""What only the queue in memory promises; the rest is in the contract of every broker."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from reward_services import memory_queue

pytestmark = pytest.mark.parametrize("opened", ["memory"], indirect=True)

Opened = Callable[..., AbstractAsyncContextManager[Any]]


async def test_pictures_pass_by_reference(opened: Opened) -> None:
    async with opened() as at:
        job = at.job("a")
        await at.put(job)
        (lease,) = await at.take()
        payload = await at.queue.load(lease)
        assert payload.items[0].image is job.items[0].image


async def test_kept_results_have_a_limit(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_queue, "MOST_KEPT", 2)
    async with opened() as at:
        for name in "abcd":
            await at.put(at.job(name, keep=True))
            (lease,) = await at.take()
            await at.queue.done(lease, at.result())
            await at.queue.result(name)
        await at.put(at.job("a", keep=True))
        assert [lease.job_id for lease in await at.take()] == ["a"], "the oldest went"
        await at.put(at.job("d", keep=True))
        assert await at.queue.result("d") == at.result()


async def test_a_joined_job_lives_as_long_as_its_last_caller_waits(opened: Opened) -> None:
    async with opened() as at:
        await at.put(at.job("a", timeout_s=0.05, keep=True), at.job("a", timeout_s=60, keep=True))
        await asyncio.sleep(0.06)
        (lease,) = await at.take()
        assert await at.queue.load(lease) is not None
