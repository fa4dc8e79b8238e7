"""`POST /score`: from an HTTP request to an HTTP answer."""

import asyncio
import time
from collections.abc import Coroutine
from functools import partial
from typing import Any, TypeVar

from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from reward_services.edge import Record
from reward_services.intake import Incoming, Intake
from reward_services.job_queue import JobQueue
from reward_services.metrics import Metrics
from reward_services.score_request import Answer, score
from shared.errors import DeadlineExceeded
from shared.schema import ScoreResponse

T = TypeVar("T")


class ScoreRoute:
    """The route with what it needs.

    Args:
        intake: receives the request.
        queue: where its jobs go.
        metrics: where pictures are counted.
        deadline_s: how long a request may take.
    """

    def __init__(
        self, intake: Intake, queue: JobQueue, metrics: Metrics, deadline_s: float
    ) -> None:
        self._intake = intake
        self._queue = queue
        self._metrics = metrics
        self._deadline_s = deadline_s

    async def answer(self, request: Request) -> Response:
        """Score the pictures of a request; raises a `RewardError` as documented for the route."""
        return await self._intake.answer(request, self._deadline_s, partial(self._score, request))

    async def _score(self, request: Request, incoming: Incoming) -> Response:
        work = score(self._queue, incoming.info, incoming.payload, incoming.ticket)
        answer = await self._in_time(request, work, incoming)
        self._count(answer, request.scope["record"])
        return _http(answer, incoming.receive_s, time.monotonic() - incoming.started)

    async def _in_time(
        self, request: Request, work: Coroutine[Any, Any, T], incoming: Incoming
    ) -> T:
        try:
            async with asyncio.timeout(incoming.ticket.timeout_s):
                return await _while_connected(request, work)
        except TimeoutError:
            self._metrics.expired.inc()
            raise DeadlineExceeded(f"there was no score within {incoming.limit_s:g} s") from None

    def _count(self, answer: Answer, record: Record) -> None:
        self._metrics.decode.labels(self._metrics.service, record.codec).observe(answer.decode_s)
        self._metrics.submit.observe(answer.submit_s)
        record.facts["errors"] = self._metrics.count_items(answer.response.results)


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
        "submit": answer.submit_s,
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
