"""Pieces of the emoji world for its tests: the real artwork where it is installed, else stand-ins.

What does not depend on how an icon looks is tested with drawn discs in place of the artwork, and
with a UNet of the same kind that is small.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image, ImageDraw

from emoji_world.autoencoder import build_autoencoder
from emoji_world.captions import all_captions
from emoji_world.classifier import PictureClassifier, save_classifier
from emoji_world.composition import SIZE
from emoji_world.dataset import PictureDataset
from emoji_world.generator import (
    TEXT_WIDTH,
    build_text_encoder,
    build_tokenizer,
    save_pipeline,
)
from emoji_world.icons import RASTER_SIZE, IconSet, build_cache, load_icons
from emoji_world.latents import CHANNELS, PATCH, PatchComponents
from emoji_world.vocabulary import STYLES, required_icons
from tests.conftest import ServiceProcess

PACKAGES = Path(__file__).parents[2] / "emoji_world" / "node_modules"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "artwork" in getattr(item, "fixturenames", ()):
            item.add_marker("artwork")


@pytest.fixture(scope="session")
def artwork(tmp_path_factory: pytest.TempPathFactory) -> IconSet:
    """The real icons, rasterised from the npm packages."""
    if not PACKAGES.is_dir() and not os.environ.get("CI"):
        pytest.skip("the artwork is not installed: run `npm ci` in the folder emoji_world")
    cache = tmp_path_factory.mktemp("artwork") / "icons.npz"
    build_cache(PACKAGES, cache)
    return load_icons(cache)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., ServiceProcess]]:
    """`serve(reward, **environment)`: a reward service for this test."""
    running: list[ServiceProcess] = []

    def start(reward: str, **environment: str) -> ServiceProcess:
        running.append(ServiceProcess(tmp_path, **environment))
        running[-1].start(reward)
        return running[-1]

    yield start
    for process in running:
        process.kill()


@pytest.fixture(scope="session")
def discs() -> IconSet:
    """A small disc for every icon, in a colour of its own; digits are black squares."""
    images: dict[tuple[str, str], Image.Image] = {}
    for number, name in enumerate(required_icons()):
        icon = Image.new("RGBA", (RASTER_SIZE, RASTER_SIZE))
        pen = ImageDraw.Draw(icon)
        if name.startswith("keycap-"):
            pen.rectangle((0, 0, RASTER_SIZE, RASTER_SIZE), fill=(0, 0, 0, 255))
        else:
            edge = RASTER_SIZE * 3 // 10
            box = (edge, edge, RASTER_SIZE - edge, RASTER_SIZE - edge)
            pen.ellipse(box, fill=(150 - number % 100, number % 50, 20 + number % 7, 255))
        images |= {(style, name): icon for style in STYLES}
    return IconSet(images)


@pytest.fixture(scope="session")
def pictures() -> PictureDataset:
    """300 smooth random pictures with random captions: data that needs no artwork."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (300, 8, 8, 3), np.uint8)
    pixels = np.stack(
        [
            np.asarray(Image.fromarray(c).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
            for c in coarse
        ]
    )
    ids = rng.integers(0, len(all_captions()), len(pixels))
    zeros = np.zeros(len(pixels), np.int64)
    return PictureDataset(pixels, ids, zeros, zeros)


@pytest.fixture(scope="session")
def components(pictures: PictureDataset) -> PatchComponents:
    return pictures.components()


@pytest.fixture(scope="session")
def build_small_unet() -> Callable[[], UNet2DConditionModel]:
    """Builds a UNet with all kinds of blocks that the generator's has, and few channels."""

    def build() -> UNet2DConditionModel:
        return UNet2DConditionModel(
            sample_size=SIZE // PATCH,
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            block_out_channels=(16, 32),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=TEXT_WIDTH,
            attention_head_dim=4,
            norm_num_groups=16,
        )

    return build


@pytest.fixture(scope="session")
def untrained(
    tmp_path_factory: pytest.TempPathFactory,
    components: PatchComponents,
    build_small_unet: Callable[[], UNet2DConditionModel],
) -> Path:
    """A folder with ``diffusion`` and ``classifier``, both untrained."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    tokenizer = build_tokenizer(folder / "tokenizer")
    save_pipeline(
        folder / "diffusion",
        tokenizer=tokenizer,
        text_encoder=build_text_encoder(tokenizer),
        unet=build_small_unet(),
        vae=build_autoencoder(components),
    )
    save_classifier(PictureClassifier(), folder / "classifier")
    return folder
