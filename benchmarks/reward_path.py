"""What the network costs: 64 pictures of 512×512 over HTTP against the same scorer in process.

Both run on all cores of this machine, in turn, round by round, so that other load falls on both;
over HTTP the client and the server share these cores. Ratios of medians are what to compare.

    python benchmarks/reward_path.py [--rounds 15] [--side 512] [--items 64]
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reward_services.loading import load_scorer
from reward_services.scorer import Scored, ScoreItem, Scorer, run_scorer
from shared.client import RewardClient

REWARD = "jpeg_compressibility"
GOAL = 0.45
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass
class Lane:
    """What was measured for one way of scoring: seconds per round, and CPU seconds in all."""

    seconds: list[float] = field(default_factory=list)
    here: float = 0.0
    there: float = 0.0

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def pictures(count: int, side: int) -> NDArray[np.uint8]:
    """Smooth noise with grain, so that the JPEG has something to do; uint8 [N,H,W,3]."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (count, side // 16, side // 16, 3))
    smooth = coarse.repeat(16, axis=1).repeat(16, axis=2)
    grain = rng.normal(0, 4, smooth.shape)
    return np.clip(smooth + grain, 0, 255).astype(np.uint8)


@contextmanager
def service() -> Iterator[tuple[str, int]]:
    """A real server in its own process; gives its URL and process id."""
    command = [sys.executable, "-m", "reward_services", "serve", REWARD, "--port", "0"]
    root = Path(__file__).parent.parent
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stderr is not None
        try:
            yield _ready_url(process.stderr), process.pid
        finally:
            process.terminate()
            process.stderr.read()


def _ready_url(log: Iterable[str]) -> str:
    seen = []
    for line in log:
        seen.append(line)
        entry = json.loads(line) if line.startswith("{") else {}
        if entry.get("event") == "ready":
            return str(entry["url"])
    raise SystemExit("the service did not start:\n" + "".join(seen))


def cpu_of(pid: int) -> float:
    """CPU seconds of another process, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


Call = Callable[[], Awaitable[list[float | None]]]


async def measure(
    url: str, pid: int, scorer: Scorer, images: NDArray[np.uint8], rounds: int
) -> dict[str, Lane]:
    """Alternate between both ways; the first round of each warms up and does not count."""
    items = [ScoreItem(image) for image in images]
    async with RewardClient(url) as client:

        async def over_http() -> list[float | None]:
            response = await client.score(images, [""] * len(images))
            return [result.score for result in response.results]

        async def in_process() -> list[float | None]:
            outcomes = run_scorer(scorer, items)
            return [one.score if isinstance(one, Scored) else None for one in outcomes]

        calls: dict[str, Call] = {"in process": in_process, "HTTP": over_http}
        if await in_process() != await over_http():
            raise SystemExit("HTTP changed the scores")
        lanes = {name: Lane() for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                await _timed(call, lanes[name], pid)
    return lanes


async def _timed(call: Call, lane: Lane, pid: int) -> None:
    wall, here, there = time.perf_counter(), time.process_time(), cpu_of(pid)
    await call()
    lane.seconds.append(time.perf_counter() - wall)
    lane.here += time.process_time() - here
    lane.there += cpu_of(pid) - there


def report(lanes: dict[str, Lane], items: int, side: int, rounds: int) -> float:
    """Print the table; returns the ratio of the throughputs."""
    local, remote = lanes["in process"], lanes["HTTP"]
    ratio = local.median / remote.median
    per_item = 1000 / (items * rounds)
    scorer = local.here * per_item
    client, server = remote.here * per_item, remote.there * per_item - scorer
    print(f"{items} pictures of {side}×{side}, {rounds} rounds, {os.cpu_count()} cores")
    for name, lane in lanes.items():
        print(f"  {name:<10}  {items / lane.median:8.0f} images/s (median)")
    print(f"  HTTP / in process: {ratio:.2f} (goal {GOAL})")
    print(
        f"  CPU ms per image: scorer {scorer:.2f}; on top {client + server:.2f} "
        f"= client {client:.2f} + server {server:.2f}"
    )
    return ratio


def main() -> None:
    parser = argparse.ArgumentParser(description="Scoring over HTTP against scoring in process.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--items", type=int, default=64)
    options = parser.parse_args()
    images = pictures(options.items, options.side)
    scorer = load_scorer(REWARD)
    with service() as (url, pid):
        lanes = asyncio.run(measure(url, pid, scorer, images, options.rounds))
    report(lanes, options.items, options.side, options.rounds)


if __name__ == "__main__":
    main()
