"""The worker: lease -> batch -> score -> finish, until it is told to drain.

Two loops share the jobs at hand: one leases ahead, at most one batch, while the other scores. The
scorer runs in a thread of its own, so leases are renewed however long it takes.
"""

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar

import numpy as np

from reward_services.batching import BatchLimits, take_batch
from reward_services.job_queue import JobQueue, JobResult, Lease, Payload
from reward_services.metrics import Metrics
from reward_services.scorer import ScoreItem, Scorer, describe, run_scorer
from reward_services.scoring import score_batch
from shared.errors import DeadlineExceeded, ServiceUnavailable
from shared.schema import Durations, ItemResult

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

# How long one call for jobs waits; it bounds how long a drain takes to be noticed.
POLL_S = 1.0
# Between two tries when the broker is away.
RETRY_S = 0.5


@dataclass(frozen=True, slots=True)
class _AtHand:
    """A leased job with the times that batching asks for (monotonic seconds)."""

    lease: Lease
    arrived: float

    @property
    def size(self) -> int:
        return self.lease.size

    @property
    def deadline(self) -> float:
        return self.arrived + self.lease.remaining_s

    @property
    def alone(self) -> bool:
        return self.lease.deliveries > 1


@dataclass(frozen=True, slots=True)
class _Loaded:
    job: _AtHand
    payload: Payload


class Worker:
    """Scores what is in `queue` with `scorer`, one batch at a time."""

    def __init__(
        self,
        queue: JobQueue,
        scorer: Scorer,
        metrics: Metrics,
        *,
        max_batch_items: int | None = None,
        max_wait_s: float = 0.005,
        lease_s: float = 30.0,
    ) -> None:
        self.name = f"worker-{uuid.uuid4().hex[:12]}"
        self._queue = queue
        self._scorer = scorer
        self._about = describe(scorer)
        self._metrics = metrics
        most = self._about.max_batch_size
        self._limits = BatchLimits(min(max_batch_items or most, most), max_wait_s)
        self._renew_every_s = lease_s / 3
        self._at_hand: list[_AtHand] = []
        self._running: list[_AtHand] = []
        self._arrival = asyncio.Event()
        self._room = asyncio.Event()
        self._draining = False
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="scorer")

    async def warm_up(self) -> None:
        """Score one grey picture, so that the first request finds everything loaded.

        Raises:
            ScorerContractError: the scorer broke its contract. What it raises itself passes too.
        """
        grey = ScoreItem(np.full((64, 64, 3), 128, np.uint8), "a picture")
        await self._in_thread(run_scorer, self._scorer, [grey])

    async def run(self) -> None:
        """Work until `drain`; then finish the running batch and hand the other jobs back."""
        try:
            async with asyncio.TaskGroup() as group:
                background = [
                    group.create_task(self._renew()),
                    group.create_task(self._lease_ahead()),
                ]
                await self._score_batches()
                for task in background:
                    task.cancel()
        finally:
            with contextlib.suppress(ServiceUnavailable):
                await self._queue.release([job.lease for job in self._at_hand])
            self._at_hand.clear()
            self._executor.shutdown(wait=False)

    def drain(self) -> None:
        """Take no more jobs; `run` returns when the running batch is done."""
        self._draining = True
        self._arrival.set()

    async def _lease_ahead(self) -> None:
        while not self._draining:
            self._room.clear()
            room = self._limits.max_items - sum(job.size for job in self._at_hand)
            if room <= 0:
                await self._room.wait()
                continue
            try:
                leases = await self._queue.lease(self.name, room, POLL_S)
            except ServiceUnavailable as error:
                logger.warning("the job queue is away: %s", error)
                await asyncio.sleep(RETRY_S)
                continue
            self._metrics.heartbeat.set_to_current_time()
            if leases:
                now = time.monotonic()
                self._at_hand.extend(_AtHand(lease, now) for lease in leases)
                self._arrival.set()

    async def _score_batches(self) -> None:
        while not self._draining:
            # Cleared before looking, so that what arrives while looking is not missed.
            self._arrival.clear()
            now = time.monotonic()
            decision = take_batch(self._at_hand, now, self._limits)
            self._at_hand[:] = decision.rest
            for job in decision.expired:
                await self._give_up(job)
            if decision.batch:
                self._running[:] = decision.batch
                self._room.set()
                await self._run_batch(decision.batch)
                self._running.clear()
                continue
            wait_s = None if decision.wait_until is None else decision.wait_until - now
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._arrival.wait(), wait_s)

    async def _run_batch(self, batch: Sequence[_AtHand]) -> None:
        try:
            loaded = []
            for job in batch:
                if (payload := await self._queue.load(job.lease)) is not None:
                    loaded.append(_Loaded(job, payload))
            if loaded:
                await self._score(loaded)
        except ServiceUnavailable as error:
            # The jobs stay leased and come again when the lease runs out.
            logger.warning("the job queue is away: %s", error)

    async def _score(self, loaded: Sequence[_Loaded]) -> None:
        items = [item for one in loaded for item in one.payload.items]
        started = time.monotonic()
        results = await self._in_thread(score_batch, self._scorer, items)
        seconds = time.monotonic() - started
        self._observe(loaded, started, seconds)
        position = 0
        for one in loaded:
            part = results[position : position + one.job.size]
            position += one.job.size
            await self._finish(one, part, started, seconds)

    async def _finish(
        self, one: _Loaded, results: Sequence[ItemResult], started: float, seconds: float
    ) -> None:
        durations = Durations(
            queue_s=max(0.0, one.job.lease.waited_s),
            batch_wait_s=started - one.job.arrived,
            inference_s=seconds,
        )
        result = JobResult(self._about.identity, results, durations)
        await self._queue.done(one.job.lease, result)

    async def _give_up(self, job: _AtHand) -> None:
        with contextlib.suppress(ServiceUnavailable):
            await self._queue.fail(
                job.lease, DeadlineExceeded("the deadline passed before a worker was free")
            )

    def _observe(self, loaded: Sequence[_Loaded], started: float, seconds: float) -> None:
        self._metrics.inference.observe(seconds)
        self._metrics.batch_jobs.observe(len(loaded))
        self._metrics.batch_items.observe(sum(one.job.size for one in loaded))
        for one in loaded:
            self._metrics.queue_wait.observe(one.job.lease.waited_s)
            self._metrics.batch_wait.observe(started - one.job.arrived)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._renew_every_s)
            held = [job.lease for job in (*self._running, *self._at_hand)]
            if held:
                with contextlib.suppress(ServiceUnavailable):
                    await self._queue.renew(held)

    async def _in_thread(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, partial(call, *args, **kwargs))
