"""Runs of several processes, started as a person starts them, against real reward services.

They compute what one process computes, and whatever happens to one of them, all end together: with
one message and, unless the main process is gone, a checkpoint that the run goes on from.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from tests.conftest import free_port
from trainer import checkpoints
from trainer.config import load_config
from trainer.loop import train

if TYPE_CHECKING:
    from tests.conftest import ServiceProcess

ROOT = Path(__file__).parent.parent
EPOCHS = 3
EVALUATED, DRAWN = 5, 8
# Scores as the JPEG reward does. The pictures that NEVER names have no score, whoever sends them,
# and when AFTER many have come, it waits until the file `go` is there.
GATE = """
import os, time
from pathlib import Path
from reward_services.scorer import ItemError
from reward_services.scorers.jpeg import jpeg_compressibility

class Gate:
    name, version, units, direction, max_batch_size = "gate", "1", "kB", "maximize", 2
    seen = 0

    def score(self, items):
        self.seen += len(items)
        if self.seen > int(os.environ["AFTER"]):
            Path("waiting").touch()
            while not Path("go").exists():
                time.sleep(0.05)
        scores = jpeg_compressibility().score(items)
        never = os.environ["NEVER"]
        return [
            ItemError("it is ugly", code="ugly") if never and item.prompt == never else score
            for item, score in zip(items, scores, strict=True)
        ]
"""

pytestmark = [pytest.mark.distributed, pytest.mark.slow, pytest.mark.timeout(600)]
Arguments = Callable[..., list[str]]


class Launched:
    """Two processes of a run and their launcher."""

    def __init__(self, launcher: list[str], arguments: list[str], folder: Path) -> None:
        self._output = folder / "output"
        with self._output.open("wb") as output:
            self.launcher = subprocess.Popen(
                [sys.executable, "-m", *launcher, "-m", "trainer", *arguments],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def pid(self, rank: int) -> int:
        """The process with a rank."""
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                variables = (folder / "environ").read_bytes().split(b"\0")
            except (OSError, ValueError):
                continue
            if parent == self.launcher.pid and f"RANK={rank}".encode() in variables:
                return int(folder.name)
        raise AssertionError(f"there is no process {rank}: {self.output}")

    def wait_for(self, file: Path) -> None:
        """Until a file is there."""
        while not file.exists():
            assert self.launcher.poll() is None, self.output
            time.sleep(0.05)

    def ended(self) -> int:
        """The launcher's status once all have ended."""
        return self.launcher.wait(300)

    @property
    def output(self) -> str:
        return self._output.read_text()

    @property
    def errors(self) -> list[str]:
        """What the run says went wrong."""
        return [line for line in self.output.splitlines() if line.startswith("error:")]


def torchrun(count: int = 2) -> list[str]:
    port = str(free_port())
    return ["torch.distributed.run", "--nproc_per_node", str(count), "--master_port", port]


def accelerate() -> list[str]:
    count = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    quiet = ["--mixed_precision", "no", "--dynamo_backend", "no"]
    return [
        "accelerate.commands.launch",
        *count,
        *quiet,
        "--main_process_port",
        str(free_port()),
    ]


@pytest.fixture
def arguments(tmp_path: Path, micro_sd: Path) -> Arguments:
    """The command of a run of a few seconds: `train` and its options."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\nan ant\na bee\n")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f"""
