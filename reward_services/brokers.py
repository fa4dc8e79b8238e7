"""From a broker's URL to what the processes of one service share."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from reward_services.dead_letters import DeadLetters
from reward_services.job_queue import JobQueue, QueueLimits
from reward_services.memory_dead_letters import MemoryDeadLetters
from reward_services.memory_queue import MemoryQueue
from reward_services.notes import MemoryNotes, Notes
from reward_services.settings import ServiceSettings, SettingsError
from reward_services.worker_registry import MemoryRegistry, WorkerRegistry


@dataclass(frozen=True, slots=True)
class Broker:
    """What the processes of one service share."""

    queue: JobQueue
    registry: WorkerRegistry
    dead_letters: DeadLetters
    notes: Notes

    async def close(self) -> None:
        """End all waits with an error and all connections."""
        await self.queue.close()


def open_broker(settings: ServiceSettings, name: str) -> Broker:
    """The broker at `settings.broker_url`, for the reward called `name`; connects when used.

    Raises:
        SettingsError: no broker of this kind.
    """
    del name
    limits = QueueLimits(
        max_items=settings.queue_items,
        lease_s=settings.lease_s,
        max_deliveries=settings.max_deliveries,
        result_ttl_s=settings.result_ttl_s,
    )
    scheme = urlsplit(settings.broker_url).scheme
    if scheme == "memory":
        queue = MemoryQueue(limits)
        return Broker(queue, MemoryRegistry(), MemoryDeadLetters(queue), MemoryNotes())
    raise SettingsError(f"there is no broker {settings.broker_url!r}: use memory://")


def open_shared_broker(settings: ServiceSettings, name: str) -> Broker:
    """As `open_broker`, for a process that meets others there.

    Raises:
        SettingsError: no broker of this kind, or one that is of no use to other processes.
    """
    if urlsplit(settings.broker_url).scheme == "memory":
        raise SettingsError(
            "memory:// lives in one process: set REWARD_BROKER_URL=redis://… here and in the "
            "other processes, or run API and worker in one with reward-services serve"
        )
    return open_broker(settings, name)
