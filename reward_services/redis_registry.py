"""Who works on a queue in Redis."""

from dataclasses import replace

from pydantic import TypeAdapter

from reward_services import worker_registry
from reward_services.redis_connection import RedisConnection, broker_errors
from reward_services.redis_scripts import RedisScripts, milliseconds
from reward_services.worker_registry import WorkerStatus, require_same_identity
from shared.schema import Identity, ServiceInfo

INFO_TTL_S = 24 * 3600.0


class RedisRegistry:
    """A `WorkerRegistry` that every process of a service shares."""

    def __init__(self, connection: RedisConnection, scripts: RedisScripts) -> None:
        self._connection = connection
        self._scripts = scripts

    async def announce(self, worker: WorkerStatus) -> None:
        """See `WorkerRegistry.announce`."""
        other = await self._scripts.run(
            "announce",
            worker.name,
            _STATUS.dump_json(worker),
            worker.info.identity.model_dump_json(),
            milliseconds(worker_registry.SILENT_AFTER_S),
            milliseconds(INFO_TTL_S),
            worker.info.model_dump_json(),
        )
        if other is not None:
            name, identity = other
            require_same_identity(worker, [(name.decode(), Identity.model_validate_json(identity))])

    async def retire(self, name: str) -> None:
        """See `WorkerRegistry.retire`."""
        await self._scripts.run("retire", name)

    async def workers(self) -> list[WorkerStatus]:
        """See `WorkerRegistry.workers`."""
        silent = milliseconds(worker_registry.SILENT_AFTER_S)
        found = await self._scripts.run("workers", silent)
        living = [
            replace(_STATUS.validate_json(status), seen_s=age / 1000) for status, age in found
        ]
        return sorted(living, key=lambda worker: worker.name)

    async def info(self) -> ServiceInfo | None:
        """See `WorkerRegistry.info`."""
        with broker_errors():
            text = await self._connection.commands.get(f"{self._scripts.prefix}info")
        return None if text is None else ServiceInfo.model_validate_json(text)


_STATUS = TypeAdapter(WorkerStatus)
