"""Checkpoints: everything a run needs to go on as if it had never stopped.

    checkpoints/epoch-00012/
        weights.safetensors      the trained weights
        average.safetensors      their moving average, in a run with `ema.decay`
        optimizer.safetensors    AdamW's moments and step counts
        generators.safetensors   the state of every random generator
        state.json               the rest (`RunState`), and the size of each file above

A checkpoint is written into a hidden folder, flushed to the disk and then renamed, so a folder
named `epoch-…` is complete or was damaged later, which the sizes show. safetensors and JSON only:
loading a checkpoint executes nothing.
"""

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError, model_validator
from safetensors.torch import load_file, save_file
from torch import Tensor

from shared.schema import Identity
from trainer.stops import RunStopped

_NAME = re.compile(r"epoch-(\d{5,})")
_TENSOR_FILES = ("weights", "optimizer", "generators")
_AVERAGE = "average"  # only in a run that keeps one


class RunState(BaseModel):
    """The part of a checkpoint that is not tensors.

    Attributes:
        epoch: epochs finished, which is also the index of the next one.
        reward_queries: images scored for training so far (evaluations do not count).
        masked: images left out of training because they could never be scored.
        skipped_steps: optimiser steps skipped for a non-finite gradient.
        skipped_in_a_row: how many of them at the end of the run so far.
        seconds: time spent on training and evaluation so far, without set-up.
        metrics_bytes: length of `metrics.jsonl` at this point.
        prompts: position of the prompt source.
        trackers: for each reward, the latest ones of each prompt.
        identities: the identity of each reward, pinned when the run started.
        config: the resolved configuration.
        average_updates: optimiser steps behind the averaged weights.
        processes: how many computed it.
        files: byte size of each tensor file; filled in by `save`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epoch: int
    reward_queries: int
    masked: int
    skipped_steps: int
    skipped_in_a_row: int
    seconds: float
    metrics_bytes: int
    prompts: dict[str, JsonValue]
    trackers: dict[str, dict[str, list[float]]]
    identities: dict[str, Identity]
    config: dict[str, JsonValue]
    average_updates: int = 0
    processes: int = 1
    files: dict[str, int] = {}

    @model_validator(mode="before")
    @classmethod
    def _from_when_a_run_had_one_reward(cls, state: object) -> object:
        """Such checkpoints hold its `tracker`, without its name."""
        if not isinstance(state, dict) or "tracker" not in state:
            return state
        known = {key: value for key, value in state.items() if key != "tracker"}
        try:
            (reward,) = state["config"]["rewards"]
        except (KeyError, TypeError, ValueError):
            return known  # damaged: refused for want of its trackers
        return {**known, "trackers": {reward: state["tracker"]}}


@dataclass(frozen=True)
class Checkpoint:
    """One moment of a run, on the CPU.

    Attributes:
        state: the part that is JSON.
        weights: trained weights by parameter name.
        optimizer: see `optimizer_tensors`.
        generators: state of each generator by name, uint8.
        average: averaged weights by parameter name; empty unless the run averages them.
    """

    state: RunState
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    generators: dict[str, Tensor]
    average: dict[str, Tensor] = field(default_factory=dict)

    @property
    def evaluated(self) -> dict[str, Tensor]:
        """What evaluations draw with: the averaged weights if there are any, else the trained."""
        return self.average or self.weights


def save(folder: Path, checkpoint: Checkpoint, keep: int, best: int | None = None) -> Path:
    """Write a checkpoint, then delete all but the `keep` newest ones and that of epoch `best`.

    Args:
        folder: the run's `checkpoints/` folder; made when it is absent.
        checkpoint: what to write.
        keep: how many to keep, at least 1.
        best: epoch of a checkpoint that is kept however old it is.

    Returns:
        The folder of the new checkpoint.
    """
    final = folder / name(checkpoint.state.epoch)
    if final.exists():  # a run is deterministic: this moment has been written already
        return final
    partial = folder / f".{final.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    sizes = {}
    for part in (*_TENSOR_FILES, *([_AVERAGE] if checkpoint.average else [])):
        path = partial / f"{part}.safetensors"
        tensors: dict[str, Tensor] = getattr(checkpoint, part)
        save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, path)
        sizes[path.name] = path.stat().st_size
        _flush(path)
    state = checkpoint.state.model_copy(update={"files": sizes})
    state_path = partial / "state.json"
    state_path.write_text(state.model_dump_json(indent=1), encoding="utf-8")
    _flush(state_path)
    _flush(partial)
    partial.rename(final)
    _flush(folder)
    for epoch, old in _complete(folder)[:-keep]:
        if epoch != best:
            shutil.rmtree(old)
    return final


def name(epoch: int) -> str:
    """Name of the folder of a checkpoint."""
    return f"epoch-{epoch:05d}"


def newest(folder: Path) -> Path | None:
    """The folder of the newest checkpoint, or None when there is none."""
    found = _complete(folder)
    return found[-1][1] if found else None


def found(folder: Path, epoch: int | None = None) -> Path:
    """The folder of a run's checkpoint after an epoch, or of its newest one.

    Args:
        folder: the run's `checkpoints/` folder.
        epoch: epochs finished; None asks for the newest.

    Raises:
        RunStopped: there is none.
    """
    known = dict(_complete(folder))
    if not known:
        raise RunStopped(f"the run in {folder.parent} has no checkpoint yet")
    if epoch is None:
        return known[max(known)]
    if epoch not in known:
        raise RunStopped(
            f"the run in {folder.parent} has no checkpoint after epoch {epoch}, but after "
            f"{', '.join(map(str, known))} (checkpoints.keep is how many a run keeps)"
        )
    return known[epoch]


def load(path: Path) -> Checkpoint:
    """Read a checkpoint that `save` wrote.

    Raises:
        RunStopped: when a file is missing, cut short or not what `save` writes.
    """
    state = load_run_state(path)
    try:
        for file, size in state.files.items():
            found = (path / file).stat().st_size
            if found != size:
                raise RunStopped(
                    f"the checkpoint {path} is damaged: {file} has {found} bytes instead of "
                    f"{size}; delete that folder to resume from the one before"
                )
        parts = [*_TENSOR_FILES, *([_AVERAGE] if f"{_AVERAGE}.safetensors" in state.files else [])]
        tensors = {part: load_file(path / f"{part}.safetensors") for part in parts}
    except OSError as error:
        raise _unreadable(path, error) from error
    return Checkpoint(state, **tensors)


def load_run_state(path: Path) -> RunState:
    """The part of a checkpoint that is not tensors, without reading those.

    Raises:
        RunStopped: when it is missing or not what `save` writes.
    """
    try:
        return RunState.model_validate_json((path / "state.json").read_bytes())
    except (OSError, ValidationError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> RunStopped:
    reason = str(error).splitlines()[0]
    return RunStopped(
        f"the checkpoint {path} cannot be read ({reason}); delete that folder to resume from the "
        "one before"
    )


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as `"<parameter index>.<field>"`; empty before the first step.

    Fields within fields, as 8-bit optimisers have, are joined by further dots.
    """
    tensors: dict[str, Tensor] = {}

    def take(path: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for field, inner in value.items():
                take(f"{path}.{field}", inner)
        else:
            tensors[path] = torch.as_tensor(value)

    for index, values in optimizer.state_dict()["state"].items():
        take(str(index), values)
    return tensors


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` took; hyperparameters stay as they were built.

    Args:
        optimizer: built over the same parameters in the same order.
        tensors: from `optimizer_tensors`.
    """
    per_parameter: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        index, *within, field = key.split(".")
        place = per_parameter.setdefault(int(index), {})
        for name in within:
            place = place.setdefault(name, {})
        # AdamW counts steps in floating point; an integer was a number of Python's.
        number = value.dtype == torch.int64 and value.ndim == 0
        # A copy: AdamW updates its state in place, and a checkpoint must not change with it.
        place[field] = int(value) if number else value.clone()
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": per_parameter, "param_groups": groups})


def _complete(folder: Path) -> list[tuple[int, Path]]:
    """Complete checkpoints as (epoch, folder), oldest first."""
    if not folder.is_dir():
        return []
    matches = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted((int(match[1]), path) for match, path in matches if match)


def _flush(path: Path) -> None:
    """Ask the system to put a file, or a folder's list of names, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
