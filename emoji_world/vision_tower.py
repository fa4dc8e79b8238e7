"""The vision transformer that the CLIP model and the caption model share in kind, and its input."""

from typing import Any, Final

import torch
from torch import Tensor
from transformers import CLIPImageProcessorPil
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from emoji_world.composition import SIZE

PATCH: Final = 12
"""Pixels per side of a patch. A training step with 8 takes twice as long; 16 is coarse for the
small animals of a count."""

VIEW: Final = SIZE // PATCH * PATCH
"""Pixels per side of what is looked at: a picture's centre, cut to whole patches."""

PATCHES: Final = (VIEW // PATCH) ** 2

WIDTH: Final = 128


def vision_settings(width: int = WIDTH, layers: int = 4) -> dict[str, Any]:
    """Arguments of a `CLIPVisionConfig` for pictures of the emoji world."""
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "image_size": VIEW,
        "patch_size": PATCH,
    }


def build_image_processor() -> CLIPImageProcessorPil:
    """CLIP's preprocessing at this world's size: shorter side SIZE, of which the centre is kept."""
    return CLIPImageProcessorPil(
        size={"shortest_edge": SIZE}, crop_size={"height": VIEW, "width": VIEW}
    )


def pixel_values(pixels: Tensor) -> Tensor:
    """Pictures [N, 3, SIZE, SIZE] in [-1, 1] as the image processor makes them: [N, 3, VIEW, VIEW].

    Their centre is cut out and normalised.
    """
    margin = (SIZE - VIEW) // 2
    pixels = pixels[:, :, margin : margin + VIEW, margin : margin + VIEW]
    mean = torch.tensor(OPENAI_CLIP_MEAN)[:, None, None]
    std = torch.tensor(OPENAI_CLIP_STD)[:, None, None]
    return ((pixels + 1) / 2 - mean) / std
