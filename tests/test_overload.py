"""Four times as many pictures at once as a service takes: it says so, keeps its word and its size.

Load is counted in pictures in flight, not in time, so that the verdict is the same on any machine.
"""

import asyncio
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from shared.client import RewardClient
from shared.wire import encode_batch
from tests.conftest import RedisServer, ServiceProcess
from tests.deployment import Deployment

REWARD = "slow_reward:Slow"
SOURCE = """
import time

class Slow:
    name = "slow"
    version = "1"
    max_batch_size = 8
    needs_prompt = False

    def score(self, items):
        time.sleep(0.002 * len(items))
        return [float(item.image[0, 0].astype(int) @ (65536, 256, 1)) for item in items]
"""
PER_REQUEST = 4
QUEUE_ITEMS = 16
OVERLOAD = 4
IN_FLIGHT = OVERLOAD * QUEUE_ITEMS // PER_REQUEST
SIDE = 512
BODY_BYTES = PER_REQUEST * SIDE * SIDE * 3
ROUNDS = 8
# Room for what may be held at a time twice over; all at once would be twice as much again.
MOST_MEGABYTES = 2 * IN_FLIGHT // OVERLOAD * BODY_BYTES // 2**20

pytestmark = pytest.mark.slow


class Small(NamedTuple):
    """A service that takes few pictures at a time, and few bytes: a quarter of what is sent."""

    url: str
    pid: int


@pytest.fixture(scope="module", params=["memory", "redis"])
def small_service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Small]:
    settings = {
        "queue_items": QUEUE_ITEMS,
        "max_inflight_bytes": IN_FLIGHT // OVERLOAD * (BODY_BYTES + 4096),
    }
    if request.param == "memory":
        start: Callable[..., ServiceProcess] = request.getfixturevalue("start_service")
        given = {f"REWARD_{name.upper()}": str(value) for name, value in settings.items()}
        running = start(REWARD, SOURCE, **given)
        yield Small(running.url, running.pid)
        return
    redis: RedisServer = request.getfixturevalue("redis_server")
    folder = tmp_path_factory.mktemp("small")
    (folder / "slow_reward.py").write_text(SOURCE)
    with Deployment(folder, REWARD, "slow", 2, broker_url=redis.url, **settings) as deployment:
        yield Small(deployment.url, deployment.api.pid)


def numbered(number: int) -> NDArray[np.uint8]:
    """Pictures whose first pixel says which they are, and what they score."""
    images = np.zeros((PER_REQUEST, SIDE, SIDE, 3), np.uint8)
    for index, score in enumerate(expected(number)):
        images[index, 0, 0] = [int(score) >> shift & 255 for shift in (16, 8, 0)]
    return images


def expected(number: int) -> list[float]:
    return [float(number * PER_REQUEST + index) for index in range(PER_REQUEST)]


def most_megabytes(pid: int) -> int:
    """The most memory that a process has held so far."""
    (line,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(line) // 1024


class Load:
    """Requests with known scores, and what became of them."""

    def __init__(self, service: Small) -> None:
        headers = {"Content-Type": "application/vnd.safetensors"}
        self._http = httpx.AsyncClient(base_url=service.url, headers=headers, timeout=60)
        self.statuses: Counter[int] = Counter()

    async def send(self, numbers: Iterator[int]) -> None:
        """One request after the other, without a rest where it is refused."""
        for number in numbers:
            body = b"".join(encode_batch(numbered(number), [""] * PER_REQUEST).chunks())
            answer = await self._http.post("/score", content=body)
            self.statuses[answer.status_code] += 1
            if answer.status_code == 200:
                assert [one["score"] for one in answer.json()["results"]] == expected(number)
            else:
                assert (answer.json()["code"], answer.json()["retryable"]) == ("queue_full", True)
                assert 1 <= int(answer.headers["retry-after"]) <= 60

    async def __aenter__(self) -> "Load":
        await self.send(iter([0]))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()


async def test_it_answers_what_it_accepts_and_refuses_the_rest(small_service: Small) -> None:
    async with Load(small_service) as load:
        before = most_megabytes(small_service.pid)
        numbers = iter(range(IN_FLIGHT * ROUNDS))
        async with asyncio.TaskGroup() as group:
            for _ in range(IN_FLIGHT):
                group.create_task(load.send(numbers))
    assert set(load.statuses) == {200, 429}
    assert sum(load.statuses.values()) == IN_FLIGHT * ROUNDS + 1
    assert most_megabytes(small_service.pid) - before < MOST_MEGABYTES


async def test_who_waits_as_told_gets_all_of_its_scores(small_service: Small) -> None:
    """Beside clients that never wait."""
    async with Load(small_service) as load, RewardClient(small_service.url) as client:
        rude = [asyncio.create_task(load.send(itertools.count())) for _ in range(IN_FLIGHT)]
        for number in range(ROUNDS // 2):
            response = await client.score(numbered(number), [""] * PER_REQUEST)
            assert [one.score for one in response.results] == expected(number)
        for task in rude:
            assert not task.done(), task.exception()
            task.cancel()
        await asyncio.gather(*rude, return_exceptions=True)
    assert set(load.statuses) == {200, 429}


async def test_afterwards_nothing_is_held(small_service: Small) -> None:
    async with Load(small_service), httpx.AsyncClient(base_url=small_service.url) as http:
        metrics = (await http.get("/metrics")).text
    assert 'reward_inflight_items{service="slow"} 0.0' in metrics
    assert 'reward_inflight_bytes{service="slow"} 0.0' in metrics
