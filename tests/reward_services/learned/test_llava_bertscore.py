"""Prompt alignment: the answer's BERTScore recall, and what is refused rather than scored."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reward_services.contract import check_scorer
from reward_services.models.bertscore import BertScore
from reward_services.models.llava import LlavaModel
from reward_services.models.model_options import ModelOptions
from reward_services.models.vision_language import Inquiry
from reward_services.options import SetupError
from reward_services.scorer import ItemError, Scored, ScoreItem
from reward_services.scorers.llava_bertscore import (
    QUESTION,
    REFERENCE,
    LlavaBertScore,
    LlavaBertScoreOptions,
)
from tests.reward_services.learned.conftest import MINILM, noise


@pytest.fixture(scope="module")
def options(llava_folder: Path) -> LlavaBertScoreOptions:
    given = {"model": str(llava_folder), "encoder": MINILM, "device": "cpu"}
    return LlavaBertScoreOptions.model_validate({**given, "max_answer_tokens": "8"})


@pytest.fixture(scope="module")
def scorer(options: LlavaBertScoreOptions) -> Iterator[LlavaBertScore]:
    made = LlavaBertScore(options)
    yield made
    made.close()


def test_the_published_texts() -> None:
    assert QUESTION == "Answer concisely: what is going on in this image?"
    assert REFERENCE == "The image contains {prompt}"


def test_the_recall_of_the_answer(scorer: LlavaBertScore, options: LlavaBertScoreOptions) -> None:
    images, prompts = noise(4), ["a cat", "a cat", "a {prompt} dog", " an ant\n"]
    items = [ScoreItem(image, prompt) for image, prompt in zip(images, prompts, strict=True)]
    model = LlavaModel(options)
    answers = [
        answer[0]
        for answer in model.answer([Inquiry(image, (QUESTION,)) for image in images])
        if isinstance(answer, list)
    ]
    assert len(set(answers)) == len(images)
    references = [f"The image contains {prompt.strip()}" for prompt in prompts]
    matches = BertScore(MINILM, None, ModelOptions(device="cpu")).score(answers, references)
    expected = [
        Scored(
            match.recall,
            {
                "answer": answer,
                "precision": match.precision,
                "recall": match.recall,
                "f1": match.f1,
            },
        )
        for answer, match in zip(answers, matches, strict=True)
        if match is not None
    ]
    assert scorer.score(items) == expected


def test_the_same_bits_in_any_company(scorer: LlavaBertScore) -> None:
    items = [ScoreItem(image, f"a cat, {index} of them") for index, image in enumerate(noise(10))]
    together = scorer.score(items)
    assert together == [scorer.score([item])[0] for item in items]
    assert together == scorer.score(items[::-1])[::-1]


class InSmallBatches(LlavaBertScore):
    """The contract kit takes its time with full batches."""

    max_batch_size = 2


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_keeps_the_contract(options: LlavaBertScoreOptions) -> None:
    quick = options.model_copy(update={"max_answer_tokens": 2})
    findings = list(check_scorer(lambda: InSmallBatches(quick)))
    assert [finding for finding in findings if not finding.passed] == []


def test_what_is_refused_does_not_spoil_the_rest(scorer: LlavaBertScore) -> None:
    picture, thin = noise(1)[0], np.zeros((1, 100, 3), np.uint8)
    outcomes = scorer.score(
        [
            ScoreItem(picture, "a cat"),
            ScoreItem(picture, ""),
            ScoreItem(picture, " \n"),
            ScoreItem(picture, "cat " * 600),
            ScoreItem(thin, "a cat"),
            ScoreItem(picture, "a cat"),
        ]
    )
    assert isinstance(outcomes[0], Scored)
    assert outcomes[5] == outcomes[0] == scorer.score([ScoreItem(picture, "a cat")])[0]
    errors = [outcome for outcome in outcomes if isinstance(outcome, ItemError)]
    assert [error.code for error in errors] == [
        "prompt_missing",
        "prompt_missing",
        "prompt_too_long",
        "aspect_ratio",
    ]
    assert not any(error.retryable for error in errors)


def test_an_empty_answer_is_no_score(
    scorer: LlavaBertScore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def say(inquiries: list[Inquiry]) -> list[list[str]]:
        return [[("a cat", "", "\u200b", "a cat")[row]] for row in range(len(inquiries))]

    monkeypatch.setattr(scorer._model, "answer", say)
    first, *empty, last = scorer.score([ScoreItem(image, "a cat") for image in noise(4)])
    assert [isinstance(each, ItemError) and each.code for each in empty] == ["empty_answer"] * 2
    assert isinstance(first, Scored)
    assert first == last
    assert first.score > 0.5


def test_a_prompt_of_which_the_encoder_reads_nothing(options: LlavaBertScoreOptions) -> None:
    bare = LlavaBertScore(options.model_copy(update={"reference": "{prompt}", "warm_up": False}))
    outcomes = bare.score([ScoreItem(image, "\u200b") for image in noise(1)])
    assert [isinstance(each, ItemError) and each.code for each in outcomes] == ["prompt_missing"]


def test_nothing_to_score(scorer: LlavaBertScore) -> None:
    assert scorer.score([]) == []


def test_what_decides_the_score_decides_the_version(options: LlavaBertScoreOptions) -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"question": "What is this?"},
        {"reference": "{prompt}"},
        {"encoder_layer": 5},
        {"max_answer_tokens": 9},
    ]
    versions = [
        LlavaBertScore(options.model_copy(update={**change, "warm_up": False})).version
        for change in changes
    ]
    assert len(set(versions)) == len(changes)
    same = options.model_copy(update={"batch_size": 2, "idle_offload_s": 1, "encoder_layer": 6})
    assert LlavaBertScore(same).version == versions[0]


def test_a_reference_without_the_prompt(options: LlavaBertScoreOptions) -> None:
    with pytest.raises(SetupError, match=r"reference does not hold \{prompt\}"):
        LlavaBertScore(options.model_copy(update={"reference": "The image contains a cat"}))
