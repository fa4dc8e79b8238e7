"""One batch at a worker: its pictures fetched, scored in a thread, and the results handed in."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import structlog

from reward_services.job_queue import JobQueue, JobResult, Lease, Payload
from reward_services.metrics import Metrics
from reward_services.outages import Outage
from reward_services.scorer import ScoreItem, Scorer, describe, run_scorer
from reward_services.scoring import BatchHung, score_batch
from reward_services.tracing import Facts, Tracing
from shared.errors import ServiceUnavailable
from shared.schema import Durations, ItemResult

T = TypeVar("T")

# Between two tries when the broker is away.
RETRY_S = 0.5

log = structlog.get_logger("reward_services.worker")


@dataclass(frozen=True, slots=True)
class AtHand:
    """A leased job with the times that batching asks for (monotonic seconds)."""

    lease: Lease
    arrived: float

    @property
    def size(self) -> int:
        """Pictures in it."""
        return self.lease.size

    @property
    def deadline(self) -> float:
        """When nobody waits for it any more."""
        return self.arrived + self.lease.remaining_s

    @property
    def alone(self) -> bool:
        """Whether it has been at a worker that went silent, and may have been the cause."""
        return self.lease.deliveries > 1


@dataclass(frozen=True, slots=True)
class Loaded:
    """A job whose pictures are here."""

    job: AtHand
    payload: Payload


class BatchRun:
    """What one worker does with its batches, one at a time.

    Args:
        queue: where pictures come from and results go.
        scorer: called in one thread, always the same.
        metrics: where batches are measured.
        tracing: where their spans go.
        max_items: pictures of a full batch.
        max_seconds: a batch that takes longer hangs.
    """

    def __init__(
        self,
        queue: JobQueue,
        scorer: Scorer,
        metrics: Metrics,
        tracing: Tracing,
        *,
        max_items: int,
        max_seconds: float,
    ) -> None:
        self.items_done = 0
        self.outage = Outage(metrics)
        self._queue = queue
        self._scorer = scorer
        self._identity = describe(scorer).identity
        self._metrics = metrics
        self._tracing = tracing
        self._max_items = max_items
        self._max_seconds = max_seconds
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="scorer")

    async def warm_up(self) -> None:
        """Score one grey picture, so that the first request finds everything loaded.

        Raises:
            ScorerContractError: the scorer broke its contract. What it raises itself passes too.
        """
        grey = ScoreItem(np.full((64, 64, 3), 128, np.uint8), "a picture")
        await self._in_thread(lambda: run_scorer(self._scorer, [grey]))

    async def load(self, jobs: Sequence[AtHand]) -> list[Loaded]:
        """Fetch the pictures of the jobs that are still wanted."""
        started = time.monotonic()
        loaded = []
        for job in jobs:
            try:
                payload = await self._insist(partial(self._queue.load, job.lease), job)
            except ServiceUnavailable:
                # It comes again when its lease runs out.
                continue
            if payload is not None:
                loaded.append(Loaded(job, payload))
        self._metrics.load.observe(time.monotonic() - started)
        return loaded

    async def run(self, batch: Sequence[Loaded]) -> None:
        """Score a batch and hand in its results.

        Raises:
            BatchHung: it took longer than `max_seconds`.
        """
        items = [item for one in batch for item in one.payload.items]
        origins = [_origin(one, index) for one in batch for index in range(one.job.size)]
        facts: Facts = {"reward": self._scorer.name, "items": len(items), "jobs": len(batch)}
        started = time.monotonic()
        with self._tracing.batch([one.payload.traceparent for one in batch], facts):
            results = await self._timed(
                lambda: score_batch(self._scorer, items, origins), len(items)
            )
        seconds = time.monotonic() - started
        self._observe(batch, started, seconds)
        started_finishing = time.monotonic()
        position = 0
        for one in batch:
            part = results[position : position + one.job.size]
            position += one.job.size
            await self._finish(one, part, started, seconds)
        self._metrics.finish.observe(time.monotonic() - started_finishing)
        _log(batch, results, seconds)

    def close(self) -> None:
        """Let the thread go once it is free."""
        self._executor.shutdown(wait=False)

    async def _timed(self, call: Callable[[], T], items: int) -> T:
        try:
            async with asyncio.timeout(self._max_seconds):
                return await self._in_thread(call)
        except TimeoutError:
            raise BatchHung(
                f"{self._scorer.name} has not scored {items} pictures within "
                f"{self._max_seconds:g} s: the process ends, and other workers get them; if they "
                "take so long, raise REWARD_MAX_BATCH_SECONDS"
            ) from None

    async def _finish(
        self, one: Loaded, results: Sequence[ItemResult], started: float, seconds: float
    ) -> None:
        durations = Durations(
            queue_s=max(0.0, one.job.lease.waited_s),
            batch_wait_s=max(0.0, started - one.job.arrived),
            inference_s=seconds,
        )
        result = JobResult(self._identity, results, durations)
        try:
            await self._insist(partial(self._queue.done, one.job.lease, result), one.job)
        except ServiceUnavailable:
            log.warning("a result could not be handed in", **_ids(one))
        self.items_done += one.job.size

    async def _insist(self, call: Callable[[], Awaitable[T]], job: AtHand) -> T:
        """Call again while the broker is away and somebody may wait for the job.

        Raises:
            ServiceUnavailable: the broker did not come back in time.
        """
        while True:
            try:
                answer = await call()
            except ServiceUnavailable as error:
                self.outage.begin(error)
                if time.monotonic() >= job.deadline:
                    raise
                await asyncio.sleep(RETRY_S)
            else:
                self.outage.end()
                return answer

    def _observe(self, batch: Sequence[Loaded], started: float, seconds: float) -> None:
        items = sum(one.job.size for one in batch)
        self._metrics.inference.observe(seconds)
        self._metrics.batch_jobs.observe(len(batch))
        self._metrics.batch_items.observe(items)
        self._metrics.batch_fill.observe(items / self._max_items)
        for one in batch:
            self._metrics.queue_wait.observe(one.job.lease.waited_s)
            self._metrics.batch_wait.observe(started - one.job.arrived)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)


def _ids(one: Loaded) -> dict[str, str]:
    return {"job_id": one.job.lease.job_id, "request_id": one.payload.request_id}


def _origin(one: Loaded, index: int) -> dict[str, object]:
    return {**_ids(one), "picture": one.job.lease.first + index}


def _log(batch: Sequence[Loaded], results: Sequence[ItemResult], seconds: float) -> None:
    log.info(
        "batch",
        items=len(results),
        errors=sum(result.error is not None for result in results),
        ms=round(seconds * 1000, 1),
        job_ids=[one.job.lease.job_id for one in batch],
        request_ids=[one.payload.request_id for one in batch],
    )
