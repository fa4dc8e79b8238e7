"""The worker beside a real queue: batches, bad jobs, leases, drain."""

import asyncio
import os
import threading
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import numpy as np
import pytest

from reward_services import ScoreItem, Scorer
from reward_services.job_queue import Job, JobQueue, JobResult, QueueLimits
from reward_services.memory_queue import MemoryQueue
from reward_services.metrics import Metrics
from reward_services.scorer import ScorerContractError
from reward_services.scoring import BatchHung
from reward_services.worker import Worker
from shared.errors import BrokerUnavailable, DeadlineExceeded

RAISES = 250
Grey = Callable[[int], np.ndarray]


class Recording(Scorer, Protocol):
    """What these tests know of the `mean_level` fixture."""

    batches: list[list[str]]


class Gate:
    """A scorer that waits until it is let through; its score is the batch's size."""

    name = "gate"
    version = "1"
    max_batch_size = 4

    def __init__(self) -> None:
        self.inside = threading.Event()
        self.open = threading.Event()
        self.batches: list[list[str]] = []

    def score(self, items: Sequence[ScoreItem]) -> list[float]:
        self.batches.append([item.prompt for item in items])
        self.inside.set()
        assert self.open.wait(30)
        return [float(len(items))] * len(items)


@asynccontextmanager
async def working(
    queue: JobQueue, scorer: Scorer, **options: float
) -> AsyncIterator[tuple[Worker, Metrics]]:
    metrics = Metrics(scorer.name)
    worker = Worker(queue, scorer, metrics, **options)  # type: ignore[arg-type]
    task = asyncio.create_task(worker.run())
    try:
        yield worker, metrics
    finally:
        worker.drain()
        await task


async def submit(
    queue: JobQueue, grey: Grey, name: str, *levels: int, timeout_s: float = 60
) -> None:
    items = [ScoreItem(grey(level), name) for level in levels]
    await queue.reserve(len(items))
    await queue.submit(Job(name, items, timeout_s))


async def scores(queue: JobQueue, name: str) -> list[float | None]:
    return [result.score for result in (await queue.result(name)).results]


async def entered(gate: Gate) -> None:
    """Wait for a batch to reach the scorer."""
    assert await asyncio.to_thread(gate.inside.wait, 30)
    gate.inside.clear()


async def test_jobs_are_scored_together_and_answered_apart(
    grey: Grey, mean_level: Recording
) -> None:
    queue = MemoryQueue()
    await submit(queue, grey, "a", 1, 2)
    await submit(queue, grey, "b", 3)
    await submit(queue, grey, "c", 4, 5)
    async with working(queue, mean_level, max_wait_s=0.0) as (_, metrics):
        assert await scores(queue, "b") == [3]
        assert await scores(queue, "a") == [1, 2]
        assert await scores(queue, "c") == [4, 5]
        text = metrics.text().decode()
    assert mean_level.batches == [["a", "a", "b"], ["c", "c"]]
    assert 'reward_batch_items_sum{service="mean_level"} 5.0' in text
    assert 'reward_batch_jobs_count{service="mean_level"} 2.0' in text


async def test_pictures_are_let_go_when_they_are_scored(mean_level: Recording) -> None:
    """Not when the next batch comes, which would have to wait until the memory is freed."""
    queue = MemoryQueue()
    image = np.zeros((4, 4, 3), np.uint8)
    gone = weakref.ref(image)
    await queue.reserve(1)
    await queue.submit(Job("a", [ScoreItem(image)], 60))
    del image
    async with working(queue, mean_level):
        assert await scores(queue, "a") == [0]
        # Whether it is ever let go, and not how soon, is the question.
        while gone() is not None:
            await asyncio.sleep(0.01)


async def test_a_result_says_who_scored_and_where_the_time_went(
    grey: Grey, mean_level: Recording
) -> None:
    queue = MemoryQueue()
    await submit(queue, grey, "a", 1)
    async with working(queue, mean_level):
        outcome: JobResult = await queue.result("a")
    assert outcome.identity is not None
    assert (outcome.identity.name, outcome.identity.version) == ("mean_level", "1")
    assert outcome.durations.inference_s > 0
    assert outcome.durations.queue_s >= 0


