"""`/jobs`: pictures handed in now and asked for later, for rewards slower than a connection lives.

What a job consists of is a note that all API processes of the queue share, so any of them answers
for it. Its parts are ordinary jobs of the queue whose results are kept.
"""

import asyncio
import contextlib
import re
import uuid
from collections.abc import Sequence
from dataclasses import replace

from fastapi import Request, Response
from pydantic import BaseModel

from reward_services.edge import Record
from reward_services.intake import Incoming, Intake
from reward_services.job_queue import Job, JobQueue, JobState
from reward_services.metrics import Metrics
from reward_services.notes import Notes
from reward_services.score_request import prepare, respond, submit, withdraw
from reward_services.settings import ServiceSettings
from shared.errors import IdempotencyConflict, NotFound, RewardError, ServiceUnavailable
from shared.schema import ErrorBody, Identity, ItemFault, JobStatus

_ID = re.compile(r"[0-9a-f]{32,64}")


class _Note(BaseModel):
    """What a job consists of.

    Attributes:
        parts: ids in the queue.
        faults: one entry per picture, None where it is in a part.
        expected: the reward that it was handed in for.
        request_id: of the request that handed it in.
        fingerprint: of that request, "" without an idempotency key.
    """

    parts: list[str]
    faults: list[ItemFault | None]
    expected: Identity
    request_id: str
    fingerprint: str


class JobsRoute:
    """The three routes with what they need.

    Args:
        intake: receives requests.
        queue: where the parts of jobs go.
        notes: where jobs are noted.
        settings: how long jobs may take, and how long results are kept.
        metrics: where decoding is measured.
    """

    def __init__(
        self,
        intake: Intake,
        queue: JobQueue,
        notes: Notes,
        settings: ServiceSettings,
        metrics: Metrics,
    ) -> None:
        self._intake = intake
        self._queue = queue
        self._notes = notes
        self._longest_s = settings.job_deadline_s
        self._kept_s = settings.result_ttl_s
        self._metrics = metrics
        self._following: set[asyncio.Task[None]] = set()

    async def create(self, request: Request) -> Response:
        """Queue the pictures of a request; raises a `RewardError` as documented for the route."""
        return await self._intake.answer(
            request, self._longest_s, lambda incoming: self._create(request, incoming)
        )

    async def show(self, job_id: str) -> JobStatus:
        """Where a job is.

        Raises:
            NotFound: no such job, or its result is not kept any more.
            BrokerUnavailable: the queue is away.
        """
        note = await self._note(job_id)
        states = None if note is None else await self._states(note)
        if note is None or states is None:
            raise self._unknown(job_id)
        return _status(job_id, note, states)

    async def withdraw(self, job_id: str) -> Response:
        """Forget a job; what no worker has begun is not scored.

        Raises:
            NotFound: no such job.
            BrokerUnavailable: the queue is away.
        """
        if (note := await self._note(job_id)) is None:
            raise self._unknown(job_id)
        for part in note.parts:
            await self._queue.cancel(part)
        await self._notes.delete(_name(job_id))
        return Response(status_code=204)

    async def _create(self, request: Request, incoming: Incoming) -> Response:
        ticket = incoming.ticket
        if ticket.key is not None:
            await self._queue.bind_key(ticket.key, ticket.fingerprint)
            if await self._is_known(ticket.key, ticket.fingerprint):
                return _accepted(ticket.key)
        job_id = ticket.key or uuid.uuid4().hex
        # With a key of its own, results are kept.
        plan = await prepare(
            self._queue, incoming.info, incoming.payload, replace(ticket, key=job_id)
        )
        record: Record = request.scope["record"]
        record.facts["job_id"] = job_id
        self._metrics.decode.labels(self._metrics.service, record.codec).observe(plan.decode_s)
        note = _Note(
            parts=[job.id for job in plan.jobs],
            faults=list(plan.faults),
            expected=incoming.info.identity,
            request_id=ticket.request_id,
            fingerprint=ticket.fingerprint,
        )
        # Submitted first: a note without jobs would answer for a job that is not there.
        await submit(self._queue, plan.jobs)
        kept_s = ticket.timeout_s + self._kept_s
        try:
            await self._notes.put(_name(job_id), note.model_dump_json().encode(), kept_s)
        except BaseException:
            await withdraw(self._queue, plan.jobs)
            raise
        for job in plan.jobs:
            self._follow(job)
        return _accepted(job_id)

    def _follow(self, job: Job) -> None:
        """Wait for a part in the request's place, so that a queue that loses it gets it again."""
        task = asyncio.create_task(self._count(job))
        self._following.add(task)
        task.add_done_callback(self._following.discard)

    async def _count(self, job: Job) -> None:
        with contextlib.suppress(RewardError):
            self._metrics.count_items((await self._queue.result(job.id)).results)

    async def _is_known(self, job_id: str, fingerprint: str) -> bool:
        note = await self._note(job_id)
        if note is None:
            return False
        if note.fingerprint != fingerprint:
            # The key outlives its binding while the job does.
            raise IdempotencyConflict(
                "this Idempotency-Key was used with another body: take a new key for a new job"
            )
        states = await self._states(note)
        # A failure is no reason not to try again.
        return states is not None and not any(state.error for state in states)

    async def _note(self, job_id: str) -> _Note | None:
        if not _ID.fullmatch(job_id):
            return None
        value = await self._notes.get(_name(job_id))
        return None if value is None else _Note.model_validate_json(value)

    async def _states(self, note: _Note) -> list[JobState] | None:
        """Where the parts are, None when one of them is not known any more."""
        states = []
        for part in note.parts:
            if (state := await self._queue.state(part)) is None:
                return None
            states.append(state)
        return states

    def _unknown(self, job_id: str) -> NotFound:
        return NotFound(f"there is no job {job_id[:64]}: a result is kept for {self._kept_s:g} s")


def _name(job_id: str) -> str:
    return f"job:{job_id}"


def _accepted(job_id: str) -> Response:
    return Response(
        JobStatus(id=job_id, status="waiting").model_dump_json(),
        status_code=202,
        media_type="application/json",
        headers={"Location": f"/jobs/{job_id}"},
    )


def _status(job_id: str, note: _Note, states: Sequence[JobState]) -> JobStatus:
    for state in states:
        if state.error is not None:
            return _failed(job_id, note, state.error)
    results = [state.result for state in states if state.result is not None]
    if len(results) == len(states):
        try:
            response = respond(note.expected, note.faults, results, note.request_id)
        except ServiceUnavailable as error:
            return _failed(job_id, note, error)
        return JobStatus(id=job_id, status="finished", response=response)
    begun = results or any(state.phase == "running" for state in states)
    return JobStatus(id=job_id, status="running" if begun else "waiting")


def _failed(job_id: str, note: _Note, error: RewardError) -> JobStatus:
    body = ErrorBody(
        code=error.code,
        message=error.message,
        retryable=error.retryable,
        request_id=note.request_id,
    )
    return JobStatus(id=job_id, status="failed", error=body)
