"""Servers as processes of their own, started for a measurement and ended after it."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.error import URLError
from urllib.request import urlopen

T = TypeVar("T")

ROOT = Path(__file__).parent.parent.parent
START_S = 60.0
"""How long a server may take to start."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    url: str
    pid: int


@contextmanager
def reward_service(reward: str, **settings: object) -> Iterator[Server]:
    """`reward-services serve`: API, queue and worker in one process; settings as REWARD_*."""
    with _process(_ours("serve", reward, "--port", "0"), _variables(settings)) as (process, log):
        yield Server(_wait_for(process, log, lambda: _announced(log)), process.pid)


@dataclass(frozen=True, slots=True)
class Split:
    """An API, workers and their Redis, each in its own process."""

    url: str
    stages: dict[str, list[int]]


@contextmanager
def split_service(reward: str, name: str, workers: int, **settings: object) -> Iterator[Split]:
    """`reward-services api` and workers on a Redis of their own, which writes nothing to disk."""
    with ExitStack() as stack:
        redis = stack.enter_context(_redis())
        variables = _variables({**settings, "broker_url": redis.url})

        def start(*arguments: str) -> tuple["subprocess.Popen[bytes]", Path]:
            return stack.enter_context(_process(_ours(*arguments), variables))

        api, log = start("api", name, "--port", "0")
        scoring = [start("worker", reward) for _ in range(workers)]
        for one in scoring:
            _wait_for(*one, partial(_announced, one[1]))
        url = _wait_for(api, log, lambda: _announced(log))
        pids = [process.pid for process, _ in scoring]
        yield Split(url, {"API": [api.pid], "Redis": [redis.pid], "workers": pids})


@contextmanager
def _redis() -> Iterator[Server]:
    port = free_port()
    command = ["redis-server", "--port", str(port), "--save", "", "--bind", "127.0.0.1"]
    with _process(command, {}) as (process, log):
        _wait_for(process, log, lambda: "Ready to accept" in log.read_text() or None)
        yield Server(f"redis://127.0.0.1:{port}", process.pid)


@contextmanager
def foreign_server(
    command: Sequence[str], port: int, environment: Mapping[str, str]
) -> Iterator[Server]:
    """Another program that listens on `port` and answers GET /health when it is ready."""
    url = f"http://127.0.0.1:{port}"
    with _process(command, environment) as (process, log):
        _wait_for(process, log, lambda: _answers(f"{url}/health"))
        yield Server(url, process.pid)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _ours(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "reward_services", *arguments]


def _variables(settings: Mapping[str, object]) -> dict[str, str]:
    return {f"REWARD_{name.upper()}": str(value) for name, value in settings.items()}


@contextmanager
def _process(
    command: Sequence[str], variables: Mapping[str, str]
) -> Iterator[tuple["subprocess.Popen[bytes]", Path]]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("REWARD_")}
    environment.update(variables)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, stdout=out, stderr=out, cwd=ROOT, env=environment, process_group=0
            )
        try:
            yield process, log
        finally:
            _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End it, and what it may leave behind: not every server takes its children along."""
    process.terminate()
    process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _announced(log: Path) -> str | None:
    """The URL in the log line that says so, once it is there."""
    for line in log.read_text().splitlines():
        entry = json.loads(line) if line.startswith("{") else {}
        if entry.get("event") == "ready":
            return str(entry.get("url", ""))
    return None


def _answers(url: str) -> bool | None:
    try:
        with urlopen(url) as answer:
            return answer.status == 200 or None
    except (URLError, ConnectionError):
        return None


def _wait_for(process: "subprocess.Popen[bytes]", log: Path, look: Callable[[], T | None]) -> T:
    """Look again and again until there is something.

    Raises:
        SystemExit: the process ended, or took too long; with what it had to say.
    """
    give_up = time.monotonic() + START_S
    while (seen := look()) is None:
        if process.poll() is not None or time.monotonic() > give_up:
            raise SystemExit(f"{process.args!r} did not start:\n{log.read_text()}")
        time.sleep(0.05)
    return seen
