"""Receiving a request body: never more bytes than allowed, and copied as little as possible."""

from types import TracebackType
from typing import Self

import numpy as np
from prometheus_client import Gauge
from starlette.requests import ClientDisconnect, Request

from reward_services.body_receiver import RECEIVE_INTO
from shared.errors import BodyTooLarge, MalformedRequest, QueueFull

DIRECT_BYTES = 256 * 1024
"""From here on a body is received straight into its place, where the server can do that."""


class ByteBudget:
    """Bytes of request bodies that one process may hold at a time."""

    def __init__(self, limit: int, gauge: Gauge) -> None:
        self._limit = limit
        self._gauge = gauge
        self._used = 0

    def share(self) -> "Share":
        """What one request holds, given back at the end of its `with` block."""
        return Share(self)

    def take(self, size: int) -> None:
        """Reserve `size` bytes.

        Raises:
            QueueFull: other requests hold too much.
        """
        if self._used + size > self._limit:
            raise QueueFull(
                f"the requests in work hold {self._used} bytes and {size} more would be above "
                f"{self._limit}: try again later",
                retry_after=1,
            )
        self.give_back(-size)

    def give_back(self, size: int) -> None:
        """Free `size` bytes."""
        self._used -= size
        self._gauge.set(self._used)


class Share:
    """Part of a `ByteBudget` that belongs to one request."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._size = 0

    def take(self, size: int) -> None:
        """Grow by `size` bytes; raises as `ByteBudget.take`."""
        self._budget.take(size)
        self._size += size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._budget.give_back(self._size)


async def receive_body(request: Request, max_bytes: int, share: Share) -> memoryview:
    """The whole body, its bytes reserved in `share` before they are received.

    Raises:
        BodyTooLarge: before anything is received when the length is declared, else on the way.
        QueueFull: no room for it now.
        MalformedRequest: Content-Length is no number, or the body has another length.
        ClientDisconnect: the client went away.
    """
    declared = _declared_length(request)
    if declared is None:
        return await _receive_undeclared(request, max_bytes, share)
    if declared > max_bytes:
        raise _too_large(max_bytes, declared)
    share.take(declared)
    # Not a bytearray: numpy asks for large pages, which spares the faults of the first write.
    body = np.empty(declared, np.uint8).data
    if declared >= DIRECT_BYTES and RECEIVE_INTO in request.scope.get("extensions", {}):
        if not await request.scope["extensions"][RECEIVE_INTO]["receive_into"](body):
            raise ClientDisconnect
        return body
    end = 0
    async for chunk in request.stream():
        start, end = end, end + len(chunk)
        if end > declared:
            break
        body[start:end] = chunk
    if end != declared:
        raise MalformedRequest(f"Content-Length says {declared} bytes, the body has {end}")
    return body


async def _receive_undeclared(request: Request, max_bytes: int, share: Share) -> memoryview:
    body = bytearray()
    async for chunk in request.stream():
        if len(body) + len(chunk) > max_bytes:
            raise _too_large(max_bytes)
        share.take(len(chunk))
        body += chunk
    return memoryview(body)


def _declared_length(request: Request) -> int | None:
    text = request.headers.get("content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise MalformedRequest(f"Content-Length is no number of bytes: {text[:40]!r}")
    return int(text)


def _too_large(max_bytes: int, declared: int | None = None) -> BodyTooLarge:
    size = "more" if declared is None else f"{declared}"
    return BodyTooLarge(
        f"the body has {size} bytes, at most {max_bytes} are taken: send fewer pictures per request"
    )