async def test_a_bad_item_does_not_touch_other_jobs(grey: Grey, mean_level: Recording) -> None:
    queue = MemoryQueue()
    await submit(queue, grey, "a", 1, RAISES)
    await submit(queue, grey, "b", 3)
    async with working(queue, mean_level, max_wait_s=0.0):
        assert await scores(queue, "a") == [1, None]
        assert await scores(queue, "b") == [3]


async def test_work_goes_on_while_one_batch_is_scored(grey: Grey) -> None:
    """Jobs are leased ahead, up to one batch, and leave together when the worker is free."""
    queue, gate = MemoryQueue(), Gate()
    async with working(queue, gate, max_wait_s=0.0):
        await submit(queue, grey, "a", 1)
        await entered(gate)
        for name in "bcdef":
            await submit(queue, grey, name, 1)
        await until_leased(queue, 5)
        gate.open.set()
        assert await scores(queue, "f") == [1]
    assert gate.batches == [["a"], ["b", "c", "d", "e"], ["f"]]


async def until_leased(queue: JobQueue, items: int) -> None:
    async with asyncio.timeout(30):
        while (await queue.stats()).leased_items != items:
            await asyncio.sleep(0.005)


async def test_a_drain_finishes_the_batch_and_hands_the_rest_back(grey: Grey) -> None:
    queue, gate = MemoryQueue(), Gate()
    async with working(queue, gate, max_wait_s=0.0) as (worker, _):
        await submit(queue, grey, "a", 1)
        await entered(gate)
        await submit(queue, grey, "b", 1)
        await until_leased(queue, 2)
        worker.drain()
        gate.open.set()
        assert await scores(queue, "a") == [1]
    assert gate.batches == [["a"]]
    (lease,) = await queue.lease("next worker", 1, wait_s=0)
    assert (lease.job_id, lease.deliveries) == ("b", 1)


async def test_a_slow_batch_keeps_its_lease(grey: Grey) -> None:
    queue, gate = MemoryQueue(QueueLimits(lease_s=0.4)), Gate()
    async with working(queue, gate, max_wait_s=0.0, lease_s=0.4):
        await submit(queue, grey, "a", 1)
        await entered(gate)
        deadline = time.monotonic() + 0.9
        while time.monotonic() < deadline:
            assert await queue.lease("thief", 1, wait_s=0.01) == []
        gate.open.set()
        assert await scores(queue, "a") == [1]


async def test_a_redelivered_job_runs_alone(grey: Grey, mean_level: Recording) -> None:
    queue = MemoryQueue(QueueLimits(lease_s=0.02))
    await submit(queue, grey, "suspect", 1)
    (lease,) = await queue.lease("a worker that dies", 1, wait_s=0)
    await queue.load(lease)
    await asyncio.sleep(0.03)
    await submit(queue, grey, "innocent", 2)
    async with working(queue, mean_level, max_wait_s=0.0, lease_s=30):
        assert await scores(queue, "innocent") == [2]
        assert await scores(queue, "suspect") == [1]
    assert mean_level.batches == [["suspect"], ["innocent"]]


async def test_jobs_nobody_waits_for_are_not_scored(grey: Grey) -> None:
    queue, gate = MemoryQueue(), Gate()
    async with working(queue, gate, max_wait_s=0.0):
        await submit(queue, grey, "a", 1)
        await entered(gate)
        await submit(queue, grey, "cancelled", 1)
        await submit(queue, grey, "expired", 1, timeout_s=0.5)
        await submit(queue, grey, "b", 1)
        await until_leased(queue, 4)
        await queue.cancel("cancelled")
        await asyncio.sleep(0.6)
        gate.open.set()
        with pytest.raises(DeadlineExceeded):
            await queue.result("expired")
        assert await scores(queue, "b") == [1]
    assert gate.batches == [["a"], ["b"]]


async def test_a_cancelled_caller_does_not_end_the_worker(grey: Grey) -> None:
    queue, gate = MemoryQueue(), Gate()
    async with working(queue, gate, max_wait_s=0.0):
        await submit(queue, grey, "a", 1)
        caller = asyncio.create_task(queue.result("a"))
        await entered(gate)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        await queue.cancel("a")
        await submit(queue, grey, "b", 1)
        gate.open.set()
        assert await scores(queue, "b") == [1]


