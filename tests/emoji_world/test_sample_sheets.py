"""Sheets of samples: which are shown, and where."""

import numpy as np
import pytest

from emoji_world.captions import all_captions
from emoji_world.sample_sheets import AT_MOST, PER_CAPTION, sheet, shown

CAPTIONS = all_captions()


def test_the_first_samples_of_each_caption_are_shown() -> None:
    captions = [CAPTIONS[0]] * 5 + [CAPTIONS[1]] * 5
    assert shown(captions) == [0, 1, 5, 6]
    assert PER_CAPTION == 2
    assert len(shown(list(CAPTIONS))) == AT_MOST


def test_each_picture_stands_above_its_label() -> None:
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]] * 4, np.uint8)
    pictures = np.broadcast_to(colours[:, None, None], (12, 64, 64, 3))
    labels = ["a cat"] * 11 + ["a hippopotamus riding a motorcycle"]
    drawn = np.asarray(sheet(pictures, labels, [False] * 12))
    assert drawn.shape[1] == 10 * 84
    assert drawn.shape[0] % 2 == 0
    height = drawn.shape[0] // 2
    for index in range(12):
        row, column = divmod(index, 10)
        assert drawn[row * height + 30, column * 84 + 42].tolist() == colours[index].tolist()
        label = drawn[row * height + 68 : (row + 1) * height, column * 84 : (column + 1) * 84]
        assert (label.min(2) < 128).any(), f"no label below picture {index}"
    assert (drawn[height:, 2 * 84 :] == 255).all()


@pytest.mark.parametrize("wrong", [False, True])
def test_the_label_of_a_wrong_sample_is_red(wrong: bool) -> None:
    pictures = np.full((1, 64, 64, 3), 255, np.uint8)
    drawn = np.asarray(sheet(pictures, ["a cat"], [wrong])).astype(int)
    ink = drawn.reshape(-1, 3)[drawn.reshape(-1, 3).sum(1).argmin()]
    assert (ink[0] > ink[1] + 50) is np.True_ if wrong else ink.max() - ink.min() < 20
