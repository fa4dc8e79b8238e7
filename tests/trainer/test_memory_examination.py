"""Too little memory is one sentence that says which setting to lower, to what."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.config import Config, load_config
from trainer.dry_measurement import Measured
from trainer.findings import Finding
from trainer.memory_examination import MemoryExamination, projected

# A dry step starts a Python of its own.
pytestmark = pytest.mark.timeout(300)

GB = 10**9


def measured(sampling: int = 3 * GB, updating: int = 4 * GB, trajectories: int = 0) -> Measured:
    return Measured(
        device="cuda:0",
        device_name="made up",
        device_memory=80 * GB,
        taken=0,
        peaks={"loading": GB, "sampling": sampling, "updating": updating},
        kept=GB,
        trajectories=trajectories,
        seconds={"loading": 1.0, "sampling": 1.0, "updating": 1.0},
        picture=(512, 512),
        trained=1000,
    )


def config(*changes: str) -> Config:
    sizes = ["sampling.batch_size=8", "training.micro_batch_size=16"]
    return load_config("sd14_compressibility", [*sizes, *changes])


def judged(found: Measured, config: Config, budget: int | None) -> Finding:
    examination = MemoryExamination(config, budget)
    examination.measured = found
    return examination._memory(found)


def test_trajectories_of_the_epoch_are_added() -> None:
    """32 batches; all are there in the update, and twice when they are joined."""
    needs = projected(measured(trajectories=GB // 10), config())
    assert needs["updating"] == 4 * GB + 31 * GB // 10
    assert needs["sampling"] == GB + 64 * GB // 10 + 8 * 1000
    assert needs["loading"] == GB


@pytest.mark.parametrize(
    ("found", "budget", "level", "advice"),
    [
        (measured(), None, "ok", ""),
        (measured(), 4 * GB + 1, "warning", "nearly all of the 4 GB"),
        (measured(), 3 * GB + GB // 2, "problem", "lower training.micro_batch_size (16) to 13"),
        (measured(sampling=9 * GB), 5 * GB, "problem", "lower sampling.batch_size (8) to 2"),
        (measured(9 * GB, 9 * GB), 5 * GB, "problem",
         "lower sampling.batch_size (8) to 2 and training.micro_batch_size (16) to 8"),
        (measured(trajectories=GB), 33 * GB, "problem",
         "lower sampling.samples_per_epoch (256) to some 128"),
        (measured(), GB, "problem", "take a device with more memory"),
        (measured(updating=40 * GB), 2 * GB, "problem", "take a device with more memory"),
    ],
)  # fmt: skip
def test_what_to_lower(found: Measured, budget: int | None, level: str, advice: str) -> None:
    said = judged(found, config(), budget)
    assert said.level == level
    assert advice in said.message


def test_a_smaller_model() -> None:
    full = judged(measured(), config("model.train=full"), GB)
    assert 'set model.train = "lora"' in full.message
    exact = judged(measured(), config("model.dtype=fp32"), GB)
    assert "set model.dtype to fp16 or bf16" in exact.message


def test_other_processes_on_the_device() -> None:
    examination = MemoryExamination(config())
    found = Measured(**{**vars(measured()), "taken": 6 * GB})
    _, shared = examination._device(found)
    assert shared.level == "warning"
    assert "other processes hold 6 GB of cuda:0; if a reward service is among" in shared.message


def test_a_real_step_against_a_budget(micro_recipe: Path) -> None:
    examination = MemoryExamination(load_config(micro_recipe), budget=10**8)
    device, memory = examination.findings()
    assert device.level == "ok"
    assert memory.level == "problem"
    assert "but 100 MB are to be had: " in memory.message


def test_a_model_that_cannot_be_loaded(micro_recipe: Path) -> None:
    there = load_config(micro_recipe, [f"model.path={micro_recipe.parent}"])
    (said,) = MemoryExamination(there).findings()
    assert said.level == "problem"
    assert "is not a diffusers pipeline" in said.message


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not keep to the limit")
def test_a_real_limit(micro_recipe: Path) -> None:
    """The system refuses more memory in the midst of drawing; the examination is there to tell."""
    sizes = ["sampling.batch_size=4096", "sampling.samples_per_epoch=4096"]
    there = load_config(micro_recipe, [*sizes, "training.batch_size=4096"])
    code = (
        "import sys; from trainer.config import Config;"
        "from trainer.memory_examination import MemoryExamination;"
        "config = Config.model_validate_json(sys.stdin.read());"
        "[print(each) for each in MemoryExamination(config).findings()]"
    )

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (1_500_000_000, 1_500_000_000))

    done = subprocess.run(
        [sys.executable, "-c", code],
        input=there.model_dump_json(),
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=limit,
        env=os.environ,
    )
    assert done.stdout == (
        "problem  memory: the dry step ran out of memory while sampling: lower "
        "sampling.batch_size (4096) to 2048, and look again\n"
    )