async def test_a_broker_that_is_away_for_a_while(
    grey: Grey, mean_level: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing in memory can be away, so this fault is made by hand."""
    monkeypatch.setattr("reward_services.batch_run.RETRY_S", 0.001)
    queue = MemoryQueue()
    away = 3
    lease = queue.lease

    async def lease_or_fail(worker: str, max_items: int, wait_s: float) -> object:
        nonlocal away
        if away:
            away -= 1
            raise BrokerUnavailable("gone")
        return await lease(worker, max_items, wait_s)

    monkeypatch.setattr(queue, "lease", lease_or_fail)
    await submit(queue, grey, "a", 1)
    async with working(queue, mean_level):
        assert await scores(queue, "a") == [1]


async def test_a_smaller_batch_can_be_asked_for(grey: Grey, mean_level: Recording) -> None:
    queue = MemoryQueue()
    for name in "abcd":
        await submit(queue, grey, name, 1)
    async with working(queue, mean_level, max_batch_items=2, max_wait_s=0.0):
        assert await scores(queue, "d") == [1]
    assert mean_level.batches == [["a", "b"], ["c", "d"]]


async def test_warming_up_finds_a_scorer_that_does_not_work(mean_level: Recording) -> None:
    class Wrong:
        name = "wrong"
        version = "1"
        max_batch_size = 1

        def score(self, items: Sequence[ScoreItem]) -> list[float]:
            return [0.0] * (len(items) + 1)

    with pytest.raises(ScorerContractError, match="2 results for 1 items"):
        await Worker(MemoryQueue(), Wrong(), Metrics("wrong")).warm_up()
    await Worker(MemoryQueue(), mean_level, Metrics("mean_level")).warm_up()
    assert mean_level.batches == [["a picture"]]


async def test_the_next_batch_is_loaded_while_one_is_scored_if_it_is_full(grey: Grey) -> None:
    """A batch that is not full yet still waits for company; it is only leased."""
    queue, gate = MemoryQueue(), Gate()
    async with working(queue, gate, max_wait_s=0.0):
        await submit(queue, grey, "a", 1)
        await entered(gate)
        await submit(queue, grey, "b", 1, 1)
        await until_leased(queue, 3)
        assert await phases(queue, "ab") == ["running", "waiting"]
        await submit(queue, grey, "c", 1, 1)
        await until_loaded(queue, "c")
        assert await phases(queue, "abc") == ["running"] * 3
        await submit(queue, grey, "d", 1)
        gate.open.set()
        assert await scores(queue, "d") == [1]
    assert gate.batches == [["a"], ["b", "b", "c", "c"], ["d"]]


async def phases(queue: JobQueue, names: Sequence[str]) -> list[str]:
    states = [await queue.state(name) for name in names]
    return [state.phase for state in states if state is not None]


async def until_loaded(queue: JobQueue, name: str) -> None:
    async with asyncio.timeout(30):
        while await phases(queue, name) != ["running"]:
            await asyncio.sleep(0.005)


async def test_no_worker_holds_more_than_one_batch_beside_the_running_one(grey: Grey) -> None:
    queue, gate = MemoryQueue(), Gate()
    async with working(queue, gate, max_wait_s=0.0):
        await submit(queue, grey, "a", 1)
        await entered(gate)
        for name in "bcdef":
            await submit(queue, grey, name, 1, 1)
        await until_loaded(queue, "c")
        assert [lease.job_id for lease in await queue.lease("another", 64, wait_s=0)] == [
            "d",
            "e",
            "f",
        ]
        gate.open.set()
        assert await scores(queue, "c") == [4, 4]


async def test_nothing_is_loaded_beside_a_suspect(grey: Grey) -> None:
    """If it kills the worker, nobody else may look as if they had."""
    queue, gate = MemoryQueue(QueueLimits(lease_s=0.02)), Gate()
    await submit(queue, grey, "suspect", 1)
    (lease,) = await queue.lease("a worker that dies", 1, wait_s=0)
    await queue.load(lease)
    await asyncio.sleep(0.03)
    async with working(queue, gate, max_wait_s=0.0, lease_s=30):
        await entered(gate)
        await submit(queue, grey, "full", 1, 1, 1, 1)
        await until_leased(queue, 5)
        assert await phases(queue, ["full"]) == ["waiting"]
        gate.open.set()
        assert await scores(queue, "full") == [4] * 4
    assert gate.batches == [["suspect"], ["full"] * 4]


async def test_no_suspect_is_loaded_beside_others(grey: Grey) -> None:
    queue, gate = MemoryQueue(QueueLimits(lease_s=0.3)), Gate()
    async with working(queue, gate, max_wait_s=0.0, lease_s=0.3):
        await submit(queue, grey, "suspect", 1)
        (lease,) = await queue.lease("a worker that dies", 1, wait_s=0)
        await queue.load(lease)
        await submit(queue, grey, "innocent", 1)
        await entered(gate)
        await until_leased(queue, 2)
        async with asyncio.timeout(30):
            while (await queue.stats()).redelivered == 0:
                await asyncio.sleep(0.005)
        # Once this is leased too, the worker has had its chance to load the suspect.
        await submit(queue, grey, "more", 1, 1, 1)
        await until_leased(queue, 5)
        assert await phases(queue, ["innocent", "suspect"]) == ["running", "waiting"]
        gate.open.set()
        assert await scores(queue, "suspect") == [1]
        assert await scores(queue, "more") == [3] * 3
    assert gate.batches == [["innocent"], ["suspect"], ["more"] * 3]


async def test_a_batch_that_hangs_ends_the_worker_and_hands_back_what_was_not_begun(
    grey: Grey,
) -> None:
    queue, gate = MemoryQueue(QueueLimits(lease_s=0.3)), Gate()
    worker = Worker(queue, gate, Metrics("gate"), max_wait_s=0, lease_s=0.3, max_batch_seconds=0.6)
    running = asyncio.create_task(worker.run())
    try:
        await submit(queue, grey, "hangs", 1)
        await entered(gate)
        await submit(queue, grey, "waits", 1)
        await until_leased(queue, 2)
        with pytest.raises(BatchHung, match="REWARD_MAX_BATCH_SECONDS"):
            await running
        (lease,) = await queue.lease("next worker", 1, wait_s=0)
        assert (lease.job_id, lease.deliveries) == ("waits", 1)
        # The other's lease is not renewed any more.
        async with asyncio.timeout(30):
            while not (again := await queue.lease("next worker", 1, wait_s=0.1)):
                pass
        assert (again[0].job_id, again[0].deliveries) == ("hangs", 2)
    finally:
        gate.open.set()


async def test_what_was_scored_is_handed_in_when_the_broker_is_back(
    grey: Grey, mean_level: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing in memory can be away, so this fault is made by hand."""
    monkeypatch.setattr("reward_services.batch_run.RETRY_S", 0.001)
    queue = MemoryQueue()
    away = 3

    def flaky(call: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        async def once_in_a_while(*arguments: object) -> object:
            nonlocal away
            if away:
                away -= 1
                raise BrokerUnavailable("gone")
            return await call(*arguments)

        return once_in_a_while

    monkeypatch.setattr(queue, "done", flaky(queue.done))
    await submit(queue, grey, "a", 1)
    async with working(queue, mean_level, max_wait_s=0.0):
        assert await scores(queue, "a") == [1]
        away = 3
        monkeypatch.setattr(queue, "load", flaky(queue.load))
        await submit(queue, grey, "b", 2)
        assert await scores(queue, "b") == [2]
    assert mean_level.batches == [["a"], ["b"]]


async def test_stages_and_fill_are_measured(grey: Grey, mean_level: Recording) -> None:
    queue = MemoryQueue()
    await submit(queue, grey, "a", 1, 2)
    async with working(queue, mean_level, max_wait_s=0.0) as (worker, metrics):
        assert await scores(queue, "a") == [1, 2]
        while worker.items_done != 2:
            await asyncio.sleep(0.005)
        assert worker.name.split(":")[1] == str(os.getpid())
    lines = metrics.text().decode().splitlines()
    assert 'reward_batch_fill_ratio_sum{service="mean_level"} 0.5' in lines
    for stage in ("queue_wait", "batch_wait", "load", "inference", "finish"):
        assert f'reward_{stage}_seconds_count{{service="mean_level"}} 1.0' in lines, stage
