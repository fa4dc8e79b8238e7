"""What only the queue in Redis has to stand: lost data, lost pictures, and processes that die.

What it has in common with the queue in memory is in the contract of every broker.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from redis import Redis

from shared.errors import BrokerUnavailable, DeadlineExceeded, NotFound, QueueFull

Connected = Callable[..., AbstractAsyncContextManager[Any]]
REWARD = "r"
PREFIX = f"rw:{{{REWARD}}}:"


@pytest.fixture
def raw(own_redis: Any) -> Iterator[Any]:
    """A plain client of the same server, to look and to meddle."""
    with Redis.from_url(own_redis.url) as client:
        yield client


@pytest.fixture
def processes(own_redis: Any, connected: Connected) -> Connected:
    """`async with processes(2, **settings) as (one, two):`, of one service on one Redis."""

    @asynccontextmanager
    async def run(count: int, **settings: Any) -> AsyncIterator[list[Any]]:
        async with AsyncExitStack() as stack:
            yield [
                await stack.enter_async_context(
                    connected(name=REWARD, **{"broker_url": own_redis.url, **settings})
                )
                for _ in range(count)
            ]

    return run


async def work(at: Any, jobs: int) -> None:
    """Score until so many leases are done; the score of a picture is its level."""
    done = 0
    while done < jobs:
        try:
            for lease in await at.queue.lease("worker", 64, wait_s=0.2):
                if (payload := await at.queue.load(lease)) is not None:
                    scores = [float(item.image[0, 0, 0]) for item in payload.items]
                    results = [at.result(1, score).results[0] for score in scores]
                    identity = at.result().identity
                    durations = at.result().durations
                    await at.queue.done(lease, type(at.result())(identity, results, durations))
                    done += 1
        except BrokerUnavailable:
            await asyncio.sleep(0.05)


def leftovers(raw: Any) -> list[bytes]:
    """Keys that belong to one job."""
    found = [key for kind in ("job", "blob") for key in raw.keys(f"{PREFIX}{kind}:*")]
    return [*found, *raw.keys(f"{PREFIX}bell:*")]


async def test_the_worker_is_another_process(processes: Connected) -> None:
    async with processes(2) as (api, worker):
        await api.put(api.job("a", 3))
        working = asyncio.create_task(work(worker, 1))
        assert [one.score for one in (await api.queue.result("a")).results] == [0, 1, 2]
        await working


async def test_every_api_process_learns_of_its_own_jobs(processes: Connected) -> None:
    async with processes(3) as (one, two, worker):
        await one.put(*(one.job(f"1 {n}") for n in range(10)))
        await two.put(*(two.job(f"2 {n}") for n in range(10)))
        working = asyncio.create_task(work(worker, 20))
        await asyncio.gather(*(one.queue.result(f"1 {n}") for n in range(10)))
        await asyncio.gather(*(two.queue.result(f"2 {n}") for n in range(10)))
        await working


async def test_a_job_of_another_process(processes: Connected) -> None:
    async with processes(2, lease_s=30) as (one, two):
        with pytest.raises(NotFound):
            await two.queue.result("a")
        await one.put(one.job("a", keep=True), one.job("b", keep=True))
        waiting = asyncio.create_task(two.queue.result("a"))
        failing = asyncio.create_task(one.queue.result("b"))
        await asyncio.sleep(0.05)
        await two.queue.cancel("b")
        with pytest.raises(DeadlineExceeded, match="cancelled"):
            await failing
        await work(one, 1)
        assert (await waiting).results[0].score == 0
        assert (await two.queue.result("a")).results[0].score == 0
        assert (await one.queue.result("a")).results[0].score == 0


async def test_the_same_id_from_two_processes_is_one_job(processes: Connected) -> None:
    async with processes(3) as (one, two, worker):
        await one.put(one.job("a", 2, keep=True))
        await two.put(two.job("a", 2, keep=True))
        assert await one.reserved() == 2
        working = asyncio.create_task(work(worker, 1))
        results = await asyncio.gather(one.queue.result("a"), two.queue.result("a"))
        assert results[0] == results[1]
        await working
        assert await worker.queue.lease("worker", 1, wait_s=0) == []


async def test_one_process_cancels_and_the_other_still_waits(processes: Connected) -> None:
    async with processes(2) as (one, two):
        await one.put(one.job("a", keep=True))
        await two.put(two.job("a", keep=True))
        await one.queue.cancel("a")
        working = asyncio.create_task(work(one, 1))
        assert (await two.queue.result("a")).results[0].score == 0
        await working


async def test_everything_may_be_lost_under_the_callers_feet(
    processes: Connected, raw: Any
) -> None:
    async with processes(2) as (api, worker):
        idle = asyncio.create_task(worker.queue.lease("idle", 1, wait_s=0.5))
        await asyncio.sleep(0.05)
        assert await idle == []
        await api.put(*(api.job(f"{n}", 2) for n in range(8)))
        (lost,) = await worker.queue.lease("worker", 2, wait_s=1)
        assert await worker.queue.load(lost) is not None
        raw.flushall()
        # All of it is called with names that mean nothing any more.
        await worker.queue.renew([lost])
        assert await worker.queue.load(lost) is None
        await worker.queue.done(lost, worker.result(2))
        await worker.queue.release([lost])
        await worker.queue.fail(lost, DeadlineExceeded("x"))
        assert (await worker.queue.stats()).leased_items == 0
        working = asyncio.create_task(work(worker, 8))
        results = await asyncio.gather(*(api.queue.result(f"{n}") for n in range(8)))
        assert [[one.score for one in each.results] for each in results] == [[0, 1]] * 8
        await working
        assert await api.reserved() == 0


@pytest.mark.parametrize("keeps_its_data", [True, False])
async def test_redis_may_crash_while_jobs_wait(
    processes: Connected, own_redis: Any, tmp_path: Any, keeps_its_data: bool
) -> None:
    async with processes(2, lease_s=1) as (api, worker):
        await api.put(*(api.job(f"{n}", 2) for n in range(8)))
        waiting = [asyncio.create_task(api.queue.result(f"{n}")) for n in range(8)]
        working = asyncio.create_task(work(worker, 8))
        await waiting[0]
        own_redis.kill()
        if not keeps_its_data:
            shutil.rmtree(tmp_path / "redis" / "appendonlydir")
        with pytest.raises(BrokerUnavailable):
            await api.queue.reserve(1)
        await asyncio.to_thread(own_redis.start)
        results = await asyncio.gather(*waiting)
        assert [[one.score for one in each.results] for each in results] == [[0, 1]] * 8
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)

        async def given_back() -> bool:
            return bool(await api.reserved() == 0)

        await api.until(given_back)


async def test_a_result_outlasts_an_outage(processes: Connected, own_redis: Any) -> None:
    async with processes(2, lease_s=30) as (api, worker):
        await api.put(api.job("a"))
        (lease,) = await worker.queue.lease("worker", 1, wait_s=1)
        await worker.queue.load(lease)
        own_redis.kill()
        handing_in = asyncio.create_task(worker.queue.done(lease, worker.result(score=3.0)))
        await asyncio.sleep(0.3)
        assert not handing_in.done()
        await asyncio.to_thread(own_redis.start)
        await handing_in
        assert (await api.queue.result("a")).results[0].score == 3.0


async def test_lost_pictures_are_sent_again(processes: Connected, raw: Any) -> None:
    async with processes(2, lease_s=30) as (api, worker):
        await api.put(api.job("a", 3))
        raw.delete(f"{PREFIX}blob:a:1")
        waiting = asyncio.create_task(api.queue.result("a"))
        await work(worker, 1)
        assert [one.score for one in (await waiting).results] == [0, 1, 2]
        assert await api.reserved() == 0


async def test_workers_that_never_see_the_pictures(
    processes: Connected, connected: Connected, own_redis: Any, tmp_path: Any
) -> None:
    """The API and a worker that disagree on where pictures are."""
    elsewhere = connected(
        name=REWARD, broker_url=own_redis.url, blob_url=f"file://{tmp_path / 'blobs'}"
    )
    async with processes(1) as (api,), elsewhere as worker:
        await api.put(api.job("a"))
        waiting = asyncio.create_task(api.queue.result("a"))
        while not waiting.done():
            for lease in await worker.queue.lease("worker", 1, wait_s=0.1):
                assert await worker.queue.load(lease) is None
        with pytest.raises(BrokerUnavailable, match="REWARD_BLOB_URL"):
            await waiting


async def test_room_of_a_process_that_died_is_given_back(
    processes: Connected, connected: Connected, own_redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reward_services.redis_scripts.API_SILENT_AFTER_S", 0.05)
    async with processes(1, queue_items=4) as (dead,):
        await dead.queue.reserve(4)
        await dead.queue._bell.close()
        await asyncio.sleep(0.1)
        async with connected(name=REWARD, broker_url=own_redis.url, queue_items=4) as living:
            await living.queue.reserve(4)
            with pytest.raises(QueueFull):
                await living.queue.reserve(1)


async def test_room_that_was_lost_on_the_way_is_given_back(processes: Connected) -> None:
    """The answer to a reservation never arrived: Redis has counted it, the process has not."""
    async with processes(1) as (api,):
        await api.queue.reserve(2)
        _, admitted, *_ = await api.queue._scripts.run("reserve", api.queue._bell.name, 5)
        assert admitted == 7

        async def given_back() -> bool:
            return bool(await api.reserved() == 2)

        await api.until(given_back)


async def test_a_wrong_count_is_mended(processes: Connected, raw: Any) -> None:
    async with processes(1, lease_s=30) as (api,):
        await api.put(api.job("a", 3))
        await api.queue.reserve(2)
        raw.set(f"{PREFIX}items", 77, px=10_000)
        assert await api.queue._scripts.run("tidy") == 72
        assert await api.reserved() == 5


async def test_cancelled_work_in_the_stream_stays_bounded(processes: Connected, raw: Any) -> None:
    async with processes(1, queue_items=4) as (api,):
        for number in range(10):
            await api.put(api.job(f"{number}"))
            await api.queue.cancel(f"{number}")
        await api.put(api.job("wanted"))
        assert raw.xlen(f"{PREFIX}q:bulk") == 11
        for _ in range(3):
            await api.queue._scripts.run("tidy")
        assert raw.xlen(f"{PREFIX}q:bulk") <= 8
        assert [lease.job_id for lease in await api.take()] == ["wanted"]


async def test_nothing_is_left_of_jobs_that_have_ended(processes: Connected, raw: Any) -> None:
    async with processes(2, max_deliveries=1) as (api, worker):
        await api.put(api.job("done", 3), api.job("failed"), api.job("cancelled", 2))
        await api.queue.cancel("cancelled")
        done, failed = await worker.take()
        await worker.queue.load(done)
        await worker.queue.done(done, worker.result(3))
        await worker.queue.fail(failed, DeadlineExceeded("x"))
        await api.queue.result("done")
        with pytest.raises(DeadlineExceeded):
            await api.queue.result("failed")
        await api.put(api.job("late", timeout_s=0.01))
        with pytest.raises(DeadlineExceeded):
            await api.queue.result("late")
        await api.give_up(api.job("given up"))
        await api.queue.result("given up")
        (letter,) = await api.broker.dead_letters.list(1)
        await api.broker.dead_letters.drop(letter.id)

        async def clean() -> bool:
            return leftovers(raw) == []

        await api.until(clean)
        assert await api.reserved() == 0
        assert raw.zcard(f"{PREFIX}open") == 0
        assert await worker.queue.lease("worker", 1, wait_s=0) == []
        assert [raw.xlen(key) for key in raw.keys(f"{PREFIX}q:*")] == [0, 0, 0]


async def test_a_late_job_ends_also_without_workers(processes: Connected) -> None:
    async with processes(1) as (api,):
        await api.put(api.job("late", 2, timeout_s=0.01))
        with pytest.raises(DeadlineExceeded, match="no worker was free within"):
            await api.queue.result("late")
        assert await api.reserved() == 0


async def test_finished_work_leaves_its_stream_at_once(processes: Connected, raw: Any) -> None:
    """What is only acknowledged would stay in memory for ever."""
    async with processes(1, lease_s=30) as (at,):
        await at.put(at.job("a"), at.job("b"))
        done, failed = await at.take()
        await at.queue.load(done)
        await at.queue.done(done, at.result())
        await at.queue.fail(failed, DeadlineExceeded("x"))
        assert raw.xlen(f"{PREFIX}q:bulk") == 0
        assert raw.xpending(f"{PREFIX}q:bulk", "workers")["pending"] == 0


async def test_streams_hold_names_only(processes: Connected, raw: Any) -> None:
    async with processes(1, lease_s=30) as (api,):
        await api.put(api.job("a" * 66, 64))
        ((_, entry),) = raw.xrange(f"{PREFIX}q:bulk")
        assert sum(len(name) + len(value) for name, value in entry.items()) < 300


async def test_cancelling_leaves_undelivered_entries(processes: Connected, raw: Any) -> None:
    """Deleting one would hide how far the group lags behind, which is what scales workers."""
    async with processes(1, lease_s=30) as (api,):
        await api.put(api.job("a"), api.job("b"))
        assert [lease.job_id for lease in await api.take(1)] == ["a"]
        await api.put(api.job("c"))
        await api.queue.cancel("b")
        (group,) = raw.xinfo_groups(f"{PREFIX}q:bulk")
        assert group["lag"] == 2


async def test_closing_withdraws_what_nobody_else_waits_for(processes: Connected, raw: Any) -> None:
    async with processes(1, lease_s=30) as (api,):
        await api.put(api.job("a"), api.job("kept", keep=True))
        await api.queue.reserve(5)
    assert raw.get(f"{PREFIX}items") == b"1"
    assert raw.keys(f"{PREFIX}job:*") == [f"{PREFIX}job:kept".encode()]


async def test_a_redis_that_is_away(processes: Connected, own_redis: Any) -> None:
    async with processes(1) as (at,):
        await at.put(at.job("a"))
        (lease,) = await at.take()
        own_redis.kill()
        broker = at.broker
        calls = [
            at.queue.reserve(1),
            at.queue.unreserve(1),
            at.queue.bind_key("k", "f"),
            at.queue.submit(at.job("b")),
            at.queue.state("b"),
            at.queue.lease("worker", 1, wait_s=1),
            at.queue.load(lease),
            at.queue.renew([lease]),
            at.queue.done(lease, at.result()),
            at.queue.fail(lease, DeadlineExceeded("x")),
            at.queue.release([lease]),
            at.queue.stats(),
            broker.registry.workers(),
            broker.registry.info(),
            broker.notes.get("a"),
            broker.notes.put("a", b"", 1),
            broker.notes.delete("a"),
            broker.dead_letters.list(1),
            broker.dead_letters.drop("1-1"),
        ]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [BrokerUnavailable] * len(calls)
        assert all("127.0.0.1" not in str(outcome) for outcome in outcomes)
