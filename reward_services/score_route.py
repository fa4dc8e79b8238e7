"""`POST /score`: from an HTTP request to an HTTP answer."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from reward_services import idempotency
from reward_services.edge import Record
from reward_services.job_queue import JobQueue
from reward_services.media_types import LABELS, media_type, read_payload
from reward_services.metrics import Metrics
from reward_services.payload import Demands
from reward_services.readiness import Readiness
from reward_services.request_body import ByteBudget, Share, receive_body
from reward_services.score_request import Answer, Ticket, score
from reward_services.settings import ServiceSettings
from shared.errors import DeadlineExceeded, InvalidRequest, RewardError, UploadTimeout
from shared.schema import DEADLINE, IDEMPOTENCY_KEY, ScoreResponse, ServiceInfo

T = TypeVar("T")

CLIENT_GONE = 499
"""Logged for a request whose client went away; nobody receives it."""


class ScoreRoute:
    """The route with what it needs.

    The order of the checks is their cost: key (`edge`), phase, media type, length, room for the
    bytes, room for the items, and only then decoding.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        queue: JobQueue,
        info: ServiceInfo,
        metrics: Metrics,
        readiness: Readiness,
    ) -> None:
        self._settings = settings
        self._queue = queue
        self._info = info
        self._metrics = metrics
        self._readiness = readiness
        self._budget = ByteBudget(settings.max_inflight_bytes, metrics.inflight_bytes)
        self._demands = Demands(info.limits.max_items, info.needs_prompt)

    async def answer(self, request: Request) -> Response:
        """Score the pictures of a request; see the module's docstring for the errors."""
        record: Record = request.scope["record"]
        try:
            self._readiness.require_open()
            headers = request.headers
            kind = media_type(headers.get("content-type"), headers.get("content-encoding"))
            record.codec = LABELS[kind]
            with self._budget.share() as share:
                return await self._score(request, kind, share, record)
        except ClientDisconnect:
            self._metrics.cancelled.inc()
            return Response(status_code=CLIENT_GONE)
        except RewardError as error:
            self._metrics.rejected.labels(self._metrics.service, error.code).inc()
            record.facts["error"] = error.code
            raise

    async def _score(self, request: Request, kind: str, share: Share, record: Record) -> Response:
        limit_s = self._time_limit(request)
        started = time.monotonic()
        key = idempotency.checked_key(
            request.headers.get(IDEMPOTENCY_KEY), request.headers.get("authorization", "")
        )
        body = await self._receive(request, share, limit_s)
        receive_s = time.monotonic() - started
        self._metrics.receive.observe(receive_s)
        self._metrics.payload.observe(len(body))
        payload = await asyncio.to_thread(
            read_payload, request.headers["content-type"], body, self._demands
        )
        record.facts.update(items=payload.size, bytes=len(body))
        ticket = Ticket(
            request_id=record.request_id,
            timeout_s=limit_s - (time.monotonic() - started),
            key=key,
            fingerprint=""
            if key is None
            else await asyncio.to_thread(idempotency.fingerprint, kind, body, payload),
        )
        work = score(self._queue, self._info, payload, ticket)
        answer = await self._in_time(request, work, ticket.timeout_s, limit_s)
        self._count(answer, record)
        return _http(answer, receive_s, time.monotonic() - started)

    async def _receive(self, request: Request, share: Share, limit_s: float) -> memoryview:
        try:
            async with asyncio.timeout(limit_s):
                return await receive_body(request, self._info.limits.max_body_bytes, share)
        except TimeoutError:
            self._metrics.expired.inc()
            raise UploadTimeout(
                f"the body did not arrive within {limit_s:g} s: send fewer pictures per request"
            ) from None

    async def _in_time(
        self, request: Request, work: Coroutine[Any, Any, T], timeout_s: float, limit_s: float
    ) -> T:
        try:
            async with asyncio.timeout(timeout_s):
                return await _while_connected(request, work)
        except TimeoutError:
            self._metrics.expired.inc()
            raise DeadlineExceeded(f"there was no score within {limit_s:g} s") from None

    def _time_limit(self, request: Request) -> float:
        """Seconds that the request may take: what its sender waits, within what is allowed."""
        text = request.headers.get(DEADLINE)
        if text is None:
            return self._settings.deadline_s
        try:
            seconds = float(text)
        except ValueError:
            seconds = float("nan")
        if not seconds > 0:
            raise InvalidRequest(f"{DEADLINE} must be a positive number, not {text[:40]!r}")
        return min(seconds, self._settings.deadline_s)

    def _count(self, answer: Answer, record: Record) -> None:
        results = answer.response.results
        failed = sum(result.error is not None for result in results)
        name = self._metrics.service
        self._metrics.items.labels(name, "error").inc(failed)
        self._metrics.items.labels(name, "scored").inc(len(results) - failed)
        self._metrics.decode.labels(name, record.codec).observe(answer.decode_s)
        record.facts["errors"] = failed


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, and cancel it as soon as the client goes away.

    Raises:
        ClientDisconnect: the client went away first.
    """
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _http(answer: Answer, receive_s: float, total_s: float) -> Response:
    response: ScoreResponse = answer.response
    stages = {
        "receive": receive_s,
        "decode": answer.decode_s,
        "queue": response.durations.queue_s,
        "batch": response.durations.batch_wait_s,
        "inference": response.durations.inference_s,
        "total": total_s,
    }
    timing = ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in stages.items())
    return Response(
        response.model_dump_json(),
        media_type="application/json",
        headers={"Server-Timing": timing},
    )
