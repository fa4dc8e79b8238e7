"""A picture that kills every worker it meets: it alone fails, and is kept to be looked at."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from shared.client import RewardClient
from shared.schema import ScoreResponse
from tests.conftest import RedisServer
from tests.deployment import Deployment

pytestmark = pytest.mark.slow

SOURCE = """
import os, signal

class Fragile:
    name = "fragile"
    version = "1"
    max_batch_size = 8
    needs_prompt = False

    def score(self, items):
        if any(item.image[0, 0].tolist() == [255, 0, 0] for item in items):
            os.kill(os.getpid(), signal.SIGKILL)
        return [float(item.image[0, 0, 2]) for item in items]
"""
POISON = 5


def pictures(first: int) -> NDArray[np.uint8]:
    """Four pictures whose blue says which they are; number 5 is poison."""
    images = np.zeros((4, 32, 32, 3), np.uint8)
    for number, image in enumerate(images, start=first):
        image[..., 2] = number
    if first <= POISON < first + 4:
        images[POISON - first, 0, 0] = (255, 0, 0)
    return images


@pytest.fixture
def deployment(tmp_path: Path, redis_server: RedisServer) -> Iterator[Deployment]:
    (tmp_path / "fragile_reward.py").write_text(SOURCE)
    with Deployment(
        tmp_path,
        "fragile_reward:Fragile",
        "fragile",
        broker_url=redis_server.url,
        lease_s=1,
        max_wait_ms=500,
    ) as running:
        yield running


@contextlib.asynccontextmanager
async def supervised(deployment: Deployment) -> AsyncIterator[list[str]]:
    """Start workers again as they die; gives the commands of those that did."""
    deaths: list[str] = []

    async def watch() -> None:
        while True:
            for worker in deployment.workers:
                if not worker.alive:
                    deaths.append(worker.log)
                    worker.start()
            await asyncio.sleep(0.1)

    watching = asyncio.create_task(watch())
    try:
        yield deaths
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_only_the_poison_fails(deployment: Deployment) -> None:
    async with supervised(deployment) as deaths, RewardClient(deployment.url) as client:

        async def score(first: int) -> ScoreResponse:
            return await client.score(pictures(first), [f"number {first + n}" for n in range(4)])

        # Two requests that may well be one batch.
        answers = await asyncio.gather(score(0), score(4))
        results = [result for answer in answers for result in answer.results]
        fault = results.pop(POISON).error
        assert fault is not None
        assert (fault.code, fault.retryable) == ("worker_lost", True)
        assert [result.score for result in results] == [0, 1, 2, 3, 4, 6, 7]
        assert len(deaths) == 3
        # The service goes on.
        assert [result.score for result in (await score(8)).results] == [8, 9, 10, 11]
    letters = subprocess.run(
        [sys.executable, "-m", "reward_services", "dlq", "list", "fragile"],
        env=deployment.api.environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert letters.count("number") == 1
    assert f"number {POISON}" in letters
