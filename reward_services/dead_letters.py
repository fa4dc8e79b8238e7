"""Pictures that were given up because every worker that loaded them went silent."""

from dataclasses import dataclass
from typing import Protocol

MOST_LETTERS = 100
"""Dead letters kept, with their pictures; the oldest go first."""

LETTER_TTL_S = 24 * 3600.0
"""How long a dead letter is kept, in seconds."""

RETRY_TIMEOUT_S = 3600.0
"""How long a picture that is tried again may wait for a worker, in seconds."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One picture that was given up.

    Attributes:
        id: for `retry` and `drop`.
        job_id: the job it was part of.
        picture: its index in that job.
        prompt: its prompt.
        request_id: the request it came with.
        deliveries: how many workers loaded it.
        worker: the last of them.
        reason: one sentence.
        died_at: seconds since the epoch, by the broker's clock.
    """

    id: str
    job_id: str
    picture: int
    prompt: str
    request_id: str
    deliveries: int
    worker: str
    reason: str
    died_at: float

    @property
    def retry_job_id(self) -> str:
        """Under which the result of a retry is kept."""
        return f"{self.job_id}+{self.picture}"


class DeadLetters(Protocol):
    """The dead letters of one queue. Methods may raise `shared.errors.BrokerUnavailable`."""

    async def list(self, count: int) -> list[DeadLetter]:
        """The newest `count`, newest first."""
        ...

    async def retry(self, letter_id: str) -> bool:
        """Queue the picture again, past the limit; its result is kept under `retry_job_id`.

        False when there is no such letter, or its picture is gone.
        """
        ...

    async def drop(self, letter_id: str) -> bool:
        """Forget a letter and its picture; False when there is none."""
        ...
