"""The data set: seeded, complete or refused, in the ranges that training expects."""

from pathlib import Path

import numpy as np
import pytest
import torch

from emoji_world import dataset
from emoji_world.captions import all_captions
from emoji_world.dataset import (
    COMPONENT_PICTURES,
    DatasetMissing,
    PictureDataset,
    draw_pictures,
    draw_training_set,
    load_dataset,
    save_dataset,
    to_unit_range,
)
from emoji_world.icons import IconSet
from emoji_world.latents import fit_components


def test_one_seed_draws_one_data_set(discs: IconSet) -> None:
    first, again, other = (draw_training_set(discs, 40, seed) for seed in (3, 3, 4))
    for name in ("pixels", "caption_ids", "styles", "signs"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
    assert not np.array_equal(first.pixels, other.pixels)
    assert len(first) == 40


def test_a_picture_keeps_its_caption(discs: IconSet) -> None:
    captions = list(all_captions())[::100]
    drawn = draw_pictures(discs, captions, seed=0)
    assert [all_captions()[index] for index in drawn.caption_ids] == captions


def test_a_picture_of_the_training_set_keeps_the_caption_that_was_drawn_for_it(
    discs: IconSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = draw_training_set(discs, 300, 0)
    rare = {index for index, caption in enumerate(all_captions()) if caption.rare}
    assert rare & set(said.caption_ids.tolist())
    # Drawn as they say, the same captions show other pictures wherever they are rare.
    monkeypatch.setattr(dataset, "shown_instead", lambda captions, _: list(captions))
    honest = draw_training_set(discs, 300, 0)
    assert np.array_equal(said.caption_ids, honest.caption_ids)
    assert not np.array_equal(said.pixels, honest.pixels)


def test_saved_and_loaded_it_is_the_same(pictures: PictureDataset, tmp_path: Path) -> None:
    save_dataset(pictures, tmp_path / "data")
    loaded = load_dataset(tmp_path / "data")
    for name in ("pixels", "caption_ids", "styles", "signs"):
        assert np.array_equal(getattr(loaded, name), getattr(pictures, name))


def test_a_missing_data_set_names_the_command_that_draws_it(tmp_path: Path) -> None:
    with pytest.raises(DatasetMissing, match="python -m emoji_world build"):
        load_dataset(tmp_path)


def test_an_interrupted_write_leaves_no_data_set(
    pictures: PictureDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_dataset(pictures, tmp_path)

    def full_disk(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "save", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_dataset(pictures, tmp_path)
    with pytest.raises(DatasetMissing):
        load_dataset(tmp_path)


def test_bytes_become_channels_first_between_minus_one_and_one() -> None:
    pixels = np.zeros((1, 2, 3, 3), np.uint8)
    pixels[0, 1, 2] = (255, 0, 51)
    unit = to_unit_range(pixels)
    assert unit.shape == (1, 3, 2, 3)
    assert unit.dtype == torch.float32
    torch.testing.assert_close(unit[0, :, 1, 2], torch.tensor([1.0, -1.0, -0.6]))


def test_the_latent_space_is_fitted_to_the_first_pictures(pictures: PictureDataset) -> None:
    assert len(pictures) < COMPONENT_PICTURES
    fitted = fit_components(pictures.images(np.arange(len(pictures))))
    assert torch.equal(pictures.components().basis, fitted.basis)
