"""How good the generator is: its samples per prompt family, judged by the picture classifier."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray
from tqdm import tqdm

from emoji_world.captions import Caption, all_captions
from emoji_world.classifier import Reading
from shared.images import to_uint8

BATCH_SIZE: Final = 32


@dataclass(frozen=True)
class Quality:
    """Share of samples that show what the prompt says, for one group of prompts.

    Attributes:
        samples: samples judged.
        noun: share whose noun is right, 0 to 1.
        whole: share whose noun, activity and count are all right, 0 to 1.
        by_noun: share whose noun is right, for each noun that was asked for.
    """

    samples: int
    noun: float
    whole: float
    by_noun: Mapping[str, float]


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


def share(right: Sequence[bool]) -> float:
    """The share of true entries, of one or more, to four digits."""
    return round(float(np.mean(right)), 4)


def spread_over(captions: Sequence[Caption], count: int, seed: int) -> list[Caption]:
    """``count`` captions in random order, each as often as the others, give or take one."""
    order = np.random.default_rng(seed).permutation(len(captions))
    return [captions[order[index % len(captions)]] for index in range(count)]


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
    return to_uint8(np.concatenate(pictures))


def summarise(readings: Sequence[Reading], captions: Sequence[Caption]) -> Quality:
    """How well ``readings`` of samples, one or more, agree with the captions they were drawn for.

    Raises:
        ValueError: there is nothing to summarise, or one list is longer.
    """
    if not readings:
        raise ValueError("there are no samples to judge")
    pairs = list(zip(readings, captions, strict=True))
    named: dict[str, list[bool]] = {}
    for reading, caption in pairs:
        named.setdefault(caption.noun, []).append(reading.names(caption))
    return Quality(
        samples=len(pairs),
        noun=float(np.mean([reading.names(caption) for reading, caption in pairs])),
        whole=float(np.mean([reading.matches(caption) for reading, caption in pairs])),
        by_noun={noun: float(np.mean(right)) for noun, right in named.items()},
    )
