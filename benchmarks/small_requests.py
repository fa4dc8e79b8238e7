"""What dynamic batching brings: 64 clients at once, each with one picture of 64×64 at a time.

The scorer sleeps 50 ms per batch and 2 ms per picture. One service puts pictures of different
requests into one batch, the other scores each by itself; both run all the time and take turns.

    python -m benchmarks.small_requests [--rounds 5] [--clients 64]
"""

import argparse
import asyncio
import time
from contextlib import AsyncExitStack

from benchmarks.measuring.pictures import pictures
from benchmarks.measuring.processes import reward_service
from benchmarks.measuring.rounds import Measured, Way, in_turns
from benchmarks.measuring.tables import percentiles, print_throughput, verdict
from shared.client import RewardClient

GOAL = 5.0
REWARD = "benchmarks.measuring.scorers:batched_device"
REQUESTS = 2
"""That every client sends one after the other, per round."""


class Crowd:
    """Clients that send small requests at the same time, and the seconds that each took."""

    def __init__(self, clients: list[RewardClient]) -> None:
        self._clients = clients
        self._images = pictures(len(clients), 64)
        self.latencies: list[float] = []

    async def __call__(self) -> None:
        """One round: all clients, each with its own picture."""
        async with asyncio.TaskGroup() as group:
            for number in range(len(self._clients)):
                group.create_task(self._send(number))

    async def _send(self, number: int) -> None:
        image = self._images[number : number + 1]
        for _ in range(REQUESTS):
            started = time.perf_counter()
            response = await self._clients[number].score(image, [""])
            self.latencies.append(time.perf_counter() - started)
            if response.results[0].score != float(image.flat[0]):
                raise SystemExit("the score of another picture came back")


async def measure(
    urls: dict[str, tuple[str, int]], clients: int, rounds: int
) -> tuple[dict[str, Measured], dict[str, Crowd]]:
    """Times and crowds by the name of the service; `urls` has its address and process id."""
    async with AsyncExitStack() as stack:
        crowds, ways = {}, []
        for name, (url, pid) in urls.items():
            several = [await stack.enter_async_context(RewardClient(url)) for _ in range(clients)]
            crowds[name] = Crowd(several)
            ways.append(Way(name, crowds[name], {"service": [pid]}))
        return await in_turns(ways, rounds), crowds


def main() -> None:
    parser = argparse.ArgumentParser(description="Dynamic batching on and off.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=64)
    options = parser.parse_args()
    with reward_service(REWARD, max_batch_items=1) as off, reward_service(REWARD) as on:
        urls = {"one by one": (off.url, off.pid), "batched": (on.url, on.pid)}
        measured, crowds = asyncio.run(measure(urls, options.clients, options.rounds))
    print(f"{options.clients} clients, one picture of 64×64 each; 50 ms + 2 ms per picture")
    print_throughput(measured, REQUESTS * options.clients, "one by one")
    warm_up = REQUESTS * options.clients
    for name, crowd in crowds.items():
        print(f"  {name}: {percentiles(crowd.latencies[warm_up:])} per request")
    ratio = measured["one by one"].median / measured["batched"].median
    print(verdict("dynamic batching on / off", ratio, GOAL))


if __name__ == "__main__":
    main()
