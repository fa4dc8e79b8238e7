"""`reward-services api`: the API of one reward whose workers are other processes."""

import asyncio
import socket

import structlog

from reward_services.announcements import Announcements
from reward_services.api import create_app
from reward_services.brokers import open_shared_broker
from reward_services.http_server import DrainingServer, bind, run
from reward_services.metrics import Metrics
from reward_services.readiness import Readiness
from reward_services.settings import ServiceSettings
from reward_services.tracing import open_tracing

log = structlog.get_logger("reward_services.api")


def serve_api(name: str, settings: ServiceSettings) -> None:
    """Serve the reward called `name` until SIGTERM or SIGINT; what is in flight then is finished.

    The port is open from the start. The API is ready once the broker can be reached and a worker
    has announced what it serves.

    Raises:
        SettingsError: an address that needs API keys or cannot be listened to, or a broker that
            other processes cannot reach.
    """
    settings.require_safe_address()
    with bind(settings.host, settings.port) as listener:
        run(_serve(name, settings, listener))


async def _serve(name: str, settings: ServiceSettings, listener: socket.socket) -> None:
    broker = open_shared_broker(settings, name)
    metrics, readiness = Metrics(name), Readiness()
    tracing = open_tracing(settings.tracing, f"{name} api")
    announcements = Announcements(broker.registry, settings.limits, readiness, metrics)
    app = create_app(settings, broker, announcements, tracing)
    watching = asyncio.create_task(announcements.watch())
    try:
        await DrainingServer(app, settings, readiness).serve([listener])
    finally:
        readiness.close()
        watching.cancel()
        await broker.close()
        tracing.close()
    log.info("stopped")
