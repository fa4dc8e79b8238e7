"""The contract of every registry, run against each broker's."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import pytest

from reward_services.worker_registry import IdentityConflict, WorkerStatus
from shared.schema import Limits, ServiceInfo

Opened = Callable[..., AbstractAsyncContextManager[Any]]

INFO = ServiceInfo(
    name="mean_level",
    version="1",
    units="levels",
    direction="maximize",
    range=(0.0, None),
    max_batch_size=4,
    limits=Limits(max_items=8, max_body_bytes=9, max_pixels=10),
    needs_prompt=False,
)
FIRST = WorkerStatus("a", "host", 11, INFO)
OTHER_VERSION = WorkerStatus("b", "host", 12, INFO.model_copy(update={"version": "2"}))


async def test_workers_announce_themselves_and_retire(opened: Opened) -> None:
    async with opened() as at:
        registry = at.broker.registry
        assert await registry.info() is None
        assert await registry.workers() == []
        await registry.announce(replace(FIRST, name="b"))
        await registry.announce(FIRST)
        await registry.announce(replace(FIRST, items_done=7, busy=True))
        one, two = await registry.workers()
        assert replace(one, seen_s=0.0) == replace(FIRST, items_done=7, busy=True)
        assert 0 <= one.seen_s < 30
        assert two.name == "b"
        await registry.retire("a")
        assert [worker.name for worker in await registry.workers()] == ["b"]


async def test_what_is_served_outlives_the_last_worker(opened: Opened) -> None:
    async with opened() as at:
        await at.broker.registry.announce(FIRST)
        await at.broker.registry.retire("a")
        assert await at.broker.registry.info() == INFO


async def test_two_versions_do_not_work_on_one_queue(opened: Opened) -> None:
    async with opened() as at:
        registry = at.broker.registry
        await registry.announce(FIRST)
        with pytest.raises(IdentityConflict, match=r"worker a .*version '2' != '1'"):
            await registry.announce(OTHER_VERSION)
        assert await registry.info() == INFO
        await registry.announce(FIRST)
        await registry.retire("a")
        await registry.announce(OTHER_VERSION)
        assert await registry.info() == OTHER_VERSION.info


async def test_a_worker_that_went_silent_does_not_count(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reward_services.worker_registry.SILENT_AFTER_S", 0.01)
    async with opened() as at:
        await at.broker.registry.announce(FIRST)
        await asyncio.sleep(0.03)
        assert await at.broker.registry.workers() == []
        await at.broker.registry.announce(OTHER_VERSION)
