"""Pipelines with random weights that diffusers itself saves: one of each kind that is trained.

Latents are 4×8×8, pictures 16×16.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

_BETAS: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "trained_betas": None,
}

# scheduler_config.json as it is published with each model.
SD_1 = _BETAS | {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}
SD_21 = SD_1 | {
    "_class_name": "DDIMScheduler",
    "_diffusers_version": "0.8.0",
    "prediction_type": "v_prediction",
}
SD_XL = SD_1 | {
    "_class_name": "EulerDiscreteScheduler",
    "_diffusers_version": "0.19.0.dev0",
    "interpolation_type": "linear",
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "timestep_spacing": "leading",
    "use_karras_sigmas": False,
}


def tokenizer(letters: str, pad: str) -> CLIPTokenizer:
    """A CLIP tokenizer of letters and the word "cat".

    Args:
        letters: in the order of their numbers.
        pad: the token that fills up.
    """
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "ca", "cat</w>", "!"]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    built: CLIPTokenizer = CLIPTokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=[("c", "a"), ("ca", "t</w>")],
        pad_token=pad,
        model_max_length=12,
    )
    return built


def save_sd(folder: Path, scheduler: dict[str, Any] = SD_1) -> Path:
    """A StableDiffusionPipeline: Stable Diffusion 1 or 2, as its scheduler says."""
    torch.manual_seed(0)
    words = tokenizer("abcdefghijklmnopqrstuvwxyz", "<|endoftext|>")
    kind = {"PNDMScheduler": PNDMScheduler, "DDIMScheduler": DDIMScheduler}
    pipeline = StableDiffusionPipeline(
        tokenizer=words,
        text_encoder=CLIPTextModel(_text_config(words, 32)),
        unet=_unet(cross_attention_dim=32),
        vae=_vae(0.18215),
        scheduler=kind[scheduler["_class_name"]].from_config(scheduler),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def save_sdxl(folder: Path, *, zeros_for_empty: bool = True) -> Path:
    """A StableDiffusionXLPipeline with two encoders and tokenizers that differ."""
    torch.manual_seed(0)
    first = tokenizer("abcdefghijklmnopqrstuvwxyz", "<|endoftext|>")
    second = tokenizer("zyxwvutsrqponmlkjihgfedcba", "!")
    config = _text_config(second, 40)
    config.projection_dim = 24
    pipeline = StableDiffusionXLPipeline(
        tokenizer=first,
        tokenizer_2=second,
        text_encoder=CLIPTextModel(_text_config(first, 32)),
        text_encoder_2=CLIPTextModelWithProjection(config),
        unet=_unet(
            cross_attention_dim=32 + 40,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=24 + 6 * 8,
            transformer_layers_per_block=(1, 2),
            use_linear_projection=True,
        ),
        vae=_vae(0.13025),
        scheduler=EulerDiscreteScheduler.from_config(SD_XL),
        force_zeros_for_empty_prompt=zeros_for_empty,
        add_watermarker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def _text_config(words: CLIPTokenizer, width: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=12,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
    )


def _unet(**settings: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=4,
        **settings,
    )


def _vae(scaling_factor: float) -> AutoencoderKL:
    """An autoencoder whose pictures are the flatter, the smaller the latents are."""
    vae = AutoencoderKL(
        sample_size=16,
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=scaling_factor,
    )
    # Beside large constants the decoder's normalisation no longer takes the latents' size away, so
    # that a reward for flat pictures can be learned.
    with torch.no_grad():
        vae.decoder.conv_in.bias += 16 * torch.tensor([1.0, -1.0]).repeat(8)
    return vae


def pretrain(folder: Path, steps: int = 250) -> None:
    """Teach a pipeline's UNet, in its folder, to draw plain and noisy latents, half and half.

    Prompts mean nothing to it. What reinforcement learning can do to it is prefer the plain ones.
    """
    torch.manual_seed(0)
    pipe = DiffusionPipeline.from_pretrained(folder)
    unet, scheduler = pipe.unet.train(), DDIMScheduler.from_config(pipe.scheduler.config)
    optimizer = torch.optim.Adam(unet.parameters(), lr=3e-3)
    for _ in range(steps):
        noisy, plain = 4 * torch.randn(16, 4, 8, 8), torch.randn(16, 4, 1, 1)
        clean, noise = torch.cat([noisy, plain.expand_as(noisy)]), torch.randn(32, 4, 8, 8)
        timesteps = torch.randint(1000, (32,))
        output = unet(
            scheduler.add_noise(clean, noise, timesteps),
            timesteps,
            torch.randn(32, 12, unet.config.cross_attention_dim),
            added_cond_kwargs={
                "text_embeds": torch.randn(32, 24),
                "time_ids": torch.tensor([[16, 16, 0, 0, 16, 16]]).expand(32, -1),
            },
        ).sample
        velocity = scheduler.config.prediction_type == "v_prediction"
        target = scheduler.get_velocity(clean, noise, timesteps) if velocity else noise
        loss = (output - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    unet.save_pretrained(folder / "unet")
