"""The vision transformer that the CLIP model and the caption model share in kind, and its input."""

from typing import Any, Final

import torch
from torch import Tensor
from transformers import CLIPImageProcessorPil
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from emoji_world.composition import SIZE

PATCH: Final = 8
"""Pixels per side of a patch. With 16 the vision models learn small animals slowly."""

PATCHES: Final = (SIZE // PATCH) ** 2

WIDTH: Final = 128


def vision_settings(width: int = WIDTH, layers: int = 4) -> dict[str, Any]:
    """Arguments of a `CLIPVisionConfig` for pictures of the emoji world."""
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "image_size": SIZE,
        "patch_size": PATCH,
    }


def build_image_processor() -> CLIPImageProcessorPil:
    """CLIP's preprocessing at this world's size: pictures of any size become SIZE × SIZE."""
    return CLIPImageProcessorPil(
        size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}
    )


def pixel_values(pixels: Tensor) -> Tensor:
    """Pictures [N, 3, SIZE, SIZE] in [-1, 1], normalised as the image processor does it."""
    mean = torch.tensor(OPENAI_CLIP_MEAN)[:, None, None]
    std = torch.tensor(OPENAI_CLIP_STD)[:, None, None]
    return ((pixels + 1) / 2 - mean) / std
