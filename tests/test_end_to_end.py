"""The whole loop as a user runs it: a service process, a trainer process, and what may go wrong.

Every run is a few epochs of the smallest model, so what is compared is bytes, not learning.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

if TYPE_CHECKING:
    from tests.conftest import ServiceProcess

ROOT = Path(__file__).parent.parent
MICRO = ROOT / "tests" / "golden" / "micro_sd"
EPOCHS = 5
REWARD = "jpeg_compressibility"

# Another JPEG: what a small, coarse copy of the picture takes.
COARSE = """
import io
from PIL import Image

class Coarse:
    name, units, direction, max_batch_size = "coarse", "kB", "minimize", 64

    def score(self, items):
        return [self.size(Image.fromarray(item.image)) for item in items]

    def size(self, image):
        buffer = io.BytesIO()
        image.resize((8, 8)).save(buffer, "JPEG", quality=30)
        return len(buffer.getvalue()) / 1000
"""

pytestmark = pytest.mark.slow


class Trainer:
    """`ddpo train` in its own process, with rewards by name and URL."""

    def __init__(self, folder: Path, rewards: dict[str, str], train: str) -> None:
        self.folder = folder
        self.rewards = rewards
        self._recipe = write_recipe(folder.parent, train)
        self._log = folder.parent / f"{folder.name}.out"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        named = ["--recipe", str(self._recipe), "--name", self.folder.name]
        for name, url in self.rewards.items():
            named += ["--reward", f"{name}={url}"]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "trainer", "train", *named, *options],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
            )

    def end(self, with_signal: signal.Signals | None = None) -> int:
        """Send a signal, if any, and wait for the exit status."""
        assert self.process is not None
        if with_signal is not None:
            self.process.send_signal(with_signal)
        return self.process.wait()

    @property
    def output(self) -> str:
        return self._log.read_text()

    def reaches(self, epochs: int) -> None:
        """Wait for so many lines of metrics.jsonl."""
        assert self.process is not None
        path = self.folder / "metrics.jsonl"

        while not path.exists() or path.read_text().count("\n") < epochs:
            assert self.process.poll() is None, self.output
            time.sleep(0.02)


def write_recipe(folder: Path, train: str) -> Path:
    path = folder / f"{train}.toml"
    # Few prompts, so that each one's statistics reach over the epochs.
    (folder / "prompts.txt").write_text("a cat\nan ant\na dog\n")
    path.write_text(
        f"""
run = {{ dir = "{folder}", threads = 1, seed = 5 }}
model = {{ path = "{MICRO}", train = "{train}" }}
sampling = {{ steps = 4, batch_size = 4, samples_per_epoch = 8 }}
prompts = {{ source = "{folder / "prompts.txt"}" }}
advantages = {{ buffer_size = 12, min_count = 2 }}
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


Start = Callable[..., "Trainer"]


@pytest.fixture
def start(service: "ServiceProcess") -> Iterator[Start]:
    """Starts trainers, and ends those that a failed test leaves behind.

    `start(folder, train, *options, **more)`: `more` are rewards beside the JPEG one.
    """
    started: list[Trainer] = []

    def start_one(folder: Path, train: str, *options: str, **more: str) -> Trainer:
        trainer = Trainer(folder, {REWARD: service.url, **more}, train)
        started.append(trainer)
        trainer.start(*options)
        return trainer

    yield start_one
    for trainer in started:
        assert trainer.process is not None
        trainer.process.kill()
        trainer.process.wait()


