"""A worker that is announced to the API processes of its queue: what `serve` and `worker` run."""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Iterator

import structlog

from reward_services.brokers import Broker
from reward_services.loading import load_scorer
from reward_services.metrics import Metrics
from reward_services.outages import Outage
from reward_services.scorer import Scorer, describe
from reward_services.scoring import BatchHung
from reward_services.settings import ServiceSettings
from reward_services.tracing import Tracing
from reward_services.worker import Worker
from reward_services.worker_registry import IdentityConflict, WorkerStatus
from shared.errors import ServiceUnavailable
from shared.schema import ServiceInfo

ANNOUNCE_EVERY_S = 5.0
RETRY_S = 1.0

log = structlog.get_logger("reward_services.worker")


def service_info(scorer: Scorer, settings: ServiceSettings) -> ServiceInfo:
    """What a worker announces: the scorer's own words, and the limits of this service."""
    about = describe(scorer)
    batch = min(settings.max_batch_items or about.max_batch_size, about.max_batch_size)
    return about.info(settings.limits).model_copy(update={"max_batch_size": batch})


@contextlib.contextmanager
def loaded_scorer(reward: str, settings: ServiceSettings) -> Iterator[Scorer]:
    """The scorer called `reward`, with its options, closed at the end.

    Raises:
        ScorerLoadError: there is no such reward, or it cannot be loaded.
    """
    scorer = load_scorer(reward, settings.options)
    try:
        yield scorer
    except BatchHung:
        # Its thread is still inside.
        raise
    except BaseException:
        _close(scorer)
        raise
    _close(scorer)


def _close(scorer: Scorer) -> None:
    close = getattr(scorer, "close", None)
    if callable(close):
        close()


class AttendedWorker:
    """A worker with its heartbeat.

    Args:
        broker: where jobs come from, and where it is announced.
        scorer: what it scores with.
        settings: how it batches, and when it gives up.
        metrics: where batches are measured.
        tracing: where spans go.
    """

    def __init__(
        self,
        broker: Broker,
        scorer: Scorer,
        settings: ServiceSettings,
        metrics: Metrics,
        tracing: Tracing,
    ) -> None:
        self.info = service_info(scorer, settings)
        self._registry = broker.registry
        self._metrics = metrics
        self._outage = Outage(metrics)
        self._worker = Worker(
            broker.queue,
            scorer,
            metrics,
            max_batch_items=settings.max_batch_items,
            max_wait_s=settings.max_wait_ms / 1000,
            lease_s=settings.lease_s,
            max_batch_seconds=settings.max_batch_seconds,
            tracing=tracing,
        )
        self._drain_timeout_s = settings.drain_timeout_s
        self._draining = asyncio.Event()
        self._conflict: IdentityConflict | None = None

    async def start(self) -> None:
        """Warm up, then announce the worker, waiting for a broker that is away.

        Raises:
            IdentityConflict: another version is at work on the queue.
            ScorerContractError: the scorer does not work. What it raises itself passes too.
        """
        await self._worker.warm_up()
        while not self._draining.is_set() and not await self._announce():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._draining.wait(), RETRY_S)
        log.info("announced", worker=self._worker.name, version=self.info.version)

    async def run(self) -> None:
        """Work until `drain`, then retire.

        Raises:
            BatchHung: the running batch did not come back in time.
            IdentityConflict: another version has come to the queue while this one was away.
        """
        beating = asyncio.create_task(self._beat())
        working = asyncio.create_task(self._worker.run())
        try:
            await asyncio.wait({working, beating}, return_when=asyncio.FIRST_COMPLETED)
            if not self._draining.is_set():
                # Neither ends by itself but by a failure.
                (working if working.done() else beating).result()
            await self._finish(working)
        finally:
            beating.cancel()
            working.cancel()
            await asyncio.gather(beating, working, return_exceptions=True)
            with contextlib.suppress(ServiceUnavailable):
                await self._registry.retire(self._worker.name)
        if self._conflict is not None:
            raise self._conflict

    def drain(self) -> None:
        """Take no more jobs; `run` returns when what was begun is done."""
        self._draining.set()
        self._worker.drain()

    async def _finish(self, working: "asyncio.Task[None]") -> None:
        """The heartbeat ends when draining begins; from then on there is a time limit."""
        done, _ = await asyncio.wait({working}, timeout=self._drain_timeout_s)
        if not done:
            raise BatchHung(
                f"the running batch was not done {self._drain_timeout_s:g} s after the signal: the "
                "process ends, and other workers get it"
            )
        working.result()

    async def _beat(self) -> None:
        while not self._draining.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._draining.wait(), ANNOUNCE_EVERY_S)
            try:
                await self._announce()
            except IdentityConflict as error:
                self._conflict = error
                self.drain()

    async def _announce(self) -> bool:
        """Say that the worker lives; False when the broker is away."""
        status = WorkerStatus(
            name=self._worker.name,
            host=socket.gethostname(),
            pid=os.getpid(),
            info=self.info,
            items_done=self._worker.items_done,
            busy=self._worker.busy,
        )
        try:
            await self._registry.announce(status)
        except ServiceUnavailable as error:
            self._outage.begin(error)
            return False
        self._outage.end()
        self._metrics.heartbeat.set(time.time())
        return True
