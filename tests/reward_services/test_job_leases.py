"""The contract of every broker, run against each of them: leases, redelivery, deadlines."""

import asyncio
import itertools
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from shared.errors import (
    DeadlineExceeded,
    Draining,
)

LEASE_S = 0.05

Opened = Callable[..., AbstractAsyncContextManager[Any]]


async def leases_of(at: Any, *names: str) -> list[Any]:
    """As many leases as names, once those before them have run out."""
    leases: list[Any] = []

    async def complete() -> bool:
        leases.extend(await at.queue.lease("other", 1, wait_s=0.05))
        await at.queue.renew(leases)
        return len(leases) >= len(names)

    await at.until(complete)
    assert [lease.job_id for lease in leases] == list(names)
    return leases


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


async def test_a_silent_workers_jobs_come_again_before_new_ones(opened: Opened) -> None:
    async with opened() as at:
        await at.put(at.job("a", 2), at.job("b"))
        lost = await at.take()
        await asyncio.sleep(2 * LEASE_S)
        await at.put(at.job("c"))
        again = await leases_of(at, "a", "b", "c")
        assert [(lease.job_id, lease.first, lease.size) for lease in again] == [
            ("a", 0, 2),
            ("b", 0, 1),
            ("c", 0, 1),
        ]
        assert [lease.deliveries for lease in again] == [1, 1, 1], "none had been loaded"
        assert (await at.queue.stats()).redelivered == 2
        assert await at.queue.load(lost[0]) is None, "the first lease is over"


async def test_a_job_whose_worker_went_silent_comes_again_picture_by_picture(
    opened: Opened,
) -> None:
    async with opened() as at:
        await at.put(at.job("a", 3))
        waiting = asyncio.create_task(at.queue.result("a"))
        (lost,) = await at.take()
        await at.queue.load(lost)
        again = await leases_of(at, *"aaa")
        assert [(lease.first, lease.size, lease.deliveries) for lease in again] == [
            (0, 1, 2),
            (1, 1, 2),
            (2, 1, 2),
        ]
        for lease in reversed(again):
            payload = await at.queue.load(lease)
            assert [int(item.image[0, 0, 0]) for item in payload.items] == [lease.first]
            await at.queue.done(lease, at.result(score=float(lease.first)))
        assert [one.score for one in (await waiting).results] == [0, 1, 2]
        assert await at.reserved() == 0


async def test_room_comes_back_with_every_picture(opened: Opened) -> None:
    async with opened() as at:
        await at.put(at.job("a", 3))
        (lost,) = await at.take()
        await at.queue.load(lost)
        first, *_ = await leases_of(at, *"aaa")
        await at.queue.done(first, at.result())
        assert await at.reserved() == 2
        assert (await at.queue.state("a")).phase == "running"


async def test_the_late_result_of_a_silent_worker_counts_once(opened: Opened) -> None:
    async with opened() as at:
        await at.put(at.job("a"))
        (late,) = await at.take()
        (again,) = await leases_of(at, "a")
        await at.queue.done(late, at.result(score=1.0))
        await at.queue.done(again, at.result(score=2.0))
        assert (await at.queue.result("a")).results[0].score == 1.0
        assert await at.reserved() == 0


async def test_a_late_result_keeps_what_the_others_have_finished(opened: Opened) -> None:
    async with opened() as at:
        await at.put(at.job("a", 3))
        (late,) = await at.take()
        await at.queue.load(late)
        first, second, _ = await leases_of(at, *"aaa")
        await at.queue.done(second, at.result(score=2.0))
        await at.queue.done(late, at.result(3, score=1.0))
        await at.queue.done(first, at.result(score=3.0))
        assert [one.score for one in (await at.queue.result("a")).results] == [1, 2, 1]
        assert await at.reserved() == 0
        assert await at.queue.lease("worker", 3, wait_s=0) == [], "the third is not wanted"


async def test_a_picture_with_a_late_result_is_not_given_out_again(opened: Opened) -> None:
    async with opened() as at:
        await at.put(at.job("a", 2))
        (lost,) = await at.take()
        await at.queue.load(lost)
        first, second = await leases_of(at, *"aa")
        await at.queue.load(first)
        await at.queue.load(second)
        await asyncio.sleep(2 * LEASE_S)
        assert [lease.first for lease in await at.take(1)] == [0]
        await at.queue.done(second, at.result())
        assert 1 not in [lease.first for lease in await at.take()]


