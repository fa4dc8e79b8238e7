"""Questions and answers: the published words, and what is right of which picture."""

from collections import Counter

import numpy as np
import pytest

from emoji_world.captions import all_captions
from emoji_world.questions import (
    ABSENT_SHARE,
    DESCRIPTION,
    DESCRIPTION_SHARE,
    PROMPT,
    SPECIES,
    all_texts,
    count_animals,
    count_question,
    describe,
    name_animal,
    random_exchange,
)

CAPTIONS = {caption.text: caption for caption in all_captions()}


def test_the_words_are_the_published_ones() -> None:
    assert DESCRIPTION == "Answer concisely: what is going on in this image?"
    assert SPECIES == "What animal is in this image?"
    assert count_question("wolf") == "How many wolves are there in this image?"
    asked = PROMPT.format(question=SPECIES)
    assert asked == "USER: <image>\nWhat animal is in this image? ASSISTANT:"


@pytest.mark.parametrize(
    ("text", "animal", "cats"),
    [
        ("a cat", "cat", "one"),
        ("a cat playing chess", "cat", "one"),
        ("five cats", "cat", "five"),
        ("two dogs", "dog", "zero"),
        ("a koala", "koala", "zero"),
        ("a key", "none", "zero"),
    ],
)
def test_answers(text: str, animal: str, cats: str) -> None:
    caption = CAPTIONS[text]
    assert describe(caption).answer == text
    assert name_animal(caption).answer == animal
    assert count_animals(caption, "cat").answer == cats


def test_every_question_is_asked_and_mostly_where_it_makes_sense() -> None:
    rng = np.random.default_rng(0)
    asked = [random_exchange(CAPTIONS["three cats"], rng) for _ in range(2000)]
    kinds = Counter(exchange.question for exchange in asked)
    assert kinds[DESCRIPTION] / 2000 == pytest.approx(DESCRIPTION_SHARE, abs=0.04)
    assert kinds[SPECIES] / 2000 == pytest.approx(0.2, abs=0.04)
    counting = [e.answer for e in asked if e.question.startswith("How many")]
    assert set(counting) == {"three", "zero"}
    assert counting.count("zero") / len(counting) == pytest.approx(ABSENT_SHARE, abs=0.05)
    chairs = [random_exchange(CAPTIONS["a chair"], rng) for _ in range(2000)]
    assert {e.answer for e in chairs} == {"a chair", "none", "zero"}
    assert sum(e.answer == "zero" for e in chairs) / 2000 == pytest.approx(0.05, abs=0.02)


def test_all_texts_hold_every_exchange() -> None:
    texts = set(all_texts())
    rng = np.random.default_rng(1)
    for caption in CAPTIONS.values():
        exchange = random_exchange(caption, rng)
        assert f"{PROMPT.format(question=exchange.question)} {exchange.answer}" in texts
