"""What an API process knows of the workers behind it: what they announced, and how many live."""

import asyncio
from dataclasses import dataclass, field

import structlog

from reward_services.metrics import Metrics
from reward_services.outages import Outage
from reward_services.readiness import Readiness
from reward_services.worker_registry import WorkerRegistry
from shared.errors import NotReady, ServiceUnavailable
from shared.schema import Limits, ServiceInfo

LOOK_EVERY_S = 1.0
LOOK_WHILE_AWAY_S = 0.25

log = structlog.get_logger("reward_services.announcements")


@dataclass(slots=True)
class Announcements:
    """The registry of workers as it was last seen from here.

    Attributes:
        registry: where workers announce themselves.
        limits: the largest request that this API takes, whatever workers were told.
        readiness: becomes ready with the first announcement.
        metrics: where the number of workers and failures to ask for it go.
        info: what the workers serve, None before the first of them. It stays when they are gone:
            requests then wait, up to their deadline, for others to come.
        workers: how many show life.
        outage: whether the broker can be asked.
    """

    registry: WorkerRegistry
    limits: Limits
    readiness: Readiness
    metrics: Metrics
    info: ServiceInfo | None = None
    workers: int = 0
    outage: Outage = field(init=False)
    _waiting: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.outage = Outage(self.metrics)

    def require_broker(self) -> None:
        """Refuse work that could not be handed on.

        Raises:
            BrokerUnavailable: the broker was away a moment ago.
        """
        if (error := self.outage.error) is not None:
            raise type(error)(error.message, retry_after=2)

    def require_info(self) -> ServiceInfo:
        """What to hold a request against.

        Raises:
            NotReady: no worker has announced itself yet.
        """
        if self.info is None:
            raise NotReady(
                "no worker has announced this reward yet: start one with reward-services worker",
                retry_after=2,
            )
        return self.info

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.look()
            except Exception:
                log.exception("the registry of workers cannot be read")
            await asyncio.sleep(LOOK_EVERY_S if self.outage.error is None else LOOK_WHILE_AWAY_S)

    async def look(self) -> None:
        """Ask the registry once; a broker that is away is noted, not raised."""
        try:
            info = await self.registry.info()
            workers = await self.registry.workers()
        except ServiceUnavailable as error:
            self.outage.begin(error)
            return
        self.outage.end()
        self._count(len(workers))
        if info is not None:
            # A job must fit every worker that may take it.
            size = min([info.max_batch_size, *(one.info.max_batch_size for one in workers)])
            self.info = info.model_copy(update={"limits": self.limits, "max_batch_size": size})
            self.readiness.open()
        elif self.info is None and not self._waiting:
            self._waiting = True
            log.info("waiting for the first worker", reward=self.metrics.service)

    def _count(self, workers: int) -> None:
        if self.workers and not workers:
            log.warning("all workers are gone: requests wait for one to come")
        self.workers = workers
        self.metrics.workers.set(workers)
