"""Contrastive training: what counts as wrong, and that it is seeded and learns."""

import shutil
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import LlavaForConditionalGeneration

from emoji_world import clip_training
from emoji_world.aesthetic_head import load_head
from emoji_world.captioner import build_captioner, build_tokenizer, save_captioner
from emoji_world.captioner import build_processor as captioner_processor
from emoji_world.captions import all_captions
from emoji_world.clip_model import HEAD_FILE, PROJECTION, build_clip, build_processor, load_clip
from emoji_world.clip_training import (
    ClipTrainee,
    borrow_tower,
    contrastive_loss,
    export_clip,
    fitting,
    text_for,
    train_clip,
)
from emoji_world.fresh_pictures import FreshPictures, Scenes
from emoji_world.icons import IconSet
from emoji_world.training_run import TrainingPlan
from emoji_world.vision_tower import VIEW
from emoji_world.vocabulary import LINE_ART

CAPTIONS = {caption.text: caption for caption in all_captions()}
PLAN = TrainingPlan(steps=2, batch_size=8)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        clip_training, "build_clip", lambda tokenizer: build_clip(tokenizer, width=32, layers=1)
    )
    monkeypatch.setattr(clip_training, "HEAD_PICTURES", 40)
    monkeypatch.setattr(clip_training, "HEAD_STEPS", 2)


def test_a_text_tells_the_style_or_not() -> None:
    cat = CAPTIONS["a cat"]
    assert text_for(cat, line_art=True, styled=False) == "a cat"
    assert text_for(cat, line_art=True, styled=True) == "a line drawing of a cat"
    assert text_for(cat, line_art=False, styled=True) == "a coloured picture of a cat"


def test_a_text_fits_all_pictures_of_its_caption_that_have_its_style() -> None:
    said = ["a cat", "a cat", "a cat", "a dog"]
    scenes = Scenes(
        [CAPTIONS[text] for text in said],
        np.zeros((4, 64, 64, 3), np.uint8),
        [LINE_ART, LINE_ART, 0, LINE_ART],
        [0] * 4,
    )
    fits = fitting(scenes, [False, True, True, True])
    assert fits.tolist() == [
        [True, True, False, False],
        [True, True, False, False],
        [True, False, True, False],
        [False, False, False, True],
    ]


def test_what_fits_too_is_no_wrong_answer() -> None:
    similarity = torch.randn(3, 3, generator=torch.Generator().manual_seed(0)) * 3
    fits = torch.eye(3, dtype=torch.bool)
    own = torch.arange(3)
    plain = contrastive_loss(similarity, fits)
    expected = functional.cross_entropy(similarity, own) + functional.cross_entropy(
        similarity.T, own
    )
    torch.testing.assert_close(plain, expected / 2)
    fits[0, 1] = True
    spared = contrastive_loss(similarity, fits)
    assert spared < plain
    similarity[0, 1] = 50
    torch.testing.assert_close(contrastive_loss(similarity, fits), spared)


def test_every_parameter_gets_a_gradient(discs: IconSet) -> None:
    processor = build_processor()
    model = build_clip(processor.tokenizer, width=32, layers=2)
    trainee = ClipTrainee(model, processor, FreshPictures(discs, 0), PLAN)
    loss = trainee.loss(0)
    assert float(loss.detach()) == float(trainee.loss(0).detach())
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.fixture(scope="module")
def captioner() -> LlavaForConditionalGeneration:
    """Small and untrained."""
    torch.manual_seed(1)
    return build_captioner(build_tokenizer(), width=32, layers=1, tower_layers=1)


def test_it_begins_with_the_eyes_of_the_caption_model(
    captioner: LlavaForConditionalGeneration,
) -> None:
    model = build_clip(build_processor().tokenizer, width=32, layers=1).eval()
    borrow_tower(model, captioner)
    pixels = torch.randn(2, 3, VIEW, VIEW, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours = model.vision_model(pixels).last_hidden_state
        theirs = captioner.eval().model.vision_tower(pixels).last_hidden_state
    assert torch.equal(ours, theirs)


def test_training_is_seeded_and_lowers_the_loss(
    discs: IconSet, captioner: LlavaForConditionalGeneration, tmp_path: Path
) -> None:
    first, processor = train_clip(discs, None, captioner, PLAN, tmp_path / "first")
    again, _ = train_clip(discs, None, captioner, PLAN, tmp_path / "again")
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert not first.training
    plan = TrainingPlan(steps=40, batch_size=16, learning_rate=3e-3)
    longer, _ = train_clip(discs, None, captioner, plan, tmp_path / "longer")
    before, after = (
        float(ClipTrainee(model, processor, FreshPictures(discs, 9), plan).loss(0).detach())
        for model in (first, longer)
    )
    assert after < before


def test_model_and_head_are_written_with_the_records_of_their_training(
    discs: IconSet, untrained: Path, captioner: LlavaForConditionalGeneration, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    shutil.copytree(untrained, models)
    save_captioner(deepcopy(captioner), captioner_processor(), models / "captioner")
    out, records = models / "clip", tmp_path / "records"
    export_clip(discs, models, PLAN, tmp_path / "run", out, records)
    model, _ = load_clip(out)
    assert model.config.vision_config.hidden_size == 32
    head = load_head(out / HEAD_FILE, PROJECTION)
    assert head(torch.zeros(2, PROJECTION)).shape == (2,)
    assert {path.name for path in records.iterdir()} == {"plan.json", "log.jsonl"}


def test_without_a_caption_model_the_command_is_named(
    discs: IconSet, untrained: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="python -m emoji_world captioner"):
        export_clip(discs, untrained, PLAN, tmp_path / "run", tmp_path, tmp_path)
