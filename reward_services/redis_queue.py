"""`redis://`: the job queue between processes, on streams that hold names and no pictures.

Every step is one Lua script (`lua/`), so that it happens wholly or not at all, and every step may
be repeated. What a process that died leaves behind ends by itself: leases lapse, keys expire, and
room that was reserved is given back.
"""

import contextlib
import random
import time

from reward_services.blobs import Blobs
from reward_services.job_queue import (
    Job,
    JobResult,
    JobState,
    QueueLimits,
    QueueStats,
    Throughput,
    key_conflict,
    queue_full,
)
from reward_services.redis_bell import Awaited, RedisBell
from reward_services.redis_connection import RedisConnection, broker_errors
from reward_services.redis_leases import RedisLeases
from reward_services.redis_results import decode_state
from reward_services.redis_scripts import GRACE_S, RedisScripts, milliseconds
from shared.errors import (
    BrokerUnavailable,
    DeadlineExceeded,
    Draining,
    NotFound,
    RewardError,
)

TIDY_EVERY_S = 15.0


class RedisQueue(RedisLeases):
    """A `JobQueue` in Redis, for one event loop of an API process, of a worker, or of both."""

    def __init__(
        self,
        connection: RedisConnection,
        scripts: RedisScripts,
        blobs: Blobs,
        limits: QueueLimits,
    ) -> None:
        super().__init__(connection, scripts, blobs, limits)
        self._bell = RedisBell(connection, scripts, self._send_again, self._do_chores)
        self._reap_at = self._tidy_at = 0.0

    async def reserve(self, items: int) -> None:
        """See `JobQueue.reserve`."""
        if self._closed:
            raise Draining("the service is shutting down", retry_after=1)
        self._bell.listen()
        # Counted before Redis is asked: what Redis holds beyond this count was lost on the way.
        self._bell.reserved += items
        try:
            taken, admitted, done, seconds = await self._scripts.run(
                "reserve", self._bell.name, items
            )
        except BaseException:
            self._bell.reserved -= items
            raise
        if not taken:
            self._bell.reserved -= items
            pace = Throughput(float(done), float(seconds))
            raise queue_full(items, admitted, self._limits, pace)

    async def unreserve(self, items: int) -> None:
        """See `JobQueue.unreserve`."""
        try:
            await self._scripts.run("unreserve", self._bell.name, items)
        finally:
            self._bell.reserved -= items

    async def bind_key(self, key: str, fingerprint: str) -> None:
        """See `JobQueue.bind_key`."""
        name = f"{self._scripts.prefix}key:{key}"
        ends = milliseconds(self._limits.result_ttl_s)
        with broker_errors():
            bound = await self._connection.commands.set(
                name, fingerprint, px=ends, nx=True, get=True
            )
        if bound is not None and bound != fingerprint.encode():
            raise key_conflict()

    async def submit(self, job: Job) -> None:
        """See `JobQueue.submit`."""
        try:
            await self._submit(job, len(job.items))
        finally:
            self._bell.reserved -= len(job.items)

    async def submit_past_limit(self, job: Job) -> None:
        """Queue a job that no room was reserved for."""
        await self._submit(job, 0)

    async def result(self, job_id: str) -> JobResult:
        """See `JobQueue.result`."""
        return await self._bell.wait(self._bell.get(job_id) or await self._expect_other(job_id))

    async def state(self, job_id: str) -> JobState | None:
        """See `JobQueue.state`."""
        awaited = self._bell.get(job_id)
        if awaited is not None and awaited.outcome.done():
            error = awaited.outcome.exception()
            if error is None:
                return JobState("finished", result=awaited.outcome.result())
            assert isinstance(error, RewardError)
            return JobState("finished", error=error)
        with broker_errors():
            record = await self._connection.commands.hgetall(f"{self._scripts.prefix}job:{job_id}")
        return decode_state(record) if record else None

    async def cancel(self, job_id: str) -> None:
        """See `JobQueue.cancel`."""
        awaited = self._bell.get(job_id)
        if awaited is None:
            await self._scripts.run("cancel", job_id, "", 0)
        elif self._bell.leave(awaited) and not awaited.outcome.done():
            size = 0 if awaited.job is None else len(awaited.job.items)
            awaited.finish(DeadlineExceeded("nobody waits for this job any more"))
            if await self._scripts.run("cancel", job_id, self._bell.name, size):
                await self._blobs.drop(job_id, size)

    async def stats(self) -> QueueStats:
        """See `JobQueue.stats`."""
        admitted, leased, interactive, bulk, oldest, *counts = await self._scripts.run("stats")
        done, seconds, redelivered, dead = counts
        return QueueStats(
            reserved_items=admitted,
            waiting_items=interactive + bulk,
            waiting_by_lane={"interactive": interactive, "bulk": bulk},
            leased_items=leased,
            oldest_s=oldest / 1000,
            items_per_s=Throughput(float(done), float(seconds)).rate,
            redelivered=redelivered,
            dead=dead,
        )

    async def close(self) -> None:
        """See `JobQueue.close`."""
        self._closed = True
        await self._bell.close()
        for awaited in self._bell.all():
            if awaited.outcome.done():
                continue
            if awaited.job is not None and not awaited.job.keep_result:
                with contextlib.suppress(BrokerUnavailable):
                    await self._scripts.run("cancel", awaited.id, self._bell.name, 0)
            awaited.finish(Draining("the service is shutting down", retry_after=1))
        if self._bell.reserved > 0:
            with contextlib.suppress(BrokerUnavailable):
                await self._scripts.run("unreserve", self._bell.name, self._bell.reserved)

    async def _submit(self, job: Job, reserved: int) -> None:
        awaited = self._bell.expect(job.id, job.timeout_s, job)
        async with awaited.sending:
            await self._send(awaited, job, reserved)

    async def _send_again(self, awaited: Awaited) -> None:
        async with awaited.sending:
            if awaited.job is not None and not awaited.outcome.done():
                await self._send(awaited, awaited.job, 0)

    async def _send(self, awaited: Awaited, job: Job, reserved: int) -> None:
        """Write the pictures, and then the job; the pictures of a known job are there already."""
        timeout_s = max(awaited.ends - time.monotonic(), 0.001)
        arguments = (
            job.id,
            self._bell.name,
            len(job.items),
            reserved,
            milliseconds(timeout_s),
            int(job.keep_result),
            job.lane,
            job.request_id,
            job.traceparent,
        )
        became = b"unknown"
        if job.keep_result:
            became = await self._scripts.run("submit", *arguments, 1)
        if became == b"unknown":
            await self._blobs.put(job.id, job.items, timeout_s + GRACE_S)
            became = await self._scripts.run("submit", *arguments, 0)
        await self._bell.confirm(awaited, ended=became == b"finished")

    async def _expect_other(self, job_id: str) -> Awaited:
        """Wait for a job that another process submitted."""
        if await self.state(job_id) is None:
            raise NotFound(f"there is no job {job_id}")
        awaited = self._bell.expect(job_id, self._limits.result_ttl_s, None)
        (phase,) = await self._scripts.run("look", self._bell.name, self._bell.reserved, job_id)
        await self._bell.confirm(awaited, ended=phase != 1)
        return awaited

    async def _do_chores(self) -> None:
        """What must be done also while no worker lives, by some API process now and then."""
        now = time.monotonic()
        if now >= self._reap_at:
            self._reap_at = now + self._limits.lease_s * random.uniform(0.4, 0.6)
            await self._bury(await self._scripts.run("reap"))
        if now >= self._tidy_at:
            self._tidy_at = now + TIDY_EVERY_S * random.uniform(0.8, 1.2)
            await self._scripts.run("tidy")
