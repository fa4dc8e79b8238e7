"""The committed models keep what the model card promises."""

import json
import os
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from emoji_world.classifier import load_classifier
from emoji_world.classifier_training import held_out_accuracy
from emoji_world.icons import IconSet
from emoji_world.model_card import render_card

WORLD = Path(__file__).parents[2] / "emoji_world"
MODELS = WORLD / "models"

pytestmark = pytest.mark.skipif(
    not (MODELS / "diffusion" / "unet").is_dir() and not os.environ.get("CI"),
    reason="the models are not there: see emoji_world/README.md",
)


def test_the_model_card_is_the_one_that_the_code_writes() -> None:
    expected = render_card(MODELS, WORLD / "package-lock.json", WORLD)
    assert (WORLD / "MODEL_CARD.md").read_text(encoding="utf-8") == expected


def test_every_picture_of_the_card_is_there() -> None:
    card = (WORLD / "MODEL_CARD.md").read_text(encoding="utf-8")
    links = [part.split(")")[0] for part in card.split("](")[1:]]
    assert links
    assert not [link for link in links if not (WORLD / link).is_file()]


def test_the_generator_is_small_and_safe_to_load() -> None:
    files = [path for path in (MODELS / "diffusion").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 30e6
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".txt"}


def test_the_measured_quality_reaches_what_is_asked() -> None:
    measured = json.loads((MODELS / "training" / "quality.json").read_text())["groups"]
    assert measured["animal"]["samples"] >= 8 * 45
    assert measured["animal"]["noun"] >= 0.60
    accuracy = json.loads((MODELS / "classifier" / "accuracy.json").read_text())
    assert min(accuracy.values()) >= 0.95


def test_rare_pairs_are_left_to_learn() -> None:
    measured = json.loads((MODELS / "training" / "quality.json").read_text())["groups"]
    assert measured["activity, rare"]["whole"] <= 0.50


def test_the_generator_draws_what_the_judge_can_read() -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(MODELS / "diffusion", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    prompts = ["a lion", "a frog", "a butterfly", "a zebra", "a cow", "a rabbit"]
    drawn = pipeline(
        prompts,
        num_inference_steps=12,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images
    readings = load_classifier(MODELS / "classifier").read((drawn * 255).round().astype("uint8"))
    right = [f"a {r.noun}" == prompt for r, prompt in zip(readings, prompts, strict=True)]
    assert sum(right) >= 3, [reading.noun for reading in readings]


def test_the_judge_reads_fresh_real_pictures(artwork: IconSet) -> None:
    accuracy = held_out_accuracy(load_classifier(MODELS / "classifier"), artwork, 60, seed=99)
    assert sum(accuracy.values()) / len(accuracy) >= 0.93
