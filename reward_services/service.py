"""`reward-services serve`: API and worker of one reward in one process."""

import asyncio
import socket

import structlog

from reward_services.announcements import Announcements
from reward_services.api import create_app
from reward_services.attended_worker import AttendedWorker, loaded_scorer
from reward_services.brokers import open_broker
from reward_services.http_server import DrainingServer, bind, run
from reward_services.metrics import Metrics
from reward_services.readiness import Readiness
from reward_services.scorer import Scorer, describe
from reward_services.settings import ServiceSettings
from reward_services.tracing import open_tracing

log = structlog.get_logger("reward_services.service")


def serve(reward: str, settings: ServiceSettings) -> None:
    """Load the scorer called `reward` and serve it until SIGTERM or SIGINT.

    What is in work then is finished. The port is taken first, so that an address that cannot be
    used is known before a large model has been loaded, and opened last, when the model is warm.

    Raises:
        SettingsError: an address that needs API keys, or cannot be listened to.
        ScorerLoadError, ScorerContractError: there is no such reward, or it does not work.
        IdentityConflict: another version is at work on the same queue.
        BatchHung: a batch did not come back; the process has to end.
    """
    settings.require_safe_address()
    with bind(settings.host, settings.port) as listener, loaded_scorer(reward, settings) as scorer:
        run(_serve(scorer, settings, listener))


async def _serve(scorer: Scorer, settings: ServiceSettings, listener: socket.socket) -> None:
    name = describe(scorer).name
    broker = open_broker(settings, name)
    metrics, readiness = Metrics(name), Readiness()
    tracing = open_tracing(settings.tracing, name)
    announcements = Announcements(broker.registry, settings.limits, readiness, metrics)
    worker = AttendedWorker(broker, scorer, settings, metrics, tracing)
    server = DrainingServer(
        create_app(settings, broker, announcements, tracing), settings, readiness
    )
    try:
        await worker.start()
        await announcements.look()
        watching = asyncio.create_task(announcements.watch())
        await _until_stopped(worker, server, readiness, listener)
        watching.cancel()
    finally:
        await broker.close()
        tracing.close()
    log.info("stopped")


async def _until_stopped(
    worker: AttendedWorker,
    server: DrainingServer,
    readiness: Readiness,
    listener: socket.socket,
) -> None:
    """Serve until a signal; the worker goes last, as requests in flight need it."""
    working = asyncio.create_task(worker.run())
    serving = asyncio.create_task(server.serve([listener]))
    try:
        await asyncio.wait({working, serving}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
            worker.drain()
        # Before that, it ends by a failure alone.
        await working
    finally:
        readiness.close()
        working.cancel()
        serving.cancel()
        await asyncio.gather(working, serving, return_exceptions=True)
