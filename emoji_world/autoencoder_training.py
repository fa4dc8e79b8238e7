"""Training of the decoder: latents are known exactly, so this is plain regression."""

from typing import Final

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn import functional
from tqdm import trange

from emoji_world.autoencoder import build_autoencoder, decoder_parameters, psnr
from emoji_world.dataset import VALIDATION_PICTURES, PictureDataset
from emoji_world.latents import PatchComponents

BATCH_SIZE: Final = 8
LEARNING_RATE: Final = 2e-3
LATENT_NOISE: Final = 0.03
"""Standard deviation of the noise added to latents, so that sampled ones decode cleanly too."""


def train_decoder(
    dataset: PictureDataset, components: PatchComponents, steps: int, seed: int
) -> tuple[AutoencoderKL, float]:
    """Train the decoder for ``steps``; the autoencoder and its PSNR in dB on unseen pictures."""
    torch.manual_seed(seed)
    vae = build_autoencoder(components)
    rng = np.random.default_rng([seed, 3])
    trained = decoder_parameters(vae)
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.05
    )
    progress = trange(steps, desc="decoder", mininterval=5)
    for _ in progress:
        pixels = dataset.images(rng.integers(VALIDATION_PICTURES, len(dataset), BATCH_SIZE))
        latents = components.encode(pixels)
        decoded = vae.decode(latents + LATENT_NOISE * torch.randn_like(latents)).sample
        difference = decoded - pixels
        loss = difference.square().mean() + 0.1 * difference.abs().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        progress.set_postfix(mse=f"{float(functional.mse_loss(decoded, pixels).detach()):.5f}")
    return vae.eval(), decoder_psnr(vae, dataset, components)


@torch.inference_mode()
def decoder_psnr(vae: AutoencoderKL, dataset: PictureDataset, components: PatchComponents) -> float:
    """PSNR in dB of pictures that the decoder was not trained on, encoded and decoded."""
    pixels = dataset.images(np.arange(VALIDATION_PICTURES))
    return psnr(vae.decode(components.encode(pixels)).sample, pixels)
