"""The routes beside `/score`, and the document that describes them all."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from reward_services.api import ROUTES
from reward_services.readiness import Phase
from shared.errors import BrokerUnavailable
from shared.schema import SAFETENSORS, ServiceInfo

Running = Callable[..., AbstractAsyncContextManager[Any]]


async def test_info(stack: Running) -> None:
    async with stack(max_items=7, queue_items=5, max_body_bytes=100, max_pixels=9) as service:
        info = ServiceInfo.model_validate((await service.http.get("/info")).json())
    assert info == service.info
    assert (info.name, info.units, info.max_batch_size) == ("mean_level", "levels", 4)
    assert info.limits.max_items == 5, "more than the queue holds can never be taken"
    assert (info.limits.max_body_bytes, info.limits.max_pixels) == (100, 9)


async def test_health_through_the_life_of_a_service(stack: Running) -> None:
    async with stack() as service:
        for phase, status, ready in (
            (Phase.LOADING, 503, 0.0),
            (Phase.READY, 200, 1.0),
            (Phase.DRAINING, 503, 0.0),
            (Phase.CLOSED, 503, 0.0),
        ):
            service.readiness.phase = phase
            answer = await service.http.get("/readyz")
            assert answer.status_code == status
            assert ("retry-after" in answer.headers) == (status == 503)
            assert (await service.http.get("/livez")).json() == {"status": "alive"}
            metrics = (await service.http.get("/metrics")).text
            assert f'reward_model_ready{{service="mean_level"}} {ready}' in metrics


async def test_readiness_tells_of_workers_and_of_the_broker(stack: Running) -> None:
    async with stack() as service:
        body = (await service.http.get("/readyz")).json()
        assert (body["status"], body["workers"]) == ("ready", 0)
        assert "until their deadline" in body["message"]
        service.announcements.workers = 2
        assert (await service.http.get("/readyz")).json() == {"status": "ready", "workers": 2}
        service.announcements.outage.begin(BrokerUnavailable("the job queue is away"))
        answer = await service.http.get("/readyz")
        assert (answer.status_code, answer.json()["code"]) == (503, "broker_unavailable")
        assert (
            'reward_model_ready{service="mean_level"} 0.0'
            in (await service.http.get("/metrics")).text
        )
        assert (await service.http.get("/info")).status_code == 200


async def test_metrics_show_the_queue(stack: Running) -> None:
    async with stack() as service:
        await service.queue.reserve(3)
        answer = await service.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert 'reward_inflight_items{service="mean_level"} 3.0' in answer.text
    for lane in ("interactive", "bulk"):
        assert f'reward_queue_items{{lane="{lane}",service="mean_level"}} 0.0' in answer.text


async def test_unknown_routes_and_methods(stack: Running) -> None:
    async with stack() as service:
        missing = await service.http.get("/scores")
        wrong = await service.http.get("/score")
        assert 'route="other"' in service.metrics.text().decode()
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert "/scores" in missing.json()["message"]


async def test_the_document_describes_every_route(stack: Running) -> None:
    async with stack() as service:
        document = (await service.http.get("/openapi.json")).json()
        assert (await service.http.get("/docs")).status_code == 200
    assert set(document["paths"]) == set(ROUTES) - {"/", "/docs", "/openapi.json"}
    score = document["paths"]["/score"]["post"]
    assert set(score["requestBody"]["content"]) == {
        "multipart/form-data",
        "application/json",
        SAFETENSORS,
    }
    assert {"200", "400", "401", "408", "409", "413", "415", "422", "429", "500", "503", "504"} == (
        set(score["responses"])
    )
    assert "`too_many_items`" in score["responses"]["413"]["description"]


@pytest.mark.parametrize("module", ["reward_services.api", "reward_services.cli"])
def test_the_api_and_the_command_line_start_without_torch(module: str) -> None:
    code = (
        f"import sys, {module}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
