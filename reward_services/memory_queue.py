"""`memory://`: the job queue inside one process, where pictures pass by reference."""

import asyncio
import contextlib
import math
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from reward_services.job_queue import (
    Job,
    JobLost,
    JobResult,
    Lease,
    Payload,
    QueueLimits,
    QueueStats,
    Throughput,
)
from shared.errors import (
    DeadlineExceeded,
    Draining,
    IdempotencyConflict,
    NotFound,
    QueueFull,
    RewardError,
)

# Results kept for repeated requests; the oldest go first.
MOST_KEPT = 10_000


class _State(Enum):
    WAITING = auto()
    LEASED = auto()
    LOADED = auto()
    FINISHED = auto()


@dataclass(slots=True, eq=False)
class _Record:
    """A job with what has become of it; `job` goes when it ends, and the pictures with it."""

    id: str
    size: int
    job: Job | None
    keep: bool
    submitted: float
    deadline: float
    finished: asyncio.Future[JobResult]
    state: _State = _State.WAITING
    waiters: int = 1
    deliveries: int = 0
    worker: str = ""
    lease_ends: float = 0.0

    def lease(self, now: float) -> Lease:
        waited_s, remaining_s = now - self.submitted, self.deadline - now
        return Lease(self.id, self.size, self.worker, self.deliveries, waited_s, remaining_s)


