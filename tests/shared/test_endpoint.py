"""One try at one address, and what each way of failing is called."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import numpy as np
import pytest

from shared.endpoint import Endpoint
from shared.errors import (
    InvalidRequest,
    InvalidServiceUrl,
    ProtocolError,
    QueueFull,
    ServiceUnreachable,
)
from shared.wire import EncodedBatch, decode_batch, encode_batch

if TYPE_CHECKING:
    from tests.shared.conftest import Answer, ScriptedService


def endpoint_at(url: str, api_key: str | None = None) -> Endpoint:
    return Endpoint(url, api_key=api_key, transport=None, max_connections=8)


@pytest.fixture
async def endpoint(service: ScriptedService) -> AsyncIterator[Endpoint]:
    opened = endpoint_at(service.url)
    yield opened
    await opened.aclose()


@pytest.fixture
def part() -> EncodedBatch:
    return encode_batch(np.full((2, 4, 4, 3), 7, np.uint8), ["a", "b"])


async def test_info(endpoint: Endpoint) -> None:
    assert (await endpoint.info()).name == "mean_red"


async def test_scores(endpoint: Endpoint, service: ScriptedService, part: EncodedBatch) -> None:
    scores = await endpoint.score(part, "mine", 12.5)
    assert [result.score for result in scores.results] == [7.0, 7.0]
    (request,) = service.scored
    assert request.headers["idempotency-key"] == "mine"
    assert request.headers["x-deadline-seconds"] == "12.500"
    assert decode_batch(request.body).prompts == ["a", "b"]


async def test_a_refusal_is_its_error_at_the_first_try(
    endpoint: Endpoint, service: ScriptedService, part: EncodedBatch
) -> None:
    service.script = [service.refuse(429, "queue_full", headers={"Retry-After": "3"})]
    with pytest.raises(QueueFull, match=f"{service.url}: because queue_full") as caught:
        await endpoint.score(part, "mine", 60.0)
    assert caught.value.retry_after == 3.0
    assert len(service.scored) == 1


async def test_a_connection_that_breaks(
    endpoint: Endpoint, service: ScriptedService, drop: Answer, part: EncodedBatch
) -> None:
    service.script = [drop]
    with pytest.raises(ServiceUnreachable, match=f"{service.url} cannot be reached"):
        await endpoint.score(part, "mine", 60.0)
    assert len(service.scored) == 1


async def test_no_connection(endpoint: Endpoint, service: ScriptedService) -> None:
    service.stop()
    with pytest.raises(ServiceUnreachable, match=r"cannot be reached .* is it running"):
        await endpoint.info()


async def test_another_number_of_results(
    endpoint: Endpoint, service: ScriptedService, part: EncodedBatch
) -> None:
    service.script = [service.response([{"score": 1.0}])]
    with pytest.raises(ProtocolError, match="1 results for 2 pictures"):
        await endpoint.score(part, "mine", 60.0)


@pytest.mark.parametrize(
    "url",
    ["localhost:8001", "", "ftp://host", "http://", "http://host:port", "http://host:99999",
     "http://a b", "http://localhost:8001\n", "http://[::1", "http://user:pw@host",
     "http://host/?a=1", "http://host/#a"],
)  # fmt: skip
def test_a_bad_url_is_refused_without_its_secrets(url: str) -> None:
    with pytest.raises(InvalidServiceUrl, match="http://localhost:8001") as caught:
        endpoint_at(url)
    assert "pw" not in caught.value.message


@pytest.mark.parametrize("key", ["", " ", "secret\n", "ключ"])
def test_a_bad_api_key_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(InvalidRequest, match="API key") as caught:
        endpoint_at("http://localhost", key)
    assert "secret" not in caught.value.message
