"""The loss of pretraining, on a small UNet."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from emoji_world import denoiser as module
from emoji_world.captions import all_captions
from emoji_world.dataset import PictureDataset
from emoji_world.denoiser import Denoiser
from emoji_world.generator import build_tokenizer


@pytest.fixture
def denoiser(
    pictures: PictureDataset,
    tmp_path: Path,
    build_small_unet: Callable[[], UNet2DConditionModel],
    monkeypatch: pytest.MonkeyPatch,
) -> Denoiser:
    monkeypatch.setattr(module, "build_unet", build_small_unet)
    return Denoiser(build_tokenizer(tmp_path), pictures, seed=0)


def loss(denoiser: Denoiser, pictures: PictureDataset, caption: int, seed: int = 0) -> float:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.full((64,), caption)
    with torch.no_grad():
        return float(denoiser.loss(pictures.images(np.arange(64)), ids, generator))


def test_a_dropped_caption_is_the_empty_prompt(denoiser: Denoiser) -> None:
    assert len(denoiser.tokens) == len(all_captions()) + 1
    empty = denoiser.tokenizer("", padding="max_length", return_tensors="pt").input_ids
    assert torch.equal(denoiser.tokens[-1:], empty)


def test_the_loss_of_predicting_nothing_is_the_mean_min_snr_weight(
    denoiser: Denoiser, pictures: PictureDataset
) -> None:
    with torch.no_grad():
        for parameter in denoiser.unet.conv_out.parameters():
            parameter.zero_()
    snr = denoiser.alphas_cumprod / (1 - denoiser.alphas_cumprod)
    expected = float((snr.clamp(max=5) / snr).mean())
    assert loss(denoiser, pictures, 0) == pytest.approx(expected, rel=0.05)


def test_the_loss_hears_the_caption_and_draws_from_its_generator(
    denoiser: Denoiser, pictures: PictureDataset
) -> None:
    assert loss(denoiser, pictures, 0) == loss(denoiser, pictures, 0)
    assert loss(denoiser, pictures, 0) != loss(denoiser, pictures, 5)
    assert loss(denoiser, pictures, 0) != loss(denoiser, pictures, 0, seed=1)


def test_one_seed_starts_from_the_same_weights(
    denoiser: Denoiser, pictures: PictureDataset
) -> None:
    again, other = (Denoiser(denoiser.tokenizer, pictures, seed) for seed in (0, 1))
    weights = [each.unet.conv_in.weight for each in (denoiser, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
