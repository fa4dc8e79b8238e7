"""One replica of a reward service, and how it has been doing."""

import asyncio
import logging

from shared.endpoint import Endpoint
from shared.errors import DeadlineExceeded, QueueFull, ServiceUnavailable, ServiceUnreachable
from shared.retry import BackOff, Patience
from shared.schema import Limits, ScoreResponse, ServiceInfo
from shared.wire import EncodedBatch

LOOK_TIMEOUT_S = 10.0
"""For the few bytes of `/info`; a replica that takes longer is as good as away."""

_log = logging.getLogger(__name__)


class Replica:
    """Keeps count of what is sent to an endpoint and what became of it.

    Attributes:
        endpoint: its address.
        back_off: how long it is left alone.
        known: it has said what it is since it was last away.
        limits: the largest request it takes, as it last said.
        agreed: its latest answer had the pinned identity.
        under_way: requests for scores that it has not answered yet.
        turn: when it was last chosen.
        trouble: why its latest request failed, None when it did not.
        fault: what it did that no other try cures, until a call has raised it.
        look: the question what it is, while it is under way.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.back_off = BackOff()
        self.known = False
        self.limits: Limits | None = None
        self.agreed = False
        self.under_way = 0
        self.turn = 0
        self.trouble: ServiceUnavailable | None = None
        self.fault: Exception | None = None
        self.look: asyncio.Task[ServiceInfo | None] | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return self.endpoint.url

    @property
    def away(self) -> bool:
        """Whether its latest request failed for another reason than that it is busy."""
        return self.trouble is not None and not isinstance(self.trouble, QueueFull)

    async def info(self) -> ServiceInfo:
        """What it says about itself.

        Raises:
            ServiceUnavailable, RequestError, ContractError: see `shared.errors`.
        """
        sent_at = now()
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                info = await self.endpoint.info()
        except TimeoutError:
            text = f"{self.url} did not answer within {LOOK_TIMEOUT_S:g} s: does it hang?"
            error = ServiceUnreachable(text)
            self._failed(error, sent_at)
            raise error from None
        except ServiceUnavailable as error:
            self._failed(error, sent_at)
            raise
        # No success for `back_off`: a service that loads its weights says what it is long before
        # it can score.
        self.trouble = None
        return info

    async def score(self, part: EncodedBatch, key: str, patience: Patience) -> ScoreResponse:
        """One result per picture of `part`, in order.

        Raises:
            ServiceUnavailable, RequestError, ContractError: see `shared.errors`.
        """
        sent_at = now()
        self.under_way += 1
        try:
            scores = await self.endpoint.score(part, key, patience.left_s)
        except ServiceUnavailable as error:
            self._failed(error, sent_at)
            raise
        except asyncio.CancelledError:
            if patience.left_s == 0.0:  # for all that is known, it hangs
                self._failed(no_answer(self.url, patience), sent_at)
            raise
        finally:
            self.under_way -= 1
        self.back_off.succeeded(sent_at)
        self.trouble = None
        return scores

    def _failed(self, error: ServiceUnavailable, sent_at: float) -> None:
        self.back_off.failed(sent_at, now(), error.retry_after)
        self.trouble = error
        if self.away:  # what comes back may be another one
            self.known = False
        _log.info("%s; resting %.1f s", error.message, self.back_off.ready_at - now())


def no_answer(service: str, patience: Patience) -> DeadlineExceeded:
    """The error of a deadline that passed while nothing was heard from `service`."""
    return DeadlineExceeded(
        f"no answer from {service} within {patience.deadline_s:g} s: allow a longer deadline or "
        "send fewer pictures"
    )


def now() -> float:
    """Seconds of the event loop's clock."""
    return asyncio.get_running_loop().time()
