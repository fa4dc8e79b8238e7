"""Which waiting jobs to score together: a pure function of (pending, now, limits)."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Pending(Protocol):
    """What the rule needs to know of a waiting job; all times from one clock, in seconds."""

    @property
    def size(self) -> int:
        """Items in the job."""
        ...

    @property
    def arrived(self) -> float:
        """When it came to this worker."""
        ...

    @property
    def deadline(self) -> float:
        """When nobody waits for it any more."""
        ...

    @property
    def alone(self) -> bool:
        """Whether it may not share a batch: a redelivered job may have killed its last worker."""
        ...


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """`max_items` per batch; the first job waits at most `max_wait_s` for company."""

    max_items: int
    max_wait_s: float


P = TypeVar("P", bound=Pending)


@dataclass(frozen=True, slots=True)
class Decision(Generic[P]):
    """What to do now.

    Attributes:
        batch: jobs to score together, in order of arrival; empty when it is better to wait.
        expired: jobs to drop because their deadline has passed.
        rest: jobs that stay, in order of arrival.
        wait_until: when to ask again at the latest; None when nothing is waiting.
    """

    batch: tuple[P, ...]
    expired: tuple[P, ...]
    rest: tuple[P, ...]
    wait_until: float | None


def take_batch(pending: Sequence[P], now: float, limits: BatchLimits) -> Decision[P]:
    """Decide for a worker that is free.

    The jobs at the head go together until one does not fit; that one heads the next batch, so no
    job is overtaken. A batch leaves when nothing more fits or its first job has waited long
    enough. A job larger than a batch, which the API splits, would go by itself.
    """
    expired = tuple(job for job in pending if job.deadline <= now)
    alive = [job for job in pending if job.deadline > now]
    if not alive:
        return Decision((), expired, (), None)
    count, closed = _head(alive, limits.max_items)
    leave_at = alive[0].arrived + limits.max_wait_s
    if closed or now >= leave_at:
        return Decision(tuple(alive[:count]), expired, tuple(alive[count:]), None)
    wake = min(leave_at, min(job.deadline for job in alive))
    return Decision((), expired, tuple(alive), wake)


def _head(jobs: Sequence[Pending], max_items: int) -> tuple[int, bool]:
    """How many jobs go together, and whether nothing that comes later could join them."""
    if jobs[0].alone:
        return 1, True
    total = jobs[0].size
    for count, job in enumerate(jobs[1:], start=1):
        if job.alone or total + job.size > max_items:
            return count, True
        total += job.size
    return len(jobs), total >= max_items


def split(count: int, max_items: int) -> list[slice]:
    """Cut a request of `count` items into jobs that each fit a batch, of nearly equal size."""
    parts = -(-count // max_items)
    edges = [count * part // parts for part in range(parts + 1)] if parts else []
    return [slice(start, stop) for start, stop in itertools.pairwise(edges)]
