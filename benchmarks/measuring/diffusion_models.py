"""Text-to-image models with random weights: as fast, and as large, as trained ones."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from trainer.shipped_files import PACKAGES

TOKENIZER = PACKAGES / "tests/golden/micro_sd/tokenizer"

_NARROW: dict[str, Any] = {
    "sample_size": 16,
    "layers_per_block": 1,
    "cross_attention_dim": 128,
    "norm_num_groups": 16,
}
UNETS: dict[str, dict[str, Any]] = {
    # Attention below the top resolution only, as in the model of emoji_world: convolutions rule.
    "emoji": _NARROW
    | {
        "in_channels": 8,
        "out_channels": 8,
        "block_out_channels": (64, 96, 128),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": 4,
    },
    # Stable Diffusion's plan, narrow: eight heads of attention at every resolution but the last.
    "sd": _NARROW
    | {
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (32, 64),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "attention_head_dim": 8,
    },
    # Stable Diffusion 1.4: the rest is the library's default.
    "sd14": {"sample_size": 64, "cross_attention_dim": 768},
    "sdxl": {
        "sample_size": 128,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 1280 + 6 * 256,
    },
}
_FULL_SIZE = ("sd14", "sdxl")


def save_random_model(folder: Path, shape: str) -> None:
    """A pipeline of one of the shapes of `UNETS`, its weights in half precision where it is large.

    The words of its tokenizer are few, which changes no shape that is computed with.
    """
    torch.manual_seed(0)
    large = shape in _FULL_SIZE
    unet = UNet2DConditionModel(**UNETS[shape])
    parts: dict[str, Any] = {"unet": unet, "vae": _vae(unet.config.in_channels, large=large)}
    parts |= _text(shape)
    parts["scheduler"] = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    for name, part in parts.items():
        if large and isinstance(part, torch.nn.Module):
            part.half()
        part.save_pretrained(folder / name)
    kind = "StableDiffusionXLPipeline" if shape == "sdxl" else "StableDiffusionPipeline"
    (folder / "model_index.json").write_text(json.dumps({"_class_name": kind}))


def _vae(channels: int, *, large: bool) -> AutoencoderKL:
    blocks = 4 if large else 3
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512) if large else (16, 48, 64),
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        layers_per_block=2 if large else 1,
        latent_channels=channels,
        norm_num_groups=32 if large else 8,
        mid_block_add_attention=large,
    )


def _text(shape: str) -> dict[str, Any]:
    """Tokenizers and text encoders by folder."""
    if shape not in _FULL_SIZE:
        small = _text_config(128, 2, 4, positions=16)
        return {"tokenizer": _tokenizer(16), "text_encoder": CLIPTextModel(small)}
    parts = {
        "tokenizer": _tokenizer(77),
        "text_encoder": CLIPTextModel(_text_config(768, 12, 12)),
    }
    if shape == "sdxl":
        second = _text_config(1280, 32, 20)
        second.projection_dim = 1280
        parts |= {
            "tokenizer_2": _tokenizer(77),
            "text_encoder_2": CLIPTextModelWithProjection(second),
        }
    return parts


def _tokenizer(positions: int) -> Any:
    return CLIPTokenizer.from_pretrained(TOKENIZER, model_max_length=positions)


def _text_config(width: int, layers: int, heads: int, positions: int = 77) -> CLIPTextConfig:
    words = _tokenizer(positions)
    return CLIPTextConfig(
        vocab_size=49408 if positions == 77 else len(words),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=positions,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
    )
