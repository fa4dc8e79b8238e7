"""What is remembered of a replica from one request to the next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import numpy as np
import pytest

from shared import replica as replica_module
from shared.endpoint import Endpoint
from shared.errors import QueueFull, ServiceUnavailable, ServiceUnreachable
from shared.replica import Replica, now
from shared.retry import Patience
from shared.wire import EncodedBatch, encode_batch

if TYPE_CHECKING:
    from tests.shared.conftest import Answer, ScriptedService


@pytest.fixture
async def replica(service: ScriptedService) -> AsyncIterator[Replica]:
    endpoint = Endpoint(service.url, api_key=None, transport=None, max_connections=8)
    yield Replica(endpoint)
    await endpoint.aclose()


@pytest.fixture
def part() -> EncodedBatch:
    return encode_batch(np.zeros((1, 4, 4, 3), np.uint8), ["a"])


async def test_a_good_one(replica: Replica, service: ScriptedService, part: EncodedBatch) -> None:
    assert replica.url == service.url
    assert (await replica.info()).name == "mean_red"
    scores = await replica.score(part, "k", Patience(60))
    assert scores.results[0].score == 0.0
    assert not replica.away
    assert replica.trouble is None
    assert replica.under_way == 0


async def test_what_is_under_way_is_counted(
    replica: Replica, service: ScriptedService, part: EncodedBatch, hang: Answer
) -> None:
    service.script = [hang]
    pending = asyncio.create_task(replica.score(part, "k", Patience(60)))
    await asyncio.to_thread(service.arrived.wait, 60)
    assert replica.under_way == 1
    pending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pending
    assert replica.under_way == 0
    assert not replica.away  # the caller's change of mind is no fault of the replica


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_one_that_fails_is_away_and_rests(
    replica: Replica, service: ScriptedService, part: EncodedBatch, status: int
) -> None:
    service.script = [service.refuse(status, "unknown", headers={"Retry-After": "600"})]
    replica.known = True
    with pytest.raises(ServiceUnavailable):
        await replica.score(part, "k", Patience(60))
    assert replica.away
    assert not replica.known
    assert replica.back_off.ready_at > now() + 500


async def test_one_that_is_busy_rests_but_stays_known(
    replica: Replica, service: ScriptedService, part: EncodedBatch
) -> None:
    service.script = [service.refuse(429, "queue_full", headers={"Retry-After": "600"})]
    replica.known = True
    with pytest.raises(QueueFull):
        await replica.score(part, "k", Patience(60))
    assert not replica.away
    assert replica.known
    assert replica.back_off.ready_at > now() + 500


async def test_saying_what_it_is_does_not_make_it_well(
    replica: Replica, service: ScriptedService, part: EncodedBatch
) -> None:
    service.script = [service.refuse(503, "not_ready", headers={"Retry-After": "600"})]
    with pytest.raises(ServiceUnavailable):
        await replica.score(part, "k", Patience(60))
    await replica.info()
    assert replica.trouble is None
    assert replica.back_off.ready_at > now() + 500


async def test_one_that_hangs_until_the_deadline_is_away(
    replica: Replica, service: ScriptedService, part: EncodedBatch, hang: Answer
) -> None:
    service.script = [hang]
    patience = Patience(0.2)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout_at(patience.end):
            await replica.score(part, "k", patience)
    assert replica.away
    assert replica.trouble is not None
    assert "within 0.2 s" in replica.trouble.message


async def test_one_that_does_not_even_say_what_it_is(
    replica: Replica, service: ScriptedService, hang: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica_module, "LOOK_TIMEOUT_S", 0.1)
    service.info_script = [hang]
    with pytest.raises(ServiceUnreachable, match=r"did not answer within 0\.1 s"):
        await replica.info()
    assert replica.away
    assert replica.back_off.ready_at > now()
