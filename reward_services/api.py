"""The HTTP API of one reward: `create_app`. It knows the broker, and never a scorer."""

from typing import Annotated

from fastapi import FastAPI, Path, Request, Response
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from reward_services import openapi
from reward_services.announcements import Announcements
from reward_services.brokers import Broker
from reward_services.edge import PUBLIC_PATHS, Edge
from reward_services.health import add_health
from reward_services.intake import Intake
from reward_services.jobs_route import JobsRoute
from reward_services.page import add_page
from reward_services.score_route import ScoreRoute
from reward_services.settings import ServiceSettings
from reward_services.tracing import Tracing
from shared.errors import MethodNotAllowed, NotFound, RequestError
from shared.schema import SCHEMA_VERSION, JobStatus, ScoreResponse, ServiceInfo

JobId = Annotated[str, Path(alias="id", description="from the answer of `POST /jobs`")]

ROUTES = (
    "/",
    "/score",
    "/jobs",
    "/jobs/{id}",
    "/info",
    "/livez",
    "/readyz",
    "/metrics",
    "/docs",
    "/openapi.json",
)


def create_app(
    settings: ServiceSettings,
    broker: Broker,
    announcements: Announcements,
    tracing: Tracing | None = None,
) -> FastAPI:
    """The API of one reward.

    Args:
        settings: limits, keys, deadlines.
        broker: where jobs go; somebody else runs the workers.
        announcements: what is known of them; somebody else keeps it up to date.
        tracing: where spans go; nowhere by default.
    """
    metrics, readiness = announcements.metrics, announcements.readiness
    app = FastAPI(
        title=f"Reward: {metrics.service}",
        redirect_slashes=False,
        version=str(SCHEMA_VERSION),
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(
        Edge,
        metrics=metrics,
        api_keys=settings.keys,
        routes=ROUTES,
        tracing=tracing or Tracing(),
    )
    app.add_exception_handler(HTTPException, _routing_error)
    intake = Intake(settings, announcements, metrics, readiness)
    _add_score(app, ScoreRoute(intake, broker.queue, metrics, settings.deadline_s))
    _add_jobs(app, JobsRoute(intake, broker.queue, broker.notes, settings, metrics))
    add_page(app)
    _add_info(app, announcements)
    add_health(app, broker.queue, announcements)
    if settings.keys:
        openapi.ask_for_keys(app, public=PUBLIC_PATHS)
    return app


def _add_score(app: FastAPI, route: ScoreRoute) -> None:
    app.add_api_route(
        "/score",
        route.answer,
        methods=["POST"],
        summary="Score pictures: one result per picture, in order",
        response_model=None,
        responses={
            200: {"model": ScoreResponse},
            **openapi.error_answers(*openapi.SCORE_ERRORS),
        },
        openapi_extra=openapi.PICTURES,
    )


def _add_jobs(app: FastAPI, route: JobsRoute) -> None:
    app.add_api_route(
        "/jobs",
        route.create,
        methods=["POST"],
        summary="Hand pictures in, and ask for their scores later",
        status_code=202,
        response_model=None,
        responses={
            202: {"model": JobStatus},
            **openapi.error_answers(*openapi.JOB_ERRORS),
        },
        openapi_extra=openapi.PICTURES,
    )
    errors = openapi.error_answers("unauthorized", "not_found", "broker_unavailable")

    @app.get("/jobs/{id}", summary="Where a job is", responses=errors)
    async def show(job_id: JobId) -> JobStatus:
        """Where a job is, and its scores once it has finished."""
        return await route.show(job_id)

    @app.delete("/jobs/{id}", summary="Forget a job", status_code=204, responses=errors)
    async def withdraw(job_id: JobId) -> Response:
        """Forget a job; what no worker has begun is not scored."""
        return await route.withdraw(job_id)


def _add_info(app: FastAPI, announcements: Announcements) -> None:
    @app.get(
        "/info",
        summary="What is scored here",
        responses=openapi.error_answers("unauthorized", "not_ready"),
    )
    async def describe() -> ServiceInfo:
        """What is scored here, and which requests are taken."""
        return announcements.require_info()


async def _routing_error(request: Request, error: Exception) -> Response:
    """Routes that do not exist: the same body as every other error."""
    assert isinstance(error, HTTPException)
    method, path = request.method, request.url.path
    if error.status_code == NotFound.status:
        raise NotFound(f"there is no {path}: see /docs")
    if error.status_code == MethodNotAllowed.status:
        refused = MethodNotAllowed(f"{path} does not take {method}: see /docs")
        refused.allowed = _methods(request)
        raise refused
    raise RequestError(str(error.detail))


def _methods(request: Request) -> tuple[str, ...]:
    """What its path takes; one path may have a route for each method."""
    routes: list[Route] = [route for route in request.app.routes if isinstance(route, Route)]
    fitting = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return tuple(sorted({method for route in fitting for method in route.methods or ()}))
