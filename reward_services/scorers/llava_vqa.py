"""Strict satisfaction: the share of questions that a vision-language model answers as expected.

Black et al. (2023), appendix: the questions and the expected answers come with each picture, as
`metadata = {"questions": [...], "answers": [...]}`. An answer counts when it holds what is
expected: as published as a case-sensitive piece of text, or, by default, as whole words.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from reward_services.models import weights
from reward_services.models.backends import open_model
from reward_services.models.vision_language import Inquiry, VisionLanguageOptions
from reward_services.scorer import ItemError, Scored, ScoreItem

_NUMBERS = dict(
    enumerate(
        (
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
        )
    )
)


class LlavaVqaOptions(VisionLanguageOptions):
    """Options of `llava_vqa`; `dtype=auto` is fp16 on a GPU and fp32 elsewhere."""

    match: Literal["words", "substring"] = "words"
    """`words`: whole words, in any case, "2" being "two". `substring`: the published rule, by \
which "cat" is found in "cattle" and "two" is not found in "2"."""


class LlavaVqa:
    """The share of a picture's questions that are answered as expected, from 0 to 1."""

    name = "llava_vqa"
    units = "share of answers"
    direction: Literal["maximize"] = "maximize"
    range = (0.0, 1.0)
    max_batch_size = 32
    needs_prompt = False

    def __init__(self, options: LlavaVqaOptions) -> None:
        self._holds: Callable[[str, str], bool] = _RULES[options.match]
        self._model = open_model(options)
        self.version = weights.digest(self.name, options.match, *self._model.identity)
        if options.warm_up:
            metadata = {"questions": ["What is this?"], "answers": ["nothing"]}
            self.score([ScoreItem(np.zeros((8, 8, 3), np.uint8), metadata=metadata)])

    def score(self, items: Sequence[ScoreItem]) -> list[Scored | ItemError]:
        """One score per item; details hold the model's answers, in the order of the questions."""
        exams = [_exam(item.metadata) for item in items]
        inquiries = [
            Inquiry(item.image, tuple(question for question, _ in exam))
            for item, exam in zip(items, exams, strict=True)
            if not isinstance(exam, ItemError)
        ]
        answered = iter(self._model.answer(inquiries))
        return [
            exam if isinstance(exam, ItemError) else self._judge(exam, next(answered))
            for exam in exams
        ]

    def close(self) -> None:
        """Free the model."""
        self._model.close()

    def _judge(
        self, exam: Sequence[tuple[str, str]], answers: list[str] | ItemError
    ) -> Scored | ItemError:
        if isinstance(answers, ItemError):
            return answers
        if not all(answers):
            question, _ = exam[answers.index("")]
            return ItemError(f"the model does not answer {question!r}", "empty_answer")
        right = [
            self._holds(answer, expected)
            for answer, (_, expected) in zip(answers, exam, strict=True)
        ]
        return Scored(sum(right) / len(right), {"answers": answers, "right": right})


def holds_words(answer: str, expected: str) -> bool:
    """Whether `expected` stands in `answer` as whole words, in any case, numbers in words."""
    pattern = rf"(?<!\w){re.escape(_plain(expected))}(?!\w)"
    return re.search(pattern, _plain(answer)) is not None


def holds_substring(answer: str, expected: str) -> bool:
    """Whether `expected` is a piece of `answer`: the published rule."""
    return expected in answer


_RULES = {"words": holds_words, "substring": holds_substring}


def _plain(text: str) -> str:
    words = re.sub(r"\s+", " ", text.strip()).casefold()
    return re.sub(r"(?<![\w.,])\d{1,2}(?![\w]|[.,]\d)", _in_words, words)


def _in_words(number: re.Match[str]) -> str:
    return _NUMBERS.get(int(number[0]), number[0])


def _exam(metadata: Mapping[str, Any]) -> list[tuple[str, str]] | ItemError:
    """Questions with their expected answers."""
    questions, answers = (_texts(metadata.get(name)) for name in ("questions", "answers"))
    if not questions or not answers:
        message = "metadata must hold questions and answers, two lists of texts that are not empty"
        return ItemError(message, "questions_missing")
    if len(questions) != len(answers):
        message = f"metadata holds {len(questions)} questions and {len(answers)} answers"
        return ItemError(message, "questions_missing")
    return list(zip(questions, answers, strict=True))


def _texts(value: object) -> list[str]:
    """The texts in a list; none where it is no list, or one of them is no text."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return []
    texts = [each for each in value if isinstance(each, str) and each.strip()]
    return texts if len(texts) == len(value) else []
