"""Brokers by URL."""

import pytest

from reward_services.brokers import open_broker
from reward_services.redis_blobs import RedisBlobs
from reward_services.redis_queue import RedisQueue
from reward_services.settings import ServiceSettings, SettingsError
from shared.errors import BrokerUnavailable, QueueFull
from tests.conftest import RedisServer


async def test_memory_with_the_limits_of_the_settings() -> None:
    queue = open_broker(ServiceSettings(queue_items=2), "jpeg").queue
    await queue.reserve(2)
    with pytest.raises(QueueFull):
        await queue.reserve(1)


@pytest.mark.parametrize("url", ["", "memory", "kafka://host"])
def test_other_brokers_are_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="memory://"):
        open_broker(ServiceSettings(broker_url=url), "jpeg")


async def test_redis_is_not_needed_to_start() -> None:
    broker = open_broker(ServiceSettings(broker_url="redis://127.0.0.1:1/0"), "jpeg")
    assert isinstance(broker.queue, RedisQueue)
    with pytest.raises(BrokerUnavailable):
        await broker.queue.stats()
    await broker.close()


@pytest.mark.parametrize(
    ("url", "blob_url", "complaint"),
    [
        ("redis://localhost:port", None, "REWARD_BROKER_URL"),
        ("redis://localhost", "redis://localhost:port", "REWARD_BLOB_URL"),
        ("redis://localhost", "file://dev/shm/x", "three slashes"),
        ("redis://localhost", "/dev/shm/x", "three slashes"),
        ("redis://localhost", "s3://bucket", "three slashes"),
        ("memory://", "file:///dev/shm/x", "leave REWARD_BLOB_URL out"),
    ],
)
def test_a_url_that_cannot_be_used(url: str, blob_url: str | None, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        open_broker(ServiceSettings(broker_url=url, blob_url=blob_url), "jpeg")


async def test_pictures_have_a_connection_of_their_own(redis_server: RedisServer) -> None:
    """The same Redis by another name is another store, whose pictures no script deletes."""
    settings = ServiceSettings(broker_url=redis_server.url, blob_url=redis_server.url)
    broker = open_broker(settings, "jpeg")
    assert isinstance(broker.queue, RedisQueue)
    blobs = broker.queue._blobs
    assert isinstance(blobs, RedisBlobs)
    assert blobs._connection is not broker.queue._connection
    assert blobs._beside_queue
    await broker.close()
