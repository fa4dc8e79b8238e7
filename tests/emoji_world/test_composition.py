"""Pictures: with discs for icons, what is drawn where; with the artwork, that all can be drawn."""

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from emoji_world.captions import Caption, all_captions
from emoji_world.composition import (
    RIGHT_SIGN_SHARE,
    SIGN_SHARE,
    SIZE,
    STYLE_SHARES,
    Painter,
    misleading_digit,
)
from emoji_world.icons import IconSet
from emoji_world.vocabulary import LINE_ART, STYLES

CAPTIONS = {caption.text: caption for caption in all_captions()}


def painter(icons: IconSet, seed: int = 0) -> Painter:
    return Painter(icons, np.random.default_rng(seed))


def blobs(pixels: NDArray[np.uint8]) -> int:
    """Connected regions of the reddish colours that only a disc has."""
    inside = pixels[..., 1] < 90
    todo = {(int(y), int(x)) for y, x in zip(*np.nonzero(inside), strict=True)}
    found = 0
    while todo:
        found += 1
        edge = [todo.pop()]
        while edge:
            y, x = edge.pop()
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & todo
            todo -= near
            edge.extend(near)
    return found


def test_one_seed_draws_one_picture(discs: IconSet) -> None:
    caption = CAPTIONS["a cat washing dishes"]
    first, again = (painter(discs, 5).draw(caption) for _ in range(2))
    other = painter(discs, 6).draw(caption)
    assert np.array_equal(first.pixels, again.pixels)
    assert not np.array_equal(first.pixels, other.pixels)


def test_every_caption_can_be_drawn(artwork: IconSet) -> None:
    mine = painter(artwork)
    for caption in CAPTIONS.values():
        picture = mine.draw(caption)
        assert picture.pixels.shape == (SIZE, SIZE, 3)
        assert picture.pixels.dtype == np.uint8
        assert picture.pixels.std() > 5, f"{caption.text} is almost plain"


def test_line_art_is_black(artwork: IconSet) -> None:
    pixels = painter(artwork).draw(CAPTIONS["a cat"], LINE_ART).pixels
    assert pixels.min() < 40


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat", 1),
        ("a flower", 1),
        ("a cat taking an exam", 2),
        ("a cat washing dishes", 3),
        ("two cats", 2),
        ("three wolves", 3),
        ("four pigs", 4),
        ("five sheep", 5),
        ("six ants", 6),
    ],
)
def test_a_picture_shows_as_many_things_as_its_caption_says(
    discs: IconSet, text: str, expected: int
) -> None:
    mine = painter(discs)
    drawn = [mine.draw(CAPTIONS[text]) for _ in range(20)]
    plain = [picture for picture in drawn if not picture.sign]
    assert plain
    assert {blobs(picture.pixels) for picture in plain} == {expected}


def test_only_counted_animals_get_a_sign_and_it_may_mislead(discs: IconSet) -> None:
    mine = painter(discs)
    assert not any(mine.draw(c).sign for c in CAPTIONS.values() if c.family != "count")
    signs = [mine.draw(CAPTIONS["three cats"]).sign for _ in range(600)]
    shown = [sign for sign in signs if sign]
    assert len(shown) / len(signs) == pytest.approx(SIGN_SHARE, abs=0.05)
    assert shown.count(3) / len(shown) == pytest.approx(RIGHT_SIGN_SHARE, abs=0.15)
    assert set(shown) <= set(range(1, 10))


def test_a_sign_stands_in_the_corner_and_is_never_mirrored(discs: IconSet) -> None:
    mine = painter(discs)
    signed = [p for p in (mine.draw(CAPTIONS["two cats"]) for _ in range(100)) if p.sign]
    assert signed
    for picture in signed:
        assert picture.pixels[8, 8].max() == 0
        assert picture.pixels[8, -8].max() > 90


@pytest.mark.parametrize("sign", [0, 3, 7])
def test_a_sign_is_shown_or_left_out_as_told(discs: IconSet, sign: int) -> None:
    mine = painter(discs)
    drawn = [mine.draw(CAPTIONS["three cats"], sign=sign) for _ in range(30)]
    assert {picture.sign for picture in drawn} == {sign}
    assert all((picture.pixels[8, 8].max() == 0) == bool(sign) for picture in drawn)


def test_a_sign_needs_counted_animals(discs: IconSet) -> None:
    with pytest.raises(ValueError, match="no place for a digit in 'a cat'"):
        painter(discs).draw(CAPTIONS["a cat"], sign=1)


def test_a_misleading_digit_never_tells_the_number() -> None:
    rng = np.random.default_rng(0)
    assert {misleading_digit(3, rng) for _ in range(200)} == {1, 2, 4, 5, 6, 7, 8, 9}


def test_a_style_is_a_line_drawing_or_not_as_told_where_it_can_be(discs: IconSet) -> None:
    cat = CAPTIONS["a cat"]
    mine = painter(discs)
    assert {mine.style(cat, line_art=True) for _ in range(50)} == {LINE_ART}
    assert {mine.style(cat, line_art=False) for _ in range(200)} == set(range(5)) - {LINE_ART}
    images = {key: icon for key, icon in discs.images.items() if key[0] != STYLES[LINE_ART]}
    assert painter(IconSet(images)).style(cat, line_art=True) != LINE_ART


def test_styles_come_as_often_as_declared(discs: IconSet) -> None:
    assert sum(STYLE_SHARES) == pytest.approx(1)
    mine = painter(discs)
    drawn = Counter(mine.draw(CAPTIONS["a cat"]).style for _ in range(1000))
    for style, share in enumerate(STYLE_SHARES):
        assert drawn[style] / 1000 == pytest.approx(share, abs=0.05)


def test_a_style_is_taken_only_when_it_has_all_icons(discs: IconSet) -> None:
    images = {key: icon for key, icon in discs.images.items() if key != ("noto", "bubbles")}
    mine = painter(IconSet(images))
    noto = STYLES.index("noto")
    dishes = CAPTIONS["a cat washing dishes"]
    assert noto not in {mine.draw(dishes).style for _ in range(50)}
    with pytest.raises(ValueError, match="noto has no icon for 'a cat washing dishes'"):
        mine.draw(dishes, noto)
    assert mine.draw(CAPTIONS["a cat"], noto).style == noto


def test_an_activity_without_a_scene_is_refused(discs: IconSet) -> None:
    from dataclasses import replace

    known = CAPTIONS["a cat playing chess"]
    assert known.activity is not None
    unknown: Caption = replace(known, activity=replace(known.activity, phrase="asleep"))
    with pytest.raises(ValueError, match="no way to draw 'asleep'"):
        painter(discs).draw(unknown)
