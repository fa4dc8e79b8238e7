"""When to try again: what another try can cure, how long a service rests, where a call ends.

Another try can cure a missing or broken connection and the answers 429, 502, 503 and 504;
everything else is final. Repeating a request is safe because every try carries the same
idempotency key.
"""

import asyncio
import math
import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from shared.errors import ServiceUnavailable, ServiceUnreachable

RETRIED_STATUSES = frozenset({ServiceUnreachable.status, 429, 502, 503, 504})
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
SHORTEST_PAUSE_S = 0.1
"""Also for `Retry-After: 0`, which would otherwise make the client spin."""


def is_retried(error: ServiceUnavailable) -> bool:
    """Whether another try can cure it. A body that came in too slowly would do so again."""
    return error.status in RETRIED_STATUSES


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


class BackOff:
    """How long a service is left alone after it failed.

    The service's Retry-After decides; without one the rest doubles from 0.2 to 10 seconds from
    one failure to the next. Both are jittered, so that clients do not come back all at once. All
    times are seconds of one monotonic clock.

    Attributes:
        ready_at: when the rest is over.
        asked_for: whether the service itself asked for this rest.
    """

    def __init__(self) -> None:
        self.ready_at = -math.inf
        self.asked_for = False
        self._failures = 0
        self._failed_at = -math.inf

    def failed(self, sent_at: float, now: float, retry_after: float | None) -> None:
        """A request failed that was sent at `sent_at`.

        Several that were under way together fail together and count once.
        """
        if retry_after is not None:
            pause = max(retry_after, SHORTEST_PAUSE_S) * random.uniform(1.0, 1.1)
            self.ready_at, self.asked_for = max(self.ready_at, now + pause), True
        if sent_at < self._failed_at:
            return
        self._failures, self._failed_at = self._failures + 1, now
        if retry_after is None:
            doublings = min(self._failures - 1, 10)  # more would end in an overflow
            pause = min(FIRST_PAUSE_S * 2.0**doublings, LONGEST_PAUSE_S)
            self.ready_at, self.asked_for = now + pause * random.uniform(0.5, 1.0), False

    def succeeded(self, sent_at: float) -> None:
        """A request succeeded; it counts if it was sent after the last failure was known."""
        if sent_at >= self._failed_at:
            self._failures, self.ready_at = 0, -math.inf

    def cut_short(self) -> None:
        """End the rest at once; another failure makes it longer all the same."""
        self.ready_at = -math.inf


class Patience:
    """The deadline of one call. It starts when the object is made, within the event loop."""

    def __init__(self, deadline_s: float) -> None:
        self.deadline_s = deadline_s
        self.end = asyncio.get_running_loop().time() + deadline_s

    @property
    def left_s(self) -> float:
        """Seconds until the deadline, at least 0."""
        return max(0.0, self.end - asyncio.get_running_loop().time())
