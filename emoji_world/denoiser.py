"""The modules that are pretrained, in mixed precision, and the loss that trains them.

Noise prediction (Ho et al. 2020, eq. 14) with Min-SNR weights (Hang et al. 2023, γ = 5) and
stratified timesteps.
"""

from typing import Final

import torch
from torch import Tensor
from transformers import CLIPTokenizer

from emoji_world.captions import all_captions
from emoji_world.dataset import PictureDataset
from emoji_world.generator import (
    TEXT_LENGTH,
    build_scheduler,
    build_text_encoder,
    build_unet,
)
from emoji_world.latents import PatchComponents
from emoji_world.mixed_precision import to_bfloat16

MIN_SNR_GAMMA: Final = 5.0


class Denoiser:
    """The modules being trained and the loss they are trained with."""

    def __init__(self, tokenizer: CLIPTokenizer, dataset: PictureDataset, seed: int) -> None:
        torch.manual_seed(seed)
        self.tokenizer = tokenizer
        self.text_encoder = build_text_encoder(self.tokenizer)
        self.unet = build_unet()
        self.alphas_cumprod: Tensor = build_scheduler().alphas_cumprod
        self.components: PatchComponents = dataset.components()
        texts = [caption.text for caption in all_captions()] + [""]
        self.tokens: Tensor = self.tokenizer(
            texts, padding="max_length", max_length=TEXT_LENGTH, return_tensors="pt"
        ).input_ids
        to_bfloat16(self.unet)

    def loss(self, pixels: Tensor, caption_ids: Tensor, generator: torch.Generator) -> Tensor:
        """Min-SNR weighted noise-prediction loss, a scalar.

        Args:
            pixels: [B, 3, H, W] in [-1, 1].
            caption_ids: int64 [B]; -1 stands for the empty caption.
            generator: draws timesteps and noise.
        """
        latents = self.components.encode(pixels)
        count = len(latents)
        strata = (torch.arange(count) + torch.rand(count, generator=generator)) / count
        timesteps = (strata * 1000).long().clamp(max=999)
        noise = torch.randn(latents.shape, generator=generator)
        alpha = self.alphas_cumprod[timesteps]
        noisy = (
            alpha.sqrt()[:, None, None, None] * latents
            + (1 - alpha).sqrt()[:, None, None, None] * noise
        )
        states = self.text_encoder(self.tokens[caption_ids]).last_hidden_state
        prediction = self.unet(noisy.bfloat16(), timesteps, states.bfloat16(), return_dict=False)[
            0
        ].float()
        snr = alpha / (1 - alpha)
        weight = snr.clamp(max=MIN_SNR_GAMMA) / snr
        loss: Tensor = (weight * (prediction - noise).square().mean((1, 2, 3))).mean()
        return loss
