"""The dead letters of the queue in memory."""

import itertools
import time
from collections import OrderedDict

from reward_services.dead_letters import LETTER_TTL_S, MOST_LETTERS, RETRY_TIMEOUT_S, DeadLetter
from reward_services.job_queue import Job, given_up
from reward_services.memory_jobs import Piece
from reward_services.memory_queue import MemoryQueue
from reward_services.scorer import ScoreItem


class MemoryDeadLetters:
    """`DeadLetters` of one `MemoryQueue`."""

    def __init__(self, queue: MemoryQueue) -> None:
        self._queue = queue
        self._letters: OrderedDict[str, tuple[DeadLetter, ScoreItem]] = OrderedDict()
        self._numbers = itertools.count(1)
        queue.bury = self._bury

    async def list(self, count: int) -> list[DeadLetter]:
        """See `DeadLetters.list`."""
        self._forget_old()
        letters = [letter for letter, _ in reversed(self._letters.values())]
        return letters[:count]

    async def retry(self, letter_id: str) -> bool:
        """See `DeadLetters.retry`."""
        self._forget_old()
        found = self._letters.pop(letter_id, None)
        if found is None:
            return False
        letter, item = found
        await self._queue.submit_past_limit(
            Job(
                letter.retry_job_id,
                [item],
                RETRY_TIMEOUT_S,
                request_id=letter.request_id,
                keep_result=True,
            )
        )
        return True

    async def drop(self, letter_id: str) -> bool:
        """See `DeadLetters.drop`."""
        return self._letters.pop(letter_id, None) is not None

    def _bury(self, piece: Piece) -> None:
        job = piece.record.job
        item = job.items[piece.first]
        fault = given_up(piece.deliveries).error
        assert fault is not None
        letter = DeadLetter(
            id=str(next(self._numbers)),
            job_id=job.id,
            picture=piece.first,
            prompt=item.prompt,
            request_id=job.request_id,
            deliveries=piece.deliveries,
            worker=piece.held_by,
            reason=fault.message,
            died_at=time.time(),
        )
        self._letters[letter.id] = (letter, item)
        while len(self._letters) > MOST_LETTERS:
            self._letters.popitem(last=False)

    def _forget_old(self) -> None:
        oldest = time.time() - LETTER_TTL_S
        while self._letters and next(iter(self._letters.values()))[0].died_at < oldest:
            self._letters.popitem(last=False)
