"""The worker: lease -> batch -> load -> score -> finish, until it is told to drain.

Two loops share the jobs at hand: one leases ahead, one batch at most, while the other scores. The
scorer runs in a thread of its own, so leases are renewed however long it takes, and while it is
busy the pictures of the next batch are fetched, if that batch is full already.
"""

import asyncio
import contextlib
import os
import socket
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace

from reward_services.batch_run import RETRY_S, AtHand, BatchRun, Loaded
from reward_services.batching import BatchLimits, Decision, take_batch
from reward_services.job_queue import JobQueue
from reward_services.metrics import Metrics
from reward_services.scorer import Scorer, describe
from reward_services.scoring import BatchHung
from reward_services.tracing import Tracing
from shared.errors import DeadlineExceeded, ServiceUnavailable

# How long one call for jobs waits; it bounds how long a drain takes to be noticed.
POLL_S = 1.0


class Worker:
    """Scores what is in `queue` with `scorer`, one batch at a time.

    Args:
        queue: where jobs come from.
        scorer: called in one thread, always the same.
        metrics: where batches are measured.
        max_batch_items: most pictures of a batch; the scorer's own limit when not given.
        max_wait_s: how long the first job of a batch waits for company.
        lease_s: as the queue has it; leases are renewed three times in that time.
        max_batch_seconds: a batch that takes longer hangs.
        tracing: where spans go; nowhere by default.

    Attributes:
        name: unique, and tells where it runs.
    """

    def __init__(
        self,
        queue: JobQueue,
        scorer: Scorer,
        metrics: Metrics,
        *,
        max_batch_items: int | None = None,
        max_wait_s: float = 0.005,
        lease_s: float = 30.0,
        max_batch_seconds: float = 600.0,
        tracing: Tracing | None = None,
    ) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._queue = queue
        self._metrics = metrics
        most = describe(scorer).max_batch_size
        self._limits = BatchLimits(min(max_batch_items or most, most), max_wait_s)
        self._run = BatchRun(
            queue,
            scorer,
            metrics,
            tracing or Tracing(),
            max_items=self._limits.max_items,
            max_seconds=max_batch_seconds,
        )
        self._renew_every_s = lease_s / 3
        self._at_hand: list[AtHand] = []
        self._running: list[AtHand] = []
        # Pictures loaded for the next batch; one batch beside the running one is enough to hold.
        self._ahead = 0
        self._arrival = asyncio.Event()
        self._room = asyncio.Event()
        self._draining = False
        self._hung: BatchHung | None = None

    @property
    def items_done(self) -> int:
        """Pictures finished so far."""
        return self._run.items_done

    @property
    def busy(self) -> bool:
        """Whether it holds pictures that it has begun with."""
        return bool(self._running)

    async def warm_up(self) -> None:
        """Score one grey picture, so that the first request finds everything loaded.

        Raises:
            ScorerContractError: the scorer broke its contract. What it raises itself passes too.
        """
        await self._run.warm_up()

    async def run(self) -> None:
        """Work until `drain`; then finish what was begun and hand the other jobs back.

        Raises:
            BatchHung: a batch did not come back; its jobs go to other workers.
        """
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
            self._run.close()
        if self._hung is not None:
            raise self._hung

    def drain(self) -> None:
        """Take no more jobs; `run` returns when what was begun is done."""
        self._draining = True
        self._arrival.set()

    async def _lease_ahead(self) -> None:
        while not self._draining:
            self._room.clear()
            held = sum(job.size for job in self._at_hand) + self._ahead
            room = self._limits.max_items - held
            if room <= 0:
                await self._room.wait()
                continue
            try:
                leases = await self._queue.lease(self.name, room, POLL_S)
            except ServiceUnavailable as error:
                self._run.outage.begin(error)
                await asyncio.sleep(RETRY_S)
                continue
            self._run.outage.end()
            self._metrics.heartbeat.set_to_current_time()
            if leases:
                now = time.monotonic()
                self._at_hand.extend(AtHand(lease, now) for lease in leases)
                self._arrival.set()

    async def _score_batches(self) -> None:
        batch = await self._next()
        while batch:
            running = asyncio.create_task(self._run.run(batch))
            ahead = await self._next_while(running, batch)
            try:
                await running
            except BatchHung as error:
                self._hung = error
                return
            self._running[:] = [one.job for one in ahead]
            self._ahead = 0
            self._room.set()
            # The scored pictures are let go here: to free megabytes takes milliseconds, which the
            # next batch would have to wait for.
            batch, ahead = ahead, []
            batch = batch or await self._next()

    async def _next(self) -> list[Loaded]:
        """Wait for a batch; none when draining."""
        while not self._draining:
            # Cleared before looking, so that what arrives while looking is not missed.
            self._arrival.clear()
            decision = await self._decide(self._limits)
            if decision.batch and (loaded := await self._load(decision.batch)):
                return loaded
            if decision.batch:
                continue
            wait_until = decision.wait_until
            wait_s = None if wait_until is None else wait_until - time.monotonic()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._arrival.wait(), wait_s)
        return []

    async def _next_while(
        self, running: asyncio.Task[None], batch: Sequence[Loaded]
    ) -> list[Loaded]:
        """The next batch, if it is full before the running one is done; otherwise none.

        Beside a suspect nothing is loaded, nor a suspect beside others: who has loaded a picture
        when its worker dies may have died of it.
        """
        limits = replace(self._limits, max_wait_s=float("inf"))
        suspect = any(one.job.alone for one in batch)
        while not (suspect or running.done() or self._draining):
            self._arrival.clear()
            if not (self._at_hand and self._at_hand[0].alone):
                decision = await self._decide(limits)
                if decision.batch:
                    self._ahead = sum(job.size for job in decision.batch)
                    return await self._load(decision.batch)
            arrival = asyncio.create_task(self._arrival.wait())
            await asyncio.wait({running, arrival}, return_when=asyncio.FIRST_COMPLETED)
            arrival.cancel()
        return []

    async def _decide(self, limits: BatchLimits) -> Decision[AtHand]:
        decision = take_batch(self._at_hand, time.monotonic(), limits)
        self._at_hand[:] = decision.rest
        for job in decision.expired:
            with contextlib.suppress(ServiceUnavailable):
                await self._queue.fail(
                    job.lease, DeadlineExceeded("the deadline passed before a worker was free")
                )
        return decision

    async def _load(self, batch: Sequence[AtHand]) -> list[Loaded]:
        self._running.extend(batch)
        self._room.set()
        loaded = await self._run.load(batch)
        kept = [one.job for one in loaded]
        for job in batch:
            if job not in kept:
                self._running.remove(job)
        return loaded

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._renew_every_s)
            held = [job.lease for job in (*self._running, *self._at_hand)]
            if held:
                with contextlib.suppress(ServiceUnavailable):
                    await self._queue.renew(held)
