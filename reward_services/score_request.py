"""A request's way through the queue: room, decoding, jobs, and one result per picture."""

import asyncio
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reward_services import pictures
from reward_services.batching import split
from reward_services.job_queue import Job, JobLost, JobQueue, JobResult
from reward_services.payload import Payload
from reward_services.scorer import ScoreItem
from shared.errors import ServiceUnavailable
from shared.schema import Durations, ItemFault, ItemResult, ScoreResponse, ServiceInfo


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a request says besides its pictures.

    Attributes:
        request_id: for logs and the answer.
        timeout_s: seconds until nobody waits any more.
        key: from `idempotency.checked_key`, or None.
        fingerprint: of the body; only with a key.
    """

    request_id: str
    timeout_s: float
    key: str | None = None
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """The response, and how long decoding took (seconds)."""

    response: ScoreResponse
    decode_s: float


async def score(queue: JobQueue, info: ServiceInfo, payload: Payload, ticket: Ticket) -> Answer:
    """Score a payload; room in the queue is taken before any picture is decoded.

    When this is cancelled, what no worker has begun is withdrawn.

    Raises:
        QueueFull: no room; nothing was decoded.
        IdempotencyConflict: the key belongs to another body.
        ServiceUnavailable: the queue is away, or no worker came in time.
    """
    if ticket.key is not None:
        await queue.bind_key(ticket.key, ticket.fingerprint)
    await queue.reserve(payload.size)
    room = payload.size
    waiting: list[Job] = []
    outcomes: list[JobResult | ItemFault] = []
    try:
        started = time.monotonic()
        decoded = await asyncio.to_thread(
            pictures.decode,
            payload,
            max_pixels=info.limits.max_pixels,
            max_bytes=info.limits.max_body_bytes,
        )
        decode_s = time.monotonic() - started
        for job in _jobs([one for one in decoded if isinstance(one, ScoreItem)], info, ticket):
            # From here on the room is the queue's to give back.
            room -= len(job.items)
            waiting.append(job)
            await queue.submit(job)
        while waiting:
            outcomes.append(await _outcome(queue, waiting[0]))
            waiting.pop(0)
    finally:
        for job in waiting:
            await queue.cancel(job.id)
        if room:
            await queue.unreserve(room)
    return Answer(_response(info, decoded, outcomes, ticket.request_id), decode_s)


def _jobs(items: Sequence[ScoreItem], info: ServiceInfo, ticket: Ticket) -> Iterator[Job]:
    """Jobs that fit a batch; with a key, the same request makes the same ids."""
    name = ticket.key or uuid.uuid4().hex
    for number, part in enumerate(split(len(items), info.max_batch_size)):
        yield Job(
            id=f"{name}-{number}",
            items=items[part],
            timeout_s=ticket.timeout_s,
            request_id=ticket.request_id,
            keep_result=ticket.key is not None,
        )


async def _outcome(queue: JobQueue, job: Job) -> JobResult | ItemFault:
    try:
        return await queue.result(job.id)
    except JobLost as error:
        # Known to be hopeless for these pictures alone; those of other jobs may have a score.
        return ItemFault(code=error.code, message=error.message, retryable=True)


def _response(
    info: ServiceInfo,
    decoded: Sequence[ScoreItem | ItemFault],
    outcomes: Sequence[JobResult | ItemFault],
    request_id: str,
) -> ScoreResponse:
    """Put every result back to where its picture was in the request."""
    done = [outcome for outcome in outcomes if isinstance(outcome, JobResult)]
    identity = done[0].identity if done else info.identity
    if any(outcome.identity != identity for outcome in done):
        raise ServiceUnavailable(
            "workers of two versions answered this request: try again", retry_after=5
        )
    total = sum(isinstance(one, ScoreItem) for one in decoded)
    parts = split(total, info.max_batch_size)
    scored: list[ItemResult] = []
    for part, outcome in zip(parts, outcomes, strict=True):
        if isinstance(outcome, JobResult):
            scored.extend(outcome.results)
        else:
            scored.extend([ItemResult(error=outcome)] * (part.stop - part.start))
    following = iter(scored)
    return ScoreResponse(
        reward=identity.name,
        version=identity.version,
        units=identity.units,
        direction=identity.direction,
        results=[
            ItemResult(error=one) if isinstance(one, ItemFault) else next(following)
            for one in decoded
        ],
        durations=Durations(
            queue_s=max((one.durations.queue_s for one in done), default=0.0),
            batch_wait_s=max((one.durations.batch_wait_s for one in done), default=0.0),
            inference_s=sum(one.durations.inference_s for one in done),
        ),
        request_id=request_id,
    )
