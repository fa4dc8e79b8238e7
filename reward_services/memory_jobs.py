"""A job in the queue in memory: the pieces that are leased, and what has become of each picture."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum, auto

from reward_services.job_queue import Job, JobResult, JobState, Lane, Lease, given_up, joined
from shared.errors import DeadlineExceeded, RewardError, ServiceUnavailable
from shared.schema import Durations, Identity, ItemResult

NO_TIME = Durations(queue_s=0, batch_wait_s=0, inference_s=0)


class Phase(Enum):
    """Of a piece."""

    WAITING = auto()
    LEASED = auto()
    LOADED = auto()
    ENDED = auto()


class Piece:
    """Pictures of a job that are leased together: all of it, or one."""

    def __init__(self, record: "JobRecord", first: int, size: int, deliveries: int = 0) -> None:
        self.record = record
        self.first = first
        self.size = size
        self.deliveries = deliveries
        self.phase = Phase.WAITING
        self.held_by = ""
        self.lease_ends = 0.0

    @property
    def lane(self) -> Lane:
        """Where its job was submitted to."""
        return self.record.job.lane

    def lease(self, worker: str, now: float, lease_s: float) -> Lease:
        """Give it to a worker."""
        self.phase = Phase.LEASED
        self.held_by = worker
        self.lease_ends = now + lease_s
        return Lease(
            job_id=self.record.id,
            first=self.first,
            size=self.size,
            worker=worker,
            deliveries=self.deliveries + 1,
            waited_s=now - self.record.submitted,
            remaining_s=self.record.deadline - now,
            handle=self,
        )

    def load(self) -> None:
        """From here on its worker may be killed by it."""
        self.phase = Phase.LOADED
        self.deliveries += 1

    def hand_back(self) -> None:
        """It was leased, and not loaded."""
        self.phase = Phase.WAITING
        self.held_by = ""

    def split(self) -> list["Piece"]:
        """Take its own place with one piece per picture that has no result yet."""
        singles = [
            Piece(self.record, index, 1, self.deliveries)
            for index in range(self.first, self.first + self.size)
            if self.record.results[index] is None
        ]
        self.end()
        self.record.pieces += singles
        return singles

    def end(self) -> None:
        """It will not be leased again."""
        self.phase = Phase.ENDED
        if self in self.record.pieces:
            self.record.pieces.remove(self)


class JobRecord:
    """A job with what has become of it; its pictures go when it ends."""

    def __init__(self, job: Job) -> None:
        self.id = job.id
        self.job = job
        self.keep = job.keep_result
        self.submitted = time.monotonic()
        self.deadline = self.submitted + job.timeout_s
        self.waiters = 1
        self.results: list[ItemResult | None] = [None] * len(job.items)
        self.pieces = [Piece(self, 0, len(job.items))]
        self.finished: asyncio.Future[JobResult] = asyncio.get_running_loop().create_future()
        # When nobody asks for an error any more, that is no reason for a warning.
        self.finished.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._shares: list[tuple[Identity, Durations]] = []
        self._lost = False

    @property
    def missing(self) -> int:
        """Pictures without a result; 0 once the job has ended."""
        return 0 if self.finished.done() else self.results.count(None)

    @property
    def joinable(self) -> bool:
        """Whether who submits the same id again gets this job's result."""
        if not self.finished.done():
            return True
        return self.keep and not self._lost and self.finished.exception() is None

    @property
    def state(self) -> JobState:
        """See `JobQueue.state`."""
        if self.finished.done():
            error = self.finished.exception()
            if error is None:
                return JobState("finished", result=self.finished.result())
            assert isinstance(error, RewardError)
            return JobState("finished", error=error)
        begun = any(piece.phase is Phase.LOADED for piece in self.pieces)
        return JobState("running" if begun or any(self.results) else "waiting")

    def join(self, timeout_s: float) -> None:
        """One more caller waits."""
        self.waiters += 1
        self.deadline = max(self.deadline, time.monotonic() + timeout_s)

    def has(self, piece: Piece) -> bool:
        """Whether all pictures of a piece have a result."""
        return None not in self.results[piece.first : piece.first + piece.size]

    def put(self, first: int, result: JobResult) -> int:
        """Take results where there are none yet; how many these were."""
        before = self.results.count(None)
        for index, one in enumerate(result.results, start=first):
            self.results[index] = self.results[index] or one
        new = before - self.results.count(None)
        if new and result.identity is not None:
            self._shares.append((result.identity, result.durations))
        return new

    def give_up(self, piece: Piece) -> int:
        """The picture of a piece has cost too many workers; 1 when it had no result."""
        self._lost = True
        fault = given_up(piece.deliveries)
        return self.put(piece.first, JobResult(None, [fault], NO_TIME))

    def joined(self) -> JobResult | RewardError:
        """The outcome when every picture has its result."""
        results: Sequence[ItemResult] = [one for one in self.results if one is not None]
        try:
            return joined(results, self._shares)
        except ServiceUnavailable as error:
            return error

    def too_late(self) -> DeadlineExceeded:
        """The error of a job that no worker took in time."""
        seconds = self.deadline - self.submitted
        return DeadlineExceeded(f"no worker was free within {seconds:g} s: try again later")

    def finish(self, outcome: JobResult | RewardError) -> None:
        """Tell whoever waits, and let the pictures go."""
        self.job = replace(self.job, items=())
        if isinstance(outcome, RewardError):
            self.finished.set_exception(outcome)
        else:
            self.finished.set_result(outcome)
