"""Pictures in Redis: that of the queue, or another one that need not write them to a disk."""

import asyncio
from collections.abc import Iterator, Sequence

from reward_services.blobs import Words, letter_name, pixels
from reward_services.redis_connection import RedisConnection, broker_errors
from reward_services.redis_scripts import milliseconds
from reward_services.scorer import ScoreItem

WRITE_BYTES = 8 * 1024 * 1024
"""Pictures on their way to Redis at once: enough to fill the connection, too little to hold others
up."""
READ_BYTES = 1024 * 1024
"""Pictures asked for at once. Redis builds an answer as a whole before it sends any of it, so that
small ones, two at a time, take a few per cent less than 8 MB after 8 MB."""
READS_AT_ONCE = 2
"""One answer is built while another is on its way."""


class RedisBlobs:
    """`Blobs` in the Redis at `connection`.

    Args:
        connection: its own, so that megabytes do not hold up the queue's short commands.
        prefix: from `redis_scripts.key_prefix`.
        beside_queue: the queue is in the same Redis, and its scripts delete and bury.
    """

    def __init__(self, connection: RedisConnection, prefix: str, *, beside_queue: bool) -> None:
        self._connection = connection
        self._client = connection.commands
        self._prefix = f"{prefix}blob:"
        self._beside_queue = beside_queue

    async def put(self, job_id: str, items: Sequence[ScoreItem], ttl_s: float) -> None:
        """See `Blobs.put`."""
        ends = milliseconds(ttl_s)
        with broker_errors():
            pipe = self._client.pipeline(transaction=False)
            pipe.set(self._key(job_id, "words"), Words.of(items).encode(), px=ends)
            waiting = 0
            for index, item in enumerate(items):
                data = pixels(item)
                pipe.set(self._key(job_id, index), data, px=ends)
                waiting += len(data)
                if waiting >= WRITE_BYTES:
                    await pipe.execute()
                    waiting = 0
            await pipe.execute()

    async def get(self, job_id: str, first: int, size: int) -> list[ScoreItem] | None:
        """See `Blobs.get`."""
        words = await self.words(job_id)
        if words is None:
            return None
        gate = asyncio.Semaphore(READS_AT_ONCE)

        async def read(part: range) -> list[ScoreItem | None]:
            async with gate:
                keys = [self._key(job_id, index) for index in part]
                values = await self._connection.reader.get(keys)
            pairs = zip(part, values, strict=True)
            return [None if data is None else words.item(index, data) for index, data in pairs]

        with broker_errors():
            parts = await asyncio.gather(*map(read, _parts(words, first, first + size)))
        items = [item for part in parts for item in part if item is not None]
        return items if len(items) == size else None

    async def words(self, job_id: str) -> Words | None:
        """See `Blobs.words`."""
        with broker_errors():
            data = await self._client.get(self._key(job_id, "words"))
        return None if data is None else Words.decode(data)

    async def drop(self, job_id: str, size: int) -> None:
        """See `Blobs.drop`."""
        if not self._beside_queue:
            await self._unlink(job_id, "words", *range(size))

    async def bury(self, job_id: str, index: int, letter_id: str, ttl_s: float) -> None:
        """See `Blobs.bury`."""
        if self._beside_queue:
            return
        ends = milliseconds(ttl_s)
        with broker_errors():
            for part in (index, "words"):
                to = self._key(letter_name(letter_id), part)
                await self._client.copy(self._key(job_id, part), to, replace=True)
                await self._client.pexpire(to, ends)

    async def drop_letter(self, letter_id: str, index: int) -> None:
        """See `Blobs.drop_letter`."""
        await self._unlink(letter_name(letter_id), "words", index)

    async def close(self) -> None:
        """See `Blobs.close`."""
        await self._connection.close()

    def _key(self, job_id: str, part: str | int) -> str:
        return f"{self._prefix}{job_id}:{part}"

    async def _unlink(self, job_id: str, *parts: str | int) -> None:
        with broker_errors():
            await self._client.unlink(*(self._key(job_id, part) for part in parts))


def _parts(words: Words, start: int, end: int) -> Iterator[range]:
    """The pictures from `start` to `end` in parts of about `READ_BYTES`, at least one in each."""
    first, waiting = start, 0
    for index in range(start, end):
        height, width, channels = words.shapes[index]
        waiting += height * width * channels
        if waiting >= READ_BYTES or index == end - 1:
            yield range(first, index + 1)
            first, waiting = index + 1, 0
