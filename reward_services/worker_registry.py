"""Who works on a queue: workers announce themselves, and the API learns from them what it serves.

The API process never loads a scorer, so `info` is all it knows of the reward.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from shared.schema import Identity, ServiceInfo

SILENT_AFTER_S = 30.0
"""A worker that has not announced itself for so long no longer counts."""


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker, as it last announced itself.

    Attributes:
        name: unique; the `worker` of its leases.
        host: name of its machine.
        pid: its process there.
        info: what it scores, and its limits.
        items_done: pictures it has finished since it started.
        busy: whether it was scoring.
        seen_s: seconds since it announced itself; set by the registry.
    """

    name: str
    host: str
    pid: int
    info: ServiceInfo
    items_done: int = 0
    busy: bool = False
    seen_s: float = 0.0


class IdentityConflict(Exception):
    """Another version of the reward is at work on the same queue; the message names both."""


class WorkerRegistry(Protocol):
    """The workers of one queue. Every method may raise `shared.errors.BrokerUnavailable`."""

    async def announce(self, worker: WorkerStatus) -> None:
        """Say that a worker lives; to be repeated well within `SILENT_AFTER_S`.

        Raises:
            IdentityConflict: living workers of this queue score with another identity.
        """
        ...

    async def retire(self, name: str) -> None:
        """A worker has ended in good order."""
        ...

    async def workers(self) -> list[WorkerStatus]:
        """The living workers, in order of their names."""
        ...

    async def info(self) -> ServiceInfo | None:
        """What the last announced worker serves, also for a while after it is gone."""
        ...


def require_same_identity(newcomer: WorkerStatus, living: Sequence[tuple[str, Identity]]) -> None:
    """Hold a worker against those at work, given by name and identity.

    Raises:
        IdentityConflict: one of them has another identity.
    """
    mine = newcomer.info.identity
    for name, identity in living:
        if name != newcomer.name and (difference := mine.difference(identity)):
            raise IdentityConflict(
                f"worker {name} is scoring this queue with another identity ({difference}): stop "
                "the workers of one version before starting those of another"
            )


class MemoryRegistry:
    """A `WorkerRegistry` for the workers in this process."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[WorkerStatus, float]] = {}
        self._info: ServiceInfo | None = None

    async def announce(self, worker: WorkerStatus) -> None:
        """See `WorkerRegistry.announce`."""
        living = [(one.name, one.info.identity) for one in await self.workers()]
        require_same_identity(worker, living)
        self._seen[worker.name] = (worker, time.monotonic())
        self._info = worker.info

    async def retire(self, name: str) -> None:
        """See `WorkerRegistry.retire`."""
        self._seen.pop(name, None)

    async def workers(self) -> list[WorkerStatus]:
        """See `WorkerRegistry.workers`."""
        now = time.monotonic()
        ages = [(worker, now - seen) for worker, seen in self._seen.values()]
        living = [replace(worker, seen_s=age) for worker, age in ages if age < SILENT_AFTER_S]
        return sorted(living, key=lambda worker: worker.name)

    async def info(self) -> ServiceInfo | None:
        """See `WorkerRegistry.info`."""
        return self._info
