"""Chaos: workers killed with -9 every few seconds, Redis killed and restarted, every score checked.

    python -m tests.chaos [--jobs 600] [--seed 0]

Ends with one line of counts and exit code 0 when all but the first two are 0. `lost`, `duplicated`
and `wrong` count pictures.
"""

import argparse
import asyncio
import itertools
import random
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
from numpy.typing import NDArray
from redis.asyncio import Redis

from reward_services.brokers import open_broker
from reward_services.redis_scripts import FETCH_TTL_S, key_prefix
from reward_services.scorer import Scored, ScoreItem, run_scorer
from reward_services.scorers.jpeg import jpeg_compressibility
from reward_services.settings import ServiceSettings
from shared.client import RewardClient
from shared.errors import RewardError
from shared.schema import ScoreResponse
from tests.conftest import RedisServer
from tests.deployment import Deployment

REWARD = "tests.slow_jpeg:SlowJpeg"
NAME = "slow_jpeg"
LEASE_S = 2.0
RESULT_TTL_S = 5.0
DEADLINE_S = 600.0
MOST_PICTURES = 6
ANSWERS_PER_KILL = 5
PER_JOB = ("job:", "bell:", "key:", "note:")
"""Keys that belong to one request or process; the others are few, and shared by all."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much chaos.

    Attributes:
        jobs: requests in all.
        clients: requests at the same time.
        workers: that take turns in dying.
        kill_every_s: seconds from one worker's death to the next.
        redis_kills: evenly spread over the jobs.
        seed: of the pictures and of the victims.
    """

    jobs: int
    seed: int
    clients: int = 12
    workers: int = 3
    kill_every_s: float = 2.0
    redis_kills: int = 3


@dataclass(slots=True)
class Outcome:
    """What is left to say afterwards."""

    jobs: int = 0
    kills: int = 0
    lost: int = 0
    duplicated: int = 0
    wrong: int = 0
    leaked_keys: int = 0
    stuck: int = 0
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        names = ("jobs", "kills", "lost", "duplicated", "wrong", "leaked_keys")
        return "chaos: " + " ".join(f"{name}={getattr(self, name)}" for name in names)

    @property
    def clean(self) -> bool:
        """Whether nothing went wrong."""
        return not (self.lost or self.duplicated or self.wrong or self.leaked_keys or self.stuck)


@dataclass(frozen=True, slots=True)
class Request:
    """Pictures of different sizes, and what each scores in process."""

    images: list[NDArray[np.uint8]]
    scores: list[float]


def requests(plan: Plan) -> Iterator[Request]:
    """The work: noise of random strength, so that no two pictures score the same by chance."""
    rng = np.random.default_rng(plan.seed)
    scorer = jpeg_compressibility()
    for _ in range(plan.jobs):
        images = [
            rng.integers(0, rng.integers(2, 256), (*rng.integers(16, 160, 2), 3)).astype(np.uint8)
            for _ in range(rng.integers(1, MOST_PICTURES + 1))
        ]
        scored = run_scorer(scorer, [ScoreItem(image) for image in images])
        yield Request(images, [one.score for one in scored if isinstance(one, Scored)])


