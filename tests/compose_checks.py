"""What is checked of the stack of docker-compose.yml while it runs; each check ends with a line.

A check raises `StackError` when something is not as it should be.
"""

import json
import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from shared.client import SyncRewardClient
from shared.images import encode_png
from tests.image_audit import audit
from tests.stack import (
    PROJECT,
    REWARDS,
    ROOT,
    Stack,
    StackError,
    inspect,
    progress,
    run,
)

TRAINING = {
    "training.epochs": "6",
    "training.batch_size": "8",
    "sampling.steps": "5",
    "sampling.samples_per_epoch": "16",
    "sampling.batch_size": "8",
    "evaluation.samples": "6",
    "evaluation.every": "1",
}
"""The shipped recipe, shortened."""
VICTIMS = (
    *("redis", "jpeg-worker", "jpeg-api", "aesthetic-worker", "trainer", "alignment-api"),
    *("aesthetic-api", "alignment-worker", "incompressibility-api", "incompressibility-worker"),
)
"""Whom to kill in turn while it trains: everything there is."""
SLOW_PICTURES, SLOW_ROUNDS = 384, 3
DASHBOARDS = ROOT / "docker" / "grafana" / "dashboards"


def check_health(stack: Stack, services: list[str]) -> str:
    """All services are healthy, and no process in them is root's."""
    for service in services:
        if (status := stack.status(service)) != "healthy":
            raise StackError(f"{service} is {status}")
        container = stack.container(service)
        users = run(["docker", "top", container, "-eo", "uid,pid,comm"]).splitlines()[1:]
        if rooted := [line for line in users if line.split()[0] == "0"]:
            raise StackError(f"in {service} root runs {rooted}")
        host = inspect(container)["HostConfig"]
        if not host["ReadonlyRootfs"] or host["CapDrop"] != ["ALL"]:
            raise StackError(f"{service} may write to its root, or has capabilities")
    return f"health: {len(services)} services healthy, none as root, all with a read-only root"


def check_images(stack: Stack) -> str:
    """No image holds what it should not."""
    named = stack.compose("config", "--images").split()
    # Services of one kind have an image each, of the same layers.
    by_layers = {
        str(inspect(image)["RootFS"]): image for image in named if image.startswith(PROJECT)
    }
    images = sorted(by_layers.values())
    faults = [f"{image}: {fault}" for image in images for fault in audit(image)]
    if faults:
        raise StackError("; ".join(faults[:10]))
    return f"images: no build tool, secret or cache in {', '.join(images)}"


def check_scores(stack: Stack) -> str:
    """Every reward scores a picture twice alike, and nobody without the key."""
    images = [np.random.default_rng(1).integers(0, 255, (64, 64, 3)).astype(np.uint8)]
    scores = {}
    for name, reward in REWARDS.items():
        files = {"images": ("cat.png", encode_png(images[0]))}
        refused = httpx.post(f"{stack.url(name)}/score", files=files, data={"prompts": "a cat"})
        if refused.status_code != 401:
            raise StackError(f"{name} answers {refused.status_code} where no key is sent, not 401")
        with SyncRewardClient(stack.url(name), api_key=stack.key, deadline_s=120) as client:
            answers = [client.score(images, ["a cat"]) for _ in range(2)]
        first, second = (answer.results[0].score for answer in answers)
        if answers[0].reward != reward or first is None or first != second:
            raise StackError(f"{name} is {answers[0].reward}, scores {first} and then {second}")
        # For the series that count what has no score.
        broken = {"images": ("cat.png", b"no picture")}
        key = {"authorization": f"Bearer {stack.key}"}
        httpx.post(f"{stack.url(name)}/score", files=broken, headers=key)
        scores[reward] = first
    return "scores: " + ", ".join(f"{reward} {score:.4g}" for reward, score in scores.items())


def trainer_options(name: str) -> list[str]:
    """Options of `ddpo train` for a run with one reward and all others as monitors."""
    monitors = [
        f"--monitor={reward}=http://{service}-api:8000"
        for service, reward in REWARDS.items()
        if service != "jpeg"
    ]
    return [
        *monitors,
        f"--name={name}",
        *(f"--set={key}={value}" for key, value in TRAINING.items()),
    ]


def train_undisturbed(stack: Stack, name: str) -> Mapping[str, str]:
    """The hashes of a run that nothing disturbs, by `docker compose run`."""
    reward = "--reward=jpeg_compressibility=http://jpeg-api:8000"
    command = ["train", "--recipe=emoji_compressibility", reward, *trainer_options(name)]
    stack.compose("run", "--rm", "-T", "trainer", *command)
    return stack.sums(name)


