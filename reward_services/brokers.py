"""From a broker's URL to its job queue."""

from urllib.parse import urlsplit

from reward_services.job_queue import JobQueue, QueueLimits
from reward_services.memory_queue import MemoryQueue
from reward_services.settings import ServiceSettings, SettingsError


def open_queue(settings: ServiceSettings) -> JobQueue:
    """The job queue at `settings.broker_url`.

    Raises:
        SettingsError: no broker of this kind.
    """
    limits = QueueLimits(
        max_items=settings.queue_items,
        lease_s=settings.lease_s,
        max_deliveries=settings.max_deliveries,
        result_ttl_s=settings.result_ttl_s,
    )
    scheme = urlsplit(settings.broker_url).scheme
    if scheme == "memory":
        return MemoryQueue(limits)
    raise SettingsError(f"there is no broker {settings.broker_url!r}: use memory://")
