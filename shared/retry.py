"""Waiting out a service that is away or busy, under one deadline.

Tried again: no connection, a connection that broke, and the answers 429, 503 and 504. Everything
else is final. The service's Retry-After decides the pause; without one it grows from 0.2 to 10
seconds, with jitter. Repeating a request is safe because every try carries the same idempotency
key.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeGuard, TypeVar

import stamina

from shared.errors import DeadlineExceeded, ServiceUnavailable, ServiceUnreachable

RETRIED_STATUSES = frozenset({ServiceUnreachable.status, 429, 503, 504})
SHORTEST_PAUSE_S = 0.1
"""Also for `Retry-After: 0`, which would otherwise make the client spin."""

T = TypeVar("T")


def parse_retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds to wait by a Retry-After header, never negative; None when absent or unreadable.

    Args:
        value: seconds, or an HTTP date (RFC 9110, section 10.2.3).
        now: what a date is compared with; the present by default.
    """
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - (now or datetime.now(UTC))).total_seconds())


class Patience:
    """Tries one call until it succeeds, fails for good, or `deadline_s` have passed.

    Several calls may share one object and so one deadline; it starts when the object is made,
    which must happen inside the event loop.
    """

    def __init__(self, deadline_s: float, service: str) -> None:
        self._deadline_s = deadline_s
        self._service = service
        self._end = asyncio.get_running_loop().time() + deadline_s

    @property
    def left_s(self) -> float:
        """Seconds until the deadline, at least 0."""
        return max(0.0, self._end - asyncio.get_running_loop().time())

    async def wait_for(self, call: Callable[[], Awaitable[T]]) -> T:
        """Result of `call()`, tried again while that can help.

        Raises:
            ServiceUnreachable: the deadline passed and the last try found no connection.
            DeadlineExceeded: the deadline passed otherwise, or would pass before the time that
                the service asked to wait.
            RewardError: any error of `call` that another try does not cure.
        """
        failures: list[ServiceUnavailable] = []

        def pause_after(error: Exception) -> bool | float:
            if not _is_retried(error):
                return False
            failures.append(error)
            if error.retry_after is None:
                return True
            pause = max(error.retry_after, SHORTEST_PAUSE_S)
            return pause * random.uniform(1.0, 1.1) if pause < self.left_s else False

        retries = stamina.retry_context(
            on=pause_after, attempts=None, timeout=None, wait_initial=0.2, wait_max=10.0
        )
        try:
            async with asyncio.timeout_at(self._end):
                async for attempt in retries:
                    with attempt:
                        return await call()
        except TimeoutError:
            raise self._given_up(failures) from (failures[-1] if failures else None)
        except ServiceUnavailable as error:
            if failures and error is failures[-1] and stamina.is_active():
                raise self._given_up(failures) from error
            raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _given_up(self, failures: list[ServiceUnavailable]) -> ServiceUnavailable:
        if not failures:
            return DeadlineExceeded(
                f"no answer from {self._service} within {self._deadline_s:g} s: allow a longer "
                "deadline or send fewer pictures"
            )
        last = failures[-1]
        ending = f"gave up on try {len(failures)}, deadline {self._deadline_s:g} s"
        if last.retry_after is not None:
            ending += f", it asks to wait {last.retry_after:g} s"
        text = f"{last.message} ({ending})"
        if isinstance(last, ServiceUnreachable):
            return ServiceUnreachable(text)
        return DeadlineExceeded(text, retry_after=last.retry_after, request_id=last.request_id)


def _is_retried(error: Exception) -> TypeGuard[ServiceUnavailable]:
    return isinstance(error, ServiceUnavailable) and error.status in RETRIED_STATUSES
