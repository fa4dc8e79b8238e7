"""`reward-services serve`: API, queue and worker of one reward in one process."""

import asyncio
import logging
import math
import signal
import socket
import time
from types import FrameType

import structlog
import uvicorn

from reward_services.api import create_app
from reward_services.brokers import open_broker
from reward_services.job_queue import JobQueue
from reward_services.loading import load_scorer
from reward_services.metrics import Metrics
from reward_services.readiness import Phase, Readiness
from reward_services.scorer import Scorer, describe
from reward_services.settings import ServiceSettings, SettingsError
from reward_services.worker import Worker
from shared.schema import Limits, ServiceInfo

log = structlog.get_logger("reward_services.service")


def service_info(scorer: Scorer, settings: ServiceSettings) -> ServiceInfo:
    """What `GET /info` answers: the scorer's own words and the limits of this service."""
    about = describe(scorer)
    limits = Limits(
        max_items=min(settings.max_items, settings.queue_items),
        max_body_bytes=min(settings.max_body_bytes, settings.max_inflight_bytes),
        max_pixels=settings.max_pixels,
    )
    batch = min(settings.max_batch_items or about.max_batch_size, about.max_batch_size)
    return about.info(limits).model_copy(update={"max_batch_size": batch})


def serve(name: str, settings: ServiceSettings) -> None:
    """Load the scorer called `name` and serve it until SIGTERM or SIGINT.

    What is in work then is finished. The port is taken first, so that an address that cannot be
    used is known before a large model has been loaded, and opened last, when the model is warm.

    Raises:
        SettingsError: an address that needs API keys, or cannot be listened to.
        ScorerLoadError, ScorerContractError: there is no such reward, or it does not work.
    """
    settings.require_safe_address()
    with _bound_socket(settings) as listener:
        scorer = load_scorer(name)
        try:
            _run(scorer, settings, listener)
        finally:
            close = getattr(scorer, "close", None)
            if callable(close):
                close()


def _run(scorer: Scorer, settings: ServiceSettings, listener: socket.socket) -> None:
    info = service_info(scorer, settings)
    queue = open_broker(settings, info.name).queue
    metrics = Metrics(info.name)
    readiness = Readiness()
    log.info("loaded", reward=info.name, version=info.version, units=info.units)
    app = create_app(settings, queue, info, metrics=metrics, readiness=readiness)
    # Starting and stopping are logged here, in one line each.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=int(settings.drain_timeout_s),
    )
    server = DrainingServer(config, readiness, settings.drain_delay_s)
    worker = Worker(
        queue,
        scorer,
        metrics,
        max_batch_items=settings.max_batch_items,
        max_wait_s=settings.max_wait_ms / 1000,
        lease_s=settings.lease_s,
    )
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_work(queue, worker, server, readiness, listener))


async def _work(
    queue: JobQueue,
    worker: Worker,
    server: "DrainingServer",
    readiness: Readiness,
    listener: socket.socket,
) -> None:
    await worker.warm_up()
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.run())
        await server.serve([listener])
        readiness.phase = Phase.CLOSED
        worker.drain()
    await queue.close()
    log.info("stopped")


class DrainingServer(uvicorn.Server):
    """Turns /readyz to 503 first, and stops accepting connections `delay_s` later.

    In between, balancers learn to send work elsewhere. A second signal skips the delay, and so
    does Ctrl-C; Ctrl-C again breaks off the requests in flight.
    """

    def __init__(self, config: uvicorn.Config, readiness: Readiness, delay_s: float) -> None:
        super().__init__(config)
        self._readiness = readiness
        self._delay_s = delay_s
        self._stop_at = math.inf

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the port, and only then say so."""
        await super().startup(sockets)
        self._readiness.phase = Phase.READY
        for listener in sockets or []:
            log.info("ready", url=_url(*listener.getsockname()[:2]))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal. Unlike uvicorn's own, ends the process with exit code 0."""
        del frame
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        elif sig == signal.SIGINT or self._readiness.phase is Phase.DRAINING:
            self.should_exit = True
        self._readiness.phase = Phase.DRAINING
        self._stop_at = min(self._stop_at, time.monotonic() + self._delay_s)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether it is time to stop accepting connections."""
        self.should_exit = self.should_exit or time.monotonic() >= self._stop_at
        return await super().on_tick(counter)


def _bound_socket(settings: ServiceSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"cannot listen on {_url(settings.host, settings.port)}: {error.strerror}; "
            "choose another --port or --host"
        ) from None
    return listener


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
