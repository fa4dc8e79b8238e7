"""A request's way through the queue: room, decoding, jobs, and one result per picture."""

import asyncio
import contextlib
import hashlib
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from reward_services import pictures
from reward_services.batching import split
from reward_services.job_queue import Job, JobQueue, JobResult, Lane
from reward_services.payload import Payload
from reward_services.scorer import ScoreItem
from shared.errors import RewardError, ServiceUnavailable
from shared.schema import (
    Durations,
    Identity,
    ItemFault,
    ItemResult,
    ScoreResponse,
    ServiceInfo,
)


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a request says besides its pictures.

    Attributes:
        request_id: for logs and the answer.
        timeout_s: seconds until nobody waits any more.
        lane: where its jobs wait.
        key: from `idempotency.checked_key`, or None.
        fingerprint: of the body; only with a key.
        traceparent: W3C trace context, "" for none.
    """

    request_id: str
    timeout_s: float
    lane: Lane = "bulk"
    key: str | None = None
    fingerprint: str = ""
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of a request.

    Attributes:
        jobs: to be scored; together they hold the pictures that could be decoded, in order.
        faults: one entry per picture of the request, None where it is in a job.
        decode_s: seconds that decoding took.
    """

    jobs: Sequence[Job]
    faults: Sequence[ItemFault | None]
    decode_s: float


@dataclass(frozen=True, slots=True)
class Answer:
    """The response, and the seconds that decoding and submitting took."""

    response: ScoreResponse
    decode_s: float
    submit_s: float


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
    plan = await prepare(queue, info, payload, ticket)
    started = time.monotonic()
    await submit(queue, plan.jobs)
    submit_s = time.monotonic() - started
    outcomes = await _collect(queue, plan.jobs)
    response = respond(info.identity, plan.faults, outcomes, ticket.request_id)
    return Answer(response, plan.decode_s, submit_s)


async def prepare(queue: JobQueue, info: ServiceInfo, payload: Payload, ticket: Ticket) -> Plan:
    """Take room for a payload, then decode it. The plan is to be submitted at once.

    Raises:
        QueueFull: no room; nothing was decoded.
        ServiceUnavailable: the queue is away.
    """
    await queue.reserve(payload.size)
    room = payload.size
    try:
        started = time.monotonic()
        decoded = await asyncio.to_thread(
            pictures.decode,
            payload,
            max_pixels=info.limits.max_pixels,
            max_bytes=info.limits.max_body_bytes,
        )
        decode_s = time.monotonic() - started
        items = [one for one in decoded if isinstance(one, ScoreItem)]
        faults = [one if isinstance(one, ItemFault) else None for one in decoded]
        if len(items) < payload.size:
            room = len(items)
            await queue.unreserve(payload.size - room)
    except BaseException:
        await _give_back(queue, (), room)
        raise
    return Plan(_jobs(items, info, ticket), faults, decode_s)


async def submit(queue: JobQueue, jobs: Sequence[Job]) -> None:
    """Put jobs into the room that `prepare` took for them: all, or none when this fails."""
    for count, job in enumerate(jobs, start=1):
        try:
            await queue.submit(job)
        except BaseException:
            # The room of a job that was handed over, even in vain, is the queue's to give back.
            await _give_back(queue, jobs[:count], sum(len(each.items) for each in jobs[count:]))
            raise


async def withdraw(queue: JobQueue, jobs: Sequence[Job]) -> None:
    """Nobody waits for these jobs any more; what no worker has begun is not scored."""
    await _give_back(queue, jobs, 0)


def respond(
    expected: Identity,
    faults: Sequence[ItemFault | None],
    outcomes: Sequence[JobResult],
    request_id: str,
) -> ScoreResponse:
    """Put every result back to where its picture was in the request.

    Args:
        expected: the identity to name when no picture was scored at all.
        faults: one entry per picture, None where it has a result.
        outcomes: these results, in order.
        request_id: of the request.

    Raises:
        ServiceUnavailable: workers of two versions had a share in it.
    """
    identities = [one.identity for one in outcomes if one.identity is not None]
    identity = identities[0] if identities else expected
    if any(each != identity for each in identities):
        raise ServiceUnavailable(
            "workers of two versions answered this request: try again", retry_after=5
        )
    scored = (result for outcome in outcomes for result in outcome.results)
    durations = [one.durations for one in outcomes]
    return ScoreResponse(
        reward=identity.name,
        version=identity.version,
        units=identity.units,
        direction=identity.direction,
        results=[next(scored) if fault is None else ItemResult(error=fault) for fault in faults],
        durations=Durations(
            queue_s=max((one.queue_s for one in durations), default=0.0),
            batch_wait_s=max((one.batch_wait_s for one in durations), default=0.0),
            inference_s=sum(one.inference_s for one in durations),
        ),
        request_id=request_id,
    )


def _jobs(items: Sequence[ScoreItem], info: ServiceInfo, ticket: Ticket) -> list[Job]:
    """Jobs that fit a batch."""
    name = uuid.uuid4().hex
    if ticket.key is not None:
        # The same request makes the same ids, so that it joins the first one or its results; not
        # those of another version, of which it could only ever get a mixture.
        name = hashlib.sha256(f"{ticket.key} {info.version}".encode()).hexdigest()
    return [
        Job(
            id=f"{name}-{number}",
            items=items[part],
            timeout_s=ticket.timeout_s,
            request_id=ticket.request_id,
            keep_result=ticket.key is not None,
            lane=ticket.lane,
            traceparent=ticket.traceparent,
        )
        for number, part in enumerate(split(len(items), info.max_batch_size))
    ]


async def _collect(queue: JobQueue, jobs: Sequence[Job]) -> list[JobResult]:
    outcomes = []
    for count, job in enumerate(jobs, start=1):
        try:
            outcomes.append(await queue.result(job.id))
        except RewardError:
            await withdraw(queue, jobs[count:])
            raise
        except BaseException:
            await withdraw(queue, jobs[count - 1 :])
            raise
    return outcomes


async def _give_back(queue: JobQueue, jobs: Sequence[Job], room: int) -> None:
    """Withdraw jobs and return room; a broker that is away finds out by itself."""
    with contextlib.suppress(ServiceUnavailable):
        for job in jobs:
            await queue.cancel(job.id)
        if room:
            await queue.unreserve(room)
