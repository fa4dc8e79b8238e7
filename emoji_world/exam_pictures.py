"""Pictures that the learned rewards are examined on: real ones never trained on, and generated."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from emoji_world.captions import Caption, all_captions
from emoji_world.composition import Painter, misleading_digit
from emoji_world.evaluation import load_pipeline
from emoji_world.fresh_pictures import EVEN_SHARES, Scenes
from emoji_world.icons import IconSet
from emoji_world.quality import groups, sample_pictures, spread_over

SIGNS: Final = ("none", "right", "misleading")
"""What may stand beside counted animals."""


@dataclass(frozen=True)
class ExamPlan:
    """What the learned rewards are examined on.

    Attributes:
        held_out: real pictures per caption family, and per kind of number sign.
        samples: generated pictures per prompt group.
        steps: denoising steps of those.
        guidance: classifier-free guidance scale of those.
        seed: seed of every draw; it must not be that of a training.
    """

    held_out: int = 400
    samples: int = 64
    steps: int = 20
    guidance: float = 5.0
    seed: int = 1_000


@dataclass(frozen=True)
class Samples:
    """Generated pictures, uint8 [N, SIZE, SIZE, 3], and what they were asked to show."""

    captions: list[Caption]
    pixels: NDArray[np.uint8]


@dataclass(frozen=True)
class ExamPictures:
    """All pictures of an exam.

    Attributes:
        families: real pictures by caption family, those of counts without a number sign.
        signs: real pictures of counted animals by what stands beside them, see `SIGNS`.
        samples: generated pictures by prompt group.
    """

    families: Mapping[str, Scenes]
    signs: Mapping[str, Scenes]
    samples: Mapping[str, Samples]


def exam_pictures(icons: IconSet, model: Path, plan: ExamPlan) -> ExamPictures:
    """Draw and sample the pictures of an exam.

    Raises:
        ValueError: ``model`` holds no pipeline.
    """
    families = {}
    for number, family in enumerate(EVEN_SHARES):
        rng = np.random.default_rng([plan.seed, number])
        families[family] = _drawn(icons, family, "none", plan.held_out, rng)
    signs = {}
    for number, kind in enumerate(SIGNS):
        rng = np.random.default_rng([plan.seed, len(EVEN_SHARES) + number])
        signs[kind] = _drawn(icons, "count", kind, plan.held_out, rng)
    return ExamPictures(families, signs, _sampled(model, plan))


def _drawn(icons: IconSet, family: str, sign: str, count: int, rng: np.random.Generator) -> Scenes:
    """Pictures of one family, every caption of it equally likely."""
    mine = [caption for caption in all_captions() if caption.family == family]
    chosen = [mine[index] for index in rng.integers(0, len(mine), count)]
    painter = Painter(icons, rng)
    pictures = [painter.draw(caption, sign=_digit(caption, sign, rng)) for caption in chosen]
    return Scenes(
        chosen,
        np.stack([picture.pixels for picture in pictures]),
        [picture.style for picture in pictures],
        [picture.sign for picture in pictures],
    )


def _digit(caption: Caption, sign: str, rng: np.random.Generator) -> int:
    if sign == "none":
        return 0
    return caption.count if sign == "right" else misleading_digit(caption.count, rng)


def _sampled(model: Path, plan: ExamPlan) -> dict[str, Samples]:
    pipeline = load_pipeline(model)
    samples = {}
    for name, captions in groups().items():
        chosen = spread_over(captions, plan.samples, plan.seed)
        prompts = [caption.text for caption in chosen]
        pixels = sample_pictures(
            pipeline, prompts, steps=plan.steps, guidance=plan.guidance, seed=plan.seed
        )
        samples[name] = Samples(chosen, pixels)
    return samples
