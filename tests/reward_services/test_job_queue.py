"""The contract of every broker, run against each of them: room, results, keys."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from reward_services.job_queue import JobState, Throughput, joined
from shared.errors import (
    DeadlineExceeded,
    IdempotencyConflict,
    InvalidRequest,
    NotFound,
    QueueFull,
    ServiceUnavailable,
)
from shared.schema import Durations, Identity, ItemResult

LEASE_S = 0.05

Opened = Callable[..., AbstractAsyncContextManager[Any]]


async def test_a_job_from_submission_to_result(opened: Opened) -> None:
    async with opened() as at:
        await at.put(at.job("a", 3))
        waiting = asyncio.create_task(at.queue.result("a"))
        (lease,) = await at.take()
        assert (lease.job_id, lease.first, lease.size, lease.deliveries) == ("a", 0, 3, 1)
        assert lease.worker == "worker"
        assert lease.waited_s >= 0
        assert 0 < lease.remaining_s <= 60
        payload = await at.queue.load(lease)
        assert payload is not None
        assert payload.request_id == "request of a"
        assert payload.traceparent == "trace of a"
        assert [item.prompt for item in payload.items] == ["a"] * 3
        assert [int(item.image[0, 0, 0]) for item in payload.items] == [0, 1, 2]
        await at.queue.done(lease, at.result(3))
        assert await waiting == at.result(3)
        assert await at.reserved() == 0


async def test_jobs_come_in_order_and_fill_the_room(opened: Opened) -> None:
    async with opened() as at:
        await at.put(*(at.job(name, 2) for name in "abcd"))
        assert [lease.job_id for lease in await at.take(5)] == ["a", "b"]
        assert [lease.job_id for lease in await at.take(1)] == ["c"], "one at least"
        assert [lease.job_id for lease in await at.take(5)] == ["d"]


async def test_a_full_queue_refuses_and_says_when_to_come_back(opened: Opened) -> None:
    async with opened(queue_items=4) as at:
        await at.queue.reserve(3)
        with pytest.raises(QueueFull) as caught:
            await at.queue.reserve(2)
        assert caught.value.retry_after is not None
        assert 1 <= caught.value.retry_after <= 60
        await at.queue.reserve(1)
        await at.queue.unreserve(4)
        await at.queue.reserve(4)


async def test_room_is_free_again_after_every_kind_of_end(opened: Opened) -> None:
    async with opened(queue_items=4) as at:
        await at.put(*(at.job(name) for name in "abcd"))
        first, second, *_ = await at.take(2)
        await at.queue.load(first)
        await at.queue.done(first, at.result())
        await at.queue.fail(second, InvalidRequest("no"))
        await at.queue.cancel("c")
        await at.queue.cancel("d")
        assert await at.reserved() == 0


async def test_a_second_result_is_ignored(opened: Opened) -> None:
    async with opened() as at:
        await at.put(at.job("a"))
        (lease,) = await at.take()
        await at.queue.done(lease, at.result(score=1.0))
        await at.queue.done(lease, at.result(score=2.0))
        await at.queue.fail(lease, InvalidRequest("late"))
        assert (await at.queue.result("a")).results[0].score == 1.0
        assert await at.reserved() == 0


async def test_a_failed_job_raises_its_error(opened: Opened) -> None:
    async with opened() as at:
        await at.put(at.job("a"))
        (lease,) = await at.take()
        await at.queue.fail(lease, DeadlineExceeded("too late"))
        with pytest.raises(DeadlineExceeded, match="too late"):
            await at.queue.result("a")


async def test_an_unknown_job(opened: Opened) -> None:
    async with opened() as at:
        with pytest.raises(NotFound, match="nobody"):
            await at.queue.result("nobody")
        await at.queue.cancel("nobody")


async def test_a_cancelled_waiter_does_not_take_the_result_from_others(opened: Opened) -> None:
    async with opened() as at:
        await at.put(at.job("a", keep=True), at.job("a", keep=True))
        first, second = (asyncio.create_task(at.queue.result("a")) for _ in range(2))
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await at.queue.cancel("a")
        (lease,) = await at.take()
        assert await at.queue.load(lease) is not None
        await at.queue.done(lease, at.result())
        assert await second == at.result()


async def test_a_caller_interrupted_as_the_job_ends_leaves_once(opened: Opened) -> None:
    async with opened() as at:
        await at.put(at.job("a"), at.job("a"))
        first = asyncio.create_task(at.queue.result("a"))
        await asyncio.sleep(0.01)
        (lease,) = await at.take()
        await at.queue.done(lease, at.result())
        second = asyncio.create_task(at.queue.result("a"))
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await at.queue.cancel("a")
        assert await second == at.result()


async def test_the_same_id_joins_the_first_job(opened: Opened) -> None:
    async with opened() as at:
        await at.put(at.job("a", 2, keep=True), at.job("a", 2, keep=True))
        assert await at.reserved() == 2
        (lease,) = await at.take()
        await at.queue.done(lease, at.result(2))
        assert await at.queue.result("a") == await at.queue.result("a") == at.result(2)


async def test_a_kept_result_answers_a_later_submission(opened: Opened) -> None:
    async with opened() as at:
        await at.put(at.job("a", keep=True))
        (lease,) = await at.take()
        await at.queue.done(lease, at.result(score=7.0))
        await at.queue.result("a")
        await at.put(at.job("a", keep=True))
        assert (await at.queue.result("a")).results[0].score == 7.0
        assert await at.queue.lease("worker", 1, wait_s=0) == []
        assert await at.reserved() == 0


async def test_a_kept_result_is_forgotten_in_time(opened: Opened) -> None:
    async with opened(result_ttl_s=0.01) as at:
        await at.put(at.job("a", keep=True))
        (lease,) = await at.take()
        await at.queue.done(lease, at.result())
        await at.queue.result("a")
        await asyncio.sleep(0.02)
        await at.put(at.job("a", keep=True))
        assert [lease.job_id for lease in await at.take()] == ["a"]


async def test_a_failure_is_not_kept(opened: Opened) -> None:
    async with opened() as at:
        await at.put(at.job("a", keep=True))
        (lease,) = await at.take()
        await at.queue.fail(lease, DeadlineExceeded("too late"))
        with pytest.raises(DeadlineExceeded):
            await at.queue.result("a")
        await at.put(at.job("a", keep=True))
        assert [lease.job_id for lease in await at.take()] == ["a"]


async def test_the_state_of_a_job(opened: Opened) -> None:
    async with opened() as at:
        assert await at.queue.state("a") is None
        await at.put(at.job("a", keep=True))
        assert await at.queue.state("a") == JobState("waiting")
        (lease,) = await at.take()
        await at.queue.load(lease)
        assert await at.queue.state("a") == JobState("running")
        await at.queue.done(lease, at.result())
        assert await at.queue.state("a") == JobState("finished", result=at.result())
        await at.queue.result("a")
        assert await at.queue.state("a") == JobState("finished", result=at.result())


async def test_the_state_of_a_failed_job(opened: Opened) -> None:
    async with opened() as at:
        await at.put(at.job("a", keep=True))
        (lease,) = await at.take()
        await at.queue.fail(lease, DeadlineExceeded("too late"))
        state = await at.queue.state("a")
        assert state.phase == "finished"
        assert isinstance(state.error, DeadlineExceeded)
        assert state.error.message == "too late"


async def test_a_job_that_is_not_kept_is_forgotten_with_its_last_caller(opened: Opened) -> None:
    async with opened() as at:
        await at.put(at.job("a"))
        (lease,) = await at.take()
        await at.queue.done(lease, at.result())
        assert (await at.queue.state("a")).phase == "finished"
        await at.queue.result("a")

        async def forgotten() -> bool:
            return await at.queue.state("a") is None

        await at.until(forgotten)


async def test_shares_of_two_versions_are_no_result() -> None:
    time = Durations(queue_s=1, batch_wait_s=2, inference_s=3)
    more = Durations(queue_s=2, batch_wait_s=1, inference_s=3)
    first = Identity(name="n", version="1", units="u", direction="maximize")
    second = first.model_copy(update={"version": "2"})
    results = [ItemResult(score=1.0), ItemResult(score=2.0)]
    whole = joined(results, [(first, time), (first, more)])
    assert whole.identity == first
    assert whole.durations == Durations(queue_s=2, batch_wait_s=2, inference_s=6)
    with pytest.raises(ServiceUnavailable, match="two versions"):
        joined(results, [(first, time), (second, time)])


async def test_an_idempotency_key_belongs_to_one_body(opened: Opened) -> None:
    async with opened() as at:
        await at.queue.bind_key("key", "body")
        await at.queue.bind_key("key", "body")
        with pytest.raises(IdempotencyConflict, match="another body"):
            await at.queue.bind_key("key", "other body")
        await at.queue.bind_key("other key", "other body")


async def test_an_idempotency_key_is_forgotten_in_time(opened: Opened) -> None:
    async with opened(result_ttl_s=0.01) as at:
        await at.queue.bind_key("key", "body")
        await asyncio.sleep(0.02)
        await at.queue.bind_key("key", "other body")


async def test_stats(opened: Opened) -> None:
    async with opened(lease_s=30) as at:
        await at.put(at.job("a", 2), at.job("b", 3))
        await at.queue.reserve(5)
        await at.take(2)
        stats = await at.queue.stats()
        assert (stats.reserved_items, stats.waiting_items, stats.leased_items) == (10, 3, 2)
        assert (stats.items_per_s, stats.redelivered, stats.dead) == (0, 0, 0)


def test_throughput_leaves_idle_time_out() -> None:
    throughput = Throughput()
    assert throughput.rate == 0
    assert throughput.seconds_for(1000) == 1
    throughput.add(10, submitted=0.0, now=1.0)
    throughput.add(10, submitted=100.0, now=101.0)
    assert throughput.rate == pytest.approx(10)
    assert throughput.seconds_for(95) == 10
    assert throughput.seconds_for(1) == 1
    assert throughput.seconds_for(10_000) == 60


def test_throughput_of_jobs_that_end_together() -> None:
    throughput = Throughput()
    for _ in range(4):
        throughput.add(5, submitted=0.0, now=1.0)
    assert throughput.rate == pytest.approx((5 + 4.5 + 4.05 + 3.645) / 0.729)
