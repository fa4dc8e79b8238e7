"""The service as its own process: what a user, a trainer and a balancer see."""

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from shared.client import RewardClient
from shared.images import encode_png

ROOT = Path(__file__).parent.parent.parent

SLOW = """
import time

class Slow:
    name, version, max_batch_size, needs_prompt = "slow", "1", 1, False

    def score(self, items):
        time.sleep(float(items[0].metadata.get("seconds", 0)))
        return [1.0 for _ in items]

class Broken(Slow):
    def score(self, items):
        return []
"""


@dataclass
class Service:
    """A running `reward-services serve`."""

    process: subprocess.Popen[str]
    url: str
    lines: list[dict[str, Any]]

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(sig)
        return self.process.wait(60)

    def requests(self) -> list[dict[str, Any]]:
        """The log lines about requests."""
        return [line for line in self.lines if line["event"] == "request"]


def start(
    *arguments: str, cwd: Path = ROOT, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "reward_services", "serve", *arguments]
    return subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
    )


@contextmanager
def serving(*arguments: str, cwd: Path = ROOT, **environment: str) -> Iterator[Service]:
    """Started on a free port and ready; killed at the end if it still runs."""
    with start(*arguments, "--port", "0", cwd=cwd, environment=environment) as process:
        assert process.stderr is not None
        lines: list[dict[str, Any]] = []
        ready = threading.Event()
        reader = threading.Thread(target=_read, args=(process.stderr, lines, ready))
        reader.start()
        try:
            assert ready.wait(60), f"the service did not start: {lines}"
            (url,) = [line["url"] for line in lines if line["event"] == "ready"]
            yield Service(process, url, lines)
        finally:
            process.kill()
            reader.join()


def _read(log: Any, lines: list[dict[str, Any]], ready: threading.Event) -> None:
    for line in log:
        lines.append(json.loads(line) if line.startswith("{") else {"event": line})
        if lines[-1]["event"] == "ready":
            ready.set()
    ready.set()


@pytest.fixture(scope="module")
def jpeg() -> Iterator[Service]:
    with serving("jpeg_compressibility") as service:
        yield service


@pytest.fixture
def slow(tmp_path: Path) -> Callable[..., Any]:
    """`with slow(**environment) as service:`, a reward that sleeps as long as it is told."""
    (tmp_path / "slow_reward.py").write_text(SLOW)
    return lambda **environment: serving("slow_reward:Slow", cwd=tmp_path, **environment)