def train_under_fire(stack: Stack, name: str) -> Iterator[str]:
    """Start a run by `docker compose up`, kill every container once, and wait for its end.

    Yields a line after each kill; the first comes before any.
    """
    options = " ".join(trainer_options(name))
    stack.compose("up", "-d", "--no-deps", "trainer", TRAINER_ARGS=options)
    seen = _further(stack, 0)
    yield "the trainer trains"
    for victim in VICTIMS:
        # Within what comes next: an epoch, or an evaluation by all rewards.
        seen = _further(stack, seen)
        stack.kill(victim)
        yield f"killed {victim}"
    stack.wait_for("trainer", "exited")
    state = inspect(stack.container("trainer"))["State"]
    if state["ExitCode"] != 0:
        raise StackError(f"the trainer ended with {state['ExitCode']}")


def _further(stack: Stack, seen: int) -> int:
    """Wait until the trainer has told of more than `seen` epochs and evaluations."""
    trainer = stack.container("trainer")
    while (now := progress(trainer)) <= seen:
        if inspect(trainer)["State"]["Status"] == "exited":
            raise StackError("the run ended before every container was killed: train longer")
        time.sleep(1)
    return now


def check_same(calm: Mapping[str, str], fire: Mapping[str, str]) -> str:
    """Weights, pictures and scores of two runs are the same bytes."""
    weights = [file for file in calm if file.endswith(".safetensors")]
    scores = [file for file in calm if file.endswith("scores.json")]
    if not weights or not scores:
        raise StackError(f"a run left no weights or no scores: {sorted(calm)}")
    if different := sorted(
        file for file in calm.keys() | fire.keys() if calm.get(file) != fire.get(file)
    ):
        raise StackError(f"not the same bytes: {', '.join(different)}")
    return (
        f"chaos: {len(VICTIMS)} containers killed, {len(calm)} files the same bytes, "
        f"weights {calm[weights[0]][:12]}…, {len(scores)} evaluations by {len(REWARDS)} rewards"
    )


def check_targets(stack: Stack) -> str:
    """Prometheus reaches every container that has metrics."""
    wanted = {"api": len(REWARDS), "worker": len(REWARDS), "trainer": 1}
    give_up = time.monotonic() + 120
    while True:
        active = _prometheus(stack, "targets", state="active")["activeTargets"]
        up = {
            job: sum(t["labels"]["job"] == job and t["health"] == "up" for t in active)
            for job in wanted
        }
        if up == wanted and len(active) == sum(wanted.values()):
            return f"prometheus: {len(active)} of {len(active)} targets up"
        if time.monotonic() > give_up:
            raise StackError(f"Prometheus reaches {up} and not {wanted}")
        time.sleep(1)


def check_dashboards(stack: Stack, began: float) -> str:
    """Every query of every dashboard has given a series since then."""
    window = {"start": f"{began:.0f}", "end": f"{time.time():.0f}", "step": "5"}
    queries = {
        target["expr"]
        for file in DASHBOARDS.glob("*.json")
        for panel in json.loads(file.read_text())["panels"]
        for target in panel["targets"]
    }
    empty = [
        query
        for query in sorted(queries)
        if not _prometheus(stack, "query_range", query=_filled(query), **window)["result"]
    ]
    if empty or not queries:
        raise StackError(f"no series for {' | '.join(empty)}")
    return f"dashboards: {len(queries)} of {len(queries)} queries give series"


def _filled(query: str) -> str:
    """A query with Grafana's variables put in."""
    for name, value in (("$__rate_interval", "1m"), ("$service", ".*"), ("$run", ".*")):
        query = query.replace(name, value)
    return query


def _prometheus(stack: Stack, what: str, **asked: str) -> Any:
    answer = httpx.get(f"{stack.url('prometheus')}/api/v1/{what}", params=asked, timeout=30)
    answer.raise_for_status()
    return answer.json()["data"]


def check_scaling(stack: Stack) -> str:
    """Two workers share the work of a slow scorer; how much faster that is, is told."""
    images = list(np.zeros((SLOW_PICTURES // 2, 32, 32, 3), np.uint8))
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(SLOW_ROUNDS):
        for workers, measured in rates.items():
            stack.up("jpeg-api", "jpeg-worker", f"--scale=jpeg-worker={workers}")
            with SyncRewardClient(stack.url("jpeg"), api_key=stack.key, deadline_s=120) as client:
                client.score(images[:8], [""] * 8)
                began = time.monotonic()
                answers = client.score(images * 2, [""] * SLOW_PICTURES)
                measured.append(SLOW_PICTURES / (time.monotonic() - began))
            if any(result.score is None for result in answers.results):
                raise StackError("the slow scorer left pictures without a score")
    one, two = (statistics.median(rates[workers]) for workers in (1, 2))
    return f"scale: {one:.1f} pictures/s with one worker, {two:.1f} with two, {two / one:.2f} times"


def keys_file(folder: Path) -> Path:
    """A file with a key that the containers' user can read."""
    file = folder / "api-keys.txt"
    file.write_text("a-key-of-the-compose-test\n")
    file.chmod(0o444)
    return file
