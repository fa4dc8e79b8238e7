"""The HTTP API of one reward: `create_app`. It knows the job queue, and never a scorer."""

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from reward_services import openapi
from reward_services.edge import Edge
from reward_services.job_queue import JobQueue
from reward_services.metrics import Metrics
from reward_services.page import add_page
from reward_services.readiness import Phase, Readiness
from reward_services.score_route import ScoreRoute
from reward_services.settings import ServiceSettings
from shared.errors import MethodNotAllowed, NotFound, RequestError
from shared.schema import ScoreResponse, ServiceInfo

ROUTES = ("/", "/score", "/info", "/livez", "/readyz", "/metrics", "/docs", "/openapi.json")


def create_app(
    settings: ServiceSettings,
    queue: JobQueue,
    info: ServiceInfo,
    *,
    metrics: Metrics | None = None,
    readiness: Readiness | None = None,
) -> FastAPI:
    """The API of the reward that `info` describes.

    Args:
        settings: limits, keys, deadlines.
        queue: where jobs go; somebody else runs the workers.
        info: the answer of `GET /info`; its limits and batch size hold for requests.
        metrics: shared with the worker when it lives in the same process.
        readiness: what /readyz answers; ready from the start when not given.
    """
    metrics = metrics or Metrics(info.name)
    readiness = readiness or Readiness(Phase.READY)
    app = FastAPI(title=f"Reward: {info.name}", version=info.version, docs_url=None, redoc_url=None)
    app.add_middleware(
        Edge,
        metrics=metrics,
        api_keys=[key.get_secret_value() for key in settings.api_keys],
        routes=ROUTES,
    )
    app.add_exception_handler(HTTPException, _routing_error)
    app.add_api_route(
        "/score",
        ScoreRoute(settings, queue, info, metrics, readiness).answer,
        methods=["POST"],
        summary="Score pictures: one result per picture, in order",
        response_model=None,
        responses={
            200: {"model": ScoreResponse},
            **openapi.error_answers(*openapi.SCORE_ERRORS),
        },
        openapi_extra=openapi.SCORE,
    )
    add_page(app)
    _add_facts(app, info)
    _add_health(app, queue, metrics, readiness)
    return app


def _add_facts(app: FastAPI, info: ServiceInfo) -> None:
    @app.get("/info", responses=openapi.error_answers("unauthorized"))
    async def describe() -> ServiceInfo:
        """What is scored here, and which requests are taken."""
        return info


def _add_health(app: FastAPI, queue: JobQueue, metrics: Metrics, readiness: Readiness) -> None:
    @app.get("/livez")
    async def live() -> dict[str, str]:
        """Whether the process answers at all."""
        return {"status": "alive"}

    @app.get("/readyz", responses=openapi.error_answers("not_ready", "draining"))
    async def ready() -> dict[str, str]:
        """Whether to send work here."""
        readiness.require_ready()
        return {"status": "ready"}

    @app.get("/metrics", response_class=Response)
    async def expose() -> Response:
        """Prometheus metrics."""
        stats = await queue.stats()
        metrics.observe_queue(
            waiting_items=stats.waiting_items,
            reserved_items=stats.reserved_items,
            redelivered=stats.redelivered,
            dead=stats.dead,
        )
        metrics.ready.set(readiness.phase is Phase.READY)
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _routing_error(request: Request, error: Exception) -> Response:
    """Routes that do not exist: the same body as every other error."""
    assert isinstance(error, HTTPException)
    method, path = request.method, request.url.path
    if error.status_code == NotFound.status:
        raise NotFound(f"there is no {path}: see /docs")
    if error.status_code == MethodNotAllowed.status:
        raise MethodNotAllowed(f"{path} does not take {method}: see /docs")
    raise RequestError(str(error.detail))
