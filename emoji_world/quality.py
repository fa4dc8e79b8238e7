"""How good the generator is: its samples per prompt family, judged by the picture classifier."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from emoji_world.captions import Caption, all_captions
from emoji_world.classifier import PictureClassifier

BATCH_SIZE: Final = 32


@dataclass(frozen=True)
class Quality:
    """Share of samples that show what the prompt says, for one group of prompts.

    Attributes:
        samples: samples judged.
        noun: share whose noun is right, 0 to 1.
        whole: share whose noun, activity and count are all right, 0 to 1.
    """

    samples: int
    noun: float
    whole: float


def groups() -> Mapping[str, list[Caption]]:
    """The prompt groups that are reported: the families, activities split by rarity."""
    captions = all_captions()
    named = {
        family: [c for c in captions if c.family == family]
        for family in (
            "animal",
            "unseen_animal",
            "object",
            "unseen_activity",
            "unseen_animal_activity",
            "count",
        )
    }
    named["activity, common"] = [c for c in captions if c.family == "activity" and not c.rare]
    named["activity, rare"] = [c for c in captions if c.family == "activity" and c.rare]
    return named


def sample_pictures(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    *,
    steps: int,
    guidance: float,
    seed: int,
) -> NDArray[np.uint8]:
    """One picture per prompt, uint8 [N, H, W, 3]; picture i is drawn from the seed (seed, i)."""
    pictures = []
    for start in tqdm(range(0, len(prompts), BATCH_SIZE), desc="sampling", mininterval=5):
        chunk = list(prompts[start : start + BATCH_SIZE])
        generators = [
            torch.Generator().manual_seed(seed * 1_000_003 + start + offset)
            for offset in range(len(chunk))
        ]
        pictures.append(
            pipeline(
                chunk,
                num_inference_steps=steps,
                guidance_scale=guidance,
                eta=1.0,
                generator=generators,
                output_type="np",
            ).images
        )
    floats = np.concatenate(pictures)
    return (floats * 255).round().clip(0, 255).astype(np.uint8)


def judge(
    classifier: PictureClassifier, pictures: NDArray[np.uint8], captions: Sequence[Caption]
) -> Quality:
    """The classifier's verdict on samples for ``captions``."""
    readings = classifier.read(pictures)
    pairs = list(zip(readings, captions, strict=True))
    return Quality(
        samples=len(pairs),
        noun=float(np.mean([reading.names(caption) for reading, caption in pairs])),
        whole=float(np.mean([reading.matches(caption) for reading, caption in pairs])),
    )


def sheet(pictures: NDArray[np.uint8], columns: int) -> Image.Image:
    """The pictures on one sheet, row by row, with a two-pixel gap."""
    count, height, width, _ = pictures.shape
    rows = -(-count // columns)
    canvas = Image.new("RGB", (columns * (width + 2) - 2, rows * (height + 2) - 2), "white")
    for index in range(count):
        row, column = divmod(index, columns)
        canvas.paste(Image.fromarray(pictures[index]), (column * (width + 2), row * (height + 2)))
    return canvas
