"""What an API knows of its workers, and what it says before it knows."""

import asyncio

import pytest
import structlog

from reward_services.announcements import Announcements
from reward_services.brokers import open_broker
from reward_services.metrics import Metrics
from reward_services.readiness import Phase, Readiness
from reward_services.settings import ServiceSettings
from reward_services.worker_registry import MemoryRegistry, WorkerStatus
from shared.errors import BrokerUnavailable, NotReady
from shared.schema import Limits, ServiceInfo
from tests.conftest import free_port

LIMITS = Limits(max_items=7, max_body_bytes=70, max_pixels=700)
THEIRS = Limits(max_items=1, max_body_bytes=1, max_pixels=1)
INFO = ServiceInfo(
    name="n",
    version="1",
    units="u",
    direction="maximize",
    range=(None, None),
    max_batch_size=16,
    limits=THEIRS,
)


def worker(name: str, batch: int = 16) -> WorkerStatus:
    return WorkerStatus(name, "host", 1, INFO.model_copy(update={"max_batch_size": batch}))


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


@pytest.fixture
def announcements(registry: MemoryRegistry) -> Announcements:
    return Announcements(registry, LIMITS, Readiness(), Metrics("n"))


async def test_nothing_is_served_before_the_first_worker(announcements: Announcements) -> None:
    with structlog.testing.capture_logs() as lines:
        await announcements.look()
        await announcements.look()
    assert [line["event"] for line in lines] == ["waiting for the first worker"]
    announcements.require_broker()
    with pytest.raises(NotReady, match="start one") as caught:
        announcements.require_info()
    assert caught.value.retry_after
    assert announcements.readiness.phase is Phase.LOADING


async def test_the_first_worker_makes_an_api_ready_and_the_last_does_not_end_that(
    announcements: Announcements, registry: MemoryRegistry
) -> None:
    await registry.announce(worker("a"))
    await announcements.look()
    assert announcements.workers == 1
    await registry.retire("a")
    with structlog.testing.capture_logs() as lines:
        await announcements.look()
    assert announcements.workers == 0
    assert "all workers are gone" in lines[0]["event"]
    assert announcements.readiness.phase is Phase.READY
    assert announcements.require_info().identity == INFO.identity
    assert 'reward_workers{service="n"} 0.0' in announcements.metrics.text().decode()


async def test_limits_are_those_of_the_api_and_a_job_fits_every_worker(
    announcements: Announcements, registry: MemoryRegistry
) -> None:
    await registry.announce(worker("small", batch=4))
    await registry.announce(worker("large", batch=16))
    await announcements.look()
    info = announcements.require_info()
    assert (info.limits, info.max_batch_size) == (LIMITS, 4)


async def test_draining_is_not_undone(
    announcements: Announcements, registry: MemoryRegistry
) -> None:
    announcements.readiness.phase = Phase.DRAINING
    await registry.announce(worker("a"))
    await announcements.look()
    assert announcements.readiness.phase is Phase.DRAINING


async def test_a_broker_that_is_away_is_noted_once(announcements: Announcements) -> None:
    nowhere = ServiceSettings(broker_url=f"redis://127.0.0.1:{free_port()}")
    broker = open_broker(nowhere, "n")
    there = announcements.registry
    announcements.registry = broker.registry
    with structlog.testing.capture_logs() as lines:
        await announcements.look()
        await announcements.look()
    assert [line["event"] for line in lines] == ["the job queue is away"]
    with pytest.raises(BrokerUnavailable) as caught:
        announcements.require_broker()
    assert caught.value.retry_after
    text = announcements.metrics.text().decode()
    assert 'reward_broker_disruptions_total{service="n"} 1.0' in text
    announcements.registry = there
    await announcements.look()
    announcements.require_broker()
    await broker.close()


async def test_an_answer_that_cannot_be_read_does_not_end_the_watch(
    announcements: Announcements, registry: MemoryRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registry written by a newer version cannot be had here, so this fault is made by hand."""
    monkeypatch.setattr("reward_services.announcements.LOOK_EVERY_S", 0.001)
    calls = 0

    async def unreadable() -> ServiceInfo:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError("what is this")
        raise asyncio.CancelledError

    monkeypatch.setattr(registry, "info", unreadable)
    with pytest.raises(asyncio.CancelledError), structlog.testing.capture_logs() as lines:
        await announcements.watch()
    assert "cannot be read" in lines[0]["event"]
    assert announcements.info is None
