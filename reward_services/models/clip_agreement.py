"""How well pictures and texts agree by CLIP, and which have no answer to that."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reward_services.models.clip import ClipEncoder
from reward_services.models.clip_pixels import refusal
from reward_services.scorer import ItemError


@dataclass(frozen=True, slots=True)
class Agreement:
    """The cosine of a picture and a text, from -1 to 1.

    Attributes:
        cut: whether the text was longer than the model reads; then its beginning counts.
    """

    cosine: float
    cut: bool


def agreements(
    clip: ClipEncoder,
    images: Sequence[NDArray[np.uint8]],
    prompts: Sequence[str],
    template: str = "{prompt}",
) -> list[Agreement | ItemError]:
    """One agreement per picture and prompt; the prompt is put into `template`."""
    found: list[Agreement | ItemError | None] = [
        _refusal(*pair) for pair in zip(images, prompts, strict=True)
    ]
    fine = [row for row, refused in enumerate(found) if refused is None]
    texts = [template.replace("{prompt}", prompts[row].strip()) for row in fine]
    pictures, words = clip.images([images[row] for row in fine]), clip.texts(texts)
    for row, text, picture, word in zip(fine, texts, pictures, words, strict=True):
        if picture is None or word is None:
            message = "the GPU has too little memory"
            found[row] = ItemError(message, "out_of_memory", retryable=True)
        else:
            # Rounding may take a cosine beyond 1.
            cosine = max(-1.0, min((picture * word).sum().item(), 1.0))
            found[row] = Agreement(cosine, clip.is_cut(text))
    return [each for each in found if each is not None]


def _refusal(image: NDArray[np.uint8], prompt: str) -> ItemError | None:
    if not prompt.strip():
        return ItemError("there is no prompt to compare with", "prompt_missing")
    return refusal(image)
