"""API and workers as processes of their own over a real Redis: what an operator relies on."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from shared.client import RewardClient
from shared.images import encode_png
from shared.schema import DEADLINE, LANE, REQUEST_ID
from tests.conftest import RedisServer
from tests.deployment import Deployment, Part

pytestmark = pytest.mark.slow

SOURCE = """
import pathlib, time

class Told:
    version, max_batch_size, needs_prompt = "1", 4, False

    def __init__(self):
        self.name = pathlib.Path("name.txt").read_text()

    def score(self, items):
        for item in items:
            time.sleep(float(item.metadata.get("seconds", 0)))
            if item.metadata.get("raise"):
                raise ValueError("as told")
            if once := item.metadata.get("hang_once"):
                if not pathlib.Path(once).exists():
                    pathlib.Path(once).touch()
                    time.sleep(1000)
        return [float(item.image[0, 0, 0]) for item in items]

class Newer(Told):
    version = "2"
"""

Make = Callable[..., Deployment]


@pytest.fixture
def told(tmp_path: Path, redis_server: RedisServer) -> Make:
    """`with told(workers=1, **settings) as deployment:`; a reward that does as it is told."""

    def make(
        name: str = tmp_path.name, reward: str = "told:Told", redis: str = "", **settings: Any
    ) -> Deployment:
        (tmp_path / "told.py").write_text(SOURCE)
        (tmp_path / "name.txt").write_text(name)
        urls = {"broker_url": redis or redis_server.url}
        return Deployment(tmp_path, reward, name, **{"max_wait_ms": 0, **urls, **settings})

    return make


def body(*levels: int, **metadata: object) -> dict[str, Any]:
    """Arguments of `httpx.post`: one picture per level, each told the same."""
    files: list[tuple[str, Any]] = [
        ("images", ("x.png", encode_png(np.full((4, 4, 3), level, np.uint8)))) for level in levels
    ]
    return {"files": [*files, ("metadata", (None, json.dumps(metadata)))], "timeout": 60}


def levels(answer: httpx.Response) -> list[float | None]:
    assert answer.status_code == 200, answer.text
    return [result["score"] for result in answer.json()["results"]]


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ready(part: Part) -> httpx.Response:
    return httpx.get(f"{part.url}/readyz")


class Asking:
    """A request in a thread of its own."""

    def __init__(self, url: str, request: dict[str, Any], **headers: str) -> None:
        self._answers: list[httpx.Response] = []
        self._thread = threading.Thread(target=self._send, args=(url, request, headers))
        self._thread.start()

    def _send(self, url: str, request: dict[str, Any], headers: dict[str, str]) -> None:
        self._answers.append(httpx.post(f"{url}/score", headers=headers, **request))

    def answer(self) -> httpx.Response:
        self._thread.join()
        return self._answers[0]


def gauge(part: Part, name: str) -> float:
    (line,) = [
        line
        for line in httpx.get(f"{part.url}/metrics").text.splitlines()
        if line.startswith(f"{name}{{")
    ]
    return float(line.split()[-1])


def inflight(part: Part) -> float:
    """Pictures that were admitted; their job may still be on its way to Redis."""
    return gauge(part, "reward_inflight_items")


def leased(part: Part) -> float:
    """Pictures that a worker has taken."""
    return gauge(part, "reward_leased_items")


async def test_scores_come_in_order_from_several_workers(told: Make) -> None:
    images = np.arange(40, dtype=np.uint8)[:, None, None, None] + np.zeros((4, 4, 3), np.uint8)
    with told() as service:
        # The API is ready with the first of them.
        wait_for(lambda: ready(service.api).json() == {"status": "ready", "workers": 2})
        async with RewardClient(service.url) as client:
            response = await client.score(images, [""] * 40)
            info = await client.info()
    assert [result.score for result in response.results] == list(range(40))
    assert response.identity == info.identity
    assert info.max_batch_size == 4


def test_an_api_is_ready_from_its_first_worker_on_and_waits_for_later_ones(told: Make) -> None:
    service = told(workers=1)
    api, (worker,) = service.api, service.workers
    try:
        api.start()
        api.wait_for("listening")
        early = httpx.post(f"{api.url}/score", **body(1))
        for answer in (ready(api), early, httpx.get(f"{api.url}/info")):
            assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
            assert "retry-after" in answer.headers
        worker.start()
        api.wait_for("ready")
        worker.wait_for("ready")
        assert ready(worker).json() == {"status": "ready"}
        assert levels(httpx.post(f"{api.url}/score", **body(2))) == [2]

        assert worker.stop() == 0
        wait_for(lambda: ready(api).json().get("workers") == 0)
        assert ready(api).status_code == 200
        assert "no worker" in ready(api).json()["message"]
        late = httpx.post(f"{api.url}/score", headers={DEADLINE: "0.5"}, **body(3))
        assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
        waiting = Asking(api.url, body(4))
        wait_for(lambda: inflight(api) == 1)
        worker.start()
        assert levels(waiting.answer()) == [4]
    finally:
        service.__exit__(None, None, None)


def test_a_redis_that_is_away_for_a_while(told: Make, own_redis: RedisServer) -> None:
    with told(redis=own_redis.url, workers=1) as service:
        held = Asking(service.url, body(7, seconds=1))
        wait_for(lambda: leased(service.api) == 1)
        own_redis.kill()
        wait_for(lambda: ready(service.api).status_code == 503)
        refused = httpx.post(f"{service.url}/score", **body(8))
        for answer in (refused, ready(service.api)):
            assert (answer.status_code, answer.json()["code"]) == (503, "broker_unavailable")
            assert int(answer.headers["retry-after"]) >= 1
        assert httpx.get(f"{service.url}/livez").status_code == 200
        assert httpx.get(f"{service.url}/info").json()["version"] == "1"
        metrics = httpx.get(f"{service.url}/metrics").text
        assert 'reward_model_ready{service="' in metrics
        own_redis.start()
        assert levels(held.answer()) == [7]
        wait_for(lambda: ready(service.api).status_code == 200)
        assert levels(httpx.post(f"{service.url}/score", **body(9))) == [9]
    assert len(service.api.events("the job queue is away")) == 1


def test_a_worker_told_to_stop_finishes_its_batch_and_hands_the_rest_back(told: Make) -> None:
    with told(workers=1, interactive_items=0) as service:
        (worker,) = service.workers
        first = Asking(service.url, body(1, seconds=2))
        wait_for(lambda: leased(service.api) == 1)
        others = [Asking(service.url, body(number)) for number in (2, 3)]
        wait_for(lambda: inflight(service.api) == 3)
        worker.begin_stop()
        wait_for(lambda: ready(worker).status_code == 503)
        assert levels(first.answer()) == [1]
        assert worker.wait() == 0
        assert [line["items"] for line in worker.events("batch")] == [1]
        worker.start()
        # Well before a lease would have run out.
        assert [levels(each.answer()) for each in others] == [[2], [3]]
        assert "reward_redelivered_total" in httpx.get(f"{service.url}/metrics").text
        redelivered = [
            line
            for line in httpx.get(f"{service.url}/metrics").text.splitlines()
            if line.startswith("reward_redelivered_total{")
        ]
        assert redelivered[0].endswith(" 0.0")


def test_an_api_told_to_stop_turns_readiness_off_first_and_answers_what_it_took(
    told: Make,
) -> None:
    with told(workers=1, drain_delay_s=1) as service:
        taken = Asking(service.url, body(5, seconds=2))
        wait_for(lambda: inflight(service.api) == 1)
        service.api.begin_stop()
        wait_for(lambda: ready(service.api).json().get("code") == "draining")
        assert levels(taken.answer()) == [5]
        assert service.api.wait() == 0


def test_a_batch_that_hangs_ends_its_worker_and_is_scored_by_another(
    told: Make, tmp_path: Path
) -> None:
    with told(lease_s=2, max_batch_seconds=1) as service:
        asking = Asking(service.url, body(6, hang_once=str(tmp_path / "hung")))
        wait_for(lambda: not all(worker.alive for worker in service.workers))
        assert levels(asking.answer()) == [6]
        (dead,) = [worker for worker in service.workers if not worker.alive]
        assert dead.wait() == 1
        assert "REWARD_MAX_BATCH_SECONDS" in dead.log.splitlines()[-1]
        assert "Traceback" not in dead.log


def test_a_worker_of_another_version_does_not_start(told: Make) -> None:
    with told(workers=1) as service:
        (worker,) = service.workers
        newer = Part(["worker", "told:Newer"], worker.folder / "newer.log", worker.environment)
        newer.start()
        assert newer.wait() == 1
        line = newer.log.splitlines()[-1]
        assert "another identity" in line
        assert "'2'" in line
        assert "'1'" in line
        assert "Traceback" not in newer.log
        assert levels(httpx.post(f"{service.url}/score", **body(1))) == [1]


def test_worker_lines_name_request_and_job(told: Make) -> None:
    with told(workers=1) as service:
        headers = {REQUEST_ID: "find me"}
        answer = httpx.post(f"{service.url}/score", headers=headers, **body(1, **{"raise": True}))
        assert answer.json()["results"][0]["error"]["code"] == "scorer_failed"
        (worker,) = service.workers
        wait_for(lambda: worker.events("batch"))
    (batch,) = worker.events("batch")
    assert batch["request_ids"] == ["find me"]
    (failure,) = worker.events(f"{service.name} failed on an item")
    assert (failure["request_id"], failure["picture"]) == ("find me", 0)
    assert batch["job_ids"] == [failure["job_id"]]


def test_small_requests_do_not_queue_behind_large_ones(told: Make) -> None:
    """Which lane a request waits in shows in the order of the worker's batches."""
    with told(workers=1) as service:
        bulk = Asking(service.url, body(*range(40), seconds=0.1), **{REQUEST_ID: "bulk"})
        wait_for(lambda: inflight(service.api) == 40)
        small = Asking(service.url, body(1), **{REQUEST_ID: "small"})
        told_so = Asking(service.url, body(1), **{REQUEST_ID: "told so", LANE: "bulk"})
        assert levels(small.answer()) == [1]
        assert levels(told_so.answer()) == [1]
        assert levels(bulk.answer()) == list(range(40))
        wrong = httpx.post(f"{service.url}/score", headers={LANE: "fast"}, **body(1))
    assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_request")
    lines: list[Any] = service.workers[0].events("batch")
    order = [one for line in lines for one in line["request_ids"]]
    assert order.index("small") < order.index("told so") <= len(order) - 1
    assert order.index("small") < len(order) - 5


