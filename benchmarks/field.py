"""The JPEG reward behind this project's service, LitServe, and Flask with gunicorn and pickle.

The same pictures, scorer class and machine; every server is warm, all take turns, and all get
lossless pixels by the cheapest way that they offer. The foreign clients use `http.client`, which
costs less than what their users mostly take. The packages of the foils:

    pip install -c constraints.txt -e '.[bench]'
    python -m benchmarks.field [--rounds 9] [--side 512] [--items 64] [--in-flight 1]
"""

import argparse
import asyncio
import http.client
import json
import os
import pickle
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from benchmarks.measuring.pictures import pictures
from benchmarks.measuring.processes import (
    Server,
    Split,
    foreign_server,
    free_port,
    reward_service,
    split_service,
)
from benchmarks.measuring.rounds import Measured, Way, in_turns
from benchmarks.measuring.tables import print_cpu, print_throughput
from reward_services.loading import load_scorer
from reward_services.scorer import Scored, ScoreItem, run_scorer
from shared.client import RewardClient
from shared.wire import encode_batch

REWARD = "jpeg_compressibility"
BOUNDARY = "the-pictures-end-here"

Images = NDArray[np.uint8]
Scores = list[float | None]


@dataclass(frozen=True, slots=True)
class Servers:
    """All that take part, running."""

    memory: Server
    split: Split
    litserve: Server
    flask: Server


@contextmanager
def servers() -> Iterator[Servers]:
    """Start all; each scores with as many threads as there are cores."""
    python = [sys.executable, "-m"]
    lit, flask = free_port(), free_port()
    gunicorn = ["gunicorn", "--workers", str(os.cpu_count()), "--bind", f"127.0.0.1:{flask}"]
    app = "benchmarks.foils.flask_pickle:create_app()"
    scorer = {"FOIL_SCORER": REWARD}
    with ExitStack() as stack:
        yield Servers(
            stack.enter_context(reward_service(REWARD)),
            stack.enter_context(split_service(REWARD, REWARD, workers=2)),
            stack.enter_context(
                foreign_server([*python, "benchmarks.foils.litserve_server", str(lit)], lit, scorer)
            ),
            stack.enter_context(foreign_server([*python, *gunicorn, app], flask, scorer)),
        )


def ask_flask(server: Server, images: Images) -> Scores:
    """Score with the Flask foil: pickle both ways."""
    body = pickle.dumps({"images": images, "prompts": [""] * len(images)}, protocol=5)
    answer = _post(server, "/", "application/octet-stream", [body], len(body))
    # What was started here a moment ago is trusted; nothing else ever should be.
    return list(pickle.loads(answer)["scores"])


def ask_litserve(server: Server, images: Images) -> Scores:
    """Score with the LitServe foil: one file in a form, JSON back."""
    batch = encode_batch(images, [""] * len(images))
    head = (
        f"--{BOUNDARY}\r\n"
        'Content-Disposition: form-data; name="request"; filename="batch.safetensors"\r\n'
        "Content-Type: application/vnd.safetensors\r\n\r\n"
    ).encode()
    tail = f"\r\n--{BOUNDARY}--\r\n".encode()
    size = len(head) + batch.nbytes + len(tail)
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    answer = _post(server, "/predict", kind, [head, *batch.chunks(), tail], size)
    return list(json.loads(answer)["scores"])


def _post(
    server: Server, path: str, kind: str, body: Iterable[bytes | memoryview], size: int
) -> bytes:
    parts = urlsplit(server.url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port)
    try:
        headers = {"Content-Type": kind, "Content-Length": str(size)}
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        answer = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise SystemExit(f"{server.url} answered {response.status}: {answer[:400]!r}")
    return answer


Ask = Callable[[], Awaitable[Scores]]


async def measure(
    running: Servers, images: Images, rounds: int, in_flight: int
) -> dict[str, Measured]:
    """All ways in turns; a round is `in_flight` requests at the same time, answers compared."""
    scorer = load_scorer(REWARD)
    items = [ScoreItem(image) for image in images]

    async def in_process() -> Scores:
        outcomes = run_scorer(scorer, items)
        return [one.score if isinstance(one, Scored) else None for one in outcomes]

    expected = await in_process()
    async with RewardClient(running.memory.url) as memory, RewardClient(running.split.url) as split:

        async def ask_ours(client: RewardClient) -> Scores:
            response = await client.score(images, [""] * len(images))
            return [result.score for result in response.results]

        def way(name: str, ask: Ask, stages: Mapping[str, Sequence[int]]) -> Way:
            async def together() -> None:
                answers = await asyncio.gather(*(ask() for _ in range(in_flight)))
                if any(answer != expected for answer in answers):
                    raise SystemExit(f"{name} gave another score than in process")

            return Way(name, together, stages)

        lit, flask = running.litserve, running.flask
        ways = [
            way("in process", in_process, {}),
            way("memory://", partial(ask_ours, memory), {"server": [running.memory.pid]}),
            way("Redis, 2 workers", partial(ask_ours, split), running.split.stages),
            way(
                "LitServe",
                partial(asyncio.to_thread, ask_litserve, lit, images),
                {"server": [lit.pid]},
            ),
            way(
                "Flask, pickle",
                partial(asyncio.to_thread, ask_flask, flask, images),
                {"server": [flask.pid]},
            ),
        ]
        return await in_turns(ways, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description="The same reward behind three servers.")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--items", type=int, default=64)
    parser.add_argument("--in-flight", type=int, default=1)
    options = parser.parse_args()
    if missing := [name for name in ("flask", "gunicorn", "litserve") if not find_spec(name)]:
        raise SystemExit(
            f"{', '.join(missing)} is not installed: pip install -c constraints.txt -e '.[bench]'"
        )
    images = pictures(options.items, options.side)
    with servers() as running:
        measured = asyncio.run(measure(running, images, options.rounds, options.in_flight))
    print(
        f"{options.items} pictures of {options.side}×{options.side} per request, "
        f"{options.in_flight} in flight, {options.rounds} rounds, {os.cpu_count()} cores"
    )
    items = options.items * options.in_flight
    print_throughput(measured, items, "in process")
    print_cpu(measured, items, "in process")


if __name__ == "__main__":
    main()
