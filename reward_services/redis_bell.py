"""How an API process learns that its jobs have ended, and sends again those that Redis has lost.

Workers push the ids of finished jobs onto one list per API process, its bell. One blocking read of
that list serves every request. The list may be lost, the records of the jobs are what counts: all
of them are looked at once a second, and after every loss of the connection.
"""

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from reward_services.job_queue import Job, JobResult
from reward_services.redis_connection import LONGEST_BLOCK_S, RedisConnection, broker_errors
from reward_services.redis_results import decode_state
from reward_services.redis_scripts import RedisScripts
from shared.errors import BrokerUnavailable, DeadlineExceeded, RewardError

logger = logging.getLogger(__name__)

MOST_RINGS = 128
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
MOST_LOSSES = 10

UNKNOWN, OPEN, ENDED = range(3)


@dataclass(slots=True, eq=False)
class Awaited:
    """A job that callers of this process wait for.

    Attributes:
        job: kept until the end, to be sent again; None when another process submitted it.
        ends: its deadline (monotonic seconds).
        outcome: what the callers wait for.
        callers: how many they are.
        asking: of these, how many wait at this very moment.
        sent: whether Redis has had it, so that it is lost when Redis does not know it.
        rung: whether it ended before that was known.
        losses: how often Redis has lost it.
        sending: held while it is sent.
    """

    id: str
    job: Job | None
    ends: float
    outcome: asyncio.Future[JobResult]
    callers: int = 0
    asking: int = 0
    sent: bool = False
    rung: bool = False
    losses: int = 0
    sending: asyncio.Lock = field(default_factory=asyncio.Lock)

    def finish(self, outcome: JobResult | RewardError) -> None:
        """Tell the callers, and let the pictures go."""
        self.job = None
        if self.outcome.done():
            return
        if isinstance(outcome, RewardError):
            self.outcome.set_exception(outcome)
        else:
            self.outcome.set_result(outcome)


