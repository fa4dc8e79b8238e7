"""The whole loop as a user runs it: a service process, a trainer process, and what may go wrong.

Every run is a few epochs of the smallest model, so what is compared is bytes, not learning.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

ROOT = Path(__file__).parent.parent
MICRO = ROOT / "tests" / "golden" / "micro_sd"
EPOCHS = 4
REWARD = "jpeg_compressibility"

pytestmark = pytest.mark.slow


class Service:
    """A reward service in its own process, on one port that stays the same over restarts."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "service.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, reward: str = REWARD) -> None:
        """Start and wait until it is ready; the port is the one of before, if any."""
        command = [sys.executable, "-m", "reward_services", "serve", reward]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--port", str(self.port)], stdout=log, stderr=log, cwd=ROOT
            )
        events = wait_for(self._ready, "the service to be ready")
        self.port = int(events["url"].rsplit(":", 1)[1])

    def _ready(self) -> dict[str, str] | None:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        for line in self._log.read_text().splitlines():
            if '"ready"' in line:
                event: dict[str, str] = json.loads(line)
                return event
        return None

    def kill(self) -> None:
        """As a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def requests(self) -> int:
        """Score requests it has logged since it started."""
        return self._log.read_text().count('"path": "/score"')


class Trainer:
    """`ddpo train` in its own process."""

    def __init__(self, folder: Path, url: str, *settings: str, train: str = "lora") -> None:
        self.folder = folder
        self._options = [
            *("--recipe", str(write_recipe(folder.parent, train))),
            *("--reward", f"{REWARD}={url}", "--name", folder.name),
            *(part for setting in settings for part in ("--set", setting)),
        ]
        self._log = folder.parent / f"{folder.name}.out"

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        with self._log.open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "trainer", "train", *self._options, *options],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
            )

    def run(self, *options: str) -> int:
        return self.start(*options).wait()

    @property
    def output(self) -> str:
        return self._log.read_text()

    def epochs(self) -> int:
        """Lines of metrics.jsonl."""
        path = self.folder / "metrics.jsonl"
        return path.read_text().count("\n") if path.exists() else 0


def write_recipe(folder: Path, train: str) -> Path:
    path = folder / f"{train}.toml"
    path.write_text(
        f"""
run = {{ dir = "{folder}", threads = 1, seed = 5 }}
model = {{ path = "{MICRO}", train = "{train}" }}
sampling = {{ steps = 4, batch_size = 4, samples_per_epoch = 8 }}
evaluation = {{ samples = 6 }}
checkpoints = {{ every = 2 }}
tracking = {{ tensorboard = false }}
scoring = {{ max_outage_s = 60 }}
[training]
epochs = {EPOCHS}
batch_size = 4
micro_batch_size = 8
learning_rate = {3e-4 if train == "full" else 1e-2}
clip_range = 1e-3
"""
    )
    return path


T = TypeVar("T")


def wait_for(probe: Callable[[], T | None], what: str) -> T:
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        found = probe()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited in vain for {what}")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for the tests that leave it alone."""
    running = Service(tmp_path_factory.mktemp("service"))
    running.start()
    yield running
    running.kill()


@pytest.fixture
def own_service(tmp_path: Path) -> Iterator[Service]:
    """A service for one test, to be killed and replaced."""
    running = Service(tmp_path)
    running.start()
    yield running
    running.kill()


@pytest.fixture(scope="module", params=["lora", "full"])
def finished(
    request: pytest.FixtureRequest, service: Service, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """A run that nothing interrupted: how it was trained, and its folder."""
    folder = tmp_path_factory.mktemp(request.param) / "straight"
    trainer = Trainer(folder, service.url, train=request.param)
    assert trainer.run() == 0, trainer.output
    return request.param, folder


def weights(folder: Path) -> bytes:
    """The trained weights of a run, as it leaves them for diffusers."""
    lora = folder / "pytorch_lora_weights.safetensors"
    path = lora if lora.exists() else folder / "unet" / "diffusion_pytorch_model.safetensors"
    return path.read_bytes()


def test_a_run_leaves_everything_behind(finished: tuple[str, Path]) -> None:
    train, folder = finished
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["reward"]["name"] == REWARD
    for when in ("before", "after"):
        low, high = summary["reward"][when]["ci95"]
        assert low < summary["reward"][when]["mean"] < high < 0
    assert summary["reward_queries"] == 8 * EPOCHS
    assert summary["epochs"] == EPOCHS
    assert summary["seconds"] > 0
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2, 3, 4]
    assert [record["reward_queries"] for record in records] == [8, 16, 24, 32]
    checkpoints = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert checkpoints == ["epoch-00002", "epoch-00004"]
    assert (folder / "unet").exists() == (train == "full")
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2 * 6
    assert "http" not in page.replace(str(summary["model"]), "").split("<details>")[0]
    with Image.open(folder / "evaluation" / "grid.png") as grid:
        assert grid.size[0] > 128
    assert "report:" in (folder / "log").read_text()


def test_the_weights_have_moved(finished: tuple[str, Path]) -> None:
    _, folder = finished
    early, late = (
        load_file(folder / "checkpoints" / name / "weights.safetensors")
        for name in ("epoch-00002", "epoch-00004")
    )
    assert early.keys() == late.keys()
    assert sum(not np.array_equal(early[name], late[name]) for name in early) > len(early) // 2


