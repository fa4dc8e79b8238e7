"""What the network costs a reward on a device: a scorer that sleeps 20 ms per picture.

64 pictures of 512×512 per request, over HTTP against the same scorer in process: one request at a
time, and two in flight, as a trainer has that samples on while earlier pictures are scored. API and
worker in one process, and two processes with Redis between them.

    python -m benchmarks.device_scorer [--rounds 2] [--side 512] [--items 64]
"""

import argparse
import asyncio
from functools import partial

from benchmarks.measuring.pictures import pictures
from benchmarks.measuring.processes import Server, Split, reward_service, split_service
from benchmarks.measuring.rounds import Measured, Way, in_turns
from benchmarks.measuring.scorers import device
from benchmarks.measuring.tables import print_throughput, verdict
from reward_services.scorer import ScoreItem, run_scorer
from shared.client import RewardClient

# One at a time over Redis pays the whole way before each batch, so it has no goal.
GOALS = {
    "memory://, one at a time": 0.95,
    "memory://, two in flight": 0.95,
    "Redis, two in flight": 0.95,
}
REQUESTS = 8
"""Per round and way."""
REWARD = "benchmarks.measuring.scorers:device"


async def measure(
    memory: Server, split: Split, items: int, side: int, rounds: int
) -> dict[str, Measured]:
    """Every way scores `REQUESTS` times `items` pictures per round."""
    images = pictures(items, side)
    scorer = device()

    async def in_process() -> None:
        for _ in range(REQUESTS):
            run_scorer(scorer, [ScoreItem(image) for image in images])

    async def send(client: RewardClient, in_flight: int) -> None:
        async def one_by_one() -> None:
            for _ in range(REQUESTS // in_flight):
                await client.score(images, [""] * items)

        await asyncio.gather(*(one_by_one() for _ in range(in_flight)))

    async with RewardClient(memory.url) as near, RewardClient(split.url) as far:
        ways = [
            Way("in process", in_process),
            Way("memory://, one at a time", partial(send, near, 1)),
            Way("memory://, two in flight", partial(send, near, 2)),
            Way("Redis, one at a time", partial(send, far, 1)),
            Way("Redis, two in flight", partial(send, far, 2)),
        ]
        return await in_turns(ways, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description="A scorer on a device, over HTTP and in process.")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--items", type=int, default=64)
    options = parser.parse_args()
    with reward_service(REWARD) as memory, split_service(REWARD, "device", workers=1) as split:
        measured = asyncio.run(measure(memory, split, options.items, options.side, options.rounds))
    print(f"{options.items} pictures of {options.side}×{options.side}, 20 ms of sleep each")
    print_throughput(measured, REQUESTS * options.items, "in process")
    for name, goal in GOALS.items():
        print(verdict(name, measured["in process"].median / measured[name].median, goal))


if __name__ == "__main__":
    main()
