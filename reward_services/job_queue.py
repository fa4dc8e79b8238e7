"""The queue between the API and the workers: what every broker must do.

A job is a part of one request that fits one batch. Its life:

    reserve -> submit -> lease -> load -> done | fail        (release, or an expired lease: again)
                     \\-> cancel, or its deadline passes

The queue counts items from `reserve` until the job's end, so that it is full before memory is.
A lease names a job without its pictures: workers see cheaply what is waiting and `load` the
pictures just before they are scored. A picture is finished once: a second `done` is ignored.

A worker that goes silent after `load` may have been killed by one of the pictures. They come
again one by one, so that the guilty one stands alone and only it is given up.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

from reward_services.scorer import ScoreItem
from shared.errors import IdempotencyConflict, QueueFull, RewardError, ServiceUnavailable
from shared.schema import Durations, Identity, ItemFault, ItemResult

Lane = Literal["interactive", "bulk"]
"""Workers take from both in turn, so that a person need not wait for a trainer's backlog."""


@dataclass(frozen=True, slots=True)
class Job:
    """Pictures to score together.

    Attributes:
        id: unique; submitting the same id again joins the first job instead of adding one.
        items: the pictures, at most one batch of them.
        timeout_s: seconds from submission after which nobody waits for the result.
        request_id: for the logs of the worker.
        keep_result: keep the outcome for a while, and a result also for whoever submits the same
            id again. A failure, and a result with a picture given up, are not joined.
        lane: where it waits.
        traceparent: W3C trace context of the request, "" for none.
    """

    id: str
    items: Sequence[ScoreItem]
    timeout_s: float
    request_id: str = ""
    keep_result: bool = False
    lane: Lane = "bulk"
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Lease:
    """A worker's claim on a job, or on one picture of a job that comes again.

    Attributes:
        job_id: the job.
        first: index of the first picture that the lease covers.
        size: how many pictures it covers.
        worker: who holds it.
        deliveries: how many workers have loaded it, the one of this lease included.
        waited_s: seconds it spent in the queue before this lease.
        remaining_s: seconds until its deadline, at the time of the lease.
        handle: what the broker knows it by.
    """

    job_id: str
    first: int
    size: int
    worker: str
    deliveries: int
    waited_s: float
    remaining_s: float
    handle: object = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Payload:
    """What a worker needs of a job when its turn has come: the pictures of the lease."""

    items: Sequence[ScoreItem]
    request_id: str
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class JobResult:
    """One result per item, in order, and who gave them: None when no picture was scored."""

    identity: Identity | None
    results: Sequence[ItemResult]
    durations: Durations


@dataclass(frozen=True, slots=True)
class JobState:
    """Where a job is; a finished one has either a result or an error."""

    phase: Literal["waiting", "running", "finished"]
    result: JobResult | None = None
    error: RewardError | None = None


def given_up(deliveries: int) -> ItemResult:
    """What stands in for a picture whose workers all went silent."""
    message = f"{deliveries} workers went silent while scoring this picture"
    return ItemResult(error=ItemFault(code="worker_lost", message=message, retryable=True))


