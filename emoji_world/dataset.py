"""The training pictures: drawn once, seeded, kept as plain arrays that are mapped into memory."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import trange

from emoji_world.captions import Caption, all_captions, shown_instead, training_weights
from emoji_world.composition import SIZE, Painter
from emoji_world.icons import IconSet
from emoji_world.latents import PatchComponents, fit_components

VALIDATION_PICTURES: Final = 256
"""Pictures at the start of a data set that neither the UNet nor the decoder is trained on."""

COMPONENT_PICTURES: Final = 4096
"""Pictures at the start of a data set that the latent space is fitted to."""


class DatasetMissing(Exception):
    """The folder holds no complete data set."""


@dataclass(frozen=True)
class PictureDataset:
    """Pictures with their captions.

    Attributes:
        pixels: uint8 [N, SIZE, SIZE, 3].
        caption_ids: int64 [N], indices into `captions.all_captions`.
        styles: int64 [N], indices into `vocabulary.STYLES`.
        signs: int64 [N], the digit on a number sign, or 0.
    """

    pixels: NDArray[np.uint8]
    caption_ids: NDArray[np.int64]
    styles: NDArray[np.int64]
    signs: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.pixels)

    def images(self, indices: NDArray[np.int64]) -> Tensor:
        """The pictures at ``indices`` as float32 [n, 3, SIZE, SIZE] in [-1, 1]."""
        return to_unit_range(self.pixels[indices])

    def components(self) -> PatchComponents:
        """The latent space of these pictures, always fitted to the same ones of them."""
        return fit_components(self.images(np.arange(min(COMPONENT_PICTURES, len(self)))))


def to_unit_range(pixels: NDArray[np.uint8]) -> Tensor:
    """uint8 [N, H, W, 3] as float32 [N, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def draw_pictures(icons: IconSet, captions: list[Caption], seed: int) -> PictureDataset:
    """One picture per entry of ``captions``, all of which must be captions of the world."""
    index_of = {caption.text: index for index, caption in enumerate(all_captions())}
    painter = Painter(icons, np.random.default_rng(seed))
    pixels = np.empty((len(captions), SIZE, SIZE, 3), np.uint8)
    styles = np.empty(len(captions), np.int64)
    signs = np.empty(len(captions), np.int64)
    for row in trange(len(captions), desc="drawing", unit="picture", mininterval=2):
        picture = painter.draw(captions[row])
        pixels[row], styles[row], signs[row] = picture.pixels, picture.style, picture.sign
    ids = np.array([index_of[caption.text] for caption in captions], np.int64)
    return PictureDataset(pixels, ids, styles, signs)


def draw_training_set(icons: IconSet, count: int, seed: int) -> PictureDataset:
    """``count`` pictures whose captions follow `captions.training_weights`."""
    captions = all_captions()
    rng = np.random.default_rng([seed, 1])
    chosen = rng.choice(len(captions), size=count, p=training_weights(captions))
    said = tuple(captions[index] for index in chosen)
    drawn = draw_pictures(icons, shown_instead(said, rng), seed)
    return replace(drawn, caption_ids=chosen.astype(np.int64))


def save_dataset(dataset: PictureDataset, folder: Path) -> None:
    """Write the arrays into ``folder``; the small index comes last and marks it complete."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").unlink(missing_ok=True)  # until the new arrays are whole
    for name in ("pixels", "caption_ids", "styles", "signs"):
        np.save(folder / f"{name}.npy", getattr(dataset, name), allow_pickle=False)
    (folder / "dataset.json").write_text(json.dumps({"pictures": len(dataset)}) + "\n")


def load_dataset(folder: Path) -> PictureDataset:
    """Map a saved data set into memory.

    Raises:
        DatasetMissing: ``folder`` holds none, or an unfinished one.
    """
    if not (folder / "dataset.json").is_file():
        raise DatasetMissing(f"{folder} holds no data set: run `python -m emoji_world build` first")
    # Copy-on-write: torch only wraps arrays that could be written to.
    pixels = np.load(folder / "pixels.npy", mmap_mode="c", allow_pickle=False)
    caption_ids, styles, signs = (
        np.load(folder / f"{name}.npy", allow_pickle=False)
        for name in ("caption_ids", "styles", "signs")
    )
    return PictureDataset(pixels, caption_ids, styles, signs)