run = {{ dir = "{tmp_path}", seed = 1, threads = 1 }}
model = {{ path = "{micro_sd}", train = "lora" }}
prompts = {{ source = "{prompts}" }}
sampling = {{ steps = 3, batch_size = 2, samples_per_epoch = {DRAWN} }}
advantages = {{ buffer_size = 6, min_count = 2 }}
scoring = {{ max_invalid_fraction = 0.9, max_outage_s = 600 }}
evaluation = {{ samples = {EVALUATED} }}
tracking = {{ tensorboard = false }}
ema = {{ decay = 0.9 }}
kl = {{ coefficient = 0.01 }}
[training]
epochs = {EPOCHS}
batch_size = 4
micro_batch_size = 5
learning_rate = 1e-3
clip_range = 1e-2
"""
    )

    def build(url: str, name: str, *more: str) -> list[str]:
        return ["train", "--recipe", str(recipe), "--reward", f"r={url}", "--name", name, *more]

    return build


@pytest.fixture
def micro_sd() -> Path:
    return ROOT / "tests" / "golden" / "micro_sd"


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Callable[..., "ServiceProcess"]]:
    """`gate(after, never)`: the service of GATE."""
    from tests.conftest import ServiceProcess

    running: list[ServiceProcess] = []

    def start(after: int = 10**9, never: str = "") -> ServiceProcess:
        folder = tmp_path / "gate"
        folder.mkdir()
        (folder / "gate.py").write_text(GATE)
        running.append(ServiceProcess(folder, AFTER=str(after), NEVER=never))
        running[-1].start("gate:Gate")
        return running[-1]

    yield start
    for process in running:
        process.kill()


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[[list[str], list[str]], Launched]]:
    """Starts a run of several processes, which is over when the test is."""
    running: list[Launched] = []

    def start(launcher: list[str], arguments: list[str]) -> Launched:
        running.append(Launched(launcher, arguments, tmp_path))
        return running[-1]

    yield start
    for each in running:
        each.launcher.terminate()
        each.launcher.wait()


def by_one(arguments: list[str], *, resume: bool = False) -> Path:
    """The same run by this process alone."""
    options = dict(zip(arguments[1::2], arguments[2::2], strict=False))
    name, url = options["--reward"].split("=", 1)
    overrides = [f"run.name={options['--name']}"]
    return train(load_config(options["--recipe"], overrides, {name: url}), resume=resume)


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def newest(folder: Path) -> checkpoints.Checkpoint:
    return checkpoints.load(checkpoints.found(folder / "checkpoints"))


def nearly_the_same(one: checkpoints.Checkpoint, two: checkpoints.Checkpoint) -> bool:
    """Rounding alone; AdamW makes a sign out of a gradient of next to nothing, a step is 1e-3."""
    far = torch.cat([(one.weights[name] - two.weights[name]).flatten() for name in one.weights])
    return bool(far.square().mean().sqrt() < 1e-4)


@pytest.mark.parametrize("launcher", [torchrun, accelerate])
def test_two_processes_are_one_run(
    launcher: Callable[[], list[str]],
    gate: Callable[..., "ServiceProcess"],
    launch: Callable[[list[str], list[str]], Launched],
    arguments: Arguments,
    tmp_path: Path,
) -> None:
    url = gate(never="a bee").url
    alone = by_one(arguments(url, "alone"))
    run = launch(launcher(), arguments(url, "both"))
    assert run.ended() == 0, run.output
    one, two = metrics(alone), metrics(tmp_path / "both")
    assert len(one) == len(two) == EPOCHS
    for exact in ("reward_mean", "reward_std", "reward_min", "masked", "reward_queries"):
        assert [each[exact] for each in two] == [each[exact] for each in one]
    assert one[0]["masked"] > 0
    for close in ("loss", "grad_norm", "kl_to_base", "latent_rms", "diversity"):
        assert two[0][close] == pytest.approx(one[0][close], rel=1e-3, abs=1e-9)
    first, second = newest(alone), newest(tmp_path / "both")
    assert first.state.trackers == second.state.trackers
    assert first.state.prompts == second.state.prompts
    assert nearly_the_same(first, second)
    assert (first.state.processes, second.state.processes) == (1, 2)
    scores = [
        json.loads((folder / "evaluation" / "epoch-00003" / "scores.json").read_text())
        for folder in (alone, tmp_path / "both")
    ]
    assert scores[0]["rewards"]["r"]["scores"] == scores[1]["rewards"]["r"]["scores"]
    assert run.output.count("epoch 3/3") == 1
    assert (tmp_path / "both" / "report.html").exists()


def test_a_signal_to_one_process_ends_both_and_the_run_goes_on_to_the_bit(
    gate: Callable[..., "ServiceProcess"],
    launch: Callable[[list[str], list[str]], Launched],
    arguments: Arguments,
    tmp_path: Path,
) -> None:
    service = gate(after=EVALUATED + DRAWN + 2)
    folder = tmp_path / "run"
    run = launch(torchrun(), arguments(service.url, "run"))
    run.wait_for(service.folder / "waiting")
    os.kill(run.pid(1), signal.SIGTERM)
    assert run.ended() != 0
    assert run.errors == ["error: stopped by SIGTERM; continue with --resume"]
    assert newest(folder).state.epoch == 1
    (service.folder / "go").touch()
    resumed = launch(torchrun(), arguments(service.url, "run", "--resume"))
    assert resumed.ended() == 0, resumed.output
    straight = launch(torchrun(), arguments(service.url, "straight"))
    assert straight.ended() == 0, straight.output
    weights = "pytorch_lora_weights.safetensors"
    assert (folder / weights).read_bytes() == (tmp_path / "straight" / weights).read_bytes()
    assert len(metrics(folder)) == EPOCHS


def test_a_signal_to_the_launcher_leaves_a_checkpoint_that_one_process_goes_on_from(
    gate: Callable[..., "ServiceProcess"],
    launch: Callable[[list[str], list[str]], Launched],
    arguments: Arguments,
    tmp_path: Path,
) -> None:
    service = gate(after=EVALUATED + DRAWN + 2)
    run = launch(torchrun(), arguments(service.url, "run"))
    run.wait_for(service.folder / "waiting")
    run.launcher.terminate()
    assert run.ended() != 0
    assert run.errors == ["error: stopped by SIGTERM; continue with --resume"]
    assert newest(tmp_path / "run").state.epoch == 1
    (service.folder / "go").touch()
    alone = by_one(arguments(service.url, "alone"))
    assert nearly_the_same(
        newest(by_one(arguments(service.url, "run"), resume=True)), newest(alone)
    )
    assert "another number of processes (1, before 2)" in (tmp_path / "run" / "log").read_text()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_other_and_the_run_goes_on(
    rank: int,
    gate: Callable[..., "ServiceProcess"],
    launch: Callable[[list[str], list[str]], Launched],
    arguments: Arguments,
    tmp_path: Path,
) -> None:
    service = gate(after=EVALUATED + DRAWN + 2)
    run = launch(torchrun(), arguments(service.url, "run"))
    run.wait_for(service.folder / "waiting")
    os.kill(run.pid(rank), signal.SIGKILL)
    assert run.ended() != 0
    (error,) = run.errors
    assert f"process {1 - rank} of 2 has lost the others" in error
    assert newest(tmp_path / "run").state.epoch == 1
    (service.folder / "go").touch()
    by_one(arguments(service.url, "run"), resume=True)
    assert np.array_equal([each["epoch"] for each in metrics(tmp_path / "run")], [1, 2, 3])


def test_a_killed_launcher_leaves_no_process_behind(
    gate: Callable[..., "ServiceProcess"],
    launch: Callable[[list[str], list[str]], Launched],
    arguments: Arguments,
) -> None:
    service = gate(after=EVALUATED + 2)
    run = launch(torchrun(), arguments(service.url, "run"))
    run.wait_for(service.folder / "waiting")
    run.launcher.kill()
    while len(run.errors) < 2:
        time.sleep(0.05)
    assert all("has lost the others" in error for error in run.errors)


def test_the_launcher_starts_the_run_again_after_a_kill(
    gate: Callable[..., "ServiceProcess"],
    launch: Callable[[list[str], list[str]], Launched],
    arguments: Arguments,
    tmp_path: Path,
) -> None:
    service = gate(after=EVALUATED + DRAWN + 2)
    again = [*torchrun(), "--max_restarts", "1"]
    run = launch(again, arguments(service.url, "run", "--continue"))
    run.wait_for(service.folder / "waiting")
    os.kill(run.pid(1), signal.SIGKILL)
    (service.folder / "go").touch()
    assert run.ended() == 0, run.output
    assert "resumed after epoch 1" in run.output
    assert len(metrics(tmp_path / "run")) == EPOCHS


def test_a_service_that_dies_ends_both_with_one_message(
    gate: Callable[..., "ServiceProcess"],
    launch: Callable[[list[str], list[str]], Launched],
    arguments: Arguments,
    tmp_path: Path,
) -> None:
    service = gate(after=EVALUATED + DRAWN + 2)
    patience = ["--set", "scoring.max_outage_s=1"]
    run = launch(torchrun(), arguments(service.url, "run", *patience))
    run.wait_for(service.folder / "waiting")
    service.kill()
    assert run.ended() != 0
    (error,) = run.errors
    assert "error: the reward service r has been away for" in error
    assert error.endswith("continue with --resume")
    assert newest(tmp_path / "run").state.epoch == 1


def test_a_mistake_is_told_once(
    launch: Callable[[list[str], list[str]], Launched],
    gate: Callable[..., "ServiceProcess"],
    arguments: Arguments,
) -> None:
    url = gate().url
    run = launch(torchrun(), arguments(url, "run", "--set", "run.device=mps"))
    assert run.ended() != 0
    assert len(run.errors) == 1
    assert "run.device 'mps' cannot be used here" in run.errors[0]
