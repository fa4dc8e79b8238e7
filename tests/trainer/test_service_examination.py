"""Real services with real faults: each is one sentence to act on, and a good one passes."""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest

from tests.conftest import free_port
from tests.deployment import Part
from trainer.findings import Finding
from trainer.reward_service import RewardSource
from trainer.service_examination import Request, ServiceExamination, clearly_different

if TYPE_CHECKING:
    from tests.conftest import RedisServer, ServiceProcess

ODD = """
import os
import random
import time

from reward_services import ItemError


class Constant:
    name, max_batch_size = "constant", 8

    def score(self, items):
        return [0.5 for _ in items]


class Random:
    name, max_batch_size = "random", 8

    def score(self, items):
        return [random.random() for _ in items]


class Rounding:
    name, max_batch_size = "rounding", 8

    def score(self, items):
        return [float(item.image.mean()) + 1e-6 * random.random() for item in items]


class Batch:
    name, max_batch_size = "batch", 64

    def score(self, items):
        return [float(item.image.mean()) + len(items) for item in items]


class Outside:
    name, max_batch_size, range = "outside", 8, (0, 1)

    def score(self, items):
        return [float(item.image.mean()) for item in items]


class Refusing:
    name, max_batch_size = "refusing", 8

    def score(self, items):
        return [ItemError("the prompt has no question", "no_question") for item in items]


class Slow:
    name, max_batch_size = "slow", 1

    def score(self, items):
        time.sleep(3)
        return [0.5 for _ in items]
"""

SOURCE = RewardSource("mine", ())
ASKED = Request(8, 24, 32, ["a cat", "a dog"], None, deadline_s=20.0)


def examined(
    url: str, asked: Request = ASKED, key: str | None = None
) -> tuple[ServiceExamination, list[Finding]]:
    examination = ServiceExamination(RewardSource("mine", (url,), key), url, "reward")
    findings = list(examination.reach())
    if examination.info is not None:
        findings += examination.score(asked)
    return examination, findings


def problems(findings: list[Finding]) -> list[str]:
    return [finding.message for finding in findings if finding.level == "problem"]


@pytest.fixture(scope="module")
def odd(start_service: Callable[..., "ServiceProcess"]) -> Iterator[Callable[..., str]]:
    """The address of one of the rewards above, started when first asked for."""
    running: dict[str, ServiceProcess] = {}

    def serve(name: str, **environment: str) -> str:
        if name not in running:
            running[name] = start_service(f"odd:{name}", ODD, **environment)
        return running[name].url

    yield serve
    for process in running.values():
        process.kill()


def test_a_good_service(service: "ServiceProcess") -> None:
    examination, findings = examined(service.url)
    assert [finding.level for finding in findings] == ["ok", "ok"]
    assert "jpeg_compressibility, version" in findings[0].message
    assert "6 different pictures score" in findings[1].message
    assert examination.seconds is not None


def test_a_dead_service() -> None:
    _, findings = examined(f"http://127.0.0.1:{free_port()}")
    (said,) = problems(findings)
    assert said.startswith("it cannot be reached")
    assert "start it with `reward-services serve mine`, or correct --reward mine=URL" in said


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Constant", "it gave 0.5 to all 6 clearly different pictures, so there is nothing"),
        ("Random", "so no run with it can be repeated: take the randomness out"),
        ("Batch", "in a batch and .* alone: the score must not depend on the pictures beside it"),
        ("Outside", r"outside the range \[0, 1\] that it states"),
        ("Refusing", r"it refused 8 of 8 pictures \(no_question: the prompt has no question\)"),
    ],
)
def test_a_fault_is_a_sentence(odd: Callable[..., str], name: str, message: str) -> None:
    _, findings = examined(odd(name))
    (said,) = problems(findings)
    assert re.search(message, said), said
    assert "\n" not in said


def test_rounding_is_a_warning(odd: Callable[..., str]) -> None:
    _, findings = examined(odd("Rounding"))
    assert [finding.level for finding in findings] == ["ok", "warning", "ok"]
    assert "rounding" in findings[1].message


def test_a_deadline_that_does_not_fit(odd: Callable[..., str]) -> None:
    asked = Request(8, 24, 32, ["a cat"], None, deadline_s=1.0)
    (said,) = problems(examined(odd("Slow"), asked)[1])
    assert "8 pictures were not scored within scoring.deadline_s = 1" in said
    assert "raise it, or add workers" in said


def test_pictures_that_are_too_large(start_service: Callable[..., "ServiceProcess"]) -> None:
    small = start_service("odd:Constant", ODD, REWARD_MAX_PIXELS="100")
    (said,) = problems(examined(small.url)[1])
    assert "32×24 pixels, more than the 100 that it takes: raise REWARD_MAX_PIXELS" in said


def test_a_key_that_is_missing(start_service: Callable[..., "ServiceProcess"]) -> None:
    locked = start_service("odd:Outside", ODD.replace("(0, 1)", "(0, 255)"), REWARD_API_KEYS="k1")
    (said,) = problems(examined(locked.url)[1])
    assert "name the variable that holds it in rewards.mine.api_key_env" in said
    assert problems(examined(locked.url, key="k1")[1]) == []


def test_an_api_that_waits_for_workers(redis_server: "RedisServer", tmp_path: Path) -> None:
    """Before the first worker it is not ready; when the last one has gone it is, and warns."""
    (tmp_path / "odd.py").write_text(ODD)
    environment = {**os.environ, "REWARD_BROKER_URL": redis_server.url}
    api = Part(["api", "constant", "--port", "0"], tmp_path / "api.log", environment)
    worker = Part(["worker", "odd:Constant"], tmp_path / "worker.log", environment)
    try:
        api.start()
        api.wait_for("listening")
        (said,) = problems(list(ServiceExamination(SOURCE, api.url, "monitor").reach()))
        assert said.startswith("it is not ready (no worker has announced this reward yet")
        assert "correct --monitor mine=URL" in said
        worker.start()
        while httpx.get(f"{api.url}/readyz").status_code != httpx.codes.OK:
            time.sleep(0.1)
        assert worker.stop() == 0
        while httpx.get(f"{api.url}/readyz").json()["workers"]:
            time.sleep(0.1)
        fine, warned = ServiceExamination(SOURCE, api.url, "monitor").reach()
        assert (fine.level, warned.level) == ("ok", "warning")
        assert "no worker shows life" in warned.message
    finally:
        api.kill()
        worker.kill()


def test_what_is_no_reward_service() -> None:
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        (said,) = problems(examined(f"http://127.0.0.1:{server.server_port}")[1])
    finally:
        server.shutdown()
        server.server_close()
    assert said.startswith("it is not ready (HTTP 501 at /readyz)")


def test_the_pictures_differ() -> None:
    pictures = clearly_different(24, 32)
    assert pictures.shape == (6, 24, 32, 3)
    for one in range(6):
        for other in range(one):
            distance = np.abs(pictures[one].astype(int) - pictures[other].astype(int)).mean()
            assert distance > 20
    assert np.array_equal(pictures, clearly_different(24, 32))
