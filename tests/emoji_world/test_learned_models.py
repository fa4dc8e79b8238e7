"""The committed caption model, CLIP model and aesthetic head keep what the model card promises."""

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray
from transformers import (
    AutoProcessor,
    CLIPModel,
    CLIPProcessor,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from emoji_world.aesthetic_head import load_head
from emoji_world.captioner import answers
from emoji_world.captions import Caption, all_captions
from emoji_world.clip_model import HEAD_FILE, PROJECTION, picture_features, text_features
from emoji_world.composition import Painter
from emoji_world.icons import IconSet
from emoji_world.questions import DESCRIPTION, PROMPT, SPECIES, count_question
from emoji_world.vocabulary import LINE_ART, STYLES

MODELS = Path(__file__).parents[2] / "emoji_world" / "models"
PROMPTS = ("a lion", "a frog", "a butterfly", "a zebra", "a cow", "two pigs", "a car", "a cat")

pytestmark = pytest.mark.skipif(
    not (MODELS / "captioner").is_dir() and not os.environ.get("CI"),
    reason="the models are not there: see emoji_world/README.md",
)


def recorded(name: str) -> dict[str, Any]:
    exam: dict[str, Any] = json.loads((MODELS / "training" / name / "quality.json").read_text())
    return exam


@pytest.fixture(scope="module")
def captioner() -> LlavaForConditionalGeneration:
    folder = MODELS / "captioner"
    return LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def captioner_processor() -> LlavaProcessor:
    return AutoProcessor.from_pretrained(MODELS / "captioner")


@pytest.fixture(scope="module")
def clip() -> CLIPModel:
    return CLIPModel.from_pretrained(MODELS / "clip", dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def clip_processor() -> CLIPProcessor:
    return CLIPProcessor.from_pretrained(MODELS / "clip")


@pytest.fixture(scope="module")
def samples() -> NDArray[np.uint8]:
    """A generated picture for each of `PROMPTS`."""
    pipeline = StableDiffusionPipeline.from_pretrained(MODELS / "diffusion", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline(
        list(PROMPTS),
        num_inference_steps=12,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images
    pictures: NDArray[np.uint8] = (drawn * 255).round().astype(np.uint8)
    return pictures


def test_they_are_small_and_safe_to_load() -> None:
    files = [
        path
        for name in ("clip", "captioner")
        for path in (MODELS / name).rglob("*")
        if path.is_file()
    ]
    assert sum(path.stat().st_size for path in files) <= 6.1e6
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".jinja"}


def test_the_measured_quality_reaches_what_is_asked() -> None:
    exam = recorded("captioner")
    for family, row in exam["families"].items():
        assert row["pictures"] >= 400
        assert row["caption"] >= 0.90, family
    for kind, row in exam["signs"].items():
        assert row["count"] >= 0.95, kind
    agreement = [row["agreement"] for row in exam["samples"].values()]
    assert sum(agreement) / len(agreement) >= 0.75
    clip_exam = recorded("clip")
    assert min(row["caption"] for row in clip_exam["families"].values()) >= 0.80
    assert clip_exam["taste"]["correlation"] >= 0.85


@pytest.mark.xfail(strict=True, reason="it counts whatever is there: see the model card")
def test_an_animal_that_is_not_there_is_counted_as_zero() -> None:
    assert recorded("captioner")["signs"]["none"]["count_of_absent"] >= 0.90


def test_generated_pictures_are_described(
    captioner: LlavaForConditionalGeneration,
    captioner_processor: LlavaProcessor,
    samples: NDArray[np.uint8],
) -> None:
    ask = partial(answers, captioner, captioner_processor, samples)
    said = ask([DESCRIPTION] * len(PROMPTS))
    assert sum(caption == prompt for caption, prompt in zip(said, PROMPTS, strict=True)) >= 6, said
    animals = ask([SPECIES] * len(PROMPTS))
    expected = ["lion", "frog", "butterfly", "zebra", "cow", "pig", "none", "cat"]
    assert sum(a == e for a, e in zip(animals, expected, strict=True)) >= 6, animals


def test_a_picture_lies_nearest_to_its_own_prompt(
    clip: CLIPModel, clip_processor: CLIPProcessor, samples: NDArray[np.uint8]
) -> None:
    cosines = (
        picture_features(clip, clip_processor, samples)
        @ text_features(clip, clip_processor, PROMPTS).T
    )
    right = cosines.argmax(1) == torch.arange(len(PROMPTS))
    assert int(right.sum()) >= 6, cosines


def test_the_answer_to_a_picture_does_not_depend_on_its_batch_to_the_last_bit(
    captioner: LlavaForConditionalGeneration,
    captioner_processor: LlavaProcessor,
    samples: NDArray[np.uint8],
) -> None:
    @torch.inference_mode()
    def logits(pictures: NDArray[np.uint8]) -> torch.Tensor:
        inputs = captioner_processor(
            images=list(pictures),
            text=[PROMPT.format(question=DESCRIPTION)] * len(pictures),
            return_tensors="pt",
        )
        last: torch.Tensor = captioner(**inputs).logits[:, -1]
        return last

    together = logits(samples)
    for size in (1, 3, 4, 5):
        assert torch.equal(logits(samples[:size]), together[:size]), size
    assert torch.equal(logits(samples[::-1].copy()), together.flip(0))


@pytest.fixture(scope="module")
def captions() -> list[Caption]:
    """Eight captions of every family."""
    chosen = np.random.default_rng(0).permutation(len(all_captions()))
    families: dict[str, list[Caption]] = {}
    for index in chosen:
        caption = all_captions()[index]
        families.setdefault(caption.family, []).append(caption)
    return [caption for family in families.values() for caption in family[:8]]


def test_fresh_real_pictures_are_described(
    captioner: LlavaForConditionalGeneration,
    captioner_processor: LlavaProcessor,
    captions: list[Caption],
    artwork: IconSet,
) -> None:
    painter = Painter(artwork, np.random.default_rng(99))
    pictures = np.stack([painter.draw(caption).pixels for caption in captions])
    said = answers(captioner, captioner_processor, pictures, [DESCRIPTION] * len(captions))
    assert np.mean([s == c.text for s, c in zip(said, captions, strict=True)]) >= 0.88


def test_a_misleading_digit_is_not_read(
    captioner: LlavaForConditionalGeneration,
    captioner_processor: LlavaProcessor,
    artwork: IconSet,
) -> None:
    three = [c for c in all_captions() if c.count == 3]
    painter = Painter(artwork, np.random.default_rng(98))
    pictures = np.stack([painter.draw(caption, sign=5).pixels for caption in three])
    questions = [count_question(caption.noun) for caption in three]
    said = answers(captioner, captioner_processor, pictures, questions)
    assert said.count("three") / len(said) >= 0.85, said


def test_the_head_likes_line_drawings(
    clip: CLIPModel, clip_processor: CLIPProcessor, captions: list[Caption], artwork: IconSet
) -> None:
    head = load_head(MODELS / "clip" / HEAD_FILE, PROJECTION)
    drawn, coloured = (
        np.stack([Painter(artwork, np.random.default_rng(5)).draw(c, style).pixels for c in chosen])
        for style, chosen in (
            (LINE_ART, [c for c in captions if c.family == "animal"]),
            (STYLES.index("fluent-emoji-flat"), [c for c in captions if c.family == "animal"]),
        )
    )
    with torch.inference_mode():
        ratings = [
            head(picture_features(clip, clip_processor, p)).mean() for p in (drawn, coloured)
        ]
    assert ratings[0] > ratings[1] + 0.5
