"""Loading a model folder, and what is said when it is not one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from trainer.pipeline import load_pipeline
from trainer.sections import ModelSection
from trainer.stops import ModelError


@pytest.fixture
def copy(micro_sd: Path, tmp_path: Path) -> Path:
    """A micro pipeline that may be broken."""
    return Path(shutil.copytree(micro_sd, tmp_path / "model"))


def fault(path: Path | str) -> str:
    """What loading says: one line."""
    with pytest.raises(ModelError) as caught:
        load_pipeline(ModelSection(path=str(path)))
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message or "scheduler" in message
    return message


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **changes}))


def test_a_folder_from_anywhere(micro_sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    relative = micro_sd.relative_to(micro_sd.parent.parent.parent)
    # Not in the working directory: then beside the packages, where models are shipped.
    monkeypatch.chdir("/")
    pipeline = load_pipeline(ModelSection(path=str(relative)))
    assert pipeline.unet.config.in_channels == 4
    assert next(pipeline.unet.parameters()).dtype == torch.float32
    assert pipeline.scheduler.config.steps_offset == 1


def test_a_folder_that_is_not_a_pipeline(tmp_path: Path, copy: Path) -> None:
    assert "holds no model_index.json; give the folder of a" in fault(tmp_path)
    assert "no such folder" in fault(tmp_path / "missing")
    assert "no such folder" in fault("emoji_world/models/missing")
    (copy / "model_index.json").write_text("[]")
    assert "not a JSON object" in fault(copy)
    (copy / "model_index.json").write_text('{"_class_name": "StableDiffusion3Pipeline"}')
    assert "is a StableDiffusion3Pipeline; only a StableDiffusionPipeline or a" in fault(copy)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_pipeline_without_one_of_its_parts(copy: Path, part: str) -> None:
    shutil.rmtree(copy / part)
    assert "cannot be loaded as a StableDiffusionPipeline: " in fault(copy)


def test_a_damaged_weight_file(copy: Path) -> None:
    (copy / "unet/diffusion_pytorch_model.safetensors").write_bytes(b"not safetensors")
    assert "cannot be loaded as a StableDiffusionPipeline: " in fault(copy)


def test_pickled_weights_are_not_read(copy: Path) -> None:
    weights = copy / "unet/diffusion_pytorch_model.safetensors"
    torch.save({"conv_in.bias": torch.zeros(1)}, weights.with_suffix(".bin"))
    weights.unlink()
    assert "safetensors" in fault(copy)


def test_a_hub_that_cannot_be_reached() -> None:
    # The tests run with the hub switched off.
    assert "as a model hub id its model_index.json cannot be had" in fault("nobody/no-such-model")


@pytest.mark.parametrize(
    ("folder", "changes", "message"),
    [
        ("unet", {"in_channels": 9}, "its UNet takes 9 channels, its latents have 4"),
        ("unet", {"time_cond_proj_dim": 8}, "it takes the guidance scale as an input"),
        ("vae", {"shift_factor": 0.1}, "shifted by latents_mean or shift_factor"),
        ("vae", {"latents_mean": [0.0] * 4}, "shifted by latents_mean or shift_factor"),
    ],
)
def test_networks_of_another_kind(
    copy: Path, folder: str, changes: dict[str, Any], message: str
) -> None:
    kind = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[folder]
    config = kind.load_config(copy / folder)
    kind.from_config({**config, **changes}).save_pretrained(copy / folder)
    assert message in fault(copy)


def test_a_class_that_the_parts_are_not_of(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny("xl"), tmp_path / "model"))
    edit(folder / "model_index.json", _class_name="StableDiffusionPipeline")
    expected = "no ordinary StableDiffusionPipeline: its UNet has addition_embed_type 'text_time'"
    assert expected in fault(folder)


@pytest.mark.parametrize("part", ["text_encoder_2", "tokenizer_2"])
def test_a_pipeline_of_xl_without_its_second_encoder(
    tiny: Callable[[str], Path], tmp_path: Path, part: str
) -> None:
    folder = Path(shutil.copytree(tiny("xl"), tmp_path / "model"))
    shutil.rmtree(folder / part)
    assert "cannot be loaded as a StableDiffusionXLPipeline: " in fault(folder)


def test_pictures_of_a_pipeline(tiny: Callable[[str], Path]) -> None:
    pipeline = load_pipeline(ModelSection(path=str(tiny("xl"))))
    assert pipeline.latent_shape == (4, 8, 8)
    assert pipeline.picture_size == (16, 16)
    assert [len(encoder.tokenizer) for encoder in pipeline.text_encoders] == [57, 57]


def test_files_of_another_variant(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    assert load_pipeline(ModelSection(path=str(tiny("xl")), variant="")).latent_shape == (4, 8, 8)
    folder = Path(shutil.copytree(tiny("xl"), tmp_path / "model"))
    for file in folder.rglob("*.safetensors"):
        file.rename(file.with_suffix(".fp16.safetensors"))
    assert "cannot be loaded as a StableDiffusionXLPipeline: " in fault(folder)
    pipeline = load_pipeline(ModelSection(path=str(folder), variant="fp16"))
    assert next(pipeline.unet.parameters()).dtype == torch.float32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prediction_type": "sample"}, "predicts 'sample'; only epsilon and v_prediction"),
        ({"clip_sample": True}, "sets clip_sample, under which"),
        ({"thresholding": True}, "set thresholding to false in scheduler/"),
    ],
)
def test_a_scheduler_that_cannot_be_trained_through(
    copy: Path, changes: dict[str, Any], message: str
) -> None:
    edit(copy / "scheduler/scheduler_config.json", **changes)
    assert message in fault(copy)


def test_a_scheduler_of_another_kind_becomes_ddim(copy: Path) -> None:
    # Stable Diffusion ships a PNDM configuration, without DDIM's own keys.
    config = {
        "_class_name": "PNDMScheduler",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "num_train_timesteps": 1000,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "trained_betas": None,
    }
    (copy / "scheduler/scheduler_config.json").write_text(json.dumps(config))
    scheduler = load_pipeline(ModelSection(path=str(copy))).scheduler
    scheduler.set_timesteps(50)
    assert scheduler.timesteps[:2].tolist() == [981, 961]
