"""How every request with pictures comes in, up to a payload: the checks in order of their cost."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from reward_services import idempotency
from reward_services.announcements import Announcements
from reward_services.edge import Record
from reward_services.job_queue import Lane
from reward_services.media_types import LABELS, media_type, read_payload
from reward_services.metrics import Metrics
from reward_services.payload import Demands, Payload
from reward_services.readiness import Readiness
from reward_services.request_body import ByteBudget, Share, receive_body
from reward_services.score_request import Ticket
from reward_services.settings import ServiceSettings
from shared.errors import InvalidRequest, RewardError, UploadTimeout
from shared.schema import DEADLINE, IDEMPOTENCY_KEY, LANE, ServiceInfo

CLIENT_GONE = 499
"""Logged for a request whose client went away; nobody receives it."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request whose pictures are counted and not yet decoded.

    Attributes:
        payload: what it wants scored.
        ticket: what it says besides.
        info: the reward it is for.
        limit_s: seconds that it may take in all.
        started: when its body was asked for (monotonic seconds).
        receive_s: seconds until its body was there.
    """

    payload: Payload
    ticket: Ticket
    info: ServiceInfo
    limit_s: float
    started: float
    receive_s: float


class Intake:
    """What the routes that take pictures have in common.

    The order of the checks is their cost: key (`edge`), phase, broker, media type, length, room for
    the bytes, and then, in the route, room for the items and decoding.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        announcements: Announcements,
        metrics: Metrics,
        readiness: Readiness,
    ) -> None:
        self._settings = settings
        self._announcements = announcements
        self._metrics = metrics
        self._readiness = readiness
        self._budget = ByteBudget(settings.max_inflight_bytes, metrics.inflight_bytes)

    async def answer(
        self,
        request: Request,
        longest_s: float,
        handle: Callable[[Incoming], Awaitable[Response]],
    ) -> Response:
        """Receive a request and answer it with what `handle` makes of it.

        Args:
            request: not yet received.
            longest_s: how long it may take; it may name a shorter time.
            handle: from its payload to the answer.
        """
        record: Record = request.scope["record"]
        try:
            self._announcements.require_broker()
            info = self._announcements.require_info()
            self._readiness.require_open()
            headers = request.headers
            kind = media_type(headers.get("content-type"), headers.get("content-encoding"))
            record.codec = LABELS[kind]
            with self._budget.share() as share:
                return await handle(await self._receive(request, kind, share, info, longest_s))
        except ClientDisconnect:
            self._metrics.cancelled.inc()
            return Response(status_code=CLIENT_GONE)
        except RewardError as error:
            self._metrics.rejected.labels(self._metrics.service, error.code).inc()
            record.facts["error"] = error.code
            raise

    async def _receive(
        self, request: Request, kind: str, share: Share, info: ServiceInfo, longest_s: float
    ) -> Incoming:
        record: Record = request.scope["record"]
        limit_s = _time_limit(request, longest_s)
        lane = _lane(request)
        key = _key(request)
        started = time.monotonic()
        body = await self._body(request, share, info.limits.max_body_bytes, limit_s)
        receive_s = time.monotonic() - started
        self._metrics.receive.observe(receive_s)
        self._metrics.payload.observe(len(body))
        demands = Demands(info.limits.max_items, info.needs_prompt)
        payload = await asyncio.to_thread(
            read_payload, request.headers["content-type"], body, demands
        )
        record.facts.update(items=payload.size, bytes=len(body))
        fingerprint = ""
        if key is not None:
            fingerprint = await asyncio.to_thread(idempotency.fingerprint, kind, body, payload)
        ticket = Ticket(
            request_id=record.request_id,
            timeout_s=limit_s - (time.monotonic() - started),
            lane=lane or self._lane_by_size(payload.size),
            key=key,
            fingerprint=fingerprint,
            traceparent=record.traceparent,
        )
        return Incoming(payload, ticket, info, limit_s, started, receive_s)

    async def _body(
        self, request: Request, share: Share, max_bytes: int, limit_s: float
    ) -> memoryview:
        # However long scores may take, a sender may not sit on the room for its bytes.
        limit_s = min(limit_s, self._settings.deadline_s)
        try:
            async with asyncio.timeout(limit_s):
                return await receive_body(request, max_bytes, share)
        except TimeoutError:
            self._metrics.expired.inc()
            raise UploadTimeout(
                f"the body did not arrive within {limit_s:g} s: send fewer pictures per request"
            ) from None

    def _lane_by_size(self, items: int) -> Lane:
        return "interactive" if items <= self._settings.interactive_items else "bulk"


def _time_limit(request: Request, longest_s: float) -> float:
    """Seconds that the request may take: what its sender waits, within what is allowed."""
    text = request.headers.get(DEADLINE)
    if text is None:
        return longest_s
    try:
        seconds = float(text)
    except ValueError:
        seconds = float("nan")
    if not seconds > 0:
        raise InvalidRequest(f"{DEADLINE} must be a positive number, not {text[:40]!r}")
    return min(seconds, longest_s)


def _lane(request: Request) -> Lane | None:
    text = request.headers.get(LANE)
    match text:
        case None | "interactive" | "bulk":
            return text
        case _:
            raise InvalidRequest(f"{LANE} must be interactive or bulk, not {text[:40]!r}")


def _key(request: Request) -> str | None:
    # The path too tells callers apart: a job is another thing than an answer.
    caller = f"{request.url.path} {request.headers.get('authorization', '')}"
    return idempotency.checked_key(request.headers.get(IDEMPOTENCY_KEY), caller)
