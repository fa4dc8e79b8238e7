"""PickScore (Kirstain et al. 2023): which picture of a prompt people would pick.

A CLIP ViT-H/14 trained on people's choices. The score is the cosine of its features of picture and
prompt times the scale it learned (about 100), as in the published code.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from reward_services.models import weights
from reward_services.models.clip import ClipEncoder
from reward_services.models.clip_agreement import agreements
from reward_services.models.model_options import ModelOptions
from reward_services.scorer import ItemError, Scored, ScoreItem


class PickScoreOptions(ModelOptions):
    """Options of `pickscore`; `dtype=auto` is fp32."""

    model: str = "yuvalkirstain/PickScore_v1"
    """Folder, `package:NAME/FOLDER` or hub id of the model."""
    processor: str = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
    """Where its tokenizer and preprocessing are found; empty: beside the model."""


class PickScore:
    """Scaled cosine of picture and prompt; the published model gives about 15 to 25."""

    name = "pickscore"
    units = "PickScore"
    direction: Literal["maximize"] = "maximize"
    range = (None, None)
    max_batch_size = 64
    needs_prompt = True

    def __init__(self, options: PickScoreOptions) -> None:
        processor = options.processor
        self._clip = ClipEncoder(options.model, options, texts=True, processor=processor)
        self._scale = self._clip.logit_scale
        self.version = weights.digest(self.name, *self._clip.identity)
        if options.warm_up:
            self.score([ScoreItem(np.zeros((8, 8, 3), np.uint8), "a picture")])

    def score(self, items: Sequence[ScoreItem]) -> list[Scored | ItemError]:
        """One score per item; of a prompt as much counts as the model reads (details say so)."""
        images, prompts = [item.image for item in items], [item.prompt for item in items]
        return [
            found
            if isinstance(found, ItemError)
            else Scored(
                self._scale * found.cosine, {"cosine": found.cosine, "prompt_cut": found.cut}
            )
            for found in agreements(self._clip, images, prompts)
        ]

    def close(self) -> None:
        """End the threads."""
        self._clip.close()
