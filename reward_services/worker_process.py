"""`reward-services worker`: scores what API processes queue, with a small port for its health."""

import asyncio
import socket

import structlog
from fastapi import FastAPI

from reward_services.attended_worker import AttendedWorker, loaded_scorer
from reward_services.brokers import open_shared_broker
from reward_services.edge import Edge
from reward_services.health import Facts, add_checks
from reward_services.http_server import DrainingServer, bind, run
from reward_services.metrics import Metrics
from reward_services.readiness import Phase, Readiness
from reward_services.scorer import Scorer, describe
from reward_services.settings import ServiceSettings
from reward_services.tracing import Tracing, open_tracing

ROUTES = ("/livez", "/readyz", "/metrics")

log = structlog.get_logger("reward_services.worker")


def work(reward: str, settings: ServiceSettings) -> None:
    """Load the scorer called `reward` and score with it until SIGTERM or SIGINT.

    What was begun then is finished, and what was only leased is handed back.

    Raises:
        SettingsError: an address that cannot be listened to, or a broker that other processes
            cannot reach.
        ScorerLoadError, ScorerContractError: there is no such reward, or it does not work.
        IdentityConflict: another version is at work on the same queue.
        BatchHung: a batch did not come back; the process has to end.
    """
    with (
        bind(settings.host, settings.worker_port) as listener,
        loaded_scorer(reward, settings) as scorer,
    ):
        run(_work(scorer, settings, listener))


def health_app(metrics: Metrics, readiness: Readiness) -> FastAPI:
    """The routes of a worker; all are public, and there are no others."""
    app = FastAPI(
        title="Worker", redirect_slashes=False, docs_url=None, redoc_url=None, openapi_url=None
    )
    app.add_middleware(Edge, metrics=metrics, api_keys=(), routes=ROUTES, tracing=Tracing())

    def ready() -> Facts:
        readiness.require_ready()
        return {"status": "ready"}

    async def measure() -> None:
        metrics.ready.set(readiness.phase is Phase.READY)

    add_checks(app, metrics, ready, measure)
    return app


async def _work(scorer: Scorer, settings: ServiceSettings, listener: socket.socket) -> None:
    name = describe(scorer).name
    broker = open_shared_broker(settings, name)
    metrics, readiness = Metrics(name), Readiness()
    tracing = open_tracing(settings.tracing, f"{name} worker")
    worker = AttendedWorker(broker, scorer, settings, metrics, tracing)
    server = DrainingServer(health_app(metrics, readiness), settings, readiness, worker.drain)
    serving = asyncio.create_task(server.serve([listener]))
    try:
        await worker.start()
        readiness.open()
        await worker.run()
    finally:
        readiness.close()
        server.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)
        await broker.close()
        tracing.close()
    log.info("stopped")
