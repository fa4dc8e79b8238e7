"""Brokers by URL."""

import pytest

from reward_services.brokers import open_broker
from reward_services.settings import ServiceSettings, SettingsError
from shared.errors import QueueFull


async def test_memory_with_the_limits_of_the_settings() -> None:
    queue = open_broker(ServiceSettings(queue_items=2), "jpeg").queue
    await queue.reserve(2)
    with pytest.raises(QueueFull):
        await queue.reserve(1)


@pytest.mark.parametrize("url", ["", "memory", "kafka://host"])
def test_other_brokers_are_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="memory://"):
        open_broker(ServiceSettings(broker_url=url), "jpeg")
