"""The replicas of one reward service: which one gets a request, and what when it fails.

A request goes to the replica with the fewest under way. Where it fails in a way that another try
can cure, it goes at once to the next one, with the same idempotency key and under the same
deadline. The replica that failed rests (`shared.retry.BackOff`); unless it was merely busy it then
has to say what it is before it gets pictures again, as every one has to before its first.

All replicas must be the same reward. The identity in the first answer is pinned; another one, in
any answer of any replica, is an error.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from shared.endpoint import Endpoint
from shared.errors import (
    DeadlineExceeded,
    IdentityMismatch,
    ServiceUnavailable,
    ServiceUnreachable,
)
from shared.replica import Replica, no_answer, now
from shared.retry import Patience, is_retried
from shared.schema import Identity, Limits, ScoreResponse, ServiceInfo
from shared.wire import EncodedBatch


class Replicas:
    """Any number of addresses of one reward. Made and used within one event loop.

    Args:
        endpoints: the addresses, at least one.
        expected_identity: the pinned identity; None pins that of the first answer.
    """

    def __init__(self, endpoints: Sequence[Endpoint], expected_identity: Identity | None) -> None:
        self.expected_identity = expected_identity
        self._replicas = [Replica(endpoint) for endpoint in endpoints]
        self._turns = 0

    @property
    def limits(self) -> Limits | None:
        """The largest request that every replica takes which has said so; None before any has."""
        said = [replica.limits for replica in self._replicas if replica.limits is not None]
        if not said:
            return None
        return Limits(
            max_items=min(limits.max_items for limits in said),
            max_body_bytes=min(limits.max_body_bytes for limits in said),
            max_pixels=min(limits.max_pixels for limits in said),
        )

    @property
    def away(self) -> dict[str, str]:
        """The replicas that could not be used when last asked, each with the reason."""
        return {
            replica.url: trouble.message
            for replica in self._replicas
            if replica.away and (trouble := replica.trouble)
        }

    async def info(self, patience: Patience) -> ServiceInfo:
        """Ask every replica what it is, rested or not; what the first says that answers.

        Raises:
            IdentityMismatch: one of them is another reward.
            ServiceUnavailable: none answered before the deadline.
            RequestError, ContractError: see `shared.errors`.
        """
        while True:
            looks = [self._look_at(replica) for replica in self._replicas]
            await asyncio.wait(looks, timeout=patience.left_s)
            self._raise_fault()
            for look in looks:
                if look.done() and (answer := look.result()) is not None:
                    return answer
            async with self._bounded(patience):
                await self._rest(patience)

    async def ready(self, patience: Patience) -> None:
        """Wait until a replica is ready, and its limits therefore known.

        Raises:
            RewardError: as `score`.
        """
        async with self._bounded(patience):
            await self._next(patience, may_hurry=True)

    async def score(self, part: EncodedBatch, key: str, patience: Patience) -> ScoreResponse:
        """One result per picture of `part`, in order, from whichever replica can give them.

        Raises:
            ServiceUnreachable: the deadline passed and no replica could be connected to.
            DeadlineExceeded: the deadline passed otherwise, or would pass before the time that
                the replicas asked to wait.
            IdentityMismatch: a replica is another reward than the pinned one.
            RequestError, ContractError: what another try does not cure, see `shared.errors`.
        """
        tries = 0
        async with self._bounded(patience):
            while True:
                replica = await self._next(patience, may_hurry=tries == 0)
                tries += 1
                try:
                    scores = await replica.score(part, key, patience)
                except ServiceUnavailable as error:
                    if not is_retried(error):
                        raise
                else:
                    self._check_identity(replica, scores.identity)
                    return scores

    async def aclose(self) -> None:
        """Close the connections."""
        looks = [replica.look for replica in self._replicas if replica.look is not None]
        for look in looks:
            look.cancel()
        await asyncio.gather(*looks, return_exceptions=True)
        for replica in self._replicas:
            await replica.endpoint.aclose()

    @asynccontextmanager
    async def _bounded(self, patience: Patience) -> AsyncIterator[None]:
        """End what is within at the deadline, with the error that tells what went wrong."""
        try:
            async with asyncio.timeout_at(patience.end):
                yield
        except TimeoutError:
            raise self._given_up(patience) from None

    async def _next(self, patience: Patience, *, may_hurry: bool) -> Replica:
        """The replica to send to, as soon as one is ready.

        The first try of a call need not wait for a rest to end that no service asked for: the
        service may be back, and the deadline may be shorter than the rest.
        """
        while True:
            self._raise_fault()
            rested = [each for each in self._replicas if each.back_off.ready_at <= now()]
            for replica in rested:
                if not replica.known:
                    self._look_at(replica)
            if ready := [replica for replica in rested if replica.known]:
                chosen = min(ready, key=lambda replica: (replica.under_way, replica.turn))
                self._turns += 1
                chosen.turn = self._turns
                return chosen
            hurried = [each for each in self._replicas if not each.back_off.asked_for]
            if may_hurry and not rested and hurried:
                may_hurry = False
                for replica in hurried:
                    replica.back_off.cut_short()
            else:
                await self._rest(patience)

    async def _rest(self, patience: Patience) -> None:
        """Wait until a replica has said what it is, or one has rested.

        Raises:
            ServiceUnavailable: the deadline comes first.
        """
        looks = [replica.look for replica in self._replicas if replica.look is not None]
        resting = [each.back_off.ready_at for each in self._replicas if each.look is None]
        ready_at = min(resting, default=patience.end)
        if looks:
            pause = max(0.0, ready_at - now())
            await asyncio.wait(looks, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
        elif ready_at >= patience.end:
            raise self._given_up(patience)
        else:
            await asyncio.sleep(ready_at - now())

    def _look_at(self, replica: Replica) -> "asyncio.Task[ServiceInfo | None]":
        """Ask a replica what it is; once, however many calls wait for it."""
        if replica.look is None:
            replica.look = asyncio.create_task(self._look(replica))
        return replica.look

    async def _look(self, replica: Replica) -> ServiceInfo | None:
        """What it is; None when it did not say, which `replica` then knows the reason of."""
        try:
            info = await replica.info()
            self._check_identity(replica, info.identity)
        except ServiceUnavailable:
            return None
        except Exception as error:
            replica.fault = error
            return None
        finally:
            replica.look = None
        replica.known, replica.limits = True, info.limits
        return info

    def _check_identity(self, replica: Replica, answered: Identity) -> None:
        if self.expected_identity is None:
            self.expected_identity = answered
        replica.agreed = answered == self.expected_identity
        if replica.agreed:
            return
        replica.known = False
        difference = self.expected_identity.difference(answered)
        for other in self._replicas:
            if other.agreed:
                raise IdentityMismatch(
                    f"{other.url} and {replica.url} are different rewards: {difference}"
                )
        raise IdentityMismatch(
            f"{replica.url} is not the reward that was expected (expected != answered): "
            f"{difference}"
        )

    def _raise_fault(self) -> None:
        for replica in self._replicas:
            if replica.fault is not None:
                fault, replica.fault = replica.fault, None
                raise fault

    def _given_up(self, patience: Patience) -> ServiceUnavailable:
        troubles = [each.trouble for each in self._replicas if each.trouble is not None]
        if not troubles:
            return no_answer(" and ".join(each.url for each in self._replicas), patience)
        ending = f"gave up, deadline {patience.deadline_s:g} s"
        asked = [each.retry_after for each in troubles if each.retry_after is not None]
        retry_after = min(asked, default=None)
        if retry_after is not None:
            ending += f", asks to wait {retry_after:g} s"
        text = f"{'; '.join(trouble.message for trouble in troubles)} ({ending})"
        if all(isinstance(trouble, ServiceUnreachable) for trouble in troubles):
            return ServiceUnreachable(text)
        return DeadlineExceeded(text, retry_after=retry_after, request_id=troubles[0].request_id)
