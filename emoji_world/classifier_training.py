"""Training of the picture classifier on real pictures, and its accuracy on held-out ones."""

from typing import Final

import numpy as np
import torch
from torch.nn import functional
from tqdm import trange

from emoji_world.captions import all_captions
from emoji_world.classifier import PictureClassifier, targets
from emoji_world.composition import Painter
from emoji_world.dataset import to_unit_range
from emoji_world.fresh_pictures import degrade, even_weights
from emoji_world.icons import IconSet

FAMILY_SHARES: Final = {
    "animal": 0.26,
    "unseen_animal": 0.12,
    "object": 0.12,
    "activity": 0.18,
    "unseen_activity": 0.10,
    "unseen_animal_activity": 0.08,
    "count": 0.14,
}
"""What the classifier is trained on; within a family every caption is equally likely, so that it
judges rare combinations as well as common ones."""

HELD_OUT_PICTURES: Final = 1000
"""Pictures per family that the accuracy is measured on."""

BATCH_SIZE: Final = 64
LEARNING_RATE: Final = 2e-3


def train_classifier(icons: IconSet, steps: int, seed: int) -> PictureClassifier:
    """Train a classifier from scratch on freshly drawn pictures."""
    torch.manual_seed(seed)
    captions = all_captions()
    weights = even_weights(captions, FAMILY_SHARES)
    painter = Painter(icons, np.random.default_rng([seed, 0]))
    rng = np.random.default_rng([seed, 1])
    generator = torch.Generator().manual_seed(seed)
    classifier = PictureClassifier().train()
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=LEARNING_RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    progress = trange(steps, desc="classifier", mininterval=5)
    for _ in progress:
        chosen = [captions[index] for index in rng.choice(len(captions), BATCH_SIZE, p=weights)]
        pictures = np.stack([painter.draw(caption).pixels for caption in chosen])
        logits = classifier(degrade(to_unit_range(pictures), generator))
        losses = [
            functional.cross_entropy(part, target, label_smoothing=0.05)
            for part, target in zip(logits, targets(chosen), strict=True)
        ]
        loss = torch.stack(losses).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{float(loss.detach()):.3f}")
    return classifier.eval()


def held_out_accuracy(
    classifier: PictureClassifier, icons: IconSet, count: int, seed: int
) -> dict[str, float]:
    """Share of fresh pictures whose noun, activity and count are all read right, by family.

    The pictures are new compositions (background, place, tilt, style) of the same icons.
    """
    captions = all_captions()
    rng = np.random.default_rng([seed, 2])
    painter = Painter(icons, rng)
    accuracy = {}
    for family in FAMILY_SHARES:
        mine = [caption for caption in captions if caption.family == family]
        chosen = [mine[index] for index in rng.integers(0, len(mine), count)]
        pictures = np.stack([painter.draw(caption).pixels for caption in chosen])
        right = [
            reading.matches(caption)
            for reading, caption in zip(classifier.read(pictures), chosen, strict=True)
        ]
        accuracy[family] = float(np.mean(right))
    return accuracy