def jpeg_kb(image: np.ndarray) -> float:
    """The oracle: Pillow in this process."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95)
    return len(buffer.getvalue()) / 1000


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def post_slow(service: Service, seconds: float) -> tuple[threading.Thread, list[int]]:
    """Send one picture that takes `seconds` to score; the list gets the status of the answer."""
    status: list[int] = []
    files: dict[str, Any] = {
        "images": ("x.png", encode_png(np.zeros((4, 4, 3), np.uint8))),
        "metadata": (None, json.dumps({"seconds": seconds})),
    }

    def send() -> None:
        status.append(httpx.post(f"{service.url}/score", files=files, timeout=60).status_code)

    thread = threading.Thread(target=send)
    thread.start()
    return thread, status


def inflight(service: Service) -> float:
    text = httpx.get(f"{service.url}/metrics").text
    (line,) = [line for line in text.splitlines() if line.startswith("reward_inflight_items{")]
    return float(line.split()[-1])


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_command_of_the_documentation(jpeg: Service, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (24, 16, 3), np.uint8)
    (tmp_path / "cat.png").write_bytes(encode_png(image))
    command = ["curl", "-sS", "-F", "images=@cat.png", "-F", "prompts=a cat", f"{jpeg.url}/score"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert (answer["reward"], answer["units"]) == ("jpeg_compressibility", "kB")
    expected = {"score": -jpeg_kb(image), "details": {"kB": jpeg_kb(image)}, "error": None}
    assert answer["results"] == [expected]


async def test_scores_equal_those_in_process_bit_by_bit(jpeg: Service) -> None:
    """Whatever the batch: all together, in parts at the same time, and one by one."""
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (8 + n, 40 - n, 3), np.uint8) for n in range(20)]
    expected = [-jpeg_kb(image) for image in images]
    async with RewardClient(jpeg.url) as client:
        for size in (20, 7, 1):
            scores: list[float | None] = []
            for start_at in range(0, 20, size):
                part = images[start_at : start_at + size]
                response = await client.score(part, ["p"] * len(part))
                scores += [result.score for result in response.results]
            assert scores == expected


async def test_more_pictures_than_a_batch(jpeg: Service) -> None:
    images = np.random.default_rng(2).integers(0, 256, (150, 16, 16, 3), np.uint8)
    async with RewardClient(jpeg.url) as client:
        response = await client.score(images, [""] * 150)
    assert [result.score for result in response.results] == [-jpeg_kb(each) for each in images]


def test_every_request_is_logged_once(jpeg: Service) -> None:
    httpx.get(f"{jpeg.url}/info", headers={"X-Request-Id": "logged once"})
    wait_for(lambda: any(line["request_id"] == "logged once" for line in jpeg.requests()))
    (line,) = [line for line in jpeg.requests() if line["request_id"] == "logged once"]
    assert (line["method"], line["path"], line["status"]) == ("GET", "/info", 200)


def test_a_refused_upload_is_answered_and_the_connection_goes_on(jpeg: Service) -> None:
    """The answer comes before the body was read; a client must still be able to read it."""
    with httpx.Client(base_url=jpeg.url, timeout=60) as http:
        headers = {"content-type": "application/octet-stream"}
        assert http.post("/score", content=b"x" * 2**24, headers=headers).status_code == 415
        assert http.get("/livez").status_code == 200


def test_sigterm_turns_readiness_off_first_and_finishes_what_is_in_work(
    slow: Callable[..., Any],
) -> None:
    with slow(REWARD_DRAIN_DELAY_S="1.5") as service:
        thread, status = post_slow(service, 3.0)
        wait_for(lambda: inflight(service) == 1)
        service.process.send_signal(signal.SIGTERM)
        wait_for(lambda: httpx.get(f"{service.url}/readyz").status_code == 503)
        assert httpx.get(f"{service.url}/livez").status_code == 200
        thread.join()
        assert status == [200]
        assert service.process.wait(60) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{service.url}/livez")


def test_ctrl_c_stops_without_delay_or_traceback(slow: Callable[..., Any]) -> None:
    with slow(REWARD_DRAIN_DELAY_S="600") as service:
        assert service.stop(signal.SIGINT) == 0
        assert not any("Traceback" in str(line) for line in service.lines)


def test_a_client_that_goes_away_frees_its_place(slow: Callable[..., Any]) -> None:
    with slow(REWARD_DRAIN_DELAY_S="0") as service:
        busy, status = post_slow(service, 3.0)
        wait_for(lambda: inflight(service) == 1)
        png = encode_png(np.zeros((4, 4, 3), np.uint8))
        impatient = httpx.Timeout(60, read=0.3)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{service.url}/score", files={"images": ("x.png", png)}, timeout=impatient)
        busy.join()
        assert status == [200]
        wait_for(lambda: any(line["status"] == 499 for line in service.requests()))
        cancelled = 'reward_cancelled_total{service="slow"} 1.0'
        assert cancelled in httpx.get(f"{service.url}/metrics").text
        assert inflight(service) == 0


def test_a_port_in_use_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with start("jpeg_compressibility", "--port", port) as process:
            _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    (line,) = error.splitlines()
    assert f"cannot listen on http://127.0.0.1:{port}" in line
    assert "--port" in line


@pytest.mark.parametrize(
    ("arguments", "environment", "hint"),
    [
        (["--host", "0.0.0.0"], {}, "REWARD_API_KEYS"),
        (["--port", "70000"], {}, "--port: "),
        ([], {"REWARD_LEASE_S": "soon"}, "REWARD_LEASE_S: "),
        ([], {"REWARD_PROT": "1"}, "did you mean REWARD_PORT?"),
        ([], {"REWARD_BROKER_URL": "kafka://x"}, "memory://"),
        (["--log-level", "LOUD"], {}, "LOUD"),
    ],
)
def test_a_service_that_cannot_start_says_why_in_one_line(
    arguments: list[str], environment: dict[str, str], hint: str
) -> None:
    environment = {"REWARD_PORT": "0", **environment}
    with start("jpeg_compressibility", *arguments, environment=environment) as process:
        try:
            _, error = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 1
    line = error.splitlines()[-1]
    assert hint in line
    assert "Traceback" not in error


def test_a_scorer_that_breaks_its_contract_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "slow_reward.py").write_text(SLOW)
    with start("slow_reward:Broken", "--port", "0", cwd=tmp_path) as process:
        _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "slow returned 0 results for 1 items" in error.splitlines()[-1]
    assert "Traceback" not in error
