"""From a broker's URL to what the processes of one service share."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from reward_services.blobs import Blobs
from reward_services.dead_letters import DeadLetters
from reward_services.folder_blobs import FolderBlobs
from reward_services.job_queue import JobQueue, QueueLimits
from reward_services.memory_dead_letters import MemoryDeadLetters
from reward_services.memory_queue import MemoryQueue
from reward_services.notes import MemoryNotes, Notes
from reward_services.redis_blobs import RedisBlobs
from reward_services.redis_connection import RedisConnection
from reward_services.redis_dead_letters import RedisDeadLetters
from reward_services.redis_notes import RedisNotes
from reward_services.redis_queue import RedisQueue
from reward_services.redis_registry import RedisRegistry
from reward_services.redis_scripts import RedisScripts, key_prefix
from reward_services.settings import ServiceSettings, SettingsError
from reward_services.worker_registry import MemoryRegistry, WorkerRegistry

REDIS = ("redis", "rediss", "unix")


@dataclass(frozen=True, slots=True)
class Broker:
    """What the processes of one service share."""

    queue: JobQueue
    registry: WorkerRegistry
    dead_letters: DeadLetters
    notes: Notes
    disconnect: Callable[[], Awaitable[None]] | None = None

    async def close(self) -> None:
        """End all waits with an error and all connections."""
        await self.queue.close()
        if self.disconnect is not None:
            await self.disconnect()


def open_broker(settings: ServiceSettings, name: str) -> Broker:
    """The broker at `settings.broker_url`, for the reward called `name`; connects when used.

    Raises:
        SettingsError: no broker, or no store for pictures, of this kind.
    """
    limits = QueueLimits(
        max_items=settings.queue_items,
        lease_s=settings.lease_s,
        max_deliveries=settings.max_deliveries,
        result_ttl_s=settings.result_ttl_s,
    )
    scheme = urlsplit(settings.broker_url).scheme
    if scheme in REDIS:
        return _open_redis(settings, name, limits)
    if scheme != "memory":
        raise SettingsError(
            f"there is no broker {settings.broker_url!r}: use memory://, redis://, rediss:// or "
            "unix://"
        )
    if settings.blob_url is not None:
        raise SettingsError(
            "with memory:// pictures stay in this process: leave REWARD_BLOB_URL out"
        )
    queue = MemoryQueue(limits)
    return Broker(queue, MemoryRegistry(), MemoryDeadLetters(queue), MemoryNotes())


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


def _open_redis(settings: ServiceSettings, name: str, limits: QueueLimits) -> Broker:
    connection = _connect(settings.broker_url, "REWARD_BROKER_URL")
    scripts = RedisScripts(connection, name, limits)
    blobs = _open_blobs(settings, key_prefix(name))
    queue = RedisQueue(connection, scripts, blobs, limits)

    async def disconnect() -> None:
        await blobs.close()
        await connection.close()

    return Broker(
        queue,
        RedisRegistry(connection, scripts),
        RedisDeadLetters(connection, scripts.prefix, queue, blobs),
        RedisNotes(connection, scripts.prefix),
        disconnect,
    )


def _open_blobs(settings: ServiceSettings, prefix: str) -> Blobs:
    url = settings.blob_url or settings.broker_url
    parts = urlsplit(url)
    if parts.scheme in REDIS:
        connection = _connect(url, "REWARD_BLOB_URL")
        return RedisBlobs(connection, prefix, beside_queue=url == settings.broker_url)
    folder = Path(unquote(parts.path))
    if parts.scheme != "file" or parts.netloc or not folder.is_absolute():
        raise SettingsError(
            f"REWARD_BLOB_URL {url!r} cannot be used: give a Redis URL, or file:///folder with "
            "three slashes"
        )
    return FolderBlobs(folder, prefix)


def _connect(url: str, setting: str) -> RedisConnection:
    try:
        return RedisConnection(url)
    except ValueError as error:
        raise SettingsError(f"{setting} cannot be used: {error}") from None
