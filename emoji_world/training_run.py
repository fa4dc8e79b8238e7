"""A training that can be stopped and continued: one process, checkpoints, a log."""

import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from emoji_world.master_weights import EMA_DECAY, MasterWeights

WARMUP_STEPS: Final = 200

DECAY_SHARE: Final = 0.4
"""Share of the run, at its end, over which the learning rate falls linearly to zero."""

VALIDATION_STEP: Final = 10**9
"""The step whose pictures are only ever looked at to validate."""


@dataclass(frozen=True)
class TrainingPlan:
    """The settings of a training.

    Attributes:
        steps: optimiser steps of the whole run.
        batch_size: pictures per step.
        learning_rate: its highest value.
        seed: seed of every random draw.
    """

    steps: int
    batch_size: int = 64
    learning_rate: float = 1e-3
    seed: int = 0

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, a constant stretch, linear decay to zero."""
        return self.learning_rate * trapezoid(step, self.steps, WARMUP_STEPS, DECAY_SHARE)


def trapezoid(step: int, steps: int, warmup: int, decay_share: float) -> float:
    """Up linearly over ``warmup`` steps, 1, down over the last ``decay_share`` of ``steps``."""
    return min(1.0, (step + 1) / warmup, (steps - step) / (decay_share * steps))


class Trainee(Protocol):
    """Something that learns."""

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """All that is trained, by a name of its own; each parameter must get a gradient."""

    def loss(self, step: int) -> Tensor:
        """The loss on the pictures of ``step``, a scalar; the same step draws the same pictures."""


def run_training(trainee: Trainee, plan: TrainingPlan, folder: Path, save_every: int = 250) -> None:
    """Train in ``folder``, or continue there.

    A checkpoint and a line of ``log.jsonl`` are written every ``save_every`` steps and at the end.

    Raises:
        ValueError: ``folder`` was started with other settings (more or fewer steps are fine).
    """
    keep_settings(asdict(plan), folder, free="steps")
    weights = MasterWeights(dict(trainee.modules), plan.learning_rate)
    first = _resume(folder, weights)
    progress = tqdm(range(first, plan.steps), initial=first, total=plan.steps, mininterval=10)
    started, mean_loss = time.monotonic(), 0.0
    for step in progress:
        loss = trainee.loss(step)
        loss.backward()  # type: ignore[no-untyped-call]
        decay = min(EMA_DECAY, (1 + step) / (20 + step))
        norm = weights.step(plan.learning_rate_at(step), decay, world_size=1)
        now = float(loss.detach())
        mean_loss = now if step == first else mean_loss + 0.02 * (now - mean_loss)
        done = step + 1
        if done % save_every == 0 or done == plan.steps:
            with torch.no_grad():
                unseen = float(trainee.loss(VALIDATION_STEP))
            row = {
                "step": done,
                "pictures": done * plan.batch_size,
                "loss": round(mean_loss, 5),
                "validation_loss": round(unseen, 5),
                "grad_norm": round(float(norm), 4),
                "seconds": round(time.monotonic() - started, 1),
            }
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(row) + "\n")
            _save(folder, done, weights)


def load_averages(modules: Mapping[str, nn.Module], folder: Path) -> None:
    """Put the averaged weights of the run in ``folder`` into ``modules``, named as in the run."""
    weights = MasterWeights(dict(modules), learning_rate=0.0)
    weights.load_state(load_file(folder / "checkpoint.safetensors"))
    weights.load_averages_into_modules()


def keep_records(folder: Path, records: Path) -> None:
    """Copy the plan and the log of the run in ``folder`` into ``records``."""
    records.mkdir(parents=True, exist_ok=True)
    for name in ("plan.json", "log.jsonl"):
        shutil.copyfile(folder / name, records / name)


def keep_settings(settings: Mapping[str, Any], folder: Path, free: str) -> None:
    """Write the settings of a run into ``folder``, or compare them with those it began with.

    Raises:
        ValueError: another one than ``free`` has changed.
    """
    record = folder / "plan.json"
    if record.is_file():
        before = json.loads(record.read_text())
        changed = [key for key in settings if key != free and before[key] != settings[key]]
        if changed:
            was = ", ".join(f"{key} was {before[key]}, is {settings[key]}" for key in changed)
            raise ValueError(
                f"{folder} holds a run with other settings ({was}): "
                "continue with its own, or start in an empty folder"
            )
    folder.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(settings, indent=2) + "\n")


def _save(folder: Path, step: int, weights: MasterWeights) -> None:
    """Replace the checkpoint in one rename."""
    partial = folder / "checkpoint.partial"
    tensors = {name: tensor.contiguous() for name, tensor in weights.state().items()}
    save_file(tensors, partial, metadata={"step": str(step)})
    os.replace(partial, folder / "checkpoint.safetensors")


def _resume(folder: Path, weights: MasterWeights) -> int:
    """Restore the checkpoint in ``folder``; the next step, 0 when there is none."""
    path = folder / "checkpoint.safetensors"
    if not path.is_file():
        return 0
    with safe_open(path, "pt") as opened:
        step = int(opened.metadata()["step"])
    weights.load_state(load_file(path))
    return step
