"""What the caption model is asked of a picture, and the right answers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from emoji_world.captions import Caption, all_captions
from emoji_world.vocabulary import ANIMALS, COUNTED_ANIMALS, NUMBERS, UNSEEN_ANIMALS, plural

PROMPT: Final = "USER: <image>\n{question} ASSISTANT:"
"""The prompt of LLaVA 1.5."""

DESCRIPTION: Final = "Answer concisely: what is going on in this image?"
"""The question of the alignment reward (Black et al. 2023); the answer is the caption."""

SPECIES: Final = "What animal is in this image?"
"""The second of the published counting questions; the answer is the noun."""

NO_ANIMAL: Final = "none"

COUNT_WORDS: Final = {0: "zero", 1: "one", **NUMBERS}

DESCRIPTION_SHARE: Final = 0.5
ABSENT_SHARE: Final = 0.15
"""Share of the counting questions about a counted animal that ask for another one."""


@dataclass(frozen=True)
class Exchange:
    """A question about a picture, and the right answer."""

    question: str
    answer: str


def count_question(noun: str) -> str:
    """The first of the published counting questions; the answer is a number word."""
    return f"How many {plural(noun)} are there in this image?"


def describe(caption: Caption) -> Exchange:
    """What is going on."""
    return Exchange(DESCRIPTION, caption.text)


def name_animal(caption: Caption) -> Exchange:
    """Which animal it is."""
    is_animal = caption.noun in ANIMALS or caption.noun in UNSEEN_ANIMALS
    return Exchange(SPECIES, caption.noun if is_animal else NO_ANIMAL)


def count_animals(caption: Caption, noun: str) -> Exchange:
    """How many of ``noun``, one of the counted animals, there are."""
    count = caption.count if caption.noun == noun else 0
    return Exchange(count_question(noun), COUNT_WORDS[count])


def random_exchange(caption: Caption, rng: np.random.Generator) -> Exchange:
    """One of the three; counting questions mostly where they make sense."""
    counted = caption.noun in COUNTED_ANIMALS
    draw = rng.random()
    if draw < DESCRIPTION_SHARE:
        return describe(caption)
    if draw < (0.70 if counted else 0.95):
        return name_animal(caption)
    absent = not counted or rng.random() < ABSENT_SHARE
    noun = COUNTED_ANIMALS[rng.integers(len(COUNTED_ANIMALS))] if absent else caption.noun
    return count_animals(caption, noun)


def all_texts() -> Iterator[str]:
    """Every question in its prompt, with every answer: all the words of a conversation."""
    for caption in all_captions():
        for exchange in (describe(caption), name_animal(caption)):
            yield f"{PROMPT.format(question=exchange.question)} {exchange.answer}"
    for noun in COUNTED_ANIMALS:
        for word in COUNT_WORDS.values():
            yield f"{PROMPT.format(question=count_question(noun))} {word}"
