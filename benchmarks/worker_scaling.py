"""What more workers bring: one, two and four of them behind one API and Redis.

The scorer sleeps 10 ms per picture, as on a device of its own, and takes eight pictures at a time.
Requests of eight pictures of 64×64, sixteen in flight.

    python -m benchmarks.worker_scaling [--rounds 5] [--requests 48]
"""

import argparse
import asyncio
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack

from benchmarks.measuring.pictures import pictures
from benchmarks.measuring.processes import Split, split_service
from benchmarks.measuring.rounds import Measured, Way, in_turns
from benchmarks.measuring.tables import print_throughput, verdict
from shared.client import RewardClient

REWARD = "benchmarks.measuring.scorers:small_batches"
ITEMS = 8
IN_FLIGHT = 16
GOALS = {2: 1.8, 4: 3.4}


def label(workers: int) -> str:
    return f"{workers} workers" if workers > 1 else "1 worker"


async def measure(services: Mapping[int, Split], requests: int, rounds: int) -> dict[str, Measured]:
    """Take turns; a round is `requests` requests."""
    images = pictures(ITEMS, 64)
    expected = [float(image.flat[0]) for image in images]

    def way(workers: int, client: RewardClient) -> Way:
        async def send(numbers: Iterator[int]) -> None:
            for _ in numbers:
                response = await client.score(images, [""] * ITEMS)
                if [result.score for result in response.results] != expected:
                    raise SystemExit("the scores of other pictures came back")

        async def call() -> None:
            numbers = iter(range(requests))
            await asyncio.gather(*(send(numbers) for _ in range(IN_FLIGHT)))

        return Way(label(workers), call, services[workers].stages)

    async with AsyncExitStack() as stack:
        ways = [
            way(workers, await stack.enter_async_context(RewardClient(one.url)))
            for workers, one in services.items()
        ]
        return await in_turns(ways, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description="One, two and four workers.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=48)
    options = parser.parse_args()
    with ExitStack() as stack:
        services = {
            workers: stack.enter_context(split_service(REWARD, "small_batches", workers))
            for workers in (1, *GOALS)
        }
        measured = asyncio.run(measure(services, options.requests, options.rounds))
    print(f"requests of {ITEMS} pictures of 64×64, {IN_FLIGHT} in flight; 10 ms per picture")
    print_throughput(measured, options.requests * ITEMS, label(1))
    for workers, goal in GOALS.items():
        times = measured[label(1)].median / measured[label(workers)].median
        print(verdict(f"{label(workers)} against one", times, goal))


if __name__ == "__main__":
    main()
