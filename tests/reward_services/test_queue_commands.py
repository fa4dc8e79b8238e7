"""`reward-services status` and `dlq` on a real queue."""

import asyncio
import json
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator

import numpy as np
import pytest

from reward_services import ScoreItem
from reward_services.brokers import Broker, open_broker
from reward_services.job_queue import Job
from reward_services.settings import ServiceSettings
from tests.conftest import RedisServer, free_port


@pytest.fixture
def name() -> str:
    """A queue that no other test has left work in."""
    return f"letters-{uuid.uuid4().hex}"


@pytest.fixture
async def broker(redis_server: RedisServer, name: str) -> AsyncIterator[Broker]:
    settings = ServiceSettings(broker_url=redis_server.url, lease_s=0.05, max_deliveries=1)
    opened = open_broker(settings, name)
    yield opened
    await opened.close()


async def run(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "reward_services", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "REWARD_BROKER_URL": url},
    )


async def bury(broker: Broker, *names: str) -> None:
    """Let each picture cost its worker, so that it is given up."""
    for name in names:
        await broker.queue.reserve(1)
        picture = np.zeros((2, 2, 3), np.uint8)
        await broker.queue.submit(Job(name, [ScoreItem(picture, "a cat")], 60))
        (lease,) = await broker.queue.lease("dies", 1, wait_s=5)
        assert await broker.queue.load(lease) is not None
        async with asyncio.timeout(30):
            while (state := await broker.queue.state(name)) and state.phase != "finished":
                await broker.queue.lease("another", 1, wait_s=0.1)


async def test_status_of_a_queue(broker: Broker, redis_server: RedisServer, name: str) -> None:
    await broker.queue.reserve(2)
    picture = np.zeros((2, 2, 3), np.uint8)
    await broker.queue.submit(Job("waits", [ScoreItem(picture)] * 2, 60, lane="interactive"))
    done = await run(redis_server.url, "status", name)
    assert done.returncode == 0, done.stderr
    assert "2 pictures (2 interactive, 0 bulk)" in done.stdout
    done = await run(redis_server.url, "status", name, "--json")
    report = json.loads(done.stdout)
    assert report["queue"]["waiting_items"] == 2
    assert report["queue"]["oldest_s"] > 0
    assert (report["info"], report["workers"]) == (None, [])
    await broker.queue.cancel("waits")


async def test_dead_letters_are_listed_tried_again_and_dropped(
    broker: Broker, redis_server: RedisServer, name: str
) -> None:
    url = redis_server.url
    await bury(broker, "one", "two", "three")
    listed = await run(url, "dlq", "list", name, "--json")
    letters = {letter["job_id"]: letter["id"] for letter in json.loads(listed.stdout)}
    assert set(letters) == {"one", "two", "three"}
    assert "a cat" in (await run(url, "dlq", "list", name)).stdout

    done = await run(url, "dlq", "retry", name, letters["one"], "0-1")
    assert done.returncode == 1
    assert f"{letters['one']}  queued again as one+0" in done.stdout
    assert "0-1  not found" in done.stdout
    (lease,) = await broker.queue.lease("worker", 1, wait_s=5)
    assert lease.job_id == "one+0"

    assert "dropped" in (await run(url, "dlq", "drop", name, letters["two"])).stdout
    assert [letter.job_id for letter in await broker.dead_letters.list(9)] == ["three"]
    assert (await run(url, "dlq", "drop", name, "all")).returncode == 0
    assert "there are no dead letters" in (await run(url, "dlq", "list", name)).stdout


async def test_a_broker_that_is_away_is_one_line(name: str) -> None:
    done = await run(f"redis://127.0.0.1:{free_port()}", "status", name)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "REWARD_BROKER_URL cannot be reached" in line
