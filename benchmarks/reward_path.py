"""What the way to a scorer costs: 64 pictures of 512×512, in process and over HTTP.

Over HTTP in three ways: API and worker in one process; an API and two workers with all in Redis;
the same with the pictures in a folder in memory that API and workers share.

All ways run on all cores of this machine, in turns, round by round, so that other load falls on
all; clients and servers share these cores. Ratios of medians are what to compare.

    python -m benchmarks.reward_path [--rounds 15] [--side 512] [--items 64]
"""

import argparse
import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from benchmarks.measuring.pictures import pictures
from benchmarks.measuring.processes import reward_service, split_service
from benchmarks.measuring.rounds import Measured, Way, in_turns
from benchmarks.measuring.tables import print_cpu, print_throughput, verdict
from reward_services.loading import load_scorer
from reward_services.scorer import Scored, ScoreItem, run_scorer
from shared.client import RewardClient

REWARD = "jpeg_compressibility"
BASE = "in process"
MEMORY, REDIS, FOLDER = "memory://", "Redis", "Redis, pictures in a folder"
GOALS = {MEMORY: 0.5, REDIS: 0.25, FOLDER: 0.35}
SHARED_MEMORY = "/dev/shm"

Stages = Mapping[str, Sequence[int]]


async def measure(
    services: Mapping[str, tuple[str, Stages]], images: NDArray[np.uint8], rounds: int
) -> dict[str, Measured]:
    """Score in process and through every service; `services` has their URLs and processes."""
    scorer = load_scorer(REWARD)
    items = [ScoreItem(image) for image in images]

    async def in_process() -> list[float | None]:
        outcomes = run_scorer(scorer, items)
        return [one.score if isinstance(one, Scored) else None for one in outcomes]

    expected = await in_process()

    def way(name: str, client: RewardClient, stages: Stages) -> Way:
        async def call() -> None:
            response = await client.score(images, [""] * len(images))
            if [result.score for result in response.results] != expected:
                raise SystemExit(f"{name} changed the scores")

        return Way(name, call, stages)

    async with AsyncExitStack() as stack:
        ways = [
            way(name, await stack.enter_async_context(RewardClient(url)), stages)
            for name, (url, stages) in services.items()
        ]
        return await in_turns([Way(BASE, in_process), *ways], rounds)


def started(stack: ExitStack) -> Iterator[tuple[str, tuple[str, Stages]]]:
    """All services, running until `stack` is closed."""
    memory = stack.enter_context(reward_service(REWARD))
    yield MEMORY, (memory.url, {"service": [memory.pid]})
    folder = stack.enter_context(TemporaryDirectory(dir=SHARED_MEMORY))
    for name, settings in ((REDIS, {}), (FOLDER, {"blob_url": f"file://{folder}"})):
        split = stack.enter_context(split_service(REWARD, REWARD, workers=2, **settings))
        yield name, (split.url, split.stages)


def main() -> None:
    parser = argparse.ArgumentParser(description="Scoring over HTTP against scoring in process.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--items", type=int, default=64)
    options = parser.parse_args()
    images = pictures(options.items, options.side)
    with ExitStack() as stack:
        services = dict(started(stack))
        measured = asyncio.run(measure(services, images, options.rounds))
    print(
        f"{options.items} pictures of {options.side}×{options.side}, {options.rounds} rounds, "
        f"{os.cpu_count()} cores"
    )
    print_throughput(measured, options.items, BASE)
    print_cpu(measured, options.items, BASE)
    for name, goal in GOALS.items():
        print(verdict(name, measured[BASE].median / measured[name].median, goal))


if __name__ == "__main__":
    main()
