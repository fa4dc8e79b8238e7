"""`memory://`: the job queue inside one process, where pictures pass by reference."""

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import get_args

from reward_services.job_queue import (
    Job,
    JobResult,
    JobState,
    Lane,
    Lease,
    Payload,
    QueueLimits,
    QueueStats,
    Throughput,
    key_conflict,
    queue_full,
)
from reward_services.memory_jobs import JobRecord, Phase, Piece
from reward_services.memory_lanes import MemoryLanes
from reward_services.notes import MemoryNotes
from shared.errors import DeadlineExceeded, Draining, NotFound, RewardError

# Outcomes kept for repeated requests; the oldest go first.
MOST_KEPT = 10_000


class MemoryQueue:
    """A `JobQueue` for one event loop. Jobs end with the process.

    `bury` is called with each piece, of one picture, that is given up.
    """

    def __init__(self, limits: QueueLimits | None = None) -> None:
        self.bury: Callable[[Piece], None] | None = None
        self._limits = limits or QueueLimits()
        self._records: dict[str, JobRecord] = {}
        self._waiting = MemoryLanes[Piece]()
        # In the order of their leases; a set would forget it.
        self._leased: dict[Piece, None] = {}
        self._keys = MemoryNotes()
        self._kept: deque[tuple[float, JobRecord]] = deque()
        self._reserved = 0
        self._redelivered = self._dead = 0
        self._throughput = Throughput()
        self._arrival = asyncio.Event()
        self._closed = False

    async def reserve(self, items: int) -> None:
        """See `JobQueue.reserve`."""
        if self._closed:
            raise Draining("the service is shutting down", retry_after=1)
        if self._reserved + items > self._limits.max_items:
            raise queue_full(items, self._reserved, self._limits, self._throughput)
        self._reserved += items

    async def unreserve(self, items: int) -> None:
        """See `JobQueue.unreserve`."""
        self._reserved -= items

    async def bind_key(self, key: str, fingerprint: str) -> None:
        """See `JobQueue.bind_key`."""
        bound = await self._keys.get(key)
        if bound is None:
            await self._keys.put(key, fingerprint.encode(), self._limits.result_ttl_s)
        elif bound != fingerprint.encode():
            raise key_conflict()

    async def submit(self, job: Job) -> None:
        """See `JobQueue.submit`."""
        self._forget_old_results()
        known = self._records.get(job.id)
        if known is not None and known.joinable:
            self._reserved -= len(job.items)
            known.join(job.timeout_s)
            return
        record = JobRecord(job)
        self._records[job.id] = record
        self._wait(record.pieces[0])

    async def submit_past_limit(self, job: Job) -> None:
        """Queue a job that no room was reserved for."""
        self._reserved += len(job.items)
        await self.submit(job)

    async def result(self, job_id: str) -> JobResult:
        """See `JobQueue.result`."""
        if (record := self._known(job_id)) is None:
            raise NotFound(f"there is no job {job_id}")
        # One caller that is interrupted must not take the result from the others.
        await asyncio.wait([record.finished])
        self._leave(record)
        return record.finished.result()

    async def state(self, job_id: str) -> JobState | None:
        """See `JobQueue.state`."""
        record = self._known(job_id)
        return None if record is None else record.state

    async def cancel(self, job_id: str) -> None:
        """See `JobQueue.cancel`."""
        if (record := self._known(job_id)) is None:
            return
        self._leave(record)
        if record.waiters <= 0 and not record.finished.done():
            for piece in list(record.pieces):
                if piece.phase is not Phase.LOADED:
                    self._drop(piece)

    async def lease(self, worker: str, max_items: int, wait_s: float) -> list[Lease]:
        """See `JobQueue.lease`."""
        leases = self._claim(worker, max_items)
        if leases or self._closed:
            return leases
        self._arrival.clear()
        first_end = min((piece.lease_ends for piece in self._leased), default=math.inf)
        wake_s = min(wait_s, max(0.0, first_end - time.monotonic()))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._arrival.wait(), wake_s)
        return self._claim(worker, max_items)

    async def load(self, lease: Lease) -> Payload | None:
        """See `JobQueue.load`."""
        if (piece := self._held(lease)) is None:
            return None
        if piece.record.deadline <= time.monotonic():
            self._end(piece.record, piece.record.too_late())
            return None
        piece.load()
        job = piece.record.job
        items = job.items[piece.first : piece.first + piece.size]
        return Payload(items, job.request_id, job.traceparent)

    async def renew(self, leases: Sequence[Lease]) -> None:
        """See `JobQueue.renew`."""
        for lease in leases:
            if (piece := self._held(lease)) is not None:
                piece.lease_ends = time.monotonic() + self._limits.lease_s

    async def done(self, lease: Lease, result: JobResult) -> None:
        """See `JobQueue.done`."""
        record = self._records.get(lease.job_id)
        # A worker that was given up may be the first to finish after all: its result counts.
        if record is None or record is not _piece(lease).record or record.finished.done():
            return
        scored = record.put(lease.first, result)
        self._reserved -= scored
        if scored:
            self._throughput.add(scored, record.submitted, time.monotonic())
        for piece in list(record.pieces):
            if record.has(piece):
                self._remove(piece)
        self._end_when_complete(record)

    async def fail(self, lease: Lease, error: RewardError) -> None:
        """See `JobQueue.fail`."""
        if (piece := self._held(lease)) is not None:
            self._end(piece.record, error)

    async def release(self, leases: Sequence[Lease]) -> None:
        """See `JobQueue.release`."""
        for lease in leases:
            if (piece := self._held(lease)) is not None:
                self._requeue(piece)

    async def stats(self) -> QueueStats:
        """See `JobQueue.stats`."""
        now = time.monotonic()
        lanes: dict[Lane, int] = dict.fromkeys(get_args(Lane), 0)
        for piece in self._waiting:
            lanes[piece.lane] += piece.size
        return QueueStats(
            reserved_items=self._reserved,
            waiting_items=sum(lanes.values()),
            waiting_by_lane=lanes,
            leased_items=sum(piece.size for piece in self._leased),
            oldest_s=max((now - piece.record.submitted for piece in self._waiting), default=0.0),
            items_per_s=self._throughput.rate,
            redelivered=self._redelivered,
            dead=self._dead,
        )

    async def close(self) -> None:
        """See `JobQueue.close`."""
        self._closed = True
        for record in list(self._records.values()):
            if not record.finished.done():
                self._end(record, Draining("the service is shutting down", retry_after=1))
        self._arrival.set()

    def _claim(self, worker: str, max_items: int) -> list[Lease]:
        now = time.monotonic()
        for piece in sorted(self._leased, key=lambda piece: piece.lease_ends):
            if piece.lease_ends <= now:
                self._reclaim(piece)
        leases: list[Lease] = []
        room = max_items
        while (found := self._waiting.take(room if leases else None)) is not None:
            if found.record.deadline <= now:
                self._end(found.record, found.record.too_late())
                continue
            leases.append(found.lease(worker, now, self._limits.lease_s))
            self._leased[found] = None
            room -= found.size
        return leases

    def _reclaim(self, piece: Piece) -> None:
        """Take a piece back from a worker that has gone silent."""
        record = piece.record
        if record.waiters <= 0 and not record.keep:
            self._drop(piece)
        elif piece.phase is Phase.LEASED:
            self._redelivered += 1
            self._requeue(piece)
        elif piece.size == 1 and piece.deliveries >= self._limits.max_deliveries:
            self._dead += 1
            if self.bury is not None:
                self.bury(piece)
            self._reserved -= record.give_up(piece)
            self._remove(piece)
            self._end_when_complete(record)
        else:
            self._redelivered += 1
            self._leased.pop(piece, None)
            for single in piece.split():
                self._wait(single, again=True)

    def _requeue(self, piece: Piece) -> None:
        self._leased.pop(piece, None)
        piece.hand_back()
        self._wait(piece, again=True)

    def _wait(self, piece: Piece, *, again: bool = False) -> None:
        (self._waiting.append_again if again else self._waiting.append)(piece)
        self._arrival.set()

    def _held(self, lease: Lease) -> Piece | None:
        """The piece, when this very lease still holds it."""
        piece = _piece(lease)
        return piece if piece in self._leased and piece.held_by == lease.worker else None

    def _drop(self, piece: Piece) -> None:
        """Give up a piece that nobody wants, and with the last one the job."""
        self._remove(piece)
        if not piece.record.pieces:
            self._end(piece.record, DeadlineExceeded("nobody waits for this job any more"))

    def _remove(self, piece: Piece) -> None:
        if piece.phase is Phase.WAITING:
            self._waiting.discard(piece)
        self._leased.pop(piece, None)
        piece.end()

    def _end_when_complete(self, record: JobRecord) -> None:
        if not record.missing:
            self._end(record, record.joined())

    def _end(self, record: JobRecord, outcome: JobResult | RewardError) -> None:
        for piece in list(record.pieces):
            self._remove(piece)
        self._reserved -= record.missing
        record.finish(outcome)
        if record.keep:
            self._kept.append((time.monotonic() + self._limits.result_ttl_s, record))
        elif record.waiters <= 0:
            self._forget(record)

    def _leave(self, record: JobRecord) -> None:
        record.waiters -= 1
        if record.waiters <= 0 and record.finished.done() and not record.keep:
            self._forget(record)

    def _known(self, job_id: str) -> JobRecord | None:
        self._forget_old_results()
        return self._records.get(job_id)

    def _forget(self, record: JobRecord) -> None:
        if self._records.get(record.id) is record:
            del self._records[record.id]

    def _forget_old_results(self) -> None:
        now = time.monotonic()
        while self._kept and (self._kept[0][0] <= now or len(self._kept) > MOST_KEPT):
            self._forget(self._kept.popleft()[1])


def _piece(lease: Lease) -> Piece:
    assert isinstance(lease.handle, Piece)
    return lease.handle
