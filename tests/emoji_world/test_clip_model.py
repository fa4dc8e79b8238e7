"""The CLIP model: words, files, and features that do not depend on the batch."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoProcessor, CLIPModel, CLIPProcessor

from emoji_world.captions import all_captions
from emoji_world.clip_model import (
    COLOUR_TEXT,
    LINE_ART_TEXT,
    PROJECTION,
    build_clip,
    build_processor,
    load_clip,
    picture_features,
    save_clip,
    text_features,
)
from emoji_world.dataset import PictureDataset
from emoji_world.generator import TEXT_LENGTH


@pytest.fixture(scope="module")
def processor() -> CLIPProcessor:
    return build_processor()


@pytest.fixture(scope="module")
def model(processor: CLIPProcessor) -> CLIPModel:
    torch.manual_seed(0)
    return build_clip(processor.tokenizer, width=32, layers=1).eval()


def test_every_word_of_every_text_is_one_token_and_all_fit(processor: CLIPProcessor) -> None:
    for template in ("{}", LINE_ART_TEXT, COLOUR_TEXT):
        for caption in all_captions():
            text = template.format(caption.text)
            ids = processor.tokenizer(text)["input_ids"]
            assert len(ids) == len(text.split()) + 2 <= TEXT_LENGTH


def test_features_have_length_one_whatever_the_batch(
    model: CLIPModel, processor: CLIPProcessor, pictures: PictureDataset
) -> None:
    pixels = pictures.pixels[:6]
    together = picture_features(model, processor, pixels)
    assert together.shape == (6, PROJECTION)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(6))
    torch.testing.assert_close(picture_features(model, processor, pixels, 1), together)
    texts = ["a cat", "a turtle taking an exam", "something else " * 30]
    features = text_features(model, processor, texts)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(text_features(model, processor, texts[:1]), features[:1])


def test_plain_from_pretrained_loads_what_was_saved(
    model: CLIPModel, processor: CLIPProcessor, pictures: PictureDataset, tmp_path: Path
) -> None:
    copy = build_clip(processor.tokenizer, width=32, layers=1)
    copy.load_state_dict(model.state_dict())
    save_clip(copy, processor, tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert {t.dtype for t in stored.values() if t.is_floating_point()} == {torch.float16}
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    loaded = CLIPModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    for again in (CLIPProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert isinstance(again, CLIPProcessor)
        inputs = again(
            text=["a cat", "two dogs"],
            images=list(pictures.pixels[:2]),
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            ours, theirs = (each(**inputs).logits_per_image for each in (model, loaded))
        torch.testing.assert_close(ours, theirs, atol=0.05, rtol=0.02)


def test_a_folder_without_clip_model_is_refused_and_no_hub_asked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="python -m emoji_world clip"):
        load_clip(tmp_path)
