"""The dead letters of a queue in Redis: a stream of facts, and their pictures among the blobs."""

import re
from collections.abc import Mapping

from reward_services.blobs import Blobs, letter_name
from reward_services.dead_letters import RETRY_TIMEOUT_S, DeadLetter
from reward_services.job_queue import Job
from reward_services.redis_connection import RedisConnection, broker_errors
from reward_services.redis_queue import RedisQueue

_ID = re.compile(r"\d{1,15}-\d{1,15}")


class RedisDeadLetters:
    """`DeadLetters` of one `RedisQueue`; `_reaping.lua` writes them."""

    def __init__(
        self, connection: RedisConnection, prefix: str, queue: RedisQueue, blobs: Blobs
    ) -> None:
        self._client = connection.commands
        self._stream = f"{prefix}dead"
        self._queue = queue
        self._blobs = blobs

    async def list(self, count: int) -> list[DeadLetter]:
        """See `DeadLetters.list`."""
        with broker_errors():
            entries = await self._client.xrevrange(self._stream, count=count)
        return [await self._letter(entry.decode(), facts) for entry, facts in entries]

    async def retry(self, letter_id: str) -> bool:
        """See `DeadLetters.retry`."""
        letter = await self._find(letter_id)
        if letter is None:
            return False
        items = await self._blobs.get(letter_name(letter_id), letter.picture, 1)
        if items is None:
            return False
        await self._queue.submit_past_limit(
            Job(
                letter.retry_job_id,
                items,
                RETRY_TIMEOUT_S,
                request_id=letter.request_id,
                keep_result=True,
            )
        )
        return await self._forget(letter)

    async def drop(self, letter_id: str) -> bool:
        """See `DeadLetters.drop`."""
        letter = await self._find(letter_id)
        return letter is not None and await self._forget(letter)

    async def _find(self, letter_id: str) -> DeadLetter | None:
        if not _ID.fullmatch(letter_id):
            return None
        with broker_errors():
            entries = await self._client.xrange(self._stream, letter_id, letter_id)
        return await self._letter(letter_id, entries[0][1]) if entries else None

    async def _letter(self, letter_id: str, facts: Mapping[bytes, bytes]) -> DeadLetter:
        index = int(facts[b"i"])
        words = await self._blobs.words(letter_name(letter_id))
        return DeadLetter(
            id=letter_id,
            job_id=facts[b"j"].decode(),
            picture=index,
            prompt="" if words is None else words.prompts[index],
            request_id=facts[b"req"].decode(),
            deliveries=int(facts[b"k"]),
            worker=facts[b"w"].decode(),
            reason=facts[b"why"].decode(),
            died_at=int(letter_id.split("-")[0]) / 1000,
        )

    async def _forget(self, letter: DeadLetter) -> bool:
        with broker_errors():
            gone = await self._client.xdel(self._stream, letter.id)
        await self._blobs.drop_letter(letter.id, letter.picture)
        return bool(gone)
