"""A checkpoint is whole or not there, and what comes back is what went in."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from shared.schema import Identity
from trainer import checkpoints
from trainer.checkpoints import Checkpoint, RunState
from trainer.optimizer import adamw
from trainer.sections import TrainingSection
from trainer.stops import RunStopped

IDENTITY = Identity(name="jpeg", version="1", units="kB", direction="maximize")


def checkpoint(epoch: int) -> Checkpoint:
    state = RunState(
        epoch=epoch,
        reward_queries=64 * epoch,
        masked=1,
        skipped_steps=2,
        skipped_in_a_row=0,
        seconds=1.5,
        metrics_bytes=120,
        prompts={"state": {"state": 2**127 + 1}},
        trackers={"jpeg": {"a cat": [-1.25, 0.1 + 0.2]}, "clip": {"a cat": [7.0]}},
        identities={"jpeg": IDENTITY},
        config={"run": {"seed": 3}, "rewards": {"jpeg": {"urls": ["http://a"]}}},
    )
    generator = torch.Generator().manual_seed(epoch)
    return Checkpoint(
        state=state,
        weights={"w": torch.full((2, 3), float(epoch))},
        optimizer={"0.step": torch.tensor(4.0)},
        generators={"shuffling": generator.get_state()},
    )


def test_what_comes_back_is_what_went_in(tmp_path: Path) -> None:
    saved = checkpoint(3)
    path = checkpoints.save(tmp_path, saved, keep=2)
    loaded = checkpoints.load(path)
    assert loaded.state.model_copy(update={"files": {}}) == saved.state
    assert torch.equal(loaded.weights["w"], saved.weights["w"])
    assert torch.equal(loaded.optimizer["0.step"], saved.optimizer["0.step"])
    generator = torch.Generator()
    generator.set_state(loaded.generators["shuffling"])
    assert torch.equal(
        torch.randperm(50, generator=generator),
        torch.randperm(50, generator=torch.Generator().manual_seed(3)),
    )


def test_a_checkpoint_of_when_a_run_had_one_reward(tmp_path: Path) -> None:
    path = checkpoints.save(tmp_path, checkpoint(3), keep=2)
    state = json.loads((path / "state.json").read_text())
    state["tracker"] = state.pop("trackers")["jpeg"]
    (path / "state.json").write_text(json.dumps(state))
    assert checkpoints.load(path).state.trackers == {"jpeg": {"a cat": [-1.25, 0.1 + 0.2]}}
    # Without the name that it had it is a damaged one.
    state["config"] = {}
    (path / "state.json").write_text(json.dumps(state))
    with pytest.raises(RunStopped, match="cannot be read"):
        checkpoints.load(path)


def test_averaged_weights_are_a_file_of_their_own(tmp_path: Path) -> None:
    plain = checkpoints.save(tmp_path, checkpoint(3), keep=2)
    assert not (plain / "average.safetensors").exists()
    loaded = checkpoints.load(plain)
    assert loaded.average == {}
    assert loaded.evaluated is loaded.weights
    saved = replace(checkpoint(4), average={"w": torch.full((2, 3), 0.5)})
    path = checkpoints.save(tmp_path, saved, keep=2)
    loaded = checkpoints.load(path)
    assert torch.equal(loaded.average["w"], saved.average["w"])
    assert loaded.evaluated is loaded.average
    # It is as needed as the others.
    (path / "average.safetensors").unlink()
    with pytest.raises(RunStopped, match="cannot be read"):
        checkpoints.load(path)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for epoch in (1, 2, 10, 9):
        checkpoints.save(tmp_path, checkpoint(epoch), keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-00009", "epoch-00010"]
    newest = checkpoints.newest(tmp_path)
    assert newest is not None
    assert newest.name == "epoch-00010"


def test_the_best_is_kept_beside_the_newest(tmp_path: Path) -> None:
    for epoch in (1, 2, 3, 4):
        checkpoints.save(tmp_path, checkpoint(epoch), keep=1, best=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-00002", "epoch-00004"]
    checkpoints.save(tmp_path, checkpoint(5), keep=1, best=4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-00004", "epoch-00005"]


def test_no_checkpoint(tmp_path: Path) -> None:
    assert checkpoints.newest(tmp_path / "absent") is None
    assert checkpoints.newest(tmp_path) is None


def test_a_checkpoint_is_found_by_its_epoch(tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "checkpoints"
    with pytest.raises(RunStopped, match=rf"the run in {tmp_path}/mine has no checkpoint yet"):
        checkpoints.found(folder)
    for epoch in (0, 2, 10):
        checkpoints.save(folder, checkpoint(epoch), keep=3)
    assert checkpoints.found(folder).name == "epoch-00010"
    assert checkpoints.found(folder, 2).name == "epoch-00002"
    assert checkpoints.found(folder, 0).name == "epoch-00000"
    with pytest.raises(RunStopped, match="no checkpoint after epoch 3, but after 0, 2, 10"):
        checkpoints.found(folder, 3)


def test_a_partial_checkpoint_is_never_found(tmp_path: Path) -> None:
    whole = checkpoints.save(tmp_path, checkpoint(1), keep=2)
    shutil.copytree(whole, tmp_path / ".epoch-00002.partial")
    assert checkpoints.newest(tmp_path) == whole
    # What a killed process left behind is in nobody's way.
    assert checkpoints.save(tmp_path, checkpoint(2), keep=2).name == "epoch-00002"


def test_nothing_is_left_when_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoints, "_flush", full_disk)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(tmp_path, checkpoint(1), keep=2)
    assert checkpoints.newest(tmp_path) is None


@pytest.mark.parametrize("part", ["weights", "optimizer", "generators"])
def test_a_file_cut_short_is_refused(tmp_path: Path, part: str) -> None:
    path = checkpoints.save(tmp_path, checkpoint(1), keep=2)
    file = path / f"{part}.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(RunStopped, match=rf"damaged: {part}\.safetensors has \d+ bytes instead"):
        checkpoints.load(path)


@pytest.mark.parametrize("text", ["", "{}", '{"epoch": 1', "[]"])
def test_a_broken_state_is_refused(tmp_path: Path, text: str) -> None:
    path = checkpoints.save(tmp_path, checkpoint(1), keep=2)
    (path / "state.json").write_text(text)
    with pytest.raises(RunStopped, match=r"cannot be read .* delete that folder"):
        checkpoints.load(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    path = checkpoints.save(tmp_path, checkpoint(1), keep=2)
    (path / "weights.safetensors").unlink()
    with pytest.raises(RunStopped, match="cannot be read"):
        checkpoints.load(path)


def test_the_same_moment_is_written_once(tmp_path: Path) -> None:
    path = checkpoints.save(tmp_path, checkpoint(1), keep=2)
    before = (path / "state.json").stat().st_mtime_ns
    assert checkpoints.save(tmp_path, checkpoint(1), keep=2) == path
    assert (path / "state.json").stat().st_mtime_ns == before


def test_the_state_is_plain_json(tmp_path: Path) -> None:
    path = checkpoints.save(tmp_path, checkpoint(1), keep=2)
    state = json.loads((path / "state.json").read_text())
    assert state["identities"]["jpeg"] == IDENTITY.model_dump()
    assert {file.suffix for file in path.iterdir()} == {".json", ".safetensors"}


def test_an_optimiser_goes_on_as_if_it_had_not_stopped() -> None:
    def step(parameter: torch.nn.Parameter, optimizer: torch.optim.AdamW) -> None:
        parameter.grad = parameter.detach().sin()
        optimizer.step()

    def fresh(value: torch.Tensor) -> tuple[torch.nn.Parameter, torch.optim.AdamW]:
        parameter = torch.nn.Parameter(value.clone())
        return parameter, torch.optim.AdamW([parameter], lr=0.1)

    straight, optimizer = fresh(torch.linspace(-1, 1, 7))
    for _ in range(3):
        step(straight, optimizer)
    tensors = checkpoints.optimizer_tensors(optimizer)
    kept = {key: value.clone() for key, value in tensors.items()}
    resumed, second = fresh(straight.detach())
    checkpoints.restore_optimizer(second, tensors)
    for _ in range(2):
        step(straight, optimizer)
        step(resumed, second)
    assert torch.equal(straight, resumed)
    # Going on did not reach into the checkpoint that was restored.
    assert not torch.equal(optimizer.state[straight]["exp_avg"], kept["0.exp_avg"])


def test_an_optimiser_of_eight_bits_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    section = TrainingSection(learning_rate=0.1, optimizer="adamw_8bit")
    straight = torch.nn.Parameter(torch.linspace(-1, 1, 4096))  # fewer numbers keep 32 bits
    resumed = torch.nn.Parameter(straight.detach().clone())

    def step(parameter: torch.nn.Parameter, optimizer: torch.optim.Optimizer) -> None:
        parameter.grad = parameter.detach().sin()
        optimizer.step()

    first = adamw([straight], section)
    for _ in range(3):
        step(straight, first)
    tensors = checkpoints.optimizer_tensors(first)
    assert torch.uint8 in {value.dtype for value in tensors.values()}
    save_file({key: value.contiguous() for key, value in tensors.items()}, tmp_path / "o")
    with torch.no_grad():
        resumed.copy_(straight)
    second = adamw([resumed], section)
    checkpoints.restore_optimizer(second, load_file(tmp_path / "o"))
    for _ in range(2):
        step(straight, first)
        step(resumed, second)
    assert torch.equal(straight, resumed)


def test_an_optimiser_without_a_step_has_no_state() -> None:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))])
    assert checkpoints.optimizer_tensors(optimizer) == {}
    checkpoints.restore_optimizer(optimizer, {})
    assert checkpoints.optimizer_tensors(optimizer) == {}
