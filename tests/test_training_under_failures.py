"""Whatever dies while the demo recipe trains, the weights at the end are the same bytes.

Every run is the shipped recipe, shortened; where it says so, with a smaller model. In every epoch
something is killed with SIGKILL while pictures of that epoch are being scored, and started again.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from tests.conftest import free_port
from tests.deployment import Part
from trainer import loop, rollouts
from trainer.config import load_config
from trainer.loop import train
from trainer.prompt_sets import PromptSet
from trainer.rewards import Pending, RewardServices
from trainer.sampling import Rollout

if TYPE_CHECKING:
    from tests.conftest import RedisServer, ServiceProcess

EPOCHS = 3
MICRO = f"model.path={Path(__file__).parent / 'golden' / 'micro_sd'}"
SHORTER = (
    f"training.epochs={EPOCHS}",
    "training.batch_size=4",
    "sampling.steps=3",
    "sampling.samples_per_epoch=8",
    "sampling.batch_size=4",
    "evaluation.samples=2",
    "tracking.tensorboard=false",
    "run.threads=1",
)
# Scores as the JPEG reward does; while it is at work, a file with its process id says so.
BUSY_JPEG = """
import os, time
from pathlib import Path
from reward_services.scorers.jpeg import jpeg_compressibility

class BusyJpeg:
    name, version, units, direction = "busy_jpeg", "1", "kB", "maximize"
    range, max_batch_size, needs_prompt = (None, 0), 8, False

    def score(self, items):
        at_work = Path(f"at-work-{os.getpid()}")
        at_work.touch()
        time.sleep(0.3)
        scores = jpeg_compressibility().score(items)
        at_work.unlink(missing_ok=True)
        return scores
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
Train = Callable[..., bytes]
Start = Callable[..., Part]
Arrange = Callable[[Callable[[Pending], None]], None]


class Mortal(Protocol):
    """A process, or a server, that can be killed and started again."""

    def kill(self) -> None: ...
    def start(self) -> None: ...


class Killer:
    """Kills while a picture is being scored, and starts again what it has killed.

    Args:
        folder: where the scoring processes run.
        victims: whom to kill when the process with this id is scoring.
    """

    def __init__(self, folder: Path, victims: Callable[[int], Sequence[Mortal]]) -> None:
        self._folder = folder
        self._victims = victims
        self._struck: Pending | None = None
        self.kills = 0

    def strike(self, pending: Pending) -> None:
        """Kill once for these pictures, in the midst of scoring, if any is still to be scored."""
        while pending is not self._struck and not answered(pending):
            for mark in self._folder.glob("at-work-*"):
                victims = self._victims(int(mark.name.removeprefix("at-work-")))
                for victim in victims:
                    victim.kill()
                if mark.exists():
                    self._struck = pending
                    self.kills += 1
                mark.unlink(missing_ok=True)
                for victim in victims:
                    victim.start()
                break
            time.sleep(0.005)


def answered(pending: Pending) -> bool:
    """Whether nothing is left to be scored."""
    return all(request.future.done() for _, request in pending.requests)


def with_pid(parts: Sequence[Part]) -> Callable[[int], Sequence[Mortal]]:
    """The one of these processes that has an id."""
    return lambda pid: [part for part in parts if part.pid == pid]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the processes run and find the reward."""
    (tmp_path / "busy_jpeg.py").write_text(BUSY_JPEG)
    return tmp_path


@pytest.fixture
def trained(tmp_path_factory: pytest.TempPathFactory) -> Train:
    """The weights that a run ends with, by the addresses of its reward and further settings."""

    def run(urls: str, *settings: str) -> bytes:
        overrides = [*SHORTER, *settings, f"run.dir={tmp_path_factory.mktemp('runs')}"]
        folder = train(load_config("emoji_compressibility", overrides, {"busy_jpeg": urls}))
        return (folder / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()

    return run


@pytest.fixture(scope="module")
def remembered() -> dict[tuple[str, ...], bytes]:
    """The weights of undisturbed runs that there have been, by their settings."""
    return {}


@pytest.fixture
def undisturbed(
    remembered: dict[tuple[str, ...], bytes], trained: Train, service: "ServiceProcess"
) -> Train:
    """The weights of the run that nothing disturbs, by its settings."""

    def run(*settings: str) -> bytes:
        if settings not in remembered:
            remembered[settings] = trained(service.url, *settings)
        return remembered[settings]

    return run


@pytest.fixture
def with_every_batch(monkeypatch: pytest.MonkeyPatch) -> Arrange:
    """Has something done whenever a batch of an epoch's pictures has been sent."""

    def arrange(act: Callable[[Pending], None]) -> None:
        submit = rollouts.submit

        def acting(
            services: RewardServices, pending: Pending, batch: Rollout, prompts: PromptSet
        ) -> None:
            submit(services, pending, batch, prompts)
            act(pending)

        monkeypatch.setattr(loop, "submit", acting)

    return arrange


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Starts processes of `reward-services`, and ends them after the test."""
    parts: list[Part] = []

    def start_one(*arguments: str, **settings: object) -> Part:
        own = {f"REWARD_{key.upper()}": str(value) for key, value in settings.items()}
        log = folder / f"{len(parts)}.log"
        parts.append(Part([*arguments, "--port", str(free_port())], log, {**os.environ, **own}))
        parts[-1].start()
        parts[-1].wait_for("ready")
        return parts[-1]

    yield start_one
    for part in parts:
        part.kill()


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_service_killed_in_every_epoch(
    replicas: int,
    folder: Path,
    start: Start,
    with_every_batch: Arrange,
    trained: Train,
    undisturbed: Train,
) -> None:
    expected = undisturbed(MICRO)
    services = [start("serve", "busy_jpeg:BusyJpeg") for _ in range(replicas)]
    killer = Killer(folder, with_pid(services))
    with_every_batch(killer.strike)
    assert trained(",".join(service.url for service in services), MICRO) == expected
    assert killer.kills == EPOCHS


@pytest.mark.parametrize(
    ("victim", "settings"), [("worker", ()), ("api", (MICRO,)), ("redis", (MICRO,))]
)
def test_a_part_of_the_deployment_killed_in_every_epoch(
    victim: str,
    settings: tuple[str, ...],
    own_redis: "RedisServer",
    folder: Path,
    start: Start,
    with_every_batch: Arrange,
    trained: Train,
    undisturbed: Train,
) -> None:
    expected = undisturbed(*settings)
    shared = {"broker_url": own_redis.url, "lease_s": 2}
    workers = [start("worker", "busy_jpeg:BusyJpeg", **shared) for _ in range(2)]
    apis = [start("api", "busy_jpeg", **shared) for _ in range(2)]
    victims = {
        "worker": with_pid(workers),
        "api": lambda _: apis,
        "redis": lambda _: [own_redis],
    }
    killer = Killer(folder, victims[victim])
    with_every_batch(killer.strike)
    assert trained(",".join(api.url for api in apis), *settings) == expected
    assert killer.kills == EPOCHS
