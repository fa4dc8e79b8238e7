"""The queue between the API and the workers: what every broker must do.

A job is a part of one request that fits one batch. Its life:

    reserve -> submit -> lease -> load -> done | fail        (release, or an expired lease: again)
                     \\-> cancel, or its deadline passes

The queue counts items from `reserve` until the job's end, so that it is full before memory is.
A lease names a job without its pictures: workers see cheaply what is waiting and `load` the
pictures just before they are scored. A job is finished once: a second `done` is ignored.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from reward_services.scorer import ScoreItem
from shared.errors import RewardError
from shared.schema import Durations, Identity, ItemResult


@dataclass(frozen=True, slots=True)
class Job:
    """Pictures to score together.

    Attributes:
        id: unique; submitting the same id again joins the first job instead of adding one.
        items: the pictures, at most one batch of them.
        timeout_s: seconds from submission after which nobody waits for the result.
        request_id: for the logs of the worker.
        keep_result: keep the result for a while for whoever asks with the same id again.
    """

    id: str
    items: Sequence[ScoreItem]
    timeout_s: float
    request_id: str = ""
    keep_result: bool = False


@dataclass(frozen=True, slots=True)
class Lease:
    """A worker's claim on a job.

    Attributes:
        job_id: the job.
        size: items in it.
        worker: who holds it.
        deliveries: how often it has been leased, this time included.
        waited_s: seconds it spent in the queue before this lease.
        remaining_s: seconds until its deadline, at the time of the lease.
    """

    job_id: str
    size: int
    worker: str
    deliveries: int
    waited_s: float
    remaining_s: float


@dataclass(frozen=True, slots=True)
class Payload:
    """What a worker needs of a job when its turn has come."""

    items: Sequence[ScoreItem]
    request_id: str


@dataclass(frozen=True, slots=True)
class JobResult:
    """One result per item of the job, in its order, and who gave them."""

    identity: Identity
    results: Sequence[ItemResult]
    durations: Durations


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Bounds of a queue; see `ServiceSettings` for the meaning and the defaults."""

    max_items: int = 4096
    lease_s: float = 30.0
    max_deliveries: int = 3
    result_ttl_s: float = 600.0


@dataclass(frozen=True, slots=True)
class QueueStats:
    """A glance at the queue.

    Attributes:
        reserved_items: items admitted and not yet finished; what the limit counts.
        waiting_items: of these, items no worker holds.
        leased_items: of these, items a worker holds.
        items_per_s: recent throughput, 0 before anything was finished.
        redelivered: leases so far of a job that had been leased before.
        dead: jobs so far that were given up after too many deliveries.
    """

    reserved_items: int = 0
    waiting_items: int = 0
    leased_items: int = 0
    items_per_s: float = 0.0
    redelivered: int = 0
    dead: int = 0


@dataclass(slots=True)
class Throughput:
    """Items per second while there is work, forgetting what is long past."""

    decay: float = 0.9
    _items: float = 0.0
    _seconds: float = 0.0
    _last: float = float("-inf")

    def add(self, items: int, submitted: float, now: float) -> None:
        """Count `items` of a job, with its times of submission and of its end (seconds)."""
        # Idle time, between the end of one job and the submission of the next, is no work.
        busy = now - max(self._last, submitted)
        self._items = self._items * self.decay + items
        self._seconds = self._seconds * self.decay + busy
        self._last = now

    @property
    def rate(self) -> float:
        """Items per second, 0 before anything was finished."""
        return self._items / max(self._seconds, 1e-6) if self._items else 0.0

    def seconds_for(self, items: int) -> float:
        """How long a client should wait until `items` have gone through: whole seconds, 1 to 60."""
        return float(min(60, max(1, math.ceil(items / self.rate)))) if self.rate else 1.0


class JobLost(RewardError):
    """Every worker that took the job went silent. Its pictures get this as their item error."""

    code = "worker_lost"


class JobQueue(Protocol):
    """A broker. Every method may raise `shared.errors.BrokerUnavailable`."""

    async def reserve(self, items: int) -> None:
        """Take room for `items` before any picture is decoded.

        Raises:
            QueueFull: with `retry_after`, no room now.
        """
        ...

    async def unreserve(self, items: int) -> None:
        """Give back room that no job was submitted for."""
        ...

    async def bind_key(self, key: str, fingerprint: str) -> None:
        """Tie an idempotency key to a request body for `result_ttl_s`.

        Raises:
            IdempotencyConflict: the key is tied to another body.
        """
        ...

    async def submit(self, job: Job) -> None:
        """Queue a job in room reserved for it; a known id gives the room back and joins."""
        ...

    async def result(self, job_id: str) -> JobResult:
        """Wait for the end of a submitted job.

        Whoever submitted must call this to its end, or `cancel`.

        Raises:
            JobLost: the workers that took the job went silent.
            RewardError: what else the job failed with, or that it is not known.
        """
        ...

    async def cancel(self, job_id: str) -> None:
        """One caller no longer waits. A job that nobody waits for ends, unless it was loaded."""
        ...

    async def lease(self, worker: str, max_items: int, wait_s: float) -> list[Lease]:
        """Claim waiting jobs, oldest first, of at most `max_items` in all (one at least).

        Waits up to `wait_s` for the first. Jobs whose lease has run out come again, and after
        `max_deliveries` end with `JobLost`.
        """
        ...

    async def load(self, lease: Lease) -> Payload | None:
        """The pictures of a leased job, or None when it is not wanted any more; then forget it."""
        ...

    async def renew(self, leases: Sequence[Lease]) -> None:
        """Keep the leases for another `lease_s`."""
        ...

    async def done(self, lease: Lease, result: JobResult) -> None:
        """Finish a job, unless somebody else has."""
        ...

    async def fail(self, lease: Lease, error: RewardError) -> None:
        """End a job as a whole with an error for its caller."""
        ...

    async def release(self, leases: Sequence[Lease]) -> None:
        """Hand back jobs that were not begun; this does not count as a delivery."""
        ...

    async def stats(self) -> QueueStats:
        """Counters for metrics and `Retry-After`."""
        ...

    async def close(self) -> None:
        """End all waits with an error."""
        ...
