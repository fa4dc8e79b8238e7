"""CLIP score (Hessel et al. 2021): how well picture and prompt point in the same direction.

2.5 · max(cos, 0), where cos is the cosine of CLIP's features of the picture and of "A photo depicts
{prompt}". Published with CLIP ViT-B/32; other CLIP models give other levels.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from reward_services.models import weights
from reward_services.models.clip import ClipEncoder
from reward_services.models.clip_agreement import agreements
from reward_services.models.model_options import ModelOptions
from reward_services.options import SetupError
from reward_services.scorer import ItemError, Scored, ScoreItem

WEIGHT = 2.5


class ClipScoreOptions(ModelOptions):
    """Options of `clip_score`; `dtype=auto` is fp32."""

    model: str = "openai/clip-vit-base-patch32"
    """Folder, `package:NAME/FOLDER` or hub id of a CLIP model."""
    text: str = "A photo depicts {prompt}"
    """What is compared with the picture, with `{prompt}`."""


class ClipScore:
    """2.5 times the cosine of picture and prompt, at least 0; `details` hold the cosine."""

    name = "clip_score"
    units = "CLIP score"
    direction: Literal["maximize"] = "maximize"
    range = (0.0, 2.5)
    max_batch_size = 64
    needs_prompt = True

    def __init__(self, options: ClipScoreOptions) -> None:
        if "{prompt}" not in options.text:
            raise SetupError("text does not hold {prompt}")
        self._text = options.text
        self._clip = ClipEncoder(options.model, options, texts=True)
        self.version = weights.digest(self.name, options.text, *self._clip.identity)
        if options.warm_up:
            self.score([ScoreItem(np.zeros((8, 8, 3), np.uint8), "a picture")])

    def score(self, items: Sequence[ScoreItem]) -> list[Scored | ItemError]:
        """One score per item; of a prompt as much counts as the model reads (details say so)."""
        images, prompts = [item.image for item in items], [item.prompt for item in items]
        return [
            found
            if isinstance(found, ItemError)
            else Scored(
                WEIGHT * max(found.cosine, 0.0), {"cosine": found.cosine, "prompt_cut": found.cut}
            )
            for found in agreements(self._clip, images, prompts, self._text)
        ]

    def close(self) -> None:
        """End the threads."""
        self._clip.close()
