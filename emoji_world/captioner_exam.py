"""How well the caption model reads pictures: real ones, with number signs, and generated ones."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoji_world.captions import Caption, all_captions
from emoji_world.classifier import PictureClassifier
from emoji_world.exam_pictures import ExamPictures, Samples
from emoji_world.fresh_pictures import EVEN_SHARES, Scenes
from emoji_world.quality import share
from emoji_world.questions import (
    COUNT_WORDS,
    DESCRIPTION,
    SPECIES,
    count_animals,
    count_question,
    name_animal,
)
from emoji_world.vocabulary import COUNTED_ANIMALS, NUMBERS

Ask = Callable[[NDArray[np.uint8], Sequence[str]], list[str]]
"""Answers one question about each of some pictures uint8 [N, SIZE, SIZE, 3]."""


def examine_captioner(ask: Ask, pictures: ExamPictures, judge: PictureClassifier) -> dict[str, Any]:
    """Shares of right answers, by family, by count, by number sign, and on generated pictures."""
    said = {name: _captions(ask, scenes.pixels) for name, scenes in pictures.families.items()}
    return {
        "families": {name: _family(ask, s, said[name]) for name, s in pictures.families.items()},
        "confusion": {name: _confusion(captions) for name, captions in said.items()},
        "signs": {kind: _signs(ask, scenes) for kind, scenes in pictures.signs.items()},
        "samples": {name: _samples(ask, s, judge) for name, s in pictures.samples.items()},
    }


def _captions(ask: Ask, pixels: NDArray[np.uint8]) -> list[str]:
    return ask(pixels, [DESCRIPTION] * len(pixels))


def _family(ask: Ask, scenes: Scenes, captions: list[str]) -> dict[str, Any]:
    species = ask(scenes.pixels, [SPECIES] * len(captions))
    pairs = list(zip(scenes.captions, captions, species, strict=True))
    return {
        "pictures": len(pairs),
        "caption": share([said == caption.text for caption, said, _ in pairs]),
        "animal": share([named == name_animal(c).answer for c, _, named in pairs]),
    }


def _confusion(captions: list[str]) -> dict[str, int]:
    """How many of ``captions`` belong to each family, or to none ("")."""
    family_of = {caption.text: caption.family for caption in all_captions()}
    said = Counter(family_of.get(text, "") for text in captions)
    return {family: said[family] for family in (*EVEN_SHARES, "") if said[family]}


def _signs(ask: Ask, scenes: Scenes) -> dict[str, Any]:
    """Captions and counting answers of pictures of one kind of sign, also by the true count."""
    captions = _captions(ask, scenes.pixels)
    counted = ask(scenes.pixels, [count_question(c.noun) for c in scenes.captions])
    strangers = [_stranger(caption) for caption in scenes.captions]
    absent = ask(scenes.pixels, [count_question(noun) for noun in strangers])
    truth = [count_animals(c, c.noun).answer for c in scenes.captions]
    right = [said == word for said, word in zip(counted, truth, strict=True)]
    return {
        "pictures": len(right),
        "caption": share(
            [said == c.text for said, c in zip(captions, scenes.captions, strict=True)]
        ),
        "count": share(right),
        "count_of_absent": share([said == COUNT_WORDS[0] for said in absent]),
        "read_the_sign": share(
            [
                sign > 0 and said == COUNT_WORDS.get(sign) and said != word
                for said, sign, word in zip(counted, scenes.signs, truth, strict=True)
            ]
        ),
        "by_count": {
            word: share([ok for ok, is_word in zip(right, truth, strict=True) if is_word == word])
            for word in NUMBERS.values()
            if word in truth
        },
    }


def _stranger(caption: Caption) -> str:
    """A counted animal that is not in the picture: the next one in the list."""
    return COUNTED_ANIMALS[(COUNTED_ANIMALS.index(caption.noun) + 1) % len(COUNTED_ANIMALS)]


def _samples(ask: Ask, samples: Samples, judge: PictureClassifier) -> dict[str, Any]:
    """Generated pictures: how often caption model and classifier see the prompt, and the same."""
    known = {caption.text: caption for caption in all_captions()}
    said = _captions(ask, samples.pixels)
    readings = judge.read(samples.pixels)
    return {
        "pictures": len(said),
        "prompt": share([s == c.text for s, c in zip(said, samples.captions, strict=True)]),
        "judge_prompt": share(
            [r.matches(c) for r, c in zip(readings, samples.captions, strict=True)]
        ),
        "agreement": share(
            [s in known and r.matches(known[s]) for s, r in zip(said, readings, strict=True)]
        ),
    }
