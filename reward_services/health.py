"""`/livez`, `/readyz` and `/metrics`, of an API and of a worker."""

from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Response

from reward_services import openapi
from reward_services.announcements import Announcements
from reward_services.job_queue import JobQueue
from reward_services.metrics import Metrics
from reward_services.readiness import Phase
from shared.errors import ServiceUnavailable

Facts = dict[str, str | int]
"""What a health check says."""


def add_health(app: FastAPI, queue: JobQueue, announcements: Announcements) -> None:
    """The three routes of an API."""
    metrics, readiness = announcements.metrics, announcements.readiness

    def ready() -> Facts:
        announcements.require_info()
        readiness.require_ready()
        announcements.require_broker()
        if announcements.workers:
            return {"status": "ready", "workers": announcements.workers}
        text = "no worker shows life: requests wait for one until their deadline"
        return {"status": "ready", "workers": 0, "message": text}

    async def measure() -> None:
        metrics.ready.set(readiness.phase is Phase.READY and announcements.outage.error is None)
        stats = await queue.stats()
        metrics.observe_queue(
            waiting_items={str(lane): items for lane, items in stats.waiting_by_lane.items()},
            leased_items=stats.leased_items,
            reserved_items=stats.reserved_items,
            redelivered=stats.redelivered,
            dead=stats.dead,
        )

    add_checks(app, metrics, ready, measure)


def add_checks(
    app: FastAPI,
    metrics: Metrics,
    check_ready: Callable[[], Facts],
    measure: Callable[[], Awaitable[None]],
) -> None:
    """The three routes.

    Args:
        app: gets them.
        metrics: what `/metrics` shows.
        check_ready: what `/readyz` answers, or raises as its answer.
        measure: brings the metrics up to date; they are shown as they are when the broker is away.
    """

    @app.get("/livez", summary="Whether the process answers")
    async def live() -> dict[str, str]:
        """Whether the process answers at all."""
        return {"status": "alive"}

    @app.get(
        "/readyz",
        summary="Whether to send work here",
        responses=openapi.error_answers("not_ready", "draining", "broker_unavailable"),
    )
    async def ready() -> Facts:
        """Whether to send work here, and how many workers are there to do it."""
        return check_ready()

    @app.get("/metrics", summary="Prometheus metrics", response_class=Response)
    async def expose() -> Response:
        """Prometheus metrics."""
        try:
            await measure()
        except ServiceUnavailable:
            metrics.broker_disruptions.inc()
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
