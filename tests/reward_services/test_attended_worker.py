"""A worker with its heartbeat: warm before it is announced, gone when it has ended."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

import numpy as np
import pytest

from reward_services import ScoreItem, Scorer
from reward_services.attended_worker import AttendedWorker, loaded_scorer, service_info
from reward_services.brokers import Broker, open_broker
from reward_services.job_queue import Job
from reward_services.metrics import Metrics
from reward_services.scorer import ScorerContractError
from reward_services.scoring import BatchHung
from reward_services.settings import ServiceSettings
from reward_services.tracing import Tracing
from reward_services.worker_registry import IdentityConflict, WorkerStatus
from tests.conftest import RedisServer, free_port

SETTINGS = ServiceSettings(max_wait_ms=0, max_batch_items=2)
Grey = Callable[[int], np.ndarray]


class Recording(Scorer, Protocol):
    """What these tests know of the `mean_level` fixture."""

    version: str
    batches: list[list[str]]


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    opened = open_broker(SETTINGS, "mean_level")
    yield opened
    await opened.close()


def attended(
    broker: Broker, scorer: Scorer, settings: ServiceSettings = SETTINGS
) -> AttendedWorker:
    return AttendedWorker(broker, scorer, settings, Metrics("n"), Tracing())


async def test_it_is_announced_warm_and_retires(broker: Broker, mean_level: Recording) -> None:
    worker = attended(broker, mean_level)
    assert await broker.registry.workers() == []
    await worker.start()
    assert mean_level.batches == [["a picture"]]
    (status,) = await broker.registry.workers()
    assert status.info == service_info(mean_level, SETTINGS)
    assert status.info.max_batch_size == 2
    working = asyncio.create_task(worker.run())
    worker.drain()
    await working
    assert await broker.registry.workers() == []
    assert await broker.registry.info() == status.info


async def test_a_scorer_that_does_not_work_is_never_announced(broker: Broker) -> None:
    class Wrong:
        name, version, max_batch_size = "wrong", "1", 1

        def score(self, items: Sequence[ScoreItem]) -> list[float]:
            return [0.0] * (len(items) + 1)

    with pytest.raises(ScorerContractError, match="2 results for 1 items"):
        await attended(broker, Wrong()).start()
    assert await broker.registry.workers() == []


async def test_heartbeats_tell_what_has_been_done(
    broker: Broker, mean_level: Recording, grey: Grey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reward_services.attended_worker.ANNOUNCE_EVERY_S", 0.01)
    worker = attended(broker, mean_level)
    await worker.start()
    working = asyncio.create_task(worker.run())
    await broker.queue.reserve(2)
    await broker.queue.submit(Job("a", [ScoreItem(grey(1)), ScoreItem(grey(2))], 60))
    await broker.queue.result("a")
    async with asyncio.timeout(30):
        while (await broker.registry.workers())[0].items_done != 2:
            await asyncio.sleep(0.005)
    worker.drain()
    await working


async def test_two_versions_do_not_share_a_queue(broker: Broker, mean_level: Recording) -> None:
    first = attended(broker, mean_level)
    await first.start()
    mean_level.version = "2"
    with pytest.raises(IdentityConflict, match=r"'2' != '1'"):
        await attended(broker, mean_level).start()


async def test_a_worker_that_finds_another_version_in_its_place_ends(
    broker: Broker, mean_level: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a long silence: the others could not know that it lives."""
    monkeypatch.setattr("reward_services.attended_worker.ANNOUNCE_EVERY_S", 0.01)
    worker = attended(broker, mean_level)
    await worker.start()
    (status,) = await broker.registry.workers()
    await broker.registry.retire(status.name)
    newer = status.info.model_copy(update={"version": "2"})
    await broker.registry.announce(WorkerStatus("newer", "host", 1, newer))
    with pytest.raises(IdentityConflict):
        await worker.run()


async def test_a_worker_waits_for_a_broker_that_is_away(
    mean_level: Recording, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reward_services.attended_worker.RETRY_S", 0.01)
    own_redis.kill()
    broker = open_broker(ServiceSettings(broker_url=own_redis.url), "mean_level")
    worker = attended(broker, mean_level)
    starting = asyncio.create_task(worker.start())
    async with asyncio.timeout(30):
        while not mean_level.batches:
            await asyncio.sleep(0.005)
    assert not starting.done()
    await asyncio.to_thread(own_redis.start)
    await starting
    assert len(await broker.registry.workers()) == 1
    await broker.close()


async def test_a_drain_ends_the_wait_for_a_broker(mean_level: Recording) -> None:
    nowhere = ServiceSettings(broker_url=f"redis://127.0.0.1:{free_port()}")
    broker = open_broker(nowhere, "mean_level")
    worker = attended(broker, mean_level)
    worker.drain()
    await worker.start()
    await worker.run()
    await broker.close()


def test_a_scorer_is_closed_unless_it_hangs() -> None:
    closed = []

    class Closing:
        name, version, max_batch_size = "closing", "1", 1

        def score(self, items: Sequence[ScoreItem]) -> list[float]:
            return [0.0] * len(items)

        def close(self) -> None:
            closed.append("closed")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reward_services.attended_worker.load_scorer", lambda *_: Closing())
        with loaded_scorer("closing", SETTINGS):
            assert not closed
        assert closed == ["closed"]
        with pytest.raises(KeyError), loaded_scorer("closing", SETTINGS):
            raise KeyError
        assert len(closed) == 2
        with pytest.raises(BatchHung), loaded_scorer("closing", SETTINGS):
            raise BatchHung
        assert len(closed) == 2
