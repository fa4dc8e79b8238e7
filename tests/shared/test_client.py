"""The blocking client: the same calls from code without an event loop, and from many threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest

from shared.client import SyncRewardClient
from shared.errors import (
    DeadlineExceeded,
    IdentityMismatch,
    InvalidRequest,
    InvalidServiceUrl,
    ServiceUnreachable,
)

if TYPE_CHECKING:
    from tests.shared.conftest import Answer, ScriptedService


def picture(red: int) -> npt.NDArray[np.uint8]:
    return np.full((1, 4, 4, 3), red, np.uint8)


def test_info_and_score(service: ScriptedService) -> None:
    with SyncRewardClient(service.url, api_key="k") as client:
        assert client.urls == (service.url,)
        assert client.away == {}
        assert client.info().name == "mean_red"
        response = client.score(picture(9), ["a"], [{"i": 1}], idempotency_key="mine")
    assert response.results[0].score == 9.0
    assert service.scored[0].headers["idempotency-key"] == "mine"
    assert service.scored[0].headers["authorization"] == "Bearer k"


def test_submit_returns_before_the_answer(service: ScriptedService) -> None:
    gate = threading.Event()
    service.gate = gate
    with SyncRewardClient(service.url) as client:
        pending = [client.submit(picture(red), ["a"]) for red in range(3)]
        assert not any(future.done() for future in pending)
        gate.set()
        assert [future.result().results[0].score for future in pending] == [0.0, 1.0, 2.0]


def test_many_threads_share_one_client(service: ScriptedService) -> None:
    with SyncRewardClient(service.url) as client, ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(lambda red: client.score(picture(red), ["a"]), range(40)))
    assert [response.results[0].score for response in responses] == list(range(40))
    assert service.connections <= 8


def test_errors_arrive_where_the_call_was_made(service: ScriptedService, hang: Answer) -> None:
    with SyncRewardClient(service.url) as client:
        with pytest.raises(InvalidRequest, match="prompts is one string"):
            client.score(picture(0), "a")
        service.script = [hang]
        with pytest.raises(DeadlineExceeded):
            client.score(picture(0), ["a"], deadline_s=0.2)


def test_a_replica_is_enough(
    service: ScriptedService, new_service: Callable[[int], ScriptedService]
) -> None:
    other = new_service(0)
    with SyncRewardClient([service.url, other.url]) as client:
        assert client.urls == (service.url, other.url)
        service.stop()
        scores = [client.score(picture(red), ["a"]).results[0].score for red in range(4)]
        assert scores == [0.0, 1.0, 2.0, 3.0]
        assert list(client.away) == [service.url]


def test_an_unreachable_service(service: ScriptedService) -> None:
    service.stop()
    with (
        SyncRewardClient(service.url, deadline_s=0.3) as client,
        pytest.raises(ServiceUnreachable),
    ):
        client.info()


def test_the_identity_is_pinned(service: ScriptedService) -> None:
    with SyncRewardClient(service.url) as client:
        before = client.expected_identity
        assert before is None
        pinned = client.info().identity
        assert client.expected_identity == pinned
        service.info["direction"] = "minimize"
        with pytest.raises(IdentityMismatch, match="direction 'maximize' != 'minimize'"):
            client.score(picture(0), ["a"])
    with SyncRewardClient(service.url, expected_identity=pinned) as client:
        assert client.expected_identity == pinned
        with pytest.raises(IdentityMismatch):
            client.info()


def test_close_cancels_what_is_under_way(service: ScriptedService, hang: Answer) -> None:
    service.script = [hang]
    client = SyncRewardClient(service.url)
    pending = client.submit(picture(0), ["a"])
    client.close()
    client.close()
    with pytest.raises(CancelledError):
        pending.result(60)
    assert not [thread for thread in threading.enumerate() if service.url in thread.name]


def test_a_closed_client_says_so(service: ScriptedService) -> None:
    client = SyncRewardClient(service.url)
    client.close()
    with pytest.raises(RuntimeError, match=f"client of {service.url} is closed"):
        client.submit(picture(0), ["a"])


def test_a_bad_url_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    with pytest.raises(InvalidServiceUrl):
        SyncRewardClient("localhost")
    assert threading.active_count() == before


def test_an_interrupt_ends_the_request(
    service: ScriptedService, hang: Answer, interrupted_after: Callable[[threading.Event], None]
) -> None:
    service.script = [hang]
    with SyncRewardClient(service.url) as client:
        interrupted_after(service.arrived)
        with pytest.raises(KeyboardInterrupt):
            client.score(picture(0), ["a"])
        assert service.hung_up.wait(60)
