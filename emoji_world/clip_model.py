"""The CLIP model: a `CLIPModel` folder like openai/clip-vit-large-patch14, only smaller."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPProcessor,
    CLIPTextConfig,
    CLIPTokenizer,
    CLIPVisionConfig,
)

from emoji_world.captions import all_captions
from emoji_world.generator import TEXT_LENGTH, train_tokenizer
from emoji_world.vision_tower import WIDTH, build_image_processor, vision_settings

PROJECTION: Final = 64
"""Dimensions of the space that pictures and texts share."""

HEAD_FILE: Final = "aesthetic_head.safetensors"
"""Name of the aesthetic head's weights in the folder of the CLIP model."""

TEXT_WIDTH: Final = 96

LINE_ART_TEXT: Final = "a line drawing of {}"
COLOUR_TEXT: Final = "a coloured picture of {}"


def build_processor() -> CLIPProcessor:
    """CLIP's processor with this world's sizes and words."""
    texts = [caption.text for caption in all_captions()]
    styled = [template.format(text) for template in (LINE_ART_TEXT, COLOUR_TEXT) for text in texts]
    return CLIPProcessor(build_image_processor(), train_tokenizer([*texts, *styled]))


def build_clip(tokenizer: CLIPTokenizer, width: int = WIDTH, layers: int = 4) -> CLIPModel:
    """A randomly initialised CLIP model, of 1.1 M parameters by default."""
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=TEXT_LENGTH,
        projection_dim=PROJECTION,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = CLIPVisionConfig(**vision_settings(width, layers), projection_dim=PROJECTION)
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=PROJECTION))


def save_clip(model: CLIPModel, processor: CLIPProcessor, folder: Path) -> None:
    """Write model (fp16) and processor into ``folder``."""
    model.to(torch.float16).save_pretrained(folder, safe_serialization=True)
    processor.save_pretrained(folder)


def load_clip(folder: Path) -> tuple[CLIPModel, CLIPProcessor]:
    """The CLIP model in ``folder``, in float32.

    Raises:
        ValueError: ``folder`` holds none.
    """
    # Without this check transformers takes the path for the name of a model on a hub.
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds no CLIP model: run `python -m emoji_world clip` first")
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), CLIPProcessor.from_pretrained(folder)


@torch.inference_mode()
def picture_features(
    model: CLIPModel, processor: CLIPProcessor, pictures: NDArray[np.uint8], batch_size: int = 64
) -> Tensor:
    """Features [N, PROJECTION] of length 1 of pictures uint8 [N, H, W, 3]."""
    parts = []
    for start in range(0, len(pictures), batch_size):
        chunk = list(pictures[start : start + batch_size])
        inputs = processor(images=chunk, return_tensors="pt")
        parts.append(model.get_image_features(**inputs).pooler_output)
    return functional.normalize(torch.cat(parts), dim=1)


@torch.inference_mode()
def text_features(model: CLIPModel, processor: CLIPProcessor, texts: Sequence[str]) -> Tensor:
    """Features [N, PROJECTION] of length 1 of texts, each padded to the same length."""
    inputs = processor(text=list(texts), padding="max_length", truncation=True, return_tensors="pt")
    return functional.normalize(model.get_text_features(**inputs).pooler_output, dim=1)
