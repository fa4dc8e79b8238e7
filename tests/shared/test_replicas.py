"""Several addresses of one reward: who gets a request, who takes over, and who is refused."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest

from shared import retry
from shared.endpoint import Endpoint
from shared.errors import (
    DeadlineExceeded,
    IdentityMismatch,
    InvalidRequest,
    ServiceUnreachable,
    Unauthorized,
    UploadTimeout,
)
from shared.replicas import Replicas
from shared.retry import Patience
from shared.schema import Identity
from shared.wire import encode_batch

if TYPE_CHECKING:
    from tests.shared.conftest import Answer, ScriptedService

IDENTITY = Identity(name="mean_red", version="1", units="levels", direction="maximize")
Opener = Callable[..., Replicas]


@pytest.fixture
async def replicas_of() -> AsyncIterator[Opener]:
    opened: list[Replicas] = []

    def open_them(*urls: str, expected: Identity | None = None) -> Replicas:
        endpoints = [Endpoint(url, api_key=None, transport=None, max_connections=8) for url in urls]
        opened.append(Replicas(endpoints, expected))
        return opened[-1]

    yield open_them
    for each in opened:
        await each.aclose()


@pytest.fixture
def other(new_service: Callable[[int], ScriptedService]) -> ScriptedService:
    """A second replica of `service`."""
    return new_service(0)


async def score(replicas: Replicas, red: int, deadline_s: float = 60, key: str = "") -> float:
    part = encode_batch(np.full((1, 4, 4, 3), red, np.uint8), ["a"])
    answer = await replicas.score(part, key or f"key {red}", Patience(deadline_s))
    value = answer.results[0].score
    assert value is not None
    return value


def asked(service: ScriptedService) -> int:
    """How often it was asked what it is."""
    return sum(request.path == "/info" for request in service.requests)


# Who gets a request


async def test_idle_replicas_take_turns(
    service: ScriptedService, other: ScriptedService, replicas_of: Opener
) -> None:
    replicas = replicas_of(service.url, other.url)
    await replicas.info(Patience(60))
    assert [await score(replicas, red) for red in range(8)] == list(range(8))
    assert len(service.scored) == len(other.scored) == 4


async def test_the_one_with_less_to_do_gets_the_next(
    service: ScriptedService, other: ScriptedService, replicas_of: Opener
) -> None:
    service.gate = threading.Event()
    replicas = replicas_of(service.url, other.url)
    await replicas.info(Patience(60))
    held = asyncio.create_task(score(replicas, 100))
    await asyncio.to_thread(service.arrived.wait, 60)
    assert [await score(replicas, red) for red in range(5)] == list(range(5))
    assert (len(service.scored), len(other.scored)) == (1, 5)
    service.gate.set()
    assert await held == 100


async def test_every_answer_goes_to_its_own_request(
    service: ScriptedService, other: ScriptedService, replicas_of: Opener
) -> None:
    replicas = replicas_of(service.url, other.url)
    await replicas.info(Patience(60))
    assert await asyncio.gather(*(score(replicas, red) for red in range(200))) == list(range(200))
    assert len(service.scored) + len(other.scored) == 200
    assert min(len(service.scored), len(other.scored)) > 50


async def test_limits_are_those_that_every_replica_keeps(
    service: ScriptedService, other: ScriptedService, replicas_of: Opener
) -> None:
    service.info["limits"] = {"max_items": 8, "max_body_bytes": 500, "max_pixels": 70}
    other.info["limits"] = {"max_items": 9, "max_body_bytes": 400, "max_pixels": 60}
    replicas = replicas_of(service.url, other.url)
    before = replicas.limits
    assert before is None
    await replicas.info(Patience(60))
    assert replicas.limits is not None
    assert replicas.limits.model_dump() == {
        "max_items": 8,
        "max_body_bytes": 400,
        "max_pixels": 60,
    }


# Who takes over


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_what_one_cannot_do_another_does_at_once_under_the_same_key(
    service: ScriptedService, other: ScriptedService, replicas_of: Opener, status: int
) -> None:
    # A rest beyond the deadline: nothing but the other replica can save the call.
    refusal = service.refuse(status, "unknown", headers={"Retry-After": "600"})
    service.script, other.script = [refusal], [refusal]
    replicas = replicas_of(service.url, other.url)
    await replicas.info(Patience(60))
    other.script.clear()
    assert [await score(replicas, red) for red in (3, 4)] == [3.0, 4.0]
    assert len(service.scored) == 1
    assert len(other.scored) == 2
    keys = [request.headers["idempotency-key"] for request in other.scored]
    assert service.scored[0].headers["idempotency-key"] in keys


async def test_a_dead_replica_is_passed_over(
    service: ScriptedService, other: ScriptedService, replicas_of: Opener
) -> None:
    replicas = replicas_of(service.url, other.url)
    await replicas.info(Patience(60))
    service.stop()
    assert [await score(replicas, red) for red in range(6)] == list(range(6))
    assert len(other.scored) == 6
    assert list(replicas.away) == [service.url]
    assert "cannot be reached" in replicas.away[service.url]


async def test_a_connection_that_breaks_is_taken_over(
    service: ScriptedService, other: ScriptedService, replicas_of: Opener, drop: Answer
) -> None:
    replicas = replicas_of(service.url, other.url)
    await replicas.info(Patience(60))
    service.script, other.script = [drop], []
    assert [await score(replicas, red) for red in range(4)] == list(range(4))
    assert len(service.scored) >= 1


async def test_a_replica_that_was_never_there_is_not_waited_for(
    service: ScriptedService, other: ScriptedService, replicas_of: Opener
) -> None:
    other.stop()
    replicas = replicas_of(other.url, service.url)
    assert (await replicas.info(Patience(60))).identity == IDENTITY
    assert list(replicas.away) == [other.url]
    assert await score(replicas, 5) == 5.0


async def test_a_replica_that_hangs_is_not_waited_for(
    service: ScriptedService, other: ScriptedService, replicas_of: Opener, hang: Answer
) -> None:
    other.info_script = [hang]
    replicas = replicas_of(other.url, service.url)
    assert await score(replicas, 5) == 5.0
    assert (await replicas.info(Patience(0.5))).identity == IDENTITY


async def test_pictures_go_only_to_a_replica_that_has_said_what_it_is(
    service: ScriptedService,
    other: ScriptedService,
    replicas_of: Opener,
    new_service: Callable[[int], ScriptedService],
) -> None:
    replicas = replicas_of(service.url, other.url)
    await replicas.info(Patience(60))
    service.stop()
    while not replicas.away:
        await score(replicas, 1)
    back = new_service(service.port)
    while not back.scored:
        await score(replicas, 2)
    assert [request.path for request in back.requests[:2]] == ["/info", "/score"]
    assert replicas.away == {}


async def test_a_busy_replica_need_not_say_again_what_it_is(
    service: ScriptedService, replicas_of: Opener
) -> None:
    replicas = replicas_of(service.url)
    service.script = [service.refuse(429, "queue_full", headers={"Retry-After": "0"})]
    assert await score(replicas, 1) == 1.0
    assert len(service.scored) == 2
    assert asked(service) == 1


async def test_a_failed_replica_rests_longer_and_longer(
    service: ScriptedService, other: ScriptedService, replicas_of: Opener
) -> None:
    replicas = replicas_of(service.url, other.url)
    await replicas.info(Patience(60))
    service.script = [service.refuse(503, "not_ready")] * 1000
    for red in range(200):
        await score(replicas, red)
    # One that was tried at every turn would have refused a hundred times.
    assert 1 <= len(service.scored) < 50
    assert len(other.scored) == 200


async def test_waiting_calls_ask_a_replica_once(
    service: ScriptedService, replicas_of: Opener
) -> None:
    replicas = replicas_of(service.url)
    await asyncio.gather(*(score(replicas, red) for red in range(20)))
    assert asked(service) == 1


async def test_the_first_try_does_not_wait_for_a_rest(
    service: ScriptedService,
    replicas_of: Opener,
    new_service: Callable[[int], ScriptedService],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 1000.0)
    monkeypatch.setattr(retry, "LONGEST_PAUSE_S", 1000.0)
    replicas = replicas_of(service.url)
    await replicas.info(Patience(60))
    service.stop()
    with pytest.raises(ServiceUnreachable):
        await score(replicas, 1)
    new_service(service.port)
    assert await score(replicas, 2) == 2.0


# Where it ends


async def test_all_replicas_are_away(
    service: ScriptedService, other: ScriptedService, replicas_of: Opener
) -> None:
    replicas = replicas_of(service.url, other.url)
    service.stop()
    other.stop()
    with pytest.raises(ServiceUnreachable) as caught:
        await score(replicas, 1, deadline_s=0.5)
    assert f"{service.url} cannot be reached" in caught.value.message
    assert f"{other.url} cannot be reached" in caught.value.message
    assert "gave up, deadline 0.5 s" in caught.value.message
    with pytest.raises(ServiceUnreachable):
        await replicas.info(Patience(0.5))


async def test_all_replicas_are_busy_beyond_the_deadline(
    service: ScriptedService, other: ScriptedService, replicas_of: Opener
) -> None:
    for each, seconds in ((service, "7200"), (other, "5400")):
        each.script = [each.refuse(429, "queue_full", headers={"Retry-After": seconds})]
    replicas = replicas_of(service.url, other.url)
    await replicas.info(Patience(60))
    with pytest.raises(DeadlineExceeded, match="asks to wait 5400 s") as caught:
        await score(replicas, 1, deadline_s=3600)
    assert caught.value.retry_after == 5400
    assert caught.value.request_id == "r9"
    # Neither is the next call sent before the time that was asked for.
    with pytest.raises(DeadlineExceeded, match="asks to wait 5400 s"):
        await score(replicas, 1, deadline_s=3600)
    assert len(service.scored) == len(other.scored) == 1


async def test_the_replica_that_is_ready_first_is_waited_for(
    service: ScriptedService, other: ScriptedService, replicas_of: Opener
) -> None:
    service.script = [service.refuse(429, "queue_full", headers={"Retry-After": "7200"})]
    other.script = [other.refuse(429, "queue_full", headers={"Retry-After": "1"})]
    replicas = replicas_of(service.url, other.url)
    await replicas.info(Patience(60))
    began = asyncio.get_running_loop().time()
    assert await score(replicas, 6) == 6.0
    assert asyncio.get_running_loop().time() - began >= 1.0
    assert len(other.scored) == 2


async def test_a_call_that_hangs_ends_and_the_next_goes_elsewhere(
    service: ScriptedService, other: ScriptedService, replicas_of: Opener, hang: Answer
) -> None:
    replicas = replicas_of(service.url, other.url)
    await replicas.info(Patience(60))
    service.script = other.script = [hang]
    with pytest.raises(DeadlineExceeded, match=r"no answer from http://.* within 0\.5 s"):
        await score(replicas, 1, deadline_s=0.5)
    service.script = other.script = []
    (hung,) = replicas.away
    well = other if hung == service.url else service
    service.info_script = other.info_script = [hang] * 9
    assert await score(replicas, 2) == 2.0
    assert len(well.scored) == 1


async def test_a_service_that_never_says_what_it_is(
    service: ScriptedService, replicas_of: Opener, hang: Answer
) -> None:
    service.info_script = [hang]
    with pytest.raises(DeadlineExceeded, match=f"no answer from {service.url} within"):
        await score(replicas_of(service.url), 1, deadline_s=0.3)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (401, "unauthorized", Unauthorized),
        (408, "upload_timeout", UploadTimeout),
        (422, "invalid_request", InvalidRequest),
    ],
)
async def test_what_is_final_is_tried_nowhere_else(
    service: ScriptedService,
    other: ScriptedService,
    replicas_of: Opener,
    status: int,
    code: str,
    expected: type[Exception],
) -> None:
    service.script = [service.refuse(status, code)]
    other.script = [other.refuse(status, code)]
    replicas = replicas_of(service.url, other.url)
    await replicas.info(Patience(60))
    with pytest.raises(expected):
        await score(replicas, 1)
    assert len(service.scored) + len(other.scored) == 1


async def test_a_replica_that_is_set_up_wrongly_is_told(
    service: ScriptedService, other: ScriptedService, replicas_of: Opener
) -> None:
    other.info_script = [other.refuse(401, "unauthorized")]
    replicas = replicas_of(service.url, other.url)
    with pytest.raises(Unauthorized, match=f"{other.url}: because unauthorized"):
        await replicas.info(Patience(60))
    assert (await replicas.info(Patience(60))).identity == IDENTITY


async def test_a_bug_is_raised_not_waited_for(
    service: ScriptedService, replicas_of: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_: Endpoint) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Endpoint, "info", broken)
    with pytest.raises(ZeroDivisionError):
        await score(replicas_of(service.url), 1)


async def test_closing_ends_what_is_being_asked(
    service: ScriptedService, replicas_of: Opener, hang: Answer
) -> None:
    service.info_script = [hang]
    replicas = replicas_of(service.url)
    pending = asyncio.create_task(replicas.ready(Patience(60)))
    while not service.requests:
        await asyncio.sleep(0.01)
    pending.cancel()
    await replicas.aclose()
    assert await asyncio.to_thread(service.hung_up.wait, 60)


# Who is refused


async def test_replicas_that_differ_are_both_named(
    service: ScriptedService, other: ScriptedService, replicas_of: Opener
) -> None:
    other.info["version"] = "2"
    replicas = replicas_of(service.url, other.url)
    with pytest.raises(IdentityMismatch, match="are different rewards: version '") as caught:
        await replicas.info(Patience(60))
    assert service.url in caught.value.message
    assert other.url in caught.value.message
    assert not service.scored + other.scored


async def test_a_replica_that_comes_back_as_another_reward_gets_no_picture(
    service: ScriptedService,
    other: ScriptedService,
    replicas_of: Opener,
    new_service: Callable[[int], ScriptedService],
) -> None:
    replicas = replicas_of(service.url, other.url)
    await replicas.info(Patience(60))
    other.stop()
    while not replicas.away:
        await score(replicas, 1)
    back = new_service(other.port)
    back.info["version"] = "2"
    text = f"{service.url} and {back.url} are different rewards: version '1' != '2'"

    async def until_it_is_asked() -> None:
        while True:
            await score(replicas, 2)

    with pytest.raises(IdentityMismatch, match=text):
        await until_it_is_asked()
    assert not back.scored


async def test_a_replica_that_changes_without_going_away_is_refused_by_its_answer(
    service: ScriptedService, other: ScriptedService, replicas_of: Opener
) -> None:
    replicas = replicas_of(service.url, other.url)
    await replicas.info(Patience(60))
    service.info["units"] = "kB"
    with pytest.raises(IdentityMismatch, match=f"{other.url} and {service.url} are different"):
        await asyncio.gather(score(replicas, 0), score(replicas, 1))


async def test_the_expected_identity_is_the_measure(
    service: ScriptedService, other: ScriptedService, replicas_of: Opener
) -> None:
    expected = IDENTITY.model_copy(update={"version": "0"})
    replicas = replicas_of(service.url, other.url, expected=expected)
    with pytest.raises(
        IdentityMismatch,
        match=r"is not the reward that was expected \(expected != answered\): version '0' != '1'",
    ):
        await replicas.info(Patience(60))
    assert replicas.expected_identity == expected
