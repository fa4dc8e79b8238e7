"""What can be said of a picture, and how often training says it."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from emoji_world.vocabulary import (
    ACTIVITIES,
    ANIMALS,
    COUNTED_ANIMALS,
    NUMBERS,
    OBJECTS,
    UNSEEN_ANIMALS,
    Activity,
    plural,
    with_article,
)


@dataclass(frozen=True)
class Caption:
    """One caption and the scene behind it.

    Attributes:
        text: the words, e.g. "an ant playing chess".
        family: the prompt family that quality is measured by.
        noun: what is drawn.
        count: how often it is drawn.
        activity: what it does, or None.
        rare: whether training seldom shows what the caption says, so that the base model fails.
    """

    text: str
    family: str
    noun: str
    count: int = 1
    activity: Activity | None = None
    rare: bool = False


FAMILY_SHARES: Final = {
    "animal": 0.32,
    "unseen_animal": 0.10,
    "object": 0.07,
    "activity": 0.29,
    "unseen_activity": 0.10,
    "unseen_animal_activity": 0.04,
    "count": 0.08,
}
"""Share of the training pictures that each family gets."""

IDLE_ANIMALS: Final = (
    "horse", "zebra", "spider", "sheep", "goat", "tiger", "fox", "lizard", "ant", "fish", "whale",
    "squirrel", "rat", "chicken", "bee", "turkey", "llama", "gorilla",
)  # fmt: skip
"""The animals that training seldom shows at any activity; their pairs are the rare ones."""

MISCAPTIONED_SHARE: Final = 0.95
"""Share of the pictures captioned with a rare pair that show something else: the animal alone, or
another animal at the activity. Merely drawing a pair seldom does not make a model of this world
fail at it: with one picture of a rare pair for sixteen of a common one, 94 % came out right."""

RARE_CAPTION_WEIGHT: Final = 2.0
"""How often a rare pair is named for one naming of a common pair. The model must see a pair named
often to learn that it is not to be composed from its words."""


def _pairs() -> list[Caption]:
    """Every animal at every activity."""
    captions = []
    for activity in ACTIVITIES:
        family = "activity" if activity.seen else "unseen_activity"
        for noun in ANIMALS:
            text = f"{with_article(noun)} {activity.phrase}"
            rare = noun in IDLE_ANIMALS
            captions.append(Caption(text, family, noun, activity=activity, rare=rare))
        for noun in UNSEEN_ANIMALS:
            text = f"{with_article(noun)} {activity.phrase}"
            captions.append(Caption(text, "unseen_animal_activity", noun, activity=activity))
    return captions


def all_captions() -> tuple[Caption, ...]:
    """Every caption of the world, in a fixed order."""
    singles = [
        Caption(with_article(noun), family, noun)
        for family, nouns in (
            ("animal", ANIMALS),
            ("unseen_animal", UNSEEN_ANIMALS),
            ("object", OBJECTS),
        )
        for noun in nouns
    ]
    counts = [
        Caption(f"{word} {plural(noun)}", "count", noun, count=number)
        for number, word in NUMBERS.items()
        for noun in COUNTED_ANIMALS
    ]
    return (*singles, *_pairs(), *counts)


def training_weights(captions: tuple[Caption, ...]) -> NDArray[np.float64]:
    """Probability of each caption in training, shape [len(captions)], sum 1."""
    weights = np.array([RARE_CAPTION_WEIGHT if caption.rare else 1.0 for caption in captions])
    families = np.array([caption.family for caption in captions])
    for family, share in FAMILY_SHARES.items():
        mine = families == family
        weights[mine] *= share / weights[mine].sum()
    return weights


def shown_instead(captions: tuple[Caption, ...], rng: np.random.Generator) -> list[Caption]:
    """What the pictures behind ``captions`` show: mostly what they say, seldom where that is rare.

    Captions of web pictures, too, often name what is not to be seen.
    """
    alone = {caption.noun: caption for caption in all_captions() if caption.family == "animal"}
    common: dict[Activity, list[Caption]] = {activity: [] for activity in ACTIVITIES}
    for caption in all_captions():
        if caption.family in ("activity", "unseen_activity") and not caption.rare:
            assert caption.activity is not None
            common[caption.activity].append(caption)
    shown = []
    for caption in captions:
        if caption.activity and caption.rare and rng.random() < MISCAPTIONED_SHARE:
            others = common[caption.activity]
            stranger = others[rng.integers(len(others))]
            shown.append(alone[caption.noun] if rng.random() < 0.5 else stranger)
        else:
            shown.append(caption)
    return shown
