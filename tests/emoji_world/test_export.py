"""Export: only what belongs together, with the records of its training."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file

from emoji_world import autoencoder_training, denoiser, pretraining
from emoji_world.autoencoder import build_autoencoder, load_autoencoder
from emoji_world.dataset import PictureDataset, save_dataset
from emoji_world.export import check_latent_space, export_model
from emoji_world.latents import PatchComponents
from emoji_world.pretraining import PretrainingPlan, pretrain


@pytest.fixture
def cache(
    tmp_path: Path,
    pictures: PictureDataset,
    components: PatchComponents,
    build_small_unet: Callable[[], UNet2DConditionModel],
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """What a rebuild leaves before its export, with a small UNet that took one step."""
    for module in (denoiser, pretraining):
        monkeypatch.setattr(module, "build_unet", build_small_unet)
    for module in (autoencoder_training, pretraining):
        monkeypatch.setattr(module, "VALIDATION_PICTURES", 8)
    cache = tmp_path / "cache"
    save_dataset(pictures, cache / "pictures")
    plan = PretrainingPlan(samples=4, batch_size=4, processes=1)
    pretrain(plan, cache / "pictures", cache / "generator")
    build_autoencoder(components).save_pretrained(cache / "vae")
    return cache


def test_the_exported_folder_is_a_pipeline_with_the_averaged_weights(
    cache: Path, tmp_path: Path
) -> None:
    export_model(cache, tmp_path / "model", tmp_path / "records")
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "model", dtype=torch.float32)
    average = load_file(cache / "generator" / "checkpoint.safetensors")["average/unet.conv_in.bias"]
    assert torch.equal(pipeline.unet.conv_in.bias, average.half().float())
    records = {path.name for path in (tmp_path / "records").iterdir()}
    assert records == {"plan.json", "log.jsonl", "dataset.json", "decoder.json"}
    assert json.loads((tmp_path / "records" / "decoder.json").read_text())["psnr_db"] > 0
    texts = [path.read_text() for path in (tmp_path / "model").rglob("*.json")]
    assert not [text for text in texts if "cache" in text]


def test_a_decoder_of_another_latent_space_is_refused(
    cache: Path, tmp_path: Path, components: PatchComponents
) -> None:
    turned = PatchComponents(components.mean, -components.basis)
    build_autoencoder(turned).save_pretrained(cache / "vae")
    with pytest.raises(ValueError, match="another latent space"):
        export_model(cache, tmp_path / "model", tmp_path / "records")
    assert not (tmp_path / "model").exists()
    assert not (tmp_path / "records").exists()


def test_the_own_latent_space_passes(components: PatchComponents) -> None:
    check_latent_space(build_autoencoder(components), components)


def test_a_missing_decoder_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="python -m emoji_world decoder"):
        load_autoencoder(tmp_path)
