"""Request ids, API keys, the log line, and what a bug looks like from outside."""

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest
import structlog
from starlette.types import Scope

from reward_services.api import ROUTES
from reward_services.edge import PUBLIC_PATHS, Edge
from reward_services.metrics import Metrics
from reward_services.page import FILES
from reward_services.tracing import Tracing
from shared.errors import QueueFull
from shared.logs import configure_logging
from shared.schema import REQUEST_ID, ErrorBody

Running = Callable[..., AbstractAsyncContextManager[Any]]
KEYS = {"api_keys": "first-key,second-key"}
PATHS = ["/score", "/jobs", "/jobs/1", "/info", "/openapi.json", "/nothing"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "header", [None, "first-key", "Basic first-key", "Bearer", "Bearer third-key", "Bearer first-"]
)
async def test_without_a_key_nothing_is_answered(
    stack: Running, path: str, header: str | None
) -> None:
    headers = {} if header is None else {"authorization": header}
    async with stack(**KEYS) as service:
        method = "POST" if path in ("/score", "/jobs") else "GET"
        answer = await service.http.request(method, path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert ErrorBody.model_validate_json(answer.content).code == "unauthorized"
    assert "first-key" not in answer.text


async def test_no_route_answers_without_a_key_but_the_documented_ones(stack: Running) -> None:
    async with stack(**KEYS) as service:
        routes = [route for route in service.transport.app.routes if route.path in ROUTES]
        assert {route.path for route in routes} == set(ROUTES)
        public = set()
        for route in service.transport.app.routes:
            for method in {*route.methods, "HEAD", "OPTIONS", "TRACE"}:
                path = route.path.replace("{id}", "0" * 32)
                answer = await service.http.request(method, path)
                if answer.status_code != 401:
                    public.add(route.path)
    assert public == {"/livez", "/readyz", "/metrics", "/", "/docs"} | {
        path for path in FILES if path.startswith("/page/")
    }


@pytest.mark.parametrize(
    "path", ["/livez/", "/./info", "/livez/../info", "/LIVEZ", "/page", "/docs/"]
)
async def test_nothing_like_a_public_path_is_public(stack: Running, path: str) -> None:
    async with stack(**KEYS) as service:
        assert (await service.http.get(path)).status_code == 401


async def test_a_body_without_a_key_is_not_even_read(stack: Running) -> None:
    async def body() -> Any:
        yield pytest.fail("the body was read")

    async with stack(**KEYS) as service:
        assert (await service.http.post("/score", content=body())).status_code == 401


@pytest.mark.parametrize("key", ["first-key", "second-key"])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
async def test_every_key_opens(stack: Running, key: str, scheme: str) -> None:
    async with stack(**KEYS) as service:
        headers = {"authorization": f"{scheme} {key}"}
        assert (await service.http.get("/info", headers=headers)).status_code == 200


@pytest.mark.parametrize("path", sorted(PUBLIC_PATHS))
async def test_health_needs_no_key(stack: Running, path: str) -> None:
    async with stack(**KEYS) as service:
        assert (await service.http.get(path)).status_code == 200


async def test_the_senders_request_id_is_kept_where_it_is_harmless(stack: Running) -> None:
    async with stack() as service:
        kept = await service.http.get("/info", headers={REQUEST_ID: "run 7, epoch 3"})
        assert kept.headers[REQUEST_ID] == "run 7, epoch 3"
        for strange in ("x" * 129, "a\tb"):
            answer = await service.http.get("/info", headers={REQUEST_ID: strange})
            assert answer.headers[REQUEST_ID] != strange
            assert len(answer.headers[REQUEST_ID]) == 32


async def test_one_line_per_request(stack: Running, requests: Any) -> None:
    async with stack() as service:
        with structlog.testing.capture_logs() as lines:
            await service.http.post("/score", **requests.raw(b"{", "application/json"))
            await service.http.get("/nothing")
    (first, second) = lines
    assert first["event"] == second["event"] == "request"
    assert (first["method"], first["path"], first["status"]) == ("POST", "/score", 400)
    assert first["error"] == "malformed_request"
    assert first["ms"] >= 0
    assert (second["path"], second["status"]) == ("/nothing", 404)


async def test_health_checks_do_not_fill_the_log(
    stack: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("INFO", as_json=True)
    try:
        async with stack() as service:
            await service.http.get("/livez")
            await service.http.get("/info", headers={REQUEST_ID: "find me"})
    finally:
        logging.getLogger().handlers.pop()
        structlog.reset_defaults()
    (line,) = capsys.readouterr().err.splitlines()
    assert '"find me"' in line


async def answer_of(app: Any) -> httpx.Response:
    edge = Edge(app, metrics=Metrics("edge"), api_keys=[], routes=[], tracing=Tracing())
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(edge), base_url="http://edge"
    ) as http:
        return await http.get("/")


async def test_a_bug_is_a_500_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    async def broken(*_: Any) -> None:
        raise RuntimeError("secret")

    answer = await answer_of(broken)
    body = ErrorBody.model_validate_json(answer.content)
    assert (answer.status_code, body.code) == (500, "internal")
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert body.request_id == answer.headers[REQUEST_ID]
    assert "secret" in "".join(capsys.readouterr())


async def test_retry_after_is_whole_seconds_rounded_up() -> None:
    async def full(*_: Any) -> None:
        raise QueueFull("full", retry_after=2.1)

    answer = await answer_of(full)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")


async def test_other_protocols_pass_through() -> None:
    seen = []

    async def app(scope: Scope, *_: Any) -> None:
        seen.append(scope["type"])

    async def nothing(*_: Any) -> Any:
        return {}

    edge = Edge(app, metrics=Metrics("edge"), api_keys=["key"], routes=[], tracing=Tracing())
    await edge({"type": "lifespan"}, nothing, nothing)
    assert seen == ["lifespan"]


async def test_a_bug_after_the_answer_began_sends_no_second_answer() -> None:
    async def breaks_off(scope: Scope, receive: Any, send: Any) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("in the middle")

    sent: list[str] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    edge = Edge(breaks_off, metrics=Metrics("edge"), api_keys=[], routes=[], tracing=Tracing())
    scope: Scope = {"type": "http", "path": "/", "method": "GET", "headers": []}

    async def receive() -> Any:
        return {"type": "http.request"}

    await edge(scope, receive, send)
    assert sent == ["http.response.start"]