def test_a_job_is_known_to_every_api(told: Make) -> None:
    with told(workers=1) as service:
        second = Part(service.api.arguments, service.api.folder / "second.log", service.environment)
        second.start()
        second.wait_for("ready")
        try:
            _hand_in_at_one_and_ask_the_other(service.url, second.url)
        finally:
            second.kill()


def _hand_in_at_one_and_ask_the_other(url: str, other: str) -> None:
    accepted = httpx.post(f"{url}/jobs", **body(1, 2, 3, 4, 5, 6))
    assert (accepted.status_code, accepted.json()["status"]) == (202, "waiting")
    where = accepted.headers["location"]
    wait_for(lambda: httpx.get(other + where).json()["status"] == "finished")
    for base in (url, other):
        job = httpx.get(base + where).json()
        assert [one["score"] for one in job["response"]["results"]] == [1, 2, 3, 4, 5, 6]
        assert job["response"]["request_id"] == accepted.headers[REQUEST_ID]

    slow = httpx.post(f"{url}/jobs", **body(*range(20), seconds=0.5)).headers["location"]
    assert httpx.delete(other + slow).status_code == 204
    for base in (url, other):
        assert httpx.get(base + slow).status_code == 404
        assert httpx.delete(base + slow).status_code == 404
    # What no worker had begun is not scored: this waits for one batch, not for five.
    assert levels(httpx.post(f"{url}/score", headers={DEADLINE: "6"}, **body(9))) == [9]