class Chaos:
    """Clients that work and a killer, on one deployment."""

    def __init__(self, plan: Plan, redis: RedisServer, deployment: Deployment) -> None:
        self._plan = plan
        self._redis = redis
        self._deployment = deployment
        self._random = random.Random(plan.seed)
        self._answered = 0
        self._scored = 0
        # Redis dies when so many requests have been answered.
        share = plan.jobs // (plan.redis_kills + 1)
        self._redis_dies_at = {share * number for number in range(1, plan.redis_kills + 1)}
        self.outcome = Outcome()

    async def run(self) -> None:
        """Do all work under fire, and check the scores."""
        work = requests(self._plan)
        killer = asyncio.create_task(self._kill_workers())
        async with (
            RewardClient(self._deployment.url, deadline_s=DEADLINE_S) as client,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(self._plan.clients):
                group.create_task(self._score(client, work))
        killer.cancel()
        await asyncio.gather(killer, return_exceptions=True)
        await self._take_stock()

    async def _score(self, client: RewardClient, work: Iterator[Request]) -> None:
        for request in work:
            self.outcome.jobs += 1
            try:
                response = await client.score(request.images, [""] * len(request.images))
            except RewardError as error:
                self.outcome.lost += len(request.images)
                self.outcome.notes.append(repr(error))
            else:
                self._check(request, response)
            self._answered += 1
            if self._answered in self._redis_dies_at:
                await asyncio.to_thread(self._restart_redis)

    def _check(self, request: Request, response: ScoreResponse) -> None:
        for expected, result in itertools.zip_longest(request.scores, response.results):
            if result is None or result.error is not None:
                self.outcome.lost += 1
                self.outcome.notes.append(f"no score: {result}")
            elif expected is None:
                self.outcome.duplicated += 1
            elif result.score == expected:
                self._scored += 1
            else:
                self.outcome.wrong += 1
                self.outcome.notes.append(f"{result.score} instead of {expected}")

    async def _kill_workers(self) -> None:
        while True:
            before = self._answered
            await asyncio.sleep(self._plan.kill_every_s)
            # On a machine too slow to start workers so often, work must go on all the same.
            while self._answered < before + ANSWERS_PER_KILL:
                await asyncio.sleep(0.05)
            ready = [worker for worker in self._deployment.workers if worker.has_said("ready")]
            if ready:
                victim = self._random.choice(ready)
                victim.kill()
                victim.start()
                self.outcome.kills += 1

    def _restart_redis(self) -> None:
        self._redis.kill()
        self._redis.start()
        self.outcome.kills += 1

    async def _take_stock(self) -> None:
        """Afterwards: every picture counted once, nothing queued, and no key left of any job."""
        async with httpx.AsyncClient(base_url=self._deployment.url) as http:
            counted = _scored_items((await http.get("/metrics")).text)
        self.outcome.duplicated += max(0, counted - self._scored - self.outcome.wrong)
        broker = open_broker(ServiceSettings(broker_url=self._redis.url), NAME)
        stats = await broker.queue.stats()
        if held := stats.reserved_items + stats.waiting_items + stats.leased_items:
            self.outcome.notes.append(f"the queue still holds pictures: {stats}")
        self.outcome.stuck = held
        await broker.close()
        for part in self._deployment.parts:
            part.stop()
        async with Redis.from_url(self._redis.url) as client:
            async for name in client.scan_iter():
                if reason := await _leak(client, name.decode()):
                    self.outcome.leaked_keys += 1
                    self.outcome.notes.append(f"leaked: {name.decode()} {reason}")


async def _leak(client: "Redis", name: str) -> str | None:
    """Why a key should not be there, if so: all pictures are to be gone, and results to end."""
    own = name.removeprefix(key_prefix(NAME))
    has_ended = own.startswith("job:") and await client.hexists(name, "end")
    # Asked last: what ends while it is looked at is no leak.
    ends = await client.pttl(name)
    if ends == -2:
        return None
    if ends == -1:
        return "never ends"
    if own.startswith("blob:"):
        return "is a picture of a job that has ended"
    if own.startswith("job:") and not has_ended:
        return "is a job that has not ended"
    if own.startswith(PER_JOB) and ends > 1000 * max(RESULT_TTL_S, FETCH_TTL_S):
        return f"ends in {ends} ms only"
    return None


def _scored_items(metrics: str) -> int:
    (number,) = re.findall(r'^reward_items_total{outcome="scored".*} (.+)$', metrics, re.MULTILINE)
    return int(float(number))


def unleash(plan: Plan, folder: Path) -> Outcome:
    """Start everything in `folder`, and let chaos reign until all work is done."""
    (folder / "redis").mkdir()
    redis = RedisServer(folder / "redis", "--appendonly", "yes", "--appendfsync", "everysec")
    redis.start()
    settings = {
        "broker_url": redis.url,
        "lease_s": LEASE_S,
        # Killed as often as here, three workers in turn may die of no picture's fault.
        "max_deliveries": 20,
        "result_ttl_s": RESULT_TTL_S,
        "deadline_s": DEADLINE_S,
        "drain_delay_s": 0,
    }
    try:
        with Deployment(folder, REWARD, NAME, workers=plan.workers, **settings) as deployment:
            chaos = Chaos(plan, redis, deployment)
            asyncio.run(chaos.run())
            return chaos.outcome
    finally:
        redis.kill()


def main() -> None:
    """Run, and say how it went."""
    parser = argparse.ArgumentParser(description="Kill workers and Redis, and check every score.")
    parser.add_argument("--jobs", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = unleash(Plan(jobs=options.jobs, seed=options.seed), Path(folder))
    print(*outcome.notes, sep="\n")
    print(outcome)
    sys.exit(0 if outcome.clean else 1)


if __name__ == "__main__":
    main()
