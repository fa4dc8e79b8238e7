"""Pretraining on random pictures: resumed equals uninterrupted, and other settings are refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from emoji_world import denoiser, pretraining
from emoji_world.dataset import (
    VALIDATION_PICTURES,
    DatasetMissing,
    PictureDataset,
    save_dataset,
)
from emoji_world.denoiser import Denoiser
from emoji_world.generator import build_tokenizer
from emoji_world.pretraining import (
    CAPTION_DROPOUT,
    WARMUP_STEPS,
    PretrainingPlan,
    averaged_modules,
    batch,
    pretrain,
    trained_components,
    validation_loss,
)

PLAN = PretrainingPlan(samples=16, batch_size=4, processes=1, learning_rate=1e-2, seed=7)


@pytest.fixture(autouse=True)
def small(
    monkeypatch: pytest.MonkeyPatch, build_small_unet: Callable[[], UNet2DConditionModel]
) -> None:
    """The same code with a small UNet and few pictures to validate on."""
    for module in (denoiser, pretraining):
        monkeypatch.setattr(module, "build_unet", build_small_unet)
    monkeypatch.setattr(pretraining, "VALIDATION_PICTURES", 8)


@pytest.fixture(scope="module")
def data(pictures: PictureDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    save_dataset(pictures, folder)
    return folder


def log_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_resumed_equals_uninterrupted_byte_for_byte(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrain(PLAN, data, tmp_path / "straight", save_every=2)

    def interrupted(dataset: PictureDataset, plan: PretrainingPlan, step: int, rank: int) -> object:
        if step == 3:
            raise KeyboardInterrupt
        return batch(dataset, plan, step, rank)

    with monkeypatch.context() as patched:
        patched.setattr(pretraining, "batch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pretrain(PLAN, data, tmp_path / "resumed", save_every=2)
    assert [row["step"] for row in log_of(tmp_path / "resumed")] == [2]
    pretrain(PLAN, data, tmp_path / "resumed", save_every=2)
    assert [row["step"] for row in log_of(tmp_path / "resumed")] == [2, 4]
    straight, resumed = (
        (tmp_path / name / "checkpoint.safetensors").read_bytes()
        for name in ("straight", "resumed")
    )
    assert straight == resumed
    # It trained at all: the masters left the averages behind.
    tensors = load_file(tmp_path / "straight" / "checkpoint.safetensors")
    name = "unet.conv_in.weight"
    assert not torch.equal(tensors[f"master/{name}"], tensors[f"average/{name}"])


def test_a_finished_run_is_left_as_it_is(data: Path, tmp_path: Path) -> None:
    pretrain(PLAN, data, tmp_path)
    checkpoint = tmp_path / "checkpoint.safetensors"
    before = checkpoint.stat().st_mtime_ns
    pretrain(PLAN, data, tmp_path)
    assert checkpoint.stat().st_mtime_ns == before
    assert len(log_of(tmp_path)) == 1


def test_other_settings_are_refused_and_more_samples_are_not(data: Path, tmp_path: Path) -> None:
    one_step = PretrainingPlan(samples=4, batch_size=4, processes=1)
    pretrain(one_step, data, tmp_path)
    other = PretrainingPlan(samples=4, batch_size=4, processes=1, learning_rate=3e-4, seed=1)
    with pytest.raises(ValueError, match=r"learning_rate was 0\.001, is 0\.0003, seed was 0, is 1"):
        pretrain(other, data, tmp_path)
    assert json.loads((tmp_path / "plan.json").read_text())["seed"] == 0
    pretrain(PretrainingPlan(samples=8, batch_size=4, processes=1), data, tmp_path)
    assert [row["step"] for row in log_of(tmp_path)] == [1, 2]


def test_without_pictures_nothing_is_left_behind(
    pictures: PictureDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DatasetMissing, match="python -m emoji_world build"):
        pretrain(PLAN, tmp_path / "none", tmp_path / "run")
    monkeypatch.setattr(pretraining, "VALIDATION_PICTURES", len(pictures))
    save_dataset(pictures, tmp_path / "few")
    with pytest.raises(ValueError, match="300 pictures: 301 are needed"):
        pretrain(PLAN, tmp_path / "few", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_all_sessions_of_a_run_share_the_tokenizer_it_began_with(
    data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "tokenizer"
    build_tokenizer(folder)
    numbered = folder / "tokenizer.json"
    content = json.loads(numbered.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["cat</w>"], vocabulary["dog</w>"] = vocabulary["dog</w>"], vocabulary["cat</w>"]
    numbered.write_text(json.dumps(content))
    before = numbered.read_bytes()
    pretrain(PretrainingPlan(samples=4, batch_size=4, processes=1), data, tmp_path)
    assert numbered.read_bytes() == before
    ids = averaged_modules(tmp_path)[0]("a cat").input_ids
    assert ids[2] == vocabulary["cat</w>"]


def test_the_latent_space_of_a_resumed_run_is_that_of_its_checkpoint(
    data: Path, pictures: PictureDataset, tmp_path: Path
) -> None:
    pretrain(PretrainingPlan(samples=4, batch_size=4, processes=1), data, tmp_path / "run")
    first = trained_components(tmp_path / "run")
    turned = PictureDataset(255 - pictures.pixels, *list(vars(pictures).values())[1:])
    save_dataset(turned, tmp_path / "turned")
    assert not torch.equal(turned.components().mean, first.mean)
    longer = PretrainingPlan(samples=8, batch_size=4, processes=1)
    pretrain(longer, tmp_path / "turned", tmp_path / "run")
    assert torch.equal(trained_components(tmp_path / "run").mean, first.mean)


def test_exported_modules_hold_the_averages(data: Path, tmp_path: Path) -> None:
    pretrain(PLAN, data, tmp_path)
    tokenizer, text_encoder, unet = averaged_modules(tmp_path)
    tensors = load_file(tmp_path / "checkpoint.safetensors")
    assert torch.equal(unet.conv_in.weight, tensors["average/unet.conv_in.weight"])
    for name, parameter in text_encoder.named_parameters():
        assert torch.equal(parameter, tensors[f"average/text_encoder.{name}"])
    assert tokenizer("a cat").input_ids[0] == tokenizer.bos_token_id
    assert not unet.training


def test_a_run_without_checkpoint_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="python -m emoji_world pretrain"):
        averaged_modules(tmp_path)
    with pytest.raises(ValueError, match="python -m emoji_world pretrain"):
        trained_components(tmp_path)


def test_batches_depend_on_step_and_rank_and_on_nothing_else(pictures: PictureDataset) -> None:
    first, again = (batch(pictures, PLAN, 1, 0) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert first[2].initial_seed() == again[2].initial_seed()
    for step, rank in ((2, 0), (1, 1)):
        other = batch(pictures, PLAN, step, rank)
        assert not torch.equal(first[0], other[0])
        assert first[2].initial_seed() != other[2].initial_seed()


def test_captions_are_dropped_and_validation_pictures_never_shown(
    pictures: PictureDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretraining, "VALIDATION_PICTURES", VALIDATION_PICTURES)
    plan = PretrainingPlan(samples=1, batch_size=2000, processes=1)
    pixels, caption_ids, _ = batch(pictures, plan, 0, 0)
    assert (caption_ids == -1).float().mean() == pytest.approx(CAPTION_DROPOUT, abs=0.03)
    allowed = {pictures.pixels[i].tobytes() for i in range(VALIDATION_PICTURES, len(pictures))}
    drawn = ((pixels.permute(0, 2, 3, 1) + 1) * 127.5).round().numpy().astype(np.uint8)
    assert {picture.tobytes() for picture in drawn} <= allowed


def test_the_validation_loss_draws_the_same_noise_each_time(
    pictures: PictureDataset, tmp_path: Path
) -> None:
    denoiser = Denoiser(build_tokenizer(tmp_path), pictures, seed=0)
    assert validation_loss(denoiser, pictures) == validation_loss(denoiser, pictures)


def test_the_learning_rate_warms_up_stays_and_falls_to_zero() -> None:
    plan = PretrainingPlan(samples=96_000, batch_size=48, processes=2)
    assert plan.steps == 1000
    assert plan.learning_rate_at(0) == pytest.approx(1e-3 / WARMUP_STEPS)
    assert plan.learning_rate_at(500) == 1e-3
    assert plan.learning_rate_at(750) == pytest.approx(1e-3)
    assert plan.learning_rate_at(875) == pytest.approx(5e-4)
    assert 0 < plan.learning_rate_at(999) < 1e-5


def test_the_smallest_run_takes_one_step() -> None:
    assert PretrainingPlan(samples=1).steps == 1
