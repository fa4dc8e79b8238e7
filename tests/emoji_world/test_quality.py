"""The prompt groups and the shares that are reported of them."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from emoji_world.captions import all_captions
from emoji_world.classifier import Reading
from emoji_world.quality import BATCH_SIZE, groups, sample_pictures, summarise
from shared.errors import InvalidRequest

CAPTIONS = {caption.text: caption for caption in all_captions()}


def test_every_caption_is_in_one_group_and_rare_pairs_in_their_own() -> None:
    grouped = [caption.text for members in groups().values() for caption in members]
    assert sorted(grouped) == sorted(CAPTIONS)
    assert len(groups()["activity, rare"]) == 3 * 18
    assert all(caption.rare for caption in groups()["activity, rare"])
    assert not any(caption.rare for caption in groups()["activity, common"])


def test_shares_count_nouns_and_whole_captions() -> None:
    captions = [CAPTIONS[t] for t in ("a cat", "a cat", "a dog playing chess", "two pigs")]
    readings = [
        Reading("cat", "", 1),
        Reading("dog", "", 1),
        Reading("dog", "", 1),
        Reading("pig", "", 2),
    ]
    quality = summarise(readings, captions)
    assert (quality.samples, quality.noun, quality.whole) == (4, 0.75, 0.5)
    assert quality.by_noun == {"cat": 0.5, "dog": 1.0, "pig": 1.0}


def test_nothing_is_not_summarised() -> None:
    with pytest.raises(ValueError, match="no samples"):
        summarise([], [])
    with pytest.raises(ValueError, match="longer"):
        summarise([Reading("cat", "", 1)], [CAPTIONS["a cat"]] * 2)


def pipeline(
    fill: float = 0.0,
) -> Callable[..., SimpleNamespace]:
    """Stands in for a pipeline: its pictures show the first noise of their generators."""

    def call(
        prompts: Sequence[str], *, generator: Sequence[torch.Generator], **_: object
    ) -> SimpleNamespace:
        assert len(prompts) == len(generator) <= BATCH_SIZE
        noise = [torch.rand(3, generator=g).numpy() for g in generator]
        return SimpleNamespace(images=np.stack([np.full((2, 2, 3), n + fill) for n in noise]))

    return call


def test_a_sample_depends_on_the_seed_and_its_place_alone() -> None:
    drawn = sample_pictures(pipeline(), ["a cat"] * 40, steps=2, guidance=5.0, seed=1)
    fewer = sample_pictures(pipeline(), ["a dog"] * 5, steps=2, guidance=5.0, seed=1)
    other = sample_pictures(pipeline(), ["a cat"] * 5, steps=2, guidance=5.0, seed=2)
    assert drawn.shape == (40, 2, 2, 3)
    assert drawn.dtype == np.uint8
    assert len({picture.tobytes() for picture in drawn}) == 40
    assert np.array_equal(drawn[:5], fewer)
    assert not np.array_equal(fewer, other)


def test_a_picture_that_is_none_is_not_turned_into_a_black_one() -> None:
    with pytest.raises(InvalidRequest):
        sample_pictures(pipeline(np.nan), ["a cat"], steps=2, guidance=5.0, seed=1)