async def test_renewing_keeps_a_lease(opened: Opened) -> None:
    async with opened(lease_s=0.4) as at:
        await at.put(at.job("a"))
        leases = await at.take()
        for _ in range(6):
            await asyncio.sleep(0.1)
            await at.queue.renew(leases)
        assert await at.queue.lease("other", 1, wait_s=0) == []
        assert await at.queue.load(leases[0]) is not None


async def test_a_picture_that_kills_its_workers_is_given_up_alone(opened: Opened) -> None:
    async with opened(max_deliveries=3) as at:
        await at.put(at.job("a", 3))
        waiting = asyncio.create_task(at.queue.result("a"))
        deaths: list[tuple[int, int]] = []

        async def given_up() -> bool:
            """A worker that dies of picture 1."""
            for lease in await at.queue.lease("w", 1, wait_s=0.05):
                await at.queue.load(lease)
                if lease.first <= 1 < lease.first + lease.size:
                    deaths.append((lease.size, lease.deliveries))
                else:
                    await at.queue.done(lease, at.result(lease.size))
            return bool((await at.queue.stats()).dead == 1)

        await at.until(given_up)
        assert deaths == [(3, 1), (1, 2), (1, 3)]
        first, second, third = (await waiting).results
        assert (first.score, third.score) == (1.0, 1.0)
        assert second.error.code == "worker_lost"
        assert second.error.retryable
        assert second.error.message.startswith("3 workers went silent")
        assert await at.reserved() == 0


async def test_pictures_scored_together_are_never_given_up_together(opened: Opened) -> None:
    async with opened(max_deliveries=1) as at:
        await at.put(at.job("a", 2))
        (lost,) = await at.take()
        await at.queue.load(lost)
        again = await leases_of(at, *"aa")
        assert [(lease.first, lease.deliveries) for lease in again] == [(0, 2), (1, 2)]


async def test_a_job_given_up_as_a_whole_has_no_identity(opened: Opened) -> None:
    async with opened(max_deliveries=1) as at:
        await at.give_up(at.job("a"))
        result = await at.queue.result("a")
        assert result.identity is None
        assert [one.error.code for one in result.results] == ["worker_lost"]


async def test_a_result_with_a_picture_given_up_is_kept_and_not_joined(opened: Opened) -> None:
    async with opened(max_deliveries=1) as at:
        await at.give_up(at.job("a", keep=True))
        await at.queue.result("a")
        assert (await at.queue.state("a")).result.results[0].error.code == "worker_lost"
        await at.put(at.job("a", keep=True))
        assert (await at.queue.state("a")).phase == "waiting"
        assert [lease.job_id for lease in await at.take()] == ["a"]


async def test_lanes_are_served_in_turn(opened: Opened) -> None:
    async with opened(lease_s=30) as at:
        await at.put(*(at.job(f"bulk {n}", 4) for n in range(3)))
        await at.put(*(at.job(f"small {n}", lane="interactive") for n in range(3)))
        waiting = (await at.queue.stats()).waiting_by_lane
        assert waiting == {"bulk": 12, "interactive": 3}
        order = [lease.job_id for _ in range(6) for lease in await at.queue.lease("w", 1, wait_s=0)]
        assert [name for name in order if "bulk" in name] == ["bulk 0", "bulk 1", "bulk 2"]
        assert [name for name in order if "small" in name] == ["small 0", "small 1", "small 2"]
        assert all(a.split()[0] != b.split()[0] for a, b in itertools.pairwise(order))


async def test_a_job_too_large_for_the_room_is_next(opened: Opened) -> None:
    """Small jobs of the other lane may fill the room, but not for ever."""
    async with opened(lease_s=30) as at:
        await at.put(at.job("bulk", 4))
        await at.put(*(at.job(f"small {n}", lane="interactive") for n in range(9)))
        taken = [lease.job_id for _ in range(2) for lease in await at.queue.lease("w", 4, wait_s=0)]
        assert "bulk" in taken


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
