"""Whether a run's memory suffices, from one real dry step at its sizes."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from trainer.amounts import amount
from trainer.config import Config
from trainer.dry_measurement import Measured, Stage
from trainer.findings import Finding, ok, problem, warning

_SETTING: dict[Stage, str] = {
    "sampling": "sampling.batch_size",
    "updating": "training.micro_batch_size",
}
_TIGHT = 0.9
"""More than this share of the memory is worth a warning: fragments and other processes grow."""


class MemoryExamination:
    """A dry step in a process of its own, and what follows from it.

    Args:
        config: the run.
        budget: bytes that the run may take; None: what its device has left.

    Attributes:
        measured: what the step took; None until `findings` has run, and where it failed.
    """

    def __init__(self, config: Config, budget: int | None = None) -> None:
        self._config = config
        self._budget = budget
        self.measured: Measured | None = None

    def findings(self) -> Iterator[Finding]:
        """Make the step and judge it."""
        said, code, log = _dry_step(self._config)
        if (found := said.get("measured")) is not None:
            self.measured = Measured(**found)
            yield from self._device(self.measured)
            yield self._memory(self.measured)
        elif (stop := said.get("stopped")) is not None:
            yield problem("dry step", stop)
        elif said.get("no_memory") or code == -9:
            yield self._no_memory(said.get("stage", "loading"), killed=code == -9)
        else:
            yield problem(
                "dry step", f"it failed while {said.get('stage', 'starting')}: {_last_line(log)}"
            )

    def _device(self, measured: Measured) -> Iterator[Finding]:
        memory = measured.device_memory
        left = "" if memory is None else f", {amount(memory)} of memory to be had"
        yield ok("device", f"{measured.device} ({measured.device_name}){left}")
        # A context of CUDA takes some hundred MB; a model takes more.
        if measured.taken > 1e9:
            yield warning(
                "device",
                f"other processes hold {amount(measured.taken)} of {measured.device}; if a reward "
                "service is among them, give it another GPU (CUDA_VISIBLE_DEVICES) or start it "
                "with --set device=cpu",
            )

    def _memory(self, measured: Measured) -> Finding:
        """Project the peaks of one batch to an epoch, whose trajectories all stay."""
        room = self._budget if self._budget is not None else measured.device_memory
        needs = projected(measured, self._config)
        stage = max(needs, key=lambda each: needs[each])
        seen = (
            f"{amount(needs[stage])} at most, while {stage} (measured: "
            f"{', '.join(f'{each} {amount(size)}' for each, size in measured.peaks.items())}; "
            f"trajectories of the epoch: {amount(self._epoch(measured))})"
        )
        if room is None or needs[stage] <= _TIGHT * room:
            return ok("memory", seen)
        if needs[stage] <= room:
            return warning("memory", f"{seen}, nearly all of the {amount(room)} to be had")
        return problem("memory", f"{seen}, but {amount(room)} are to be had: {self._advice(room)}")

    def _advice(self, room: int) -> str:
        """What to lower, to what: by a straight line through what the stage took."""
        assert self.measured is not None
        measured, config = self.measured, self._config
        needs = projected(measured, config)
        if measured.kept > _TIGHT * room:
            return self._smaller_model()
        if measured.kept + 2 * self._epoch(measured) > room:
            share = (room - measured.kept) / (2 * self._epoch(measured))
            return (
                f"lower sampling.samples_per_epoch ({config.sampling.samples_per_epoch}) to some "
                f"{max(1, int(share * config.sampling.samples_per_epoch))}, or share the run among "
                "more GPUs"
            )
        advice = []
        for stage, setting in _SETTING.items():
            if needs[stage] > room:
                size = _size(config, stage)
                each = (measured.peaks[stage] - measured.kept) / size
                fitting = int((room - (needs[stage] - each * size)) / each)
                if fitting < 1:
                    return self._smaller_model()
                advice.append(f"{setting} ({size}) to {_divisor(config, stage, fitting)}")
        return f"lower {' and '.join(advice)}" if advice else self._smaller_model()

    def _no_memory(self, stage: Stage, *, killed: bool) -> Finding:
        """The step itself did not fit."""
        end = "was killed by the system (SIGKILL)" if killed else "ran out of memory"
        if stage not in _SETTING:
            return problem("memory", f"the dry step {end} while {stage}: {self._smaller_model()}")
        size = _size(self._config, stage)
        advice = f"lower {_SETTING[stage]} ({size}) to {_divisor(self._config, stage, size // 2)}"
        if size == 1:
            advice = self._smaller_model()
        return problem("memory", f"the dry step {end} while {stage}: {advice}, and look again")

    def _smaller_model(self) -> str:
        model = self._config.model
        if model.train == "full":
            return 'set model.train = "lora", or take a device with more memory'
        if model.dtype == "fp32":
            return "set model.dtype to fp16 or bf16, or take a device with more memory"
        return "take a device with more memory"

    def _epoch(self, measured: Measured) -> int:
        return measured.trajectories * self._config.sizes.sampling_batches_per_epoch


def projected(measured: Measured, config: Config) -> dict[Stage, int]:
    """Stage → bytes at most in a run, from what one batch took.

    The step held the trajectories of one batch in `sampling` and `updating`. A run holds those of
    the epoch, and while its batches are joined twice as much. After the first epoch the moments of
    AdamW are there while it samples.
    """
    epoch = measured.trajectories * config.sizes.sampling_batches_per_epoch
    others = epoch - measured.trajectories
    moments = 2 * 4 * measured.trained
    sampling = max(measured.peaks["sampling"] + others, measured.kept + 2 * epoch)
    return {
        "loading": measured.peaks["loading"],
        "sampling": sampling + moments,
        "updating": measured.peaks["updating"] + others,
    }


def _size(config: Config, stage: Stage) -> int:
    if stage == "sampling":
        return config.sampling.batch_size
    return config.training.micro_batch_size


def _divisor(config: Config, stage: Stage, limit: int) -> int:
    """The largest size up to a limit that the setting may have; at least 1."""
    if stage != "sampling":
        return max(1, limit)
    samples = config.sampling.samples_per_epoch
    return next(size for size in range(max(1, limit), 0, -1) if samples % size == 0)


def _dry_step(config: Config) -> tuple[dict[str, Any], int, str]:
    """What the step said in all its lines, its exit status and its log."""
    done = subprocess.run(
        [sys.executable, "-m", "trainer.dry_step"],
        input=config.model_dump_json(),
        capture_output=True,
        text=True,
        check=False,
    )
    said: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        if line.startswith("{"):  # a library may print there, too
            said |= json.loads(line)
    return said, done.returncode, done.stderr


def _last_line(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
