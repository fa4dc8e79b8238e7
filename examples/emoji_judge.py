"""A judge that is no reward: does a picture of the emoji world show what its prompt says?

    reward-services serve examples.emoji_judge:EmojiJudge --port 8003
    ddpo train … --monitor emoji_judge=http://localhost:8003

It is the picture classifier of `emoji_world`, which no reward model there was taught by. Train on
it, and the one independent opinion is spent.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

import emoji_world
from emoji_world.captions import all_captions
from emoji_world.classifier import Reading, load_classifier
from emoji_world.composition import SIZE
from reward_services import ItemError, Scored, ScoreItem

CLASSIFIER = Path(emoji_world.__file__).parent / "models" / "classifier"


class EmojiJudge:
    """1 where noun, activity and count are all the prompt's, else 0."""

    name = "emoji_judge"
    units = "share right"
    direction: Literal["maximize"] = "maximize"
    range = (0.0, 1.0)
    max_batch_size = 64

    def __init__(self) -> None:
        weights = (CLASSIFIER / "model.safetensors").read_bytes()
        self.version = hashlib.sha256(weights).hexdigest()[:12]
        self._classifier = load_classifier(CLASSIFIER)
        self._captions = {caption.text: caption for caption in all_captions()}

    def score(self, items: Sequence[ScoreItem]) -> list[Scored | ItemError]:
        """One verdict per item, with what was seen in it."""
        return [self._refusal(item) or self._verdict(item) for item in items]

    def _refusal(self, item: ScoreItem) -> ItemError | None:
        if item.image.shape != (SIZE, SIZE, 3):
            height, width = item.image.shape[:2]
            return ItemError(f"the picture is {width}×{height}, not {SIZE}×{SIZE}", "wrong_size")
        if item.prompt not in self._captions:
            return ItemError(f"{item.prompt!r} is no caption of the emoji world", "unknown_prompt")
        return None

    def _verdict(self, item: ScoreItem) -> Scored:
        # One picture per pass: the same verdict in any company.
        (reading,) = self._classifier.read(np.ascontiguousarray(item.image[None]))
        right = reading.matches(self._captions[item.prompt])
        return Scored(float(right), {"seen": _words(reading)})


def _words(reading: Reading) -> str:
    return " ".join(filter(None, (str(reading.count), reading.noun, reading.phrase)))
