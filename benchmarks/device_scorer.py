"""What the network costs a reward on a device: a scorer that sleeps 20 ms per picture.

64 pictures of 512×512 per request, over HTTP against the same scorer in process: one request at a
time, and two in flight, as a trainer has that samples on while earlier pictures are scored.

    python -m benchmarks.device_scorer [--rounds 5] [--side 512] [--items 64]
"""

import argparse
import asyncio

from benchmarks.measuring.pictures import pictures
from benchmarks.measuring.processes import Server, reward_service
from benchmarks.measuring.rounds import Measured, Way, in_turns
from benchmarks.measuring.scorers import device
from benchmarks.measuring.tables import print_throughput, verdict
from reward_services.scorer import ScoreItem, run_scorer
from shared.client import RewardClient

GOAL = 0.95
REQUESTS = 4
"""Per round and way."""
IN_FLIGHT = 2


async def measure(server: Server, items: int, side: int, rounds: int) -> dict[str, Measured]:
    """Every way scores `REQUESTS` times `items` pictures per round."""
    images = pictures(items, side)
    scorer = device()
    async with RewardClient(server.url) as client:

        async def request() -> None:
            await client.score(images, [""] * items)

        async def in_process() -> None:
            for _ in range(REQUESTS):
                run_scorer(scorer, [ScoreItem(image) for image in images])

        async def one_at_a_time(requests: int = REQUESTS) -> None:
            for _ in range(requests):
                await request()

        async def overlapping() -> None:
            lanes = (one_at_a_time(REQUESTS // IN_FLIGHT) for _ in range(IN_FLIGHT))
            await asyncio.gather(*lanes)

        stages = {"service": [server.pid]}
        ways = [
            Way("in process", in_process),
            Way("one at a time", one_at_a_time, stages),
            Way("two in flight", overlapping, stages),
        ]
        return await in_turns(ways, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description="A scorer on a device, over HTTP and in process.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--items", type=int, default=64)
    options = parser.parse_args()
    with reward_service("benchmarks.measuring.scorers:device") as server:
        measured = asyncio.run(measure(server, options.items, options.side, options.rounds))
    print(f"{options.items} pictures of {options.side}×{options.side}, 20 ms of sleep each")
    print_throughput(measured, REQUESTS * options.items, "in process")
    for name in list(measured)[1:]:
        print(verdict(name, measured["in process"].median / measured[name].median, GOAL))


if __name__ == "__main__":
    main()
