"""Contrastive training of the CLIP model on freshly drawn, worn pictures and what they show."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPModel, CLIPProcessor, LlavaForConditionalGeneration

from emoji_world.aesthetic_head import AestheticHead, made_up_taste, save_head, train_head
from emoji_world.autoencoder import load_autoencoder
from emoji_world.captioner import load_captioner
from emoji_world.captions import Caption
from emoji_world.clip_model import (
    COLOUR_TEXT,
    HEAD_FILE,
    LINE_ART_TEXT,
    build_clip,
    build_processor,
    picture_features,
    save_clip,
)
from emoji_world.fresh_pictures import FreshPictures, Scenes
from emoji_world.icons import IconSet
from emoji_world.training_run import (
    VALIDATION_STEP,
    TrainingPlan,
    keep_records,
    load_averages,
    run_training,
)
from emoji_world.vision_tower import pixel_values
from emoji_world.vocabulary import LINE_ART

HEAD_PICTURES: Final = 6000
HEAD_STEPS: Final = 1500

STYLED_SHARE: Final = 0.5
"""Share of the texts that say whether the picture is a line drawing."""


def text_for(caption: Caption, line_art: bool, styled: bool) -> str:
    """A text that a picture fits."""
    if not styled:
        return caption.text
    return (LINE_ART_TEXT if line_art else COLOUR_TEXT).format(caption.text)


def fitting(scenes: Scenes, styled: Sequence[bool]) -> Tensor:
    """bool [N, N]: whether text j, styled or not, fits picture i as well as its own."""
    texts = np.array([caption.text for caption in scenes.captions])
    line_art = np.array(scenes.styles) == LINE_ART
    same_caption = texts[:, None] == texts[None, :]
    same_style = line_art[:, None] == line_art[None, :]
    return torch.from_numpy(same_caption & (same_style | ~np.array(styled)[None, :]))


def contrastive_loss(similarity: Tensor, fits: Tensor) -> Tensor:
    """CLIP's loss, both ways, where another text or picture that fits is no wrong answer.

    Args:
        similarity: scaled cosines [N, N], of picture i and text j.
        fits: bool [N, N], see `fitting`.
    """
    own = torch.arange(len(similarity))
    others = fits & ~torch.eye(len(fits), dtype=torch.bool)
    logits = similarity.masked_fill(others, -torch.inf)
    by_picture = functional.cross_entropy(logits, own)
    by_text = functional.cross_entropy(logits.T, own)
    return (by_picture + by_text) / 2


class ClipTrainee:
    """The CLIP model in training, in bfloat16."""

    def __init__(
        self,
        model: CLIPModel,
        processor: CLIPProcessor,
        pictures: FreshPictures,
        plan: TrainingPlan,
    ) -> None:
        # See CaptionerTrainee for what this is faster than.
        self._model = model.to(torch.bfloat16).train()
        self._model.set_attn_implementation("eager")
        self._tokenizer = processor.tokenizer
        self._pictures = pictures
        self._plan = plan
        self.modules: dict[str, nn.Module] = {"clip": model}

    def loss(self, step: int) -> Tensor:
        """The contrastive loss of pictures that come in twos: a line drawing and one in colour."""
        half = self._pictures.captions(step, self._plan.batch_size // 2)
        line_art = [True] * len(half) + [False] * len(half)
        scenes = self._pictures.draw(step, [*half, *half], line_art)
        rng = np.random.default_rng([self._plan.seed, step, 3])
        styled = (rng.random(2 * len(half)) < STYLED_SHARE).tolist()
        texts = [
            text_for(caption, style == LINE_ART, named)
            for caption, style, named in zip(scenes.captions, scenes.styles, styled, strict=True)
        ]
        tokens = self._tokenizer(texts, padding=True, return_tensors="pt")
        output = self._model(
            **tokens,
            pixel_values=pixel_values(self._pictures.worn(step, scenes)).to(torch.bfloat16),
        )
        cosines = output.image_embeds.float() @ output.text_embeds.float().T
        scale = self._model.logit_scale.float().exp()
        return contrastive_loss(scale * cosines, fitting(scenes, styled))


def borrow_tower(model: CLIPModel, captioner: LlavaForConditionalGeneration) -> None:
    """Begin with the vision transformer of the caption model, which has learned to see.

    The norm behind the class token, which captions do not need, stays as it is.
    """
    mine, theirs = model.vision_model, captioner.model.vision_tower
    for name in ("embeddings", "pre_layrnorm", "encoder"):
        getattr(mine, name).load_state_dict(getattr(theirs, name).state_dict())


def train_clip(
    icons: IconSet,
    vae: AutoencoderKL | None,
    captioner: LlavaForConditionalGeneration,
    plan: TrainingPlan,
    folder: Path,
) -> tuple[CLIPModel, CLIPProcessor]:
    """Train in ``folder``, or continue there; the float32 model with averaged weights."""
    processor = build_processor()
    torch.manual_seed(plan.seed)
    model = build_clip(processor.tokenizer)
    borrow_tower(model, captioner)
    pictures = FreshPictures(icons, plan.seed, vae)
    run_training(ClipTrainee(model, processor, pictures, plan), plan, folder)
    averaged = build_clip(processor.tokenizer)
    load_averages({"clip": averaged}, folder)
    return averaged.eval(), processor


def export_clip(
    icons: IconSet,
    models: Path,
    plan: TrainingPlan,
    run: Path,
    out: Path,
    records: Path,
) -> None:
    """Train in ``run``, write model and head into ``out`` and plan and log into ``records``.

    ``models`` holds the caption model to begin with and the generator, whose autoencoder is used.

    Raises:
        ValueError: one of these is missing, or ``run`` was started with other settings.
    """
    vae = load_autoencoder(models / "diffusion" / "vae")
    captioner, _ = load_captioner(models / "captioner")
    model, processor = train_clip(icons, vae, captioner, plan, run)
    head = fit_head(model, processor, FreshPictures(icons, plan.seed), plan.seed)
    save_clip(model, processor, out)
    save_head(head, out / HEAD_FILE)
    keep_records(run, records)


def fit_head(
    model: CLIPModel, processor: CLIPProcessor, pictures: FreshPictures, seed: int
) -> AestheticHead:
    """An aesthetic head for ``model``, trained on pictures of which half are line drawings."""
    captions = pictures.captions(VALIDATION_STEP + 1, HEAD_PICTURES)
    line_art = [index % 2 == 0 for index in range(HEAD_PICTURES)]
    scenes = pictures.draw(VALIDATION_STEP + 1, captions, line_art)
    ratings = made_up_taste(scenes.pixels, np.array(scenes.styles) == LINE_ART)
    features = picture_features(model, processor, scenes.pixels)
    return train_head(features, torch.from_numpy(ratings).float(), HEAD_STEPS, seed)
