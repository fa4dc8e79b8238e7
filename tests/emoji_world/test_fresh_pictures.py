"""The supply of training pictures: what is drawn how often, how it is worn, and from which seed."""

from collections import Counter

import numpy as np
import pytest
import torch

from emoji_world.autoencoder import build_autoencoder
from emoji_world.captions import all_captions
from emoji_world.dataset import PictureDataset, to_unit_range
from emoji_world.fresh_pictures import (
    EVEN_SHARES,
    RIGHT_SIGN_SHARE,
    ROUND_TRIP_SHARE,
    SIGN_SHARE,
    FreshPictures,
    degrade,
    even_weights,
    round_trip,
)
from emoji_world.icons import IconSet
from emoji_world.latents import PatchComponents
from emoji_world.vocabulary import LINE_ART

CAPTIONS = all_captions()


def test_within_a_family_every_caption_is_equally_likely() -> None:
    weights = even_weights(CAPTIONS, EVEN_SHARES)
    assert weights.sum() == pytest.approx(1)
    for family in EVEN_SHARES:
        mine = [w for w, c in zip(weights, CAPTIONS, strict=True) if c.family == family]
        assert max(mine) == pytest.approx(min(mine))
        assert sum(mine) == pytest.approx(EVEN_SHARES[family])


def test_rare_pairs_and_pairs_of_unseen_animals_are_drawn_as_often_as_others() -> None:
    assert sum(EVEN_SHARES.values()) == pytest.approx(1)
    weights = even_weights(CAPTIONS, EVEN_SHARES)
    pairs = [w for w, c in zip(weights, CAPTIONS, strict=True) if c.activity]
    assert max(pairs) / min(pairs) < 1.1


def test_degraded_pictures_stay_pictures(pictures: PictureDataset) -> None:
    pixels = pictures.images(np.arange(64))
    first, again = (degrade(pixels, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, again)
    assert first.shape == pixels.shape
    assert first.abs().max() <= 1
    distance = (first - pixels).square().mean((1, 2, 3)).sqrt()
    assert distance.max() > 0.03
    assert distance.max() < 0.3


def test_a_step_has_its_own_pictures_whenever_it_is_drawn(discs: IconSet) -> None:
    first, again = FreshPictures(discs, seed=1), FreshPictures(discs, seed=1)
    again.draw(0, again.captions(0, 3))
    said = [supply.captions(7, 20) for supply in (first, again)]
    assert said[0] == said[1] != first.captions(8, 20)
    drawn = [
        supply.draw(7, captions) for supply, captions in zip((first, again), said, strict=True)
    ]
    assert np.array_equal(drawn[0].pixels, drawn[1].pixels)
    assert torch.equal(first.worn(7, drawn[0]), again.worn(7, drawn[1]))
    other = FreshPictures(discs, seed=2)
    assert not np.array_equal(other.draw(7, said[0]).pixels, drawn[0].pixels)


def test_digits_stand_beside_counted_animals_and_mostly_mislead(discs: IconSet) -> None:
    counted = [caption for caption in CAPTIONS if caption.count == 4] * 30
    signs = FreshPictures(discs, 0).draw(0, counted).signs
    shown = [sign for sign in signs if sign]
    assert len(shown) / len(signs) == pytest.approx(SIGN_SHARE, abs=0.06)
    assert shown.count(4) / len(shown) == pytest.approx(RIGHT_SIGN_SHARE, abs=0.08)
    single = [caption for caption in CAPTIONS if caption.count == 1][:100]
    assert not any(FreshPictures(discs, 0).draw(0, single).signs)


def test_line_drawings_are_drawn_as_told(discs: IconSet) -> None:
    supply = FreshPictures(discs, 0)
    captions = supply.captions(0, 40)
    told = [index % 3 == 0 for index in range(40)]
    styles = supply.draw(0, captions, told).styles
    assert [style == LINE_ART for style in styles] == told
    assert len(Counter(supply.draw(1, captions * 5).styles)) == 5


def test_some_pictures_go_through_the_autoencoder(
    discs: IconSet, components: PatchComponents
) -> None:
    vae = build_autoencoder(components).eval()
    plain, through = FreshPictures(discs, 0), FreshPictures(discs, 0, vae)
    scenes = plain.draw(0, plain.captions(0, 60))
    changed = (plain.worn(0, scenes) - through.worn(0, scenes)).abs().amax((1, 2, 3)) > 0.5
    assert 0 < int(changed.sum()) < 3 * ROUND_TRIP_SHARE * 60


def test_a_round_trip_decodes_noised_latents(
    pictures: PictureDataset, components: PatchComponents
) -> None:
    pixels = to_unit_range(pictures.pixels[:4])
    vae = build_autoencoder(components).eval()
    one, again = (round_trip(vae, pixels, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, again)
    assert one.shape == pixels.shape
    assert one.abs().max() <= 1
    assert not torch.equal(one, round_trip(vae, pixels, torch.Generator().manual_seed(4)))
