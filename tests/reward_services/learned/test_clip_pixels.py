"""Preprocessing: the bits of the Pillow image processor, for every kind of picture."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil

from reward_services.models.clip_pixels import ClipPixels, refusal
from reward_services.options import SetupError

# As published with openai/clip-vit-large-patch14 (224) and llava-hf/llava-1.5-7b-hf (336).
PUBLISHED: dict[str, Any] = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "CLIPImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 224},
}
SHAPES = [(512, 512), (224, 224), (64, 64), (1, 1), (1, 3), (3, 1), (333, 500), (500, 333)]
SHAPES += [(223, 225), (225, 223), (7, 200), (300, 11), (1, 32), (32, 1)]


def folder_with(tmp_path: Path, **changes: object) -> Path:
    text = json.dumps({**PUBLISHED, **changes})
    (tmp_path / "preprocessor_config.json").write_text(text)
    return tmp_path


def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in SHAPES]


@pytest.mark.parametrize("side", [224, 336])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_bits_of_the_processor(side: int, dtype: torch.dtype, tmp_path: Path) -> None:
    crop = {"height": side, "width": side}
    folder = folder_with(tmp_path, size={"shortest_edge": side}, crop_size=crop)
    images = pictures()
    processor = CLIPImageProcessorPil.from_pretrained(folder)
    expected = processor([Image.fromarray(image) for image in images], return_tensors="pt")
    pixels = ClipPixels(folder)
    found = pixels.values(pixels.prepare(images), dtype)
    pixels.close()
    assert found.dtype is dtype
    assert torch.equal(found, expected["pixel_values"].to(dtype))


def test_another_crop_and_normalisation(tmp_path: Path) -> None:
    folder = folder_with(
        tmp_path, crop_size={"height": 200, "width": 160}, image_mean=[0.5, 0.4, 0.3], resample=2
    )
    images = pictures()
    processor = CLIPImageProcessorPil.from_pretrained(folder)
    expected = processor([Image.fromarray(image) for image in images], return_tensors="pt")
    pixels = ClipPixels(folder)
    found = pixels.values(pixels.prepare(images), torch.float32)
    pixels.close()
    assert torch.equal(found, expected["pixel_values"])


def test_a_model_of_the_emoji_world(clip_folder: Path) -> None:
    """Its processor is stored the way that current versions of transformers store it."""
    images = pictures()
    processor = CLIPImageProcessorPil.from_pretrained(clip_folder)
    expected = processor([Image.fromarray(image) for image in images], return_tensors="pt")
    pixels = ClipPixels(clip_folder)
    found = pixels.values(pixels.prepare(images), torch.float32)
    pixels.close()
    assert torch.equal(found, expected["pixel_values"])


@pytest.mark.parametrize(
    "changes",
    [
        {"do_center_crop": False},
        {"do_resize": False},
        {"do_normalize": False},
        {"size": {"height": 224, "width": 224}},
        {"size": {"shortest_edge": 200}},
    ],
)
def test_other_preprocessing_is_refused(changes: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=str(tmp_path)):
        ClipPixels(folder_with(tmp_path, **changes))


def test_a_folder_without_any(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="does not load as CLIPImageProcessorPil"):
        ClipPixels(tmp_path)


@pytest.mark.parametrize(
    ("shape", "refused"),
    [((1, 1), False), ((2, 64), False), ((64, 2), False), ((2, 65), True), ((1000, 1), True)],
)
def test_long_thin_pictures(shape: tuple[int, int], refused: bool) -> None:
    outcome = refusal(np.zeros((*shape, 3), np.uint8))
    assert (outcome is not None) == refused
    if outcome is not None:
        assert outcome.code == "aspect_ratio"
        assert f"{shape[1]}x{shape[0]}" in outcome.message
