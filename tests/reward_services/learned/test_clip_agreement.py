"""CLIP score and PickScore: the cosines of plain transformers, and what has none."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from reward_services.contract import check_scorer
from reward_services.options import SetupError
from reward_services.scorer import ItemError, Scored, ScoreItem
from reward_services.scorers.clip_score import ClipScore, ClipScoreOptions
from reward_services.scorers.pickscore import PickScore, PickScoreOptions
from tests.reward_services.learned.conftest import noise

PROMPTS = ["a cat", "a dog riding a bike", "two zebras", "a cat"]
Make = Callable[[Path], ClipScore | PickScore]


def clip_score(folder: Path) -> ClipScore:
    return ClipScore(ClipScoreOptions(model=str(folder), device="cpu"))


def pickscore(folder: Path) -> PickScore:
    return PickScore(PickScoreOptions(model=str(folder), processor="", device="cpu"))


MAKERS: list[Make] = [clip_score, pickscore]


def items() -> list[ScoreItem]:
    return [ScoreItem(image, prompt) for image, prompt in zip(noise(4), PROMPTS, strict=True)]


@torch.no_grad()
def cosines(folder: Path, texts: list[str]) -> tuple[list[float], float]:
    """As the documentation of transformers shows; and the learned scale."""
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    processor = CLIPImageProcessorPil.from_pretrained(folder)
    pixels = processor([Image.fromarray(image) for image in noise(4)], return_tensors="pt")
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    longest = model.config.text_config.max_position_embeddings
    tokens = tokenizer(
        texts, padding=True, truncation=True, max_length=longest, return_tensors="pt"
    )
    pictures = functional.normalize(model.get_image_features(**pixels).pooler_output, dim=-1)
    words = functional.normalize(model.get_text_features(**tokens).pooler_output, dim=-1)
    return (pictures * words).sum(dim=-1).tolist(), model.logit_scale.exp().item()


def values(outcomes: list[Scored | ItemError]) -> list[float]:
    assert all(isinstance(outcome, Scored) for outcome in outcomes)
    return [outcome.score for outcome in outcomes if isinstance(outcome, Scored)]


def test_clip_score(clip_folder: Path) -> None:
    expected, _ = cosines(clip_folder, [f"A photo depicts {prompt}" for prompt in PROMPTS])
    scorer = clip_score(clip_folder)
    outcomes = scorer.score(items())
    scorer.close()
    assert values(outcomes) == pytest.approx([2.5 * max(each, 0) for each in expected], abs=1e-5)
    found = [outcome.details["cosine"] for outcome in outcomes if isinstance(outcome, Scored)]
    assert found == pytest.approx(expected, abs=1e-5)


def test_pickscore(clip_folder: Path) -> None:
    expected, scale = cosines(clip_folder, PROMPTS)
    scorer = pickscore(clip_folder)
    found = values(scorer.score(items()))
    scorer.close()
    assert found == pytest.approx([scale * each for each in expected], abs=1e-4)


@pytest.mark.parametrize("make", MAKERS)
def test_the_same_bits_in_any_company(make: Make, clip_folder: Path) -> None:
    scorer = make(clip_folder)
    together = scorer.score(items())
    assert together == [scorer.score([item])[0] for item in items()]
    assert together == scorer.score(items()[::-1])[::-1]
    scorer.close()


@pytest.mark.parametrize("make", MAKERS)
def test_what_has_no_score_does_not_spoil_the_rest(make: Make, clip_folder: Path) -> None:
    scorer = make(clip_folder)
    thin = ScoreItem(np.zeros((1, 100, 3), np.uint8), "a cat")
    first, *rest = items()
    outcomes = scorer.score([first, ScoreItem(first.image, " "), thin, *rest])
    assert [o.code for o in outcomes if isinstance(o, ItemError)] == [
        "prompt_missing",
        "aspect_ratio",
    ]
    assert [o for o in outcomes if isinstance(o, Scored)] == scorer.score(items())
    scorer.close()


@pytest.mark.parametrize("make", MAKERS)
def test_a_prompt_that_is_too_long_is_cut_and_said_to_be(make: Make, clip_folder: Path) -> None:
    scorer = make(clip_folder)
    picture = noise(1)[0]
    long, longer = "cat " * 100, "cat " * 200
    short, cut, more = scorer.score([ScoreItem(picture, text) for text in ("cat", long, longer)])
    scorer.close()
    assert isinstance(short, Scored)
    assert isinstance(cut, Scored)
    assert cut == more
    assert (short.details["prompt_cut"], cut.details["prompt_cut"]) == (False, True)


@pytest.mark.parametrize("make", MAKERS)
def test_they_keep_the_contract(make: Make, clip_folder: Path) -> None:
    findings = list(check_scorer(lambda: make(clip_folder)))
    assert [finding for finding in findings if not finding.passed] == []


def test_a_text_without_the_prompt(clip_folder: Path) -> None:
    with pytest.raises(SetupError, match=r"text does not hold \{prompt\}"):
        ClipScore(ClipScoreOptions(model=str(clip_folder), text="a cat"))


def test_the_text_is_part_of_the_version(clip_folder: Path) -> None:
    given = {"model": str(clip_folder), "device": "cpu"}
    plain = ClipScore(ClipScoreOptions.model_validate({**given, "text": "{prompt}"}))
    assert plain.version != clip_score(clip_folder).version
