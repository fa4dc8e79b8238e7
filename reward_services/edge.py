"""The outermost layer of the API, as plain ASGI: request id, API key, one log line, metrics.

Not Starlette's `BaseHTTPMiddleware`: that one hides from the routes that a client has gone away.
"""

import hashlib
import hmac
import math
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reward_services.metrics import Metrics
from reward_services.page import FILES
from reward_services.tracing import TRACEPARENT, Tracing
from shared.errors import InternalError, MethodNotAllowed, RewardError, Unauthorized
from shared.schema import REQUEST_ID, ErrorBody

QUIET_PATHS = frozenset({"/livez", "/readyz", "/metrics"})
PUBLIC_PATHS = QUIET_PATHS | frozenset(FILES)
LONGEST_REQUEST_ID = 128

log = structlog.get_logger("reward_services.requests")


@dataclass(slots=True)
class Record:
    """What is to be logged about a request; routes add what they learn (`scope["record"]`)."""

    request_id: str
    traceparent: str = ""
    codec: str = "none"
    status: int = 0
    facts: dict[str, object] = field(default_factory=dict)


class Edge:
    """Wraps an ASGI application.

    Args:
        app: the application.
        metrics: where requests are counted.
        api_keys: if there are any, a request needs one of them, except on `PUBLIC_PATHS`.
        routes: paths that are told apart in metrics; all others count as "other". One may end
            in the parameter `{id}`.
        tracing: where the span of each request goes.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        api_keys: Sequence[str],
        routes: Sequence[str],
        tracing: Tracing,
    ) -> None:
        self._app = app
        self._tracing = tracing
        self._metrics = metrics
        self._digests = [_digest(key) for key in api_keys]
        self._routes = frozenset(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        record = Record(_request_id(headers.get(REQUEST_ID)))
        scope["record"] = record
        started = time.monotonic()

        async def send_noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = record.request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=record.request_id):
            try:
                await self._traced(scope, receive, send_noted, headers, record)
            finally:
                self._note(scope, record, time.monotonic() - started)

    async def _traced(
        self, scope: Scope, receive: Receive, send: Send, headers: Headers, record: Record
    ) -> None:
        if scope["path"] in QUIET_PATHS:
            await self._serve(scope, receive, send, headers, record)
            return
        name = f"{scope['method']} {self._route(scope['path'])}"
        with self._tracing.request(name, headers.get(TRACEPARENT, "")) as trace:
            record.traceparent = trace.traceparent
            await self._serve(scope, receive, send, headers, record)
            trace.note(
                {"http.response.status_code": record.status, "request_id": record.request_id}
            )

    async def _serve(
        self, scope: Scope, receive: Receive, send: Send, headers: Headers, record: Record
    ) -> None:
        try:
            if scope["path"] not in PUBLIC_PATHS and not self._knows(headers):
                raise Unauthorized("send one of the service's API keys: Authorization: Bearer KEY")
            await self._app(scope, receive, send)
        except Exception as error:
            if not isinstance(error, RewardError):
                log.exception("a bug in the service")
                error = InternalError("the service failed; its log has the request id")
            if record.status == 0:
                await send_error(send, error, record.request_id)

    def _knows(self, headers: Headers) -> bool:
        if not self._digests:
            return True
        scheme, _, key = headers.get("authorization", "").partition(" ")
        digest = _digest(key.strip())
        # All are compared, so that the time taken says nothing about which one nearly fitted.
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return scheme.lower() == "bearer" and any(matches)

    def _route(self, path: str) -> str:
        if path in self._routes:
            return path
        template = f"{path.rpartition('/')[0]}/{{id}}"
        return template if template in self._routes else "other"

    def _note(self, scope: Scope, record: Record, seconds: float) -> None:
        route = self._route(scope["path"])
        name = self._metrics.service
        self._metrics.requests.labels(name, route, str(record.status), record.codec).inc()
        self._metrics.request_duration.labels(name, route).observe(seconds)
        write = log.debug if scope["path"] in QUIET_PATHS else log.info
        client = scope.get("client")
        write(
            "request",
            method=scope["method"],
            path=scope["path"],
            status=record.status,
            ms=round(seconds * 1000, 1),
            client=client[0] if client else "",
            **record.facts,
        )


async def send_error(send: Send, error: RewardError, request_id: str) -> None:
    """Answer with the error's status and an `ErrorBody`.

    The connection stays open also when the body was not read: closing it would make clients see
    a broken connection instead of the answer.
    """
    body = ErrorBody(
        code=error.code, message=error.message, retryable=error.retryable, request_id=request_id
    )
    content = body.model_dump_json().encode()
    await send(
        {
            "type": "http.response.start",
            "status": error.status,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(content)).encode()),
                *_extra_headers(error),
            ],
        }
    )
    await send({"type": "http.response.body", "body": content})


def _extra_headers(error: RewardError) -> list[tuple[bytes, bytes]]:
    if error.status == 401:
        return [(b"www-authenticate", b"Bearer")]
    if isinstance(error, MethodNotAllowed):
        return [(b"allow", ", ".join(error.allowed).encode())]
    if error.status in (429, 503):
        seconds = max(1, math.ceil(error.retry_after or 1))
        return [(b"retry-after", str(seconds).encode())]
    return []


def _request_id(text: str | None) -> str:
    """The sender's own id where it can be logged safely, else a new one."""
    if text and len(text) <= LONGEST_REQUEST_ID and text.isascii() and text.isprintable():
        return text
    return uuid.uuid4().hex


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
