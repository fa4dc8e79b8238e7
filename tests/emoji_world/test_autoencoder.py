"""The encoder set by hand computes the latent space; the decoder is what is left to learn."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from emoji_world.autoencoder import build_autoencoder, decoder_parameters, psnr
from emoji_world.dataset import PictureDataset
from emoji_world.latents import PatchComponents


@pytest.fixture(scope="module")
def vae(components: PatchComponents) -> AutoencoderKL:
    return build_autoencoder(components).eval()


def checkerboard() -> Tensor:
    return ((torch.arange(64)[:, None] + torch.arange(64)) % 2 * 2.0 - 1).expand(1, 3, 64, 64)


@torch.inference_mode()
@pytest.mark.parametrize("saved", [False, True], ids=["built", "saved and loaded"])
def test_the_encoder_is_the_latent_space(
    vae: AutoencoderKL,
    components: PatchComponents,
    pictures: PictureDataset,
    saved: bool,
    tmp_path: Path,
) -> None:
    if saved:
        vae.save_pretrained(tmp_path)
        vae = AutoencoderKL.from_pretrained(tmp_path, dtype=torch.float32)
    pixels = torch.cat(
        [
            pictures.images(np.arange(4)),
            torch.ones(1, 3, 64, 64),
            -torch.ones(1, 3, 64, 64),
            checkerboard(),
        ]
    )
    posterior = vae.encode(pixels).latent_dist
    expected = components.encode(pixels)
    torch.testing.assert_close(posterior.mode(), expected, atol=1e-3, rtol=1e-3)
    sampled = posterior.sample(generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(sampled, expected, atol=2e-3, rtol=1e-3)


def test_latents_need_no_scaling(vae: AutoencoderKL) -> None:
    assert vae.config.scaling_factor == 1.0
    assert not vae.config.get("shift_factor")


def test_training_touches_the_decoder_and_nothing_else(vae: AutoencoderKL) -> None:
    trained = {id(parameter) for parameter in decoder_parameters(vae)}
    for name, parameter in vae.named_parameters():
        belongs = name.startswith(("decoder.", "post_quant_conv."))
        assert (id(parameter) in trained) == belongs, name


def test_decoded_pictures_have_the_size_of_the_world(vae: AutoencoderKL) -> None:
    with torch.inference_mode():
        assert vae.decode(torch.zeros(2, 8, 16, 16)).sample.shape == (2, 3, 64, 64)


def test_psnr_of_a_known_error_and_only_of_what_can_be_seen() -> None:
    black = torch.full((1, 3, 4, 4), -1.0)
    assert psnr(black + 0.2, black) == pytest.approx(20.0, abs=1e-4)
    assert psnr(torch.full_like(black, 3.0), -black - 0.2) == pytest.approx(20.0, abs=1e-4)
