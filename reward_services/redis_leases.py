"""The worker's half of the queue in Redis: leases, pictures and results."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import NamedTuple

from reward_services.blobs import Blobs
from reward_services.dead_letters import LETTER_TTL_S
from reward_services.job_queue import JobResult, Lease, Payload, QueueLimits
from reward_services.redis_connection import LONGEST_BLOCK_S, RedisConnection, broker_errors
from reward_services.redis_results import encode_error, encode_items, encode_share, share_name
from reward_services.redis_scripts import Argument, RedisScripts, milliseconds
from shared.errors import BrokerUnavailable, RewardError

RETRY_S = 0.2
"""Between two tries to hand in a result."""


class _Handle(NamedTuple):
    """What a lease is to Redis: an entry of a stream."""

    stream: str
    entry: str


class RedisLeases:
    """See `JobQueue`, from `lease` to `release`."""

    def __init__(
        self,
        connection: RedisConnection,
        scripts: RedisScripts,
        blobs: Blobs,
        limits: QueueLimits,
    ) -> None:
        self._connection = connection
        self._scripts = scripts
        self._blobs = blobs
        self._limits = limits
        self._turn = 1
        self._closed = False

    async def lease(self, worker: str, max_items: int, wait_s: float) -> list[Lease]:
        """See `JobQueue.lease`."""
        ends = time.monotonic() + wait_s
        try:
            while not self._closed:
                leases, cursors = await self._take(worker, max_items)
                left_s = ends - time.monotonic()
                if leases or left_s <= 0:
                    return leases
                await self._wait_for_work(cursors, left_s)
        except BrokerUnavailable:
            if not self._closed:
                raise
        return []

    async def load(self, lease: Lease) -> Payload | None:
        """See `JobQueue.load`."""
        stream, entry = _handle(lease)
        items = await self._blobs.get(lease.job_id, lease.first, lease.size)
        # Only now, so that a store that is away is not taken for a picture that kills.
        wanted = await self._scripts.run("load", stream, entry, lease.job_id, lease.worker)
        if wanted is None:
            return None
        if items is None:
            await self._scripts.run("withdraw", stream, entry, lease.job_id)
            return None
        request_id, traceparent = (value.decode() for value in wanted)
        return Payload(items, request_id, traceparent)

    async def renew(self, leases: Sequence[Lease]) -> None:
        """See `JobQueue.renew`."""
        held = [part for lease in leases for part in (*_handle(lease), lease.job_id)]
        if held:
            await self._scripts.run("renew", leases[0].worker, *held)

    async def done(self, lease: Lease, result: JobResult) -> None:
        """See `JobQueue.done`. Tries for as long as a lease lasts when the broker is away."""
        arguments: tuple[Argument, ...] = (
            *_handle(lease),
            lease.job_id,
            lease.first,
            share_name(lease.first, result.results),
            encode_share(result),
            *encode_items(result),
        )
        ends = time.monotonic() + self._limits.lease_s
        while True:
            try:
                size = await self._scripts.run("done", *arguments)
                break
            except BrokerUnavailable:
                if time.monotonic() >= ends:
                    raise
                await asyncio.sleep(RETRY_S)
        await self._drop(lease, size)

    async def fail(self, lease: Lease, error: RewardError) -> None:
        """See `JobQueue.fail`."""
        size = await self._scripts.run("fail", *_handle(lease), lease.job_id, encode_error(error))
        await self._drop(lease, size)

    async def release(self, leases: Sequence[Lease]) -> None:
        """See `JobQueue.release`."""
        held = [part for lease in leases for part in _handle(lease)]
        if held:
            await self._scripts.run("release", *held)

    async def _take(self, worker: str, max_items: int) -> tuple[list[Lease], list[bytes]]:
        found, burials, cursors, self._turn = await self._scripts.run(
            "take", worker, max_items, self._turn
        )
        await self._bury(burials)
        leases = [
            Lease(
                job_id=job_id.decode(),
                first=first,
                size=size,
                worker=worker,
                deliveries=deliveries,
                waited_s=waited / 1000,
                remaining_s=remaining / 1000,
                handle=_Handle(stream.decode(), entry.decode()),
            )
            for stream, entry, job_id, first, size, deliveries, waited, remaining in found
        ]
        return leases, cursors

    async def _wait_for_work(self, cursors: Sequence[bytes], wait_s: float) -> None:
        """Block until something was added, or it is time to look for silent workers."""
        block_s = min(wait_s, LONGEST_BLOCK_S, self._limits.lease_s / 2)
        names = (f"{self._scripts.prefix}q:{lane}" for lane in ("again", "interactive", "bulk"))
        streams = dict(zip(names, cursors, strict=True))
        with broker_errors():
            await self._connection.blocking.xread(streams, count=1, block=milliseconds(block_s))

    async def _bury(self, burials: Sequence[tuple[bytes, bytes, int]]) -> None:
        for letter_id, job_id, index in burials:
            # Where this fails the letter stays, without its picture.
            with contextlib.suppress(BrokerUnavailable):
                await self._blobs.bury(job_id.decode(), index, letter_id.decode(), LETTER_TTL_S)

    async def _drop(self, lease: Lease, size: int) -> None:
        """The job has ended; where this fails its pictures end by themselves."""
        if size:
            with contextlib.suppress(BrokerUnavailable):
                await self._blobs.drop(lease.job_id, size)


def _handle(lease: Lease) -> _Handle:
    assert isinstance(lease.handle, _Handle)
    return lease.handle