class MemoryQueue:
    """A `JobQueue` for one event loop. Jobs end with the process."""

    def __init__(self, limits: QueueLimits | None = None) -> None:
        self._limits = limits or QueueLimits()
        self._records: dict[str, _Record] = {}
        self._waiting: deque[_Record] = deque()
        self._leased: dict[str, _Record] = {}
        self._keys: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._kept: deque[tuple[float, _Record]] = deque()
        self._reserved = 0
        self._redelivered = 0
        self._dead = 0
        self._throughput = Throughput()
        self._arrival = asyncio.Event()
        self._closed = False

    async def reserve(self, items: int) -> None:
        """See `JobQueue.reserve`."""
        if self._closed:
            raise Draining("the service is shutting down", retry_after=1)
        if self._reserved + items > self._limits.max_items:
            raise QueueFull(
                f"the queue holds {self._reserved} of {self._limits.max_items} items and has no "
                f"room for {items} more: try again later",
                retry_after=self._throughput.seconds_for(self._reserved),
            )
        self._reserved += items

    async def unreserve(self, items: int) -> None:
        """See `JobQueue.unreserve`."""
        self._reserved -= items

    async def bind_key(self, key: str, fingerprint: str) -> None:
        """See `JobQueue.bind_key`."""
        now = time.monotonic()
        while self._keys and next(iter(self._keys.values()))[1] <= now:
            self._keys.popitem(last=False)
        bound, _ = self._keys.setdefault(key, (fingerprint, now + self._limits.result_ttl_s))
        if bound != fingerprint:
            raise IdempotencyConflict(
                "this Idempotency-Key was used with another body: take a new key for a new request"
            )

    async def submit(self, job: Job) -> None:
        """See `JobQueue.submit`."""
        self._forget_old_results()
        known = self._records.get(job.id)
        now = time.monotonic()
        ends = now + job.timeout_s
        if known is not None and (known.state is not _State.FINISHED or known.keep):
            self._reserved -= len(job.items)
            known.waiters += 1
            known.deadline = max(known.deadline, ends)
            return
        finished = asyncio.get_running_loop().create_future()
        record = _Record(job.id, len(job.items), job, job.keep_result, now, ends, finished)
        # When nobody asks for an error any more, that is no reason for a warning.
        finished.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._records[job.id] = record
        self._waiting.append(record)
        self._arrival.set()

    async def result(self, job_id: str) -> JobResult:
        """See `JobQueue.result`."""
        if (record := self._records.get(job_id)) is None:
            raise NotFound(f"there is no job {job_id}")
        try:
            # Shielded: one caller that leaves must not take the result from the others.
            return await asyncio.shield(record.finished)
        finally:
            if record.finished.done():
                self._leave(record)

    async def cancel(self, job_id: str) -> None:
        """See `JobQueue.cancel`."""
        if (record := self._records.get(job_id)) is None:
            return
        self._leave(record)
        if record.waiters <= 0 and record.state in (_State.WAITING, _State.LEASED):
            self._end(record, DeadlineExceeded("nobody waits for this job any more"))

    async def lease(self, worker: str, max_items: int, wait_s: float) -> list[Lease]:
        """See `JobQueue.lease`."""
        leases = self._claim(worker, max_items)
        if leases or self._closed:
            return leases
        self._arrival.clear()
        first_end = min((record.lease_ends for record in self._leased.values()), default=math.inf)
        wake_s = min(wait_s, max(0.0, first_end - time.monotonic()))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._arrival.wait(), wake_s)
        return self._claim(worker, max_items)

    async def load(self, lease: Lease) -> Payload | None:
        """See `JobQueue.load`."""
        record = self._held(lease)
        if record is None or record.job is None:
            return None
        if record.deadline <= time.monotonic():
            self._end(record, _too_late(record))
            return None
        record.state = _State.LOADED
        return Payload(record.job.items, record.job.request_id)

    async def renew(self, leases: Sequence[Lease]) -> None:
        """See `JobQueue.renew`."""
        for lease in leases:
            if (record := self._held(lease)) is not None:
                record.lease_ends = time.monotonic() + self._limits.lease_s

    async def done(self, lease: Lease, result: JobResult) -> None:
        """See `JobQueue.done`."""
        record = self._records.get(lease.job_id)
        # A worker that was given up may be the first to finish after all: its result counts.
        if record is not None and record.state is not _State.FINISHED:
            self._throughput.add(record.size, record.submitted, time.monotonic())
            self._end(record, result)

    async def fail(self, lease: Lease, error: RewardError) -> None:
        """See `JobQueue.fail`."""
        if (record := self._held(lease)) is not None:
            self._end(record, error)

    async def release(self, leases: Sequence[Lease]) -> None:
        """See `JobQueue.release`."""
        for lease in reversed(leases):
            if (record := self._held(lease)) is not None:
                record.deliveries -= 1
                self._requeue(record)

    async def stats(self) -> QueueStats:
        """See `JobQueue.stats`."""
        return QueueStats(
            reserved_items=self._reserved,
            waiting_items=sum(record.size for record in self._waiting),
            leased_items=sum(record.size for record in self._leased.values()),
            items_per_s=self._throughput.rate,
            redelivered=self._redelivered,
            dead=self._dead,
        )

    async def close(self) -> None:
        """See `JobQueue.close`."""
        self._closed = True
        for record in [*self._waiting, *self._leased.values()]:
            self._end(record, Draining("the service is shutting down", retry_after=1))
        self._arrival.set()

    def _claim(self, worker: str, max_items: int) -> list[Lease]:
        now = time.monotonic()
        silent = [record for record in self._leased.values() if record.lease_ends <= now]
        # Each goes to the front, so the oldest must be the last.
        for record in reversed(silent):
            self._reclaim(record)
        leases: list[Lease] = []
        total = 0
        while self._waiting and (not leases or total + self._waiting[0].size <= max_items):
            record = self._waiting.popleft()
            if record.deadline <= now:
                self._end(record, _too_late(record))
                continue
            record.state = _State.LEASED
            record.worker = worker
            record.deliveries += 1
            record.lease_ends = now + self._limits.lease_s
            self._leased[record.id] = record
            total += record.size
            leases.append(record.lease(now))
        return leases

    def _reclaim(self, record: _Record) -> None:
        """Take a job back from a worker that has gone silent."""
        if record.waiters <= 0 and not record.keep:
            self._end(record, _lost(record))
        elif record.deliveries >= self._limits.max_deliveries:
            self._dead += 1
            self._end(record, _lost(record))
        else:
            self._redelivered += 1
            self._requeue(record)

    def _requeue(self, record: _Record) -> None:
        del self._leased[record.id]
        record.state = _State.WAITING
        self._waiting.appendleft(record)
        self._arrival.set()

    def _held(self, lease: Lease) -> _Record | None:
        """The job, when this very lease still holds it."""
        record = self._leased.get(lease.job_id)
        if record and (record.worker, record.deliveries) == (lease.worker, lease.deliveries):
            return record
        return None

    def _end(self, record: _Record, outcome: JobResult | RewardError) -> None:
        if record.state is _State.WAITING:
            with contextlib.suppress(ValueError):
                self._waiting.remove(record)
        self._leased.pop(record.id, None)
        record.state = _State.FINISHED
        record.job = None
        self._reserved -= record.size
        if isinstance(outcome, RewardError):
            # A failure is not kept: the next try with the same id runs anew.
            record.keep = False
            record.finished.set_exception(outcome)
        else:
            record.finished.set_result(outcome)
        if record.keep:
            self._kept.append((time.monotonic() + self._limits.result_ttl_s, record))
        elif record.waiters <= 0:
            self._forget(record)

    def _leave(self, record: _Record) -> None:
        record.waiters -= 1
        if record.waiters <= 0 and record.state is _State.FINISHED and not record.keep:
            self._forget(record)

    def _forget(self, record: _Record) -> None:
        if self._records.get(record.id) is record:
            del self._records[record.id]

    def _forget_old_results(self) -> None:
        now = time.monotonic()
        while self._kept and (self._kept[0][0] <= now or len(self._kept) > MOST_KEPT):
            self._forget(self._kept.popleft()[1])


def _too_late(record: _Record) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"no worker was free within {record.deadline - record.submitted:g} s: try again later"
    )


def _lost(record: _Record) -> JobLost:
    return JobLost(f"{record.deliveries} workers went silent while scoring this picture's job")