class RedisBell:
    """The jobs that this process waits for.

    Args:
        connection: to the queue's Redis.
        scripts: of the queue.
        send: submits a job that Redis has lost once more.
        chores: called about once a second, while the connection is up.

    Attributes:
        name: of this process among those that wait.
        reserved: pictures this process holds room for and has not submitted.
    """

    def __init__(
        self,
        connection: RedisConnection,
        scripts: RedisScripts,
        send: Callable[[Awaited], Awaitable[None]],
        chores: Callable[[], Awaitable[None]],
    ) -> None:
        self.name = uuid.uuid4().hex[:16]
        self.reserved = 0
        self._connection = connection
        self._scripts = scripts
        self._send = send
        self._chores = chores
        self._awaited: dict[str, Awaited] = {}
        self._looked = float("-inf")
        self._listening: asyncio.Task[None] | None = None
        self._closed = False
        self._sending: set[asyncio.Task[None]] = set()

    def get(self, job_id: str) -> Awaited | None:
        """The job, when callers of this process wait for it."""
        return self._awaited.get(job_id)

    def all(self) -> list[Awaited]:
        """Every job that callers of this process wait for."""
        return list(self._awaited.values())

    def expect(self, job_id: str, timeout_s: float, job: Job | None) -> Awaited:
        """One more caller waits for a job."""
        self.listen()
        ends = time.monotonic() + timeout_s
        known = self._awaited.get(job_id)
        if known is None or known.outcome.done():
            outcome: asyncio.Future[JobResult] = asyncio.get_running_loop().create_future()
            # When nobody asks for an error any more, that is no reason for a warning.
            outcome.add_done_callback(lambda future: future.cancelled() or future.exception())
            # Callers that have not yet asked for the outcome will ask for this one.
            callers = 0 if known is None else known.callers - known.asking
            known = self._awaited[job_id] = Awaited(job_id, job, ends, outcome, callers)
        known.callers += 1
        known.ends = max(known.ends, ends)
        return known

    async def wait(self, awaited: Awaited) -> JobResult:
        """The outcome, for one caller, who then has left; when interrupted, `leave` is to follow.

        Raises:
            RewardError: the job failed.
        """
        awaited.asking += 1
        try:
            # One caller that is interrupted must not take the outcome from the others.
            await asyncio.wait([awaited.outcome])
        finally:
            awaited.asking -= 1
        self.leave(awaited)
        return awaited.outcome.result()

    def leave(self, awaited: Awaited) -> bool:
        """A caller no longer waits; whether it was the last."""
        awaited.callers -= 1
        if awaited.callers <= 0 and self._awaited.get(awaited.id) is awaited:
            del self._awaited[awaited.id]
        return awaited.callers <= 0

    async def confirm(self, awaited: Awaited, *, ended: bool = False) -> None:
        """Redis has a job; `ended` when its outcome is there already."""
        awaited.sent = True
        if ended or awaited.rung:
            await self._fetch([awaited.id])

    def listen(self) -> None:
        """Begin, unless this has been done."""
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen(), name="redis bell")

    async def close(self) -> None:
        """Stop listening; the callers are told by somebody else."""
        # A cancellation that meets the end of a read is lost on the way, so it does not suffice.
        self._closed = True
        tasks = [task for task in (self._listening, *self._sending) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self) -> None:
        pause_s = SHORTEST_PAUSE_S
        while not self._closed:
            try:
                if time.monotonic() - self._looked >= LONGEST_BLOCK_S:
                    await self._look()
                await self._fetch(await self._rung())
                pause_s = SHORTEST_PAUSE_S
            except BrokerUnavailable:
                self._looked = float("-inf")
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            except Exception:
                # Requests wait for this loop, so that nothing may end it.
                logger.exception("cannot read the outcomes of jobs")
                await asyncio.sleep(LONGEST_PAUSE_S)

    async def _rung(self) -> list[str]:
        key = f"{self._scripts.prefix}bell:{self.name}"
        with broker_errors():
            reply = await self._connection.blocking.blmpop(
                LONGEST_BLOCK_S, 1, key, direction="LEFT", count=MOST_RINGS
            )
        return [] if reply is None else [name.decode() for name in reply[1]]

    async def _look(self) -> None:
        """Ask after every job that has been sent."""
        sent = [one.id for one in self._awaited.values() if one.sent and not one.outcome.done()]
        phases = await self._scripts.run("look", self.name, self.reserved, *sent)
        self._looked = time.monotonic()
        await self._fetch([name for name, phase in zip(sent, phases, strict=True) if phase != OPEN])
        await self._chores()

    async def _fetch(self, names: Sequence[str]) -> None:
        """Read the outcomes of jobs; those that are unknown were lost."""
        wanted: list[Awaited] = []
        leaving: list[str] = []
        for name in dict.fromkeys(names):
            if (one := self._awaited.get(name)) is None:
                leaving.append(name)
            elif one.sent:
                wanted.append(one)
            else:
                one.rung = True
        for one, record in zip(wanted, await self._records(wanted), strict=True):
            if not record:
                self._lost(one)
            elif (state := decode_state(record)).phase == "finished":
                outcome = state.error or state.result
                assert outcome is not None
                one.finish(outcome)
                leaving.append(one.id)
        if leaving:
            await self._scripts.run("leave", self.name, *leaving)

    async def _records(self, wanted: Sequence[Awaited]) -> list[dict[bytes, bytes]]:
        if not wanted:
            return []
        with broker_errors():
            pipe = self._connection.commands.pipeline(transaction=False)
            for one in wanted:
                pipe.hgetall(f"{self._scripts.prefix}job:{one.id}")
            records: list[dict[bytes, bytes]] = await pipe.execute()
        return records

    def _lost(self, awaited: Awaited) -> None:
        if awaited.sending.locked() or awaited.outcome.done():
            return
        awaited.losses += 1
        if awaited.job is None:
            awaited.finish(BrokerUnavailable("the job queue has lost this job", retry_after=1))
        elif time.monotonic() >= awaited.ends:
            awaited.finish(DeadlineExceeded("the deadline passed before there was a score"))
        elif awaited.losses > MOST_LOSSES:
            awaited.finish(
                BrokerUnavailable(
                    f"the pictures were lost {MOST_LOSSES} times: the API and its workers need "
                    "the same REWARD_BLOB_URL",
                    retry_after=5,
                )
            )
        else:
            task = asyncio.create_task(self._send_again(awaited))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _send_again(self, awaited: Awaited) -> None:
        logger.warning("job %s was lost by the queue: sent again", awaited.id)
        # When it fails, the next look finds the job missing once more.
        with contextlib.suppress(BrokerUnavailable):
            await self._send(awaited)
