"""The async client against a real HTTP server, good and bad."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest

from shared.async_client import RewardClient
from shared.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    IdempotencyConflict,
    IdentityMismatch,
    InvalidRequest,
    InvalidServiceUrl,
    NotFound,
    ProtocolError,
    RewardError,
    ServiceUnreachable,
    TooManyItems,
    Unauthorized,
)
from shared.schema import SAFETENSORS, Identity
from shared.wire import decode_batch

if TYPE_CHECKING:
    from tests.shared.conftest import Answer, ScriptedService

IDENTITY = Identity(name="mean_red", version="1", units="levels", direction="maximize")


def pictures(count: int, size: int = 4) -> npt.NDArray[np.uint8]:
    """Pictures whose red channel, and so whose score, is 0, 1, 2, …"""
    images = np.zeros((count, size, size, 3), np.uint8)
    images[..., 0] = np.arange(count, dtype=np.uint8).reshape(-1, 1, 1)
    return images


def prompts(count: int) -> list[str]:
    return [f"prompt {index}" for index in range(count)]


async def test_scores_come_back_in_order(service: ScriptedService) -> None:
    async with RewardClient(service.url) as client:
        response = await client.score(pictures(3), prompts(3), [{"i": i} for i in range(3)])
    assert [result.score for result in response.results] == [0.0, 1.0, 2.0]
    assert response.identity == IDENTITY
    batch = decode_batch(service.scored[0].body)
    assert batch.prompts == prompts(3)
    assert batch.metadata == [{"i": 0}, {"i": 1}, {"i": 2}]
    np.testing.assert_array_equal(batch.images, pictures(3))


async def test_pictures_of_any_sizes(service: ScriptedService) -> None:
    images = [np.full((2, 3, 3), 5, np.uint8), np.full((4, 1, 3), 6, np.uint8)]
    async with RewardClient(service.url) as client:
        response = await client.score(images, prompts(2))
    assert [result.score for result in response.results] == [5.0, 6.0]


async def test_info(service: ScriptedService) -> None:
    async with RewardClient(service.url + "/") as client:
        info = await client.info()
    assert info.identity == IDENTITY
    assert info.limits.max_items == 64


async def test_a_large_body_is_sent_with_its_length(service: ScriptedService) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 700, 700, 3), dtype=np.uint8)
    async with RewardClient(service.url) as client:
        response = await client.score(images, prompts(4))
    means = images[..., 0].mean(axis=(1, 2)).tolist()
    assert [result.score for result in response.results] == pytest.approx(means)
    headers = service.scored[0].headers
    assert headers["content-type"] == SAFETENSORS
    assert int(headers["content-length"]) == len(service.scored[0].body)
    assert "transfer-encoding" not in headers


async def test_a_proxy_of_the_environment_is_not_in_the_way(
    service: ScriptedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with RewardClient(service.url, deadline_s=30) as client:
        assert (await client.info()).name == "mean_red"


async def test_connections_are_kept(service: ScriptedService) -> None:
    async with RewardClient(service.url) as client:
        for _ in range(3):
            await client.score(pictures(1), prompts(1))
    assert len(service.requests) == 4
    assert service.connections == 1


async def test_the_key_is_sent_as_a_bearer_token(service: ScriptedService) -> None:
    async with RewardClient(service.url, api_key="s3cret") as client:
        await client.info()
    assert service.requests[0].headers["authorization"] == "Bearer s3cret"


async def test_the_service_hears_how_long_the_client_waits(service: ScriptedService) -> None:
    async with RewardClient(service.url, deadline_s=500) as client:
        await client.score(pictures(1), prompts(1), deadline_s=50)
    assert 0 < float(service.scored[0].headers["x-deadline-seconds"]) <= 50


# Faults that pass


async def test_faults_are_waited_out_under_one_key(service: ScriptedService, drop: Answer) -> None:
    service.script = [
        drop,
        service.refuse(429, "queue_full", headers={"Retry-After": "0"}),
        service.refuse(503, "not_ready", headers={"Retry-After": "0"}),
        service.refuse(504, "deadline_exceeded", headers={"Retry-After": "0"}),
    ]
    async with RewardClient(service.url) as client:
        response = await client.score(pictures(2), prompts(2))
    assert [result.score for result in response.results] == [0.0, 1.0]
    assert len(service.scored) == 5
    assert len({request.headers["idempotency-key"] for request in service.scored}) == 1
    assert len({request.body for request in service.scored}) == 1


async def test_a_refusal_before_the_body_was_read(service: ScriptedService) -> None:
    refusal = service.refuse(429, "queue_full", headers={"Retry-After": "0"}, unread=True)
    service.script = [refusal, refusal]
    async with RewardClient(service.url) as client:
        response = await client.score(pictures(4, size=800), prompts(4))
    assert [result.score for result in response.results] == [0.0, 1.0, 2.0, 3.0]


async def test_a_service_that_comes_back(
    service: ScriptedService, new_service: Callable[[int], ScriptedService]
) -> None:
    async with RewardClient(service.url) as client:
        await client.score(pictures(1), prompts(1))
        service.stop()
        pending = asyncio.create_task(client.score(pictures(2), prompts(2)))
        await asyncio.sleep(0.3)
        assert not pending.done()
        new_service(service.port)
        assert [result.score for result in (await pending).results] == [0.0, 1.0]


# Faults that end the call


async def test_a_service_that_is_not_there(service: ScriptedService) -> None:
    service.stop()
    async with RewardClient(service.url, deadline_s=0.5) as client:
        with pytest.raises(ServiceUnreachable, match=r"cannot be reached .* is it running"):
            await client.score(pictures(1), prompts(1))


async def test_a_service_that_stays_busy(service: ScriptedService) -> None:
    service.script = [service.refuse(429, "queue_full", headers={"Retry-After": "600"})]
    async with RewardClient(service.url) as client:
        with pytest.raises(DeadlineExceeded, match=r"because queue_full .* asks to wait 600 s"):
            await client.score(pictures(1), prompts(1))


async def test_a_service_that_hangs(service: ScriptedService, hang: Answer) -> None:
    service.script = [hang]
    async with RewardClient(service.url) as client:
        with pytest.raises(DeadlineExceeded, match="no answer from http"):
            await client.score(pictures(1), prompts(1), deadline_s=0.3)


async def test_an_answer_cut_off_is_never_half_used(service: ScriptedService, drop: Answer) -> None:
    whole = service.response([{"score": 1.0}]).encoded()
    service.script = [type(drop)(raw=whole[:-5])]
    async with RewardClient(service.url) as client:
        response = await client.score(pictures(1), prompts(1))
    assert [result.score for result in response.results] == [0.0]
    assert len(service.scored) == 2


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (401, "unauthorized", Unauthorized),
        (404, "not_found", NotFound),
        (409, "idempotency_conflict", IdempotencyConflict),
        (413, "body_too_large", BodyTooLarge),
        (422, "invalid_request", InvalidRequest),
        (500, "internal", RewardError),
    ],
)
async def test_a_final_refusal_is_raised_at_once(
    service: ScriptedService, status: int, code: str, expected: type[RewardError]
) -> None:
    service.script = [service.refuse(status, code)]
    async with RewardClient(service.url) as client:
        with pytest.raises(expected, match=f"{service.url}: because {code}") as caught:
            await client.score(pictures(1), prompts(1))
    assert caught.value.request_id == "r9"
    assert len(service.scored) == 1


@pytest.mark.parametrize(
    "results",
    [[], [{"score": 1.0}], [{"score": 1.0}] * 3, [{"score": 1.0}, {"score": float("nan")}]],
)
async def test_wrong_results_are_refused(service: ScriptedService, results: Any) -> None:
    service.script = [service.response(results)]
    async with RewardClient(service.url) as client:
        with pytest.raises(ProtocolError):
            await client.score(pictures(2), prompts(2))
    assert len(service.scored) == 1


async def test_an_item_error_is_no_exception(service: ScriptedService) -> None:
    fault = {"code": "image_too_large", "message": "16 pixels", "retryable": False}
    service.script = [service.response([{"score": 1.0}, {"error": fault}])]
    async with RewardClient(service.url) as client:
        response = await client.score(pictures(2), prompts(2))
    assert response.results[1].score is None
    assert response.results[1].error is not None
    assert response.results[1].error.code == "image_too_large"


async def test_something_that_is_no_reward_service(service: ScriptedService, drop: Answer) -> None:
    service.info_script = [type(drop)(body=b"<html>hello</html>")]
    async with RewardClient(service.url) as client:
        with pytest.raises(ProtocolError, match="does not answer like a reward service"):
            await client.score(pictures(1), prompts(1))
    assert not service.scored


async def test_a_body_that_is_not_packed_as_it_says(service: ScriptedService, drop: Answer) -> None:
    service.script = [type(drop)(body=b"{}", headers={"Content-Encoding": "gzip"})]
    async with RewardClient(service.url) as client:
        with pytest.raises(ProtocolError, match="cannot be unpacked"):
            await client.score(pictures(1), prompts(1))


async def test_a_service_below_a_path(service: ScriptedService) -> None:
    async with RewardClient(f"{service.url}/rewards/red/") as client:
        with pytest.raises(NotFound):
            await client.info()
    assert service.requests[0].path == "/rewards/red/info"


async def test_bad_arguments_never_leave_the_process(service: ScriptedService) -> None:
    async with RewardClient(service.url) as client:
        with pytest.raises(InvalidRequest, match="2 pictures but 1 prompts"):
            await client.score(pictures(2), prompts(1))
        with pytest.raises(InvalidRequest, match="idempotency key"):
            await client.score(pictures(1), prompts(1), idempotency_key="a\nb")
    assert not service.requests


@pytest.mark.parametrize("urls", [[], ["http://a:1", "http://b:1", "http://a:1/"]])
def test_every_replica_is_named_once(urls: list[str]) -> None:
    with pytest.raises(InvalidServiceUrl, match="name every replica once"):
        RewardClient(urls)


# Identity


async def test_the_expected_identity_is_checked_in_every_answer(service: ScriptedService) -> None:
    async with RewardClient(service.url, expected_identity=IDENTITY) as client:
        await client.score(pictures(1), prompts(1))
        service.info["version"] = "2"
        with pytest.raises(IdentityMismatch, match="version '1' != '2'"):
            await client.score(pictures(1), prompts(1))
        with pytest.raises(IdentityMismatch, match="version '1' != '2'"):
            await client.info()


async def test_the_first_identity_is_pinned(service: ScriptedService) -> None:
    async with RewardClient(service.url) as client:
        before = client.expected_identity
        assert before is None
        await client.score(pictures(1), prompts(1))
        assert client.expected_identity == IDENTITY
        service.info["units"] = "kB"
        with pytest.raises(IdentityMismatch, match="units 'levels' != 'kB'"):
            await client.score(pictures(1), prompts(1))


# Requests above the limits


async def test_a_large_request_is_split_and_joined_in_order(service: ScriptedService) -> None:
    service.info["limits"]["max_items"] = 3
    async with RewardClient(service.url) as client:
        response = await client.score(pictures(8), prompts(8), idempotency_key="k")
    assert [result.score for result in response.results] == list(range(8))
    keys = sorted(request.headers["idempotency-key"] for request in service.scored)
    assert keys == ["k.0-3", "k.3-6", "k.6-8"]
    assert response.durations.inference_s == 3.0


async def test_a_request_above_the_bytes_is_split(service: ScriptedService) -> None:
    service.info["limits"]["max_body_bytes"] = 1000
    async with RewardClient(service.url) as client:
        response = await client.score(pictures(9, size=10), prompts(9))
    assert [result.score for result in response.results] == list(range(9))
    assert max(len(request.body) for request in service.scored) <= 1000


async def test_parts_scored_by_different_rewards_are_refused(service: ScriptedService) -> None:
    service.info["limits"]["max_items"] = 1
    service.script = [service.response([{"score": 1.0}], version="2")]
    async with RewardClient(service.url) as client:
        with pytest.raises(IdentityMismatch, match="version"):
            await client.score(pictures(2), prompts(2))


async def test_one_failed_part_fails_the_call(service: ScriptedService) -> None:
    service.info["limits"]["max_items"] = 1
    service.script = [service.scores, service.refuse(422, "invalid_request")]
    async with RewardClient(service.url) as client:
        with pytest.raises(InvalidRequest, match="because invalid_request"):
            await client.score(pictures(3), prompts(3))


async def test_limits_that_shrank_are_asked_for_again(service: ScriptedService) -> None:
    async with RewardClient(service.url) as client:
        await client.score(pictures(4), prompts(4))
        service.info["limits"]["max_items"] = 2
        service.script = [service.refuse(413, "too_many_items")]
        response = await client.score(pictures(4), prompts(4))
    assert [result.score for result in response.results] == [0.0, 1.0, 2.0, 3.0]


async def test_a_refusal_within_unchanged_limits_is_final(service: ScriptedService) -> None:
    service.script = [service.refuse(413, "too_many_items")]
    async with RewardClient(service.url) as client:
        with pytest.raises(TooManyItems):
            await client.score(pictures(4), prompts(4))
    assert len(service.scored) == 1


# Without a network


async def test_the_transport_is_an_argument(service: ScriptedService) -> None:
    received = bytearray()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/info":
            body = json.dumps(service.info).encode()
        else:
            more = True
            while more:
                event = await receive()
                assert type(event["body"]) is bytes
                received.extend(event["body"])
                more = event["more_body"]
            body = service.response([{"score": 7.0}]).body
            body = json.dumps(body).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async with RewardClient("http://inside", transport=httpx.ASGITransport(app)) as client:
        response = await client.score(pictures(1), prompts(1))
    assert response.results[0].score == 7.0
    np.testing.assert_array_equal(decode_batch(received).images, pictures(1))
