"""Notes in Redis."""

from reward_services.redis_connection import RedisConnection, broker_errors
from reward_services.redis_scripts import milliseconds


class RedisNotes:
    """`Notes` that every API process of a service shares."""

    def __init__(self, connection: RedisConnection, prefix: str) -> None:
        self._client = connection.commands
        self._prefix = f"{prefix}note:"

    async def put(self, name: str, value: bytes, ttl_s: float) -> None:
        """See `Notes.put`."""
        with broker_errors():
            await self._client.set(self._prefix + name, value, px=milliseconds(ttl_s))

    async def get(self, name: str) -> bytes | None:
        """See `Notes.get`."""
        with broker_errors():
            value: bytes | None = await self._client.get(self._prefix + name)
        return value

    async def delete(self, name: str) -> None:
        """See `Notes.delete`."""
        with broker_errors():
            await self._client.unlink(self._prefix + name)
