"""How well the CLIP model tells captions apart, and the aesthetic head the made-up taste."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPModel, CLIPProcessor

from emoji_world.aesthetic_head import AestheticHead, made_up_taste
from emoji_world.captions import Caption, all_captions
from emoji_world.clip_model import (
    COLOUR_TEXT,
    LINE_ART_TEXT,
    picture_features,
    text_features,
)
from emoji_world.exam_pictures import ExamPictures
from emoji_world.fresh_pictures import Scenes
from emoji_world.quality import share
from emoji_world.vocabulary import LINE_ART


def examine_clip(
    model: CLIPModel, processor: CLIPProcessor, head: AestheticHead, pictures: ExamPictures
) -> dict[str, Any]:
    """Zero-shot accuracy over all captions of the world, and the ratings of the head."""
    captions = all_captions()
    texts = text_features(model, processor, [caption.text for caption in captions])

    def right(pixels: NDArray[np.uint8], shown: list[Caption]) -> float:
        nearest = (picture_features(model, processor, pixels) @ texts.T).argmax(1).tolist()
        return share([captions[i].text == c.text for i, c in zip(nearest, shown, strict=True)])

    every = _joined(list(pictures.families.values()))
    features = picture_features(model, processor, every.pixels)
    return {
        "captions": len(captions),
        "families": {
            name: {"pictures": len(s.captions), "caption": right(s.pixels, s.captions)}
            for name, s in pictures.families.items()
        },
        "samples": {
            name: {"pictures": len(s.captions), "prompt": right(s.pixels, s.captions)}
            for name, s in pictures.samples.items()
        },
        "style": _style(model, processor, every, features),
        "taste": _taste(head, every, features),
    }


def _joined(parts: list[Scenes]) -> Scenes:
    return Scenes(
        [caption for part in parts for caption in part.captions],
        np.concatenate([part.pixels for part in parts]),
        [style for part in parts for style in part.styles],
        [sign for part in parts for sign in part.signs],
    )


def _style(model: CLIPModel, processor: CLIPProcessor, every: Scenes, features: Tensor) -> float:
    """Share of pictures that lie nearer to the text with their own style than to the other."""
    drawn, coloured = (
        text_features(model, processor, [template.format(c.text) for c in every.captions])
        for template in (LINE_ART_TEXT, COLOUR_TEXT)
    )
    nearer = ((features * drawn).sum(1) > (features * coloured).sum(1)).tolist()
    truth = [style == LINE_ART for style in every.styles]
    return share([said == is_so for said, is_so in zip(nearer, truth, strict=True)])


@torch.inference_mode()
def _taste(head: AestheticHead, every: Scenes, features: Tensor) -> dict[str, float]:
    """Correlation with the taste, and the mean rating of line drawings and of the others."""
    line_art = np.array(every.styles) == LINE_ART
    ratings = head(features).numpy().astype(np.float64)
    wanted = made_up_taste(every.pixels, line_art)
    return {
        "pictures": len(ratings),
        "correlation": round(float(np.corrcoef(ratings, wanted)[0, 1]), 4),
        "line_art": round(float(ratings[line_art].mean()), 3),
        "colour": round(float(ratings[~line_art].mean()), 3),
    }
