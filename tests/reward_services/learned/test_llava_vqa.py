"""Strict satisfaction: which answers count, and questions that are missing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reward_services.models.vision_language import Inquiry
from reward_services.scorer import ItemError, Scored, ScoreItem
from reward_services.scorers.llava_vqa import (
    LlavaVqa,
    LlavaVqaOptions,
    holds_substring,
    holds_words,
)
from tests.reward_services.learned.conftest import noise

QUESTIONS = ["How many cats are there in this image?", "What animal is in this image?"]


@pytest.fixture(scope="module")
def options(llava_folder: Path) -> LlavaVqaOptions:
    given = {"model": str(llava_folder), "device": "cpu", "max_answer_tokens": 8}
    return LlavaVqaOptions.model_validate(given)


@pytest.fixture(scope="module")
def scorer(options: LlavaVqaOptions) -> Iterator[LlavaVqa]:
    made = LlavaVqa(options)
    yield made
    made.close()


def exam(image: np.ndarray, *answers: str) -> ScoreItem:
    return ScoreItem(image, metadata={"questions": QUESTIONS, "answers": list(answers)})


@pytest.mark.parametrize(
    ("answer", "expected", "words", "substring"),
    [
        ("two", "two", True, True),
        ("There are Two cats.", "two", True, False),
        ("2", "two", True, False),
        ("There are 2.", "two", True, False),
        ("two", "2", True, False),
        ("12", "two", False, False),
        ("12 cats", "twelve", True, False),
        ("2.5 cats", "two", False, False),
        ("0", "zero", True, False),
        ("99", "99", True, True),
        ("a herd of cattle", "cat", False, True),
        ("cats", "cat", False, True),
        ("a cat, sleeping", "cat", True, True),
        ("polar  bear", "polar bear", True, False),
        ("a dog", "cat", False, False),
        ("twenty-two", "two", True, True),
        ("a (c.t) here", "c.t", True, True),
        ("a cut here", "c.t", False, False),
        ("Straße", "STRASSE", True, False),
    ],
)
def test_what_counts_as_the_answer(
    answer: str, expected: str, words: bool, substring: bool
) -> None:
    assert holds_words(answer, expected) == words
    assert holds_substring(answer, expected) == substring


def test_the_share_of_right_answers(scorer: LlavaVqa, options: LlavaVqaOptions) -> None:
    images = noise(4)
    (given,) = scorer._model.answer([Inquiry(images[0], tuple(QUESTIONS))])
    assert isinstance(given, list)
    outcomes = scorer.score(
        [
            exam(images[0], *given),
            exam(images[0], given[0], "unheard of"),
            exam(images[1], "x", "y"),
        ]
    )
    assert outcomes[0] == Scored(1.0, {"answers": given, "right": [True, True]})
    assert outcomes[1] == Scored(0.5, {"answers": given, "right": [True, False]})
    assert isinstance(outcomes[2], Scored)
    assert outcomes[2].score == 0.0
    published = LlavaVqa(options.model_copy(update={"match": "substring"}))
    piece = given[0][:-1]
    (outcome,) = published.score([exam(images[0], piece, given[1].upper() + "!")])
    assert outcome == Scored(0.5, {"answers": given, "right": [True, False]})
    assert published.version != scorer.version


def test_the_same_question_twice_counts_twice(scorer: LlavaVqa) -> None:
    item = ScoreItem(
        noise(1)[0], metadata={"questions": QUESTIONS[:1] * 2, "answers": ["unheard of", "x"]}
    )
    (outcome,) = scorer.score([item])
    assert isinstance(outcome, Scored)
    assert outcome.details["right"] == [False, False]


def test_the_same_in_any_company(scorer: LlavaVqa) -> None:
    items = [exam(image, "two", "cat") for image in noise(6)]
    together = scorer.score(items)
    assert together == [scorer.score([item])[0] for item in items]


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"questions": QUESTIONS},
        {"questions": [], "answers": []},
        {"questions": QUESTIONS, "answers": ["two"]},
        {"questions": QUESTIONS, "answers": ["two", 2]},
        {"questions": QUESTIONS, "answers": ["two", " "]},
        {"questions": "How many?", "answers": "two"},
        {"questions": None, "answers": {"two": 2}},
    ],
)
def test_questions_that_cannot_be_asked(metadata: dict[str, Any], scorer: LlavaVqa) -> None:
    picture = noise(1)[0]
    fine, wrong = scorer.score([exam(picture, "two", "cat"), ScoreItem(picture, "", metadata)])
    assert isinstance(fine, Scored)
    assert isinstance(wrong, ItemError)
    assert wrong.code == "questions_missing"


def test_a_picture_that_cannot_be_asked_about(scorer: LlavaVqa) -> None:
    picture, thin = noise(1)[0], np.zeros((100, 1, 3), np.uint8)
    refused, fine = scorer.score([exam(thin, "two", "cat"), exam(picture, "two", "cat")])
    assert isinstance(refused, ItemError)
    assert refused.code == "aspect_ratio"
    assert isinstance(fine, Scored)


def test_an_empty_answer_is_no_score(scorer: LlavaVqa, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer._model, "answer", lambda inquiries: [["two", ""] for _ in inquiries])
    (outcome,) = scorer.score([exam(noise(1)[0], "two", "cat")])
    assert isinstance(outcome, ItemError)
    assert outcome.code == "empty_answer"
    assert QUESTIONS[1] in outcome.message