def test_killed_and_resumed_is_as_if_nothing_had_happened(
    finished: tuple[str, Path], service: Service, tmp_path: Path
) -> None:
    train, straight = finished
    trainer = Trainer(tmp_path / "killed", service.url, train=train)
    process = trainer.start()
    # Checkpoints are written after epochs 2 and 4: the third epoch is lost, and done again.
    wait_for(lambda: trainer.epochs() >= 3, "the third epoch")
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert trainer.epochs() < EPOCHS
    assert not (trainer.folder / "summary.json").exists()
    assert trainer.run("--resume") == 0, trainer.output
    assert "resumed after epoch 2" in trainer.output
    assert weights(trainer.folder) == weights(straight)
    assert trainer.epochs() == EPOCHS
    same = [json.loads((f / "summary.json").read_text()) for f in (trainer.folder, straight)]
    assert same[0]["reward"] == same[1]["reward"]
    assert same[0]["reward_queries"] == same[1]["reward_queries"]


def straight_lora(service: Service, folder: Path) -> bytes:
    trainer = Trainer(folder / "straight", service.url)
    assert trainer.run() == 0, trainer.output
    return weights(trainer.folder)


def test_a_service_that_dies_and_comes_back_changes_nothing(
    own_service: Service, tmp_path: Path
) -> None:
    expected = straight_lora(own_service, tmp_path)
    trainer = Trainer(tmp_path / "outage", own_service.url)
    process = trainer.start()
    wait_for(lambda: trainer.epochs() >= 1, "the first epoch")
    own_service.kill()
    time.sleep(1.5)
    assert process.poll() is None, trainer.output
    own_service.start()
    assert process.wait() == 0, trainer.output
    assert own_service.requests() > 0
    assert weights(trainer.folder) == expected


def test_sigterm_leaves_a_checkpoint_to_go_on_from(own_service: Service, tmp_path: Path) -> None:
    expected = straight_lora(own_service, tmp_path)
    trainer = Trainer(tmp_path / "stopped", own_service.url, "checkpoints.every=100")
    process = trainer.start()
    wait_for(lambda: trainer.epochs() >= 1, "the first epoch")
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM, trainer.output
    assert trainer.output.rstrip().endswith("error: stopped by SIGTERM; continue with --resume")
    assert "Traceback" not in trainer.output
    assert len(list((trainer.folder / "checkpoints").iterdir())) == 1
    assert trainer.run("--resume") == 0, trainer.output
    assert weights(trainer.folder) == expected


def test_an_outage_that_lasts_ends_the_run_with_a_checkpoint(
    own_service: Service, tmp_path: Path
) -> None:
    trainer = Trainer(tmp_path / "outage", own_service.url, "scoring.max_outage_s=1.5")
    process = trainer.start()
    wait_for(lambda: trainer.epochs() >= 1, "the first epoch")
    own_service.kill()
    assert process.wait() == os.EX_TEMPFAIL, trainer.output
    assert "longer than scoring.max_outage_s = 1.5; continue with --resume" in trainer.output
    assert "Traceback" not in trainer.output
    # Waiting longer is no other configuration: the run goes on.
    own_service.start()
    again = Trainer(tmp_path / "outage", own_service.url, "scoring.max_outage_s=60")
    assert again.run("--resume") == 0, again.output


def test_a_service_that_becomes_another_reward_ends_the_run(
    own_service: Service, tmp_path: Path
) -> None:
    trainer = Trainer(tmp_path / "swapped", own_service.url)
    process = trainer.start()
    wait_for(lambda: trainer.epochs() >= 1, "the first epoch")
    own_service.kill()
    own_service.start("jpeg_incompressibility")
    assert process.wait() == 1, trainer.output
    message = trainer.output.rstrip().splitlines()[-1]
    assert "is no longer the reward this run started with" in message
    assert "'jpeg_compressibility' != 'jpeg_incompressibility'" in message
    # Nor does it go on when the run is resumed.
    assert trainer.run("--resume") == 1
    assert "is no longer the reward this run started with" in trainer.output


def test_plain_diffusers_loads_the_lora(finished: tuple[str, Path], tmp_path: Path) -> None:
    train, folder = finished
    if train == "full":
        pytest.skip("a full UNet is a diffusers folder, not a LoRA")
    command = [sys.executable, "examples/load_lora.py", str(MICRO), str(folder), "a cat"]
    done = subprocess.run([*command, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "before.png") as before, Image.open(tmp_path / "after.png") as after:
        assert before.size == after.size
        assert np.any(np.asarray(before) != np.asarray(after))


def test_plain_diffusers_loads_the_full_unet(finished: tuple[str, Path]) -> None:
    train, folder = finished
    if train == "lora":
        pytest.skip("a LoRA is not a UNet")
    from diffusers import UNet2DConditionModel

    loaded = UNet2DConditionModel.from_pretrained(folder, subfolder="unet").state_dict()
    trained = load_file(folder / "checkpoints" / "epoch-00004" / "weights.safetensors")
    assert loaded.keys() == trained.keys()
    assert all(np.array_equal(loaded[name].numpy(), trained[name]) for name in trained)