@pytest.fixture(scope="module")
def straight(
    service: "ServiceProcess", tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The folder of a run that nothing interrupted, by how it trains; run once and shared."""
    folders: dict[str, Path] = {}

    def run_once(train: str) -> Path:
        if train not in folders:
            trainer = Trainer(
                tmp_path_factory.mktemp(train) / "straight", {REWARD: service.url}, train
            )
            trainer.start()
            assert trainer.end() == 0, trainer.output
            folders[train] = trainer.folder
        return folders[train]

    return run_once


def weights(folder: Path) -> bytes:
    """The trained weights of a run, as it leaves them for diffusers."""
    lora = folder / "pytorch_lora_weights.safetensors"
    path = lora if lora.exists() else folder / "unet" / "diffusion_pytorch_model.safetensors"
    return path.read_bytes()


@pytest.mark.parametrize("train", ["lora", "full"])
def test_a_run_leaves_everything_behind(straight: Callable[[str], Path], train: str) -> None:
    folder = straight(train)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["reward"]["name"] == REWARD
    for when in ("before", "after"):
        low, high = summary["reward"][when]["ci95"]
        assert low < summary["reward"][when]["mean"] < high < 0
    assert summary["reward_queries"] == 8 * EPOCHS
    assert summary["epochs"] == EPOCHS
    assert summary["seconds"] > 0
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2, 3, 4, 5]
    assert [record["reward_queries"] for record in records] == [8, 16, 24, 32, 40]
    checkpoints = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert checkpoints == ["epoch-00004", "epoch-00005"]
    assert (folder / "unet").exists() == (train == "full")
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2 * 3
    assert "http" not in page.replace(str(summary["model"]), "").split("<details>")[0]
    with Image.open(folder / "evaluation" / "grid.png") as grid:
        assert grid.size[0] > 128
    assert "report:" in (folder / "log").read_text()


@pytest.mark.parametrize("train", ["lora", "full"])
def test_the_weights_have_moved(straight: Callable[[str], Path], train: str) -> None:
    folder = straight(train)
    early, late = (
        load_file(folder / "checkpoints" / name / "weights.safetensors")
        for name in ("epoch-00004", "epoch-00005")
    )
    assert early.keys() == late.keys()
    assert sum(not np.array_equal(early[name], late[name]) for name in early) > len(early) // 2


@pytest.mark.parametrize("train", ["lora", "full"])
def test_killed_and_resumed_is_as_if_nothing_had_happened(
    straight: Callable[[str], Path], start: Start, tmp_path: Path, train: str
) -> None:
    expected = straight(train)
    trainer = start(tmp_path / "killed", train)
    # Checkpoints are written every second epoch: the third is lost, and done again.
    trainer.reaches(epochs=3)
    assert trainer.end(signal.SIGKILL) == -signal.SIGKILL
    assert not (trainer.folder / "summary.json").exists()
    trainer.start("--resume")
    assert trainer.end() == 0, trainer.output
    assert "resumed after epoch" in trainer.output
    assert weights(trainer.folder) == weights(expected)
    records = [(folder / "metrics.jsonl").read_text() for folder in (trainer.folder, expected)]
    killed, uninterrupted = ([json.loads(line) for line in text.splitlines()] for text in records)
    assert [record["reward_mean"] for record in killed] == [
        record["reward_mean"] for record in uninterrupted
    ]
    summaries = [
        json.loads((folder / "summary.json").read_text()) for folder in (trainer.folder, expected)
    ]
    assert summaries[0]["reward"] == summaries[1]["reward"]
    assert summaries[0]["reward_queries"] == summaries[1]["reward_queries"]


@pytest.mark.timeout(600)  # four trainers, one after the other
def test_two_rewards_killed_and_resumed(
    start_service: Callable[..., "ServiceProcess"],
    straight: Callable[[str], Path],
    start: Start,
    tmp_path: Path,
) -> None:
    first, moved = (start_service("coarse:Coarse", COARSE) for _ in range(2))
    weight = ("--set", "rewards.coarse.weight=0.5")
    whole = start(tmp_path / "whole", "lora", *weight, coarse=first.url)
    assert whole.end() == 0, whole.output
    killed = start(tmp_path / "killed", "lora", *weight, coarse=first.url)
    killed.reaches(epochs=3)
    assert killed.end(signal.SIGKILL) == -signal.SIGKILL
    # Named in another order, and one of them at another address: it is the same run.
    killed.rewards = {"coarse": moved.url, REWARD: killed.rewards[REWARD]}
    killed.start("--resume", *weight)
    assert killed.end() == 0, killed.output
    assert "resumed after epoch" in killed.output
    assert weights(killed.folder) == weights(whole.folder)
    # The second reward had a say in it.
    assert weights(whole.folder) != weights(straight("lora"))
    summary = json.loads((whole.folder / "summary.json").read_text())
    assert {name: said["direction"] for name, said in summary["rewards"].items()} == {
        REWARD: "maximize",
        "coarse": "minimize",
    }
    page = (whole.folder / "report.html").read_text()
    assert "The rewards" in page
    assert "coarse in kB, to minimize" in page


def test_sigterm_leaves_a_checkpoint_to_go_on_from(start: Start, tmp_path: Path) -> None:
    trainer = start(tmp_path / "stopped", "lora")
    trainer.reaches(epochs=1)
    assert trainer.end(signal.SIGTERM) == 128 + signal.SIGTERM, trainer.output
    assert trainer.output.rstrip().endswith("error: stopped by SIGTERM; continue with --resume")
    assert "Traceback" not in trainer.output
    checkpoints = [path.name for path in (trainer.folder / "checkpoints").iterdir()]
    assert checkpoints
    assert not any(name.startswith(".") for name in checkpoints)


def test_plain_diffusers_loads_the_lora(straight: Callable[[str], Path], tmp_path: Path) -> None:
    folder = straight("lora")
    command = [sys.executable, "examples/load_lora.py", str(MICRO), str(folder), "a cat"]
    done = subprocess.run([*command, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "before.png") as before, Image.open(tmp_path / "after.png") as after:
        assert before.size == after.size
        assert np.any(np.asarray(before) != np.asarray(after))


def test_plain_diffusers_loads_the_full_unet(straight: Callable[[str], Path]) -> None:
    folder = straight("full")
    from diffusers import UNet2DConditionModel

    loaded = UNet2DConditionModel.from_pretrained(folder, subfolder="unet").state_dict()
    trained = load_file(folder / "checkpoints" / "epoch-00005" / "weights.safetensors")
    assert loaded.keys() == trained.keys()
    assert all(np.array_equal(loaded[name].numpy(), trained[name]) for name in trained)