def test_the_api_process_imports_neither_torch_nor_a_scorer(told: Make) -> None:
    with told(workers=1) as service:
        code = (
            "import atexit, sys\n"
            "atexit.register(lambda: print('\\n'.join(sys.modules)))\n"
            f"sys.argv[1:] = ['api', {service.name!r}, '--port', '0']\n"
            "from reward_services.cli import main\n"
            "main()"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=service.environment,
        )
        assert process.stderr is not None
        for line in process.stderr:
            if '"ready"' in line:
                (url,) = [json.loads(line)["url"]]
                assert levels(httpx.post(f"{url}/score", **body(3))) == [3]
                process.terminate()
        modules = set(process.communicate(timeout=60)[0].split())
    assert "reward_services.api_process" in modules
    heavy = ("torch", "transformers", "diffusers", "peft", "accelerate")
    ours = ("scorers", "models", "worker", "attended_worker")
    unwanted = {*heavy, *(f"reward_services.{name}" for name in ours)}
    assert not {name for name in modules if any(f"{name}.".startswith(f"{u}.") for u in unwanted)}


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["api", "jpeg_compressibility"], "REWARD_BROKER_URL"),
        (["worker", "jpeg_compressibility"], "REWARD_BROKER_URL"),
        (["status", "jpeg_compressibility"], "REWARD_BROKER_URL"),
        (["api", "module:Class"], "the reward's name"),
        (["worker", "jpeg_compressibility", "--port", "70000"], "--port: "),
    ],
)
def test_a_command_that_cannot_work_says_why_in_one_line(arguments: list[str], hint: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "reward_services", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert hint in line