def joined(
    results: Sequence[ItemResult], shares: Sequence[tuple[Identity, Durations]]
) -> JobResult:
    """The result of a job that was scored in several shares.

    Raises:
        ServiceUnavailable: workers of two versions had a share in it.
    """
    identities = [identity for identity, _ in shares]
    if any(identity != identities[0] for identity in identities):
        raise ServiceUnavailable(
            "workers of two versions scored this request: try again", retry_after=5
        )
    durations = Durations(
        queue_s=max((one.queue_s for _, one in shares), default=0.0),
        batch_wait_s=max((one.batch_wait_s for _, one in shares), default=0.0),
        inference_s=sum(one.inference_s for _, one in shares),
    )
    return JobResult(identities[0] if identities else None, list(results), durations)


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
        waiting_items: of these, items of submitted jobs that no worker holds.
        waiting_by_lane: the same by lane; what comes again counts in the lane it came from.
        leased_items: of these, items a worker holds.
        oldest_s: seconds that the oldest of the waiting items has been in the queue, 0 for none.
        items_per_s: recent throughput, 0 before anything was finished.
        redelivered: leases so far that ran out and came again.
        dead: pictures so far that were given up after too many deliveries.
    """

    reserved_items: int = 0
    waiting_items: int = 0
    waiting_by_lane: Mapping[Lane, int] = field(default_factory=dict)
    leased_items: int = 0
    oldest_s: float = 0.0
    items_per_s: float = 0.0
    redelivered: int = 0
    dead: int = 0


@dataclass(slots=True)
class Throughput:
    """Items per second while there is work, forgetting what is long past."""

    DECAY: ClassVar[float] = 0.9

    items: float = 0.0
    seconds: float = 0.0
    last: float = float("-inf")

    def add(self, items: int, submitted: float, now: float) -> None:
        """Count `items` of a job, with its times of submission and of its end (seconds)."""
        # Idle time, between the end of one job and the submission of the next, is no work.
        busy = now - max(self.last, submitted)
        self.items = self.items * self.DECAY + items
        self.seconds = self.seconds * self.DECAY + busy
        self.last = now

    @property
    def rate(self) -> float:
        """Items per second, 0 before anything was finished."""
        return self.items / max(self.seconds, 1e-6) if self.items else 0.0

    def seconds_for(self, items: int) -> float:
        """How long a client should wait until `items` have gone through: whole seconds, 1 to 60."""
        return float(min(60, max(1, math.ceil(items / self.rate)))) if self.rate else 1.0


def queue_full(items: int, admitted: int, limits: QueueLimits, pace: Throughput) -> QueueFull:
    """The error of `reserve` where there is no room."""
    return QueueFull(
        f"the queue holds {admitted} of {limits.max_items} items and has no room for {items} more: "
        "try again later",
        retry_after=pace.seconds_for(admitted),
    )


def key_conflict() -> IdempotencyConflict:
    """The error of `bind_key` where another body is bound."""
    return IdempotencyConflict(
        "this Idempotency-Key was used with another body: take a new key for a new request"
    )


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

        Whoever submitted must call this to its end, or `cancel`, also when interrupted.

        Raises:
            RewardError: what the job failed with, or that it is not known.
        """
        ...

    async def state(self, job_id: str) -> JobState | None:
        """Where a job is, without waiting; None when it is unknown or forgotten."""
        ...

    async def cancel(self, job_id: str) -> None:
        """One caller no longer waits. What nobody waits for ends, unless it was loaded.

        Called where the job was not submitted (another API process), it speaks for all callers.
        """
        ...

    async def lease(self, worker: str, max_items: int, wait_s: float) -> list[Lease]:
        """Claim what is waiting, of at most `max_items` items in all (one lease at least).

        Waits up to `wait_s` for the first. What comes again goes first, then the two lanes in
        turn, each in order of submission. A lease that has run out comes again: whole when it was
        not loaded, otherwise picture by picture; after `max_deliveries` a picture is given up.
        """
        ...

    async def load(self, lease: Lease) -> Payload | None:
        """The pictures of a lease, or None when it is not wanted any more; then forget it."""
        ...

    async def renew(self, leases: Sequence[Lease]) -> None:
        """Keep the leases for another `lease_s`."""
        ...

    async def done(self, lease: Lease, result: JobResult) -> None:
        """Finish the pictures of a lease, each unless somebody else has."""
        ...

    async def fail(self, lease: Lease, error: RewardError) -> None:
        """End a job as a whole with an error for its caller."""
        ...

    async def release(self, leases: Sequence[Lease]) -> None:
        """Hand back what was not loaded; this does not count as a delivery."""
        ...

    async def stats(self) -> QueueStats:
        """Counters for metrics and `Retry-After`."""
        ...

    async def close(self) -> None:
        """End all waits with an error."""
        ...
